"""The routes of the store, `store/…` of the control API: each reads its fields and asks `StoreOperations`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from storage import cid as cids
from storage.errors import QuotaError
from storage.pins import MAX_LABEL_CHARACTERS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from storage.cid import Cid
    from swarm.control.api import NodeApi, Progress
    from swarm.control.fields import Fields

    Work = Callable[[NodeApi, Fields, Progress], Awaitable[Any]]


def with_advice(work: Work) -> Work:
    """The same work, where a full store is told with what a collection would give back."""

    async def advised(node: NodeApi, fields: Fields, progress: Progress) -> Any:  # noqa: ANN401 - JSON
        try:
            return await work(node, fields, progress)
        except Exception as error:
            refused = _quota_error(error)
            if refused is None:
                raise
            raise await node.housekeeping.advice(refused) from error

    return advised


def _quota_error(error: BaseException) -> QuotaError | None:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error if isinstance(error, QuotaError) else None


async def _list(node: NodeApi, _: Fields, __: Progress) -> Any:  # noqa: ANN401 - JSON
    return await node.housekeeping.listing()


async def _pin(node: NodeApi, fields: Fields, progress: Progress) -> Any:  # noqa: ANN401
    label = fields.optional_text("label", max_chars=MAX_LABEL_CHARACTERS)
    return await node.housekeeping.pin(_root(fields), label, progress)


async def _unpin(node: NodeApi, fields: Fields, _: Progress) -> Any:  # noqa: ANN401
    return await node.housekeeping.unpin(_root(fields))


async def _collect(node: NodeApi, fields: Fields, progress: Progress) -> Any:  # noqa: ANN401
    is_thorough = fields.flag("thorough", default=False)
    return await node.housekeeping.collect(progress, is_thorough=is_thorough)


async def _verify(node: NodeApi, fields: Fields, progress: Progress) -> Any:  # noqa: ANN401
    text = fields.optional_text("cid")
    root = None if text is None else cids.parse(text)
    is_repair = fields.flag("repair", default=False)
    return await node.housekeeping.verify(root, progress, is_repair=is_repair)


def _root(fields: Fields) -> Cid:
    return cids.parse(fields.text("cid"))


OPERATIONS: dict[str, Work] = {
    "store/list": _list,
    "store/pin": _pin,
    "store/unpin": _unpin,
    "store/gc": _collect,
    "store/verify": _verify,
}
"""Route to what it does."""

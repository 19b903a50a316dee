"""The routes of lending and keeping, `storage…` and `keep…` of the control API: each reads its fields and asks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from storage.erasure import MAX_PIECES
from swarm.errors import UsageError
from swarm.keeper.coding import Coding
from swarm.keeper.quotes import Terms
from swarm.ledger.genesis import CAP
from swarm.ledger.keeping import MAX_REPLICAS
from swarm.ledger.payloads import MAX_DEAL_AUDITS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from swarm.control.api import NodeApi, Progress
    from swarm.control.fields import Fields

    Question = Callable[[NodeApi, Fields], Awaitable[Any]]
    Work = Callable[[NodeApi, Fields, Progress], Awaitable[Any]]

MAX_LENT = 2**63 - 1
DEFAULT_REPLICAS = 3


async def _storage(node: NodeApi, _: Fields) -> Any:  # noqa: ANN401 - JSON
    return await node.keeping.storage()


async def _lend(node: NodeApi, fields: Fields, _: Progress) -> Any:  # noqa: ANN401
    return await node.keeping.lend(fields.integer("bytes", None, 0, MAX_LENT))


async def _quote(node: NodeApi, fields: Fields, _: Progress) -> Any:  # noqa: ANN401
    return await node.keeping.quote(fields.text("content"), _terms(fields))


async def _keep(node: NodeApi, fields: Fields, progress: Progress) -> Any:  # noqa: ANN401
    return await node.keeping.keep(fields.text("content"), _terms(fields), progress)


async def _deals(node: NodeApi, fields: Fields, _: Progress) -> Any:  # noqa: ANN401
    return {"deals": await node.keeping.deals(is_all=fields.flag("all", default=False))}


async def _end(node: NodeApi, fields: Fields, _: Progress) -> Any:  # noqa: ANN401
    return await node.keeping.end(fields.text("deal"))


async def _restore(node: NodeApi, fields: Fields, progress: Progress) -> Any:  # noqa: ANN401
    return await node.keeping.restore(fields.text("deal"), progress)


def _terms(fields: Fields) -> Terms:
    needed, spare = (
        fields.optional_integer(name, 1, MAX_PIECES - 1) for name in ("needed", "spare")
    )
    if (needed is None) != (spare is None):
        message = "needed and spare pieces: both are told, or neither"
        raise UsageError(message)
    coding = None if needed is None or spare is None else Coding(needed, spare)
    return Terms(
        fields.integer("replicas", DEFAULT_REPLICAS, 1, MAX_REPLICAS),
        fields.optional_integer("audits", 1, MAX_DEAL_AUDITS),
        fields.optional_integer("price", 1, CAP),
        fields.flag("erasure", default=False) or coding is not None,
        coding,
    )


QUESTIONS: dict[str, Question] = {"storage": _storage}
OPERATIONS: dict[str, Work] = {
    "storage/lend": _lend,
    "keep/quote": _quote,
    "keep/post": _keep,
    "keep/list": _deals,
    "keep/end": _end,
    "keep/restore": _restore,
}
"""Route to what it does; those that may have to fetch or wait for a block are operations with progress."""

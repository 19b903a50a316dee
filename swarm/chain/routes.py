"""The routes of the chain: each reads its fields and asks `Chain`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from swarm.chain.operations import MAX_HANDOFFS, MAX_HEADERS
from swarm.control.fields import MAX_BODY_BYTES
from swarm.ledger.genesis import CAP

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from swarm.control.api import NodeApi, Progress
    from swarm.control.fields import Fields

    Question = Callable[[NodeApi, Fields], Awaitable[Any]]
    Work = Callable[[NodeApi, Fields, Progress], Awaitable[Any]]

_MAX_NUMBER = 2**53


async def _validators(node: NodeApi, fields: Fields) -> Any:  # noqa: ANN401 - JSON
    return await node.chain.validators(fields.optional_integer("epoch", 0, _MAX_NUMBER))


async def _transaction(node: NodeApi, fields: Fields) -> Any:  # noqa: ANN401
    return await node.chain.transaction(fields.text("id"))


async def _headers(node: NodeApi, fields: Fields) -> Any:  # noqa: ANN401
    first = fields.integer("first", None, 0, _MAX_NUMBER)
    return await node.chain.headers(first, fields.integer("count", MAX_HEADERS, 1, MAX_HEADERS))


async def _handoffs(node: NodeApi, fields: Fields) -> Any:  # noqa: ANN401
    first = fields.integer("first", None, 0, _MAX_NUMBER)
    return await node.chain.handoffs(first, fields.integer("count", MAX_HANDOFFS, 1, MAX_HANDOFFS))


async def _stake(node: NodeApi, fields: Fields, progress: Progress) -> Any:  # noqa: ANN401
    return await node.chain.stake(_amount(fields), progress, wait=_wait(fields))


async def _unstake(node: NodeApi, fields: Fields, progress: Progress) -> Any:  # noqa: ANN401
    return await node.chain.unstake(_amount(fields), progress, wait=_wait(fields))


async def _withdraw(node: NodeApi, fields: Fields, progress: Progress) -> Any:  # noqa: ANN401
    return await node.chain.withdraw(progress, wait=_wait(fields))


async def _unjail(node: NodeApi, fields: Fields, progress: Progress) -> Any:  # noqa: ANN401
    return await node.chain.unjail(progress, wait=_wait(fields))


async def _submit(node: NodeApi, fields: Fields, _: Progress) -> Any:  # noqa: ANN401
    return await node.chain.submit(fields.text("transactions", max_chars=MAX_BODY_BYTES).split())


async def _prove(node: NodeApi, fields: Fields, progress: Progress) -> Any:  # noqa: ANN401
    version = fields.optional_integer("version", 0, _MAX_NUMBER)
    return await node.chain.prove(fields.text("name"), version, progress)


def _amount(fields: Fields) -> int:
    return fields.integer("amount", None, 1, CAP)


def _wait(fields: Fields) -> bool:
    return fields.flag("wait", default=True)


QUESTIONS: dict[str, Question] = {
    "validators": _validators,
    "transaction": _transaction,
    "chain/headers": _headers,
    "chain/handoffs": _handoffs,
}
OPERATIONS: dict[str, Work] = {
    "chain/stake": _stake,
    "chain/unstake": _unstake,
    "chain/withdraw": _withdraw,
    "chain/unjail": _unjail,
    "chain/submit": _submit,
    "chain/prove": _prove,
}
"""Route to what it does; those that wait for a block are operations with progress."""

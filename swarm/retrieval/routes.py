"""The routes of checks, `check…` of the control API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from storage import cid as cids
from storage.errors import CidError
from swarm.errors import UsageError
from swarm.retrieval.checks import DRAWS, MAX_DRAWS, MAX_PROOF_S, PROOF_S
from swarm.retrieval.link import without_scheme

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from storage.cid import Cid
    from swarm.control.api import NodeApi, Progress
    from swarm.control.fields import Fields

    Work = Callable[[NodeApi, Fields, Progress], Awaitable[Any]]


async def _check(node: NodeApi, fields: Fields, progress: Progress) -> Any:  # noqa: ANN401 - JSON
    draws = fields.integer("draws", DRAWS, 1, MAX_DRAWS)
    return await node.checks.check(_root(fields), draws, progress)


async def _wait(node: NodeApi, fields: Fields, progress: Progress) -> Any:  # noqa: ANN401
    seconds = fields.integer("seconds", int(PROOF_S), 1, MAX_PROOF_S)
    return await node.checks.wait(_root(fields), seconds, progress)


def _root(fields: Fields) -> Cid:
    try:
        return cids.parse(without_scheme(fields.text("cid")))
    except CidError as error:
        message = f"cid: {error}"
        raise UsageError(message, "a CID looks like bafybei… or bafkrei…") from error


OPERATIONS: dict[str, Work] = {"check": _check, "check/wait": _wait}

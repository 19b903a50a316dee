"""The routes of the Hub's side, `hub/…` of the control API: each reads its fields and asks `HubOperations`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from swarm.control.fields import MAX_INT
from swarm.errors import UsageError
from swarm.hub.revisions import KINDS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from swarm.control.api import NodeApi, Progress
    from swarm.control.fields import Fields

    Work = Callable[[NodeApi, Fields, Progress], Awaitable[Any]]


async def _link(node: NodeApi, fields: Fields, progress: Progress) -> Any:  # noqa: ANN401 - JSON
    kind = fields.optional_text("kind") or KINDS[0]
    if kind not in KINDS:
        message = f"kind: {kind[:80]!r} is neither {KINDS[0]} nor {KINDS[1]}"
        raise UsageError(message)
    version = fields.optional_integer("version", 0, MAX_INT)
    return await node.hub.link(kind, fields.text("name"), version, fields.path("cache"), progress)


OPERATIONS: dict[str, Work] = {"hub/link": _link}
"""Route to what it does."""

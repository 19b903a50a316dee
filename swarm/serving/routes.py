"""The route of the control API that serves a model for as long as its client waits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from swarm.control.fields import MAX_INT

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from swarm.control.api import NodeApi, Progress
    from swarm.control.fields import Fields

    Work = Callable[[NodeApi, Fields, Progress], Awaitable[Any]]

LOOPBACK = "127.0.0.1"
MAX_PORT = 2**16 - 1
MAX_TOKEN_CHARACTERS = 256


async def _serve(node: NodeApi, fields: Fields, progress: Progress) -> Any:  # noqa: ANN401 - JSON
    await node.serving.serve(
        fields.text("name"),
        fields.optional_integer("version", 0, MAX_INT),
        fields.optional_text("host") or LOOPBACK,
        fields.integer("port", 0, 0, MAX_PORT),
        fields.optional_text("token", max_chars=MAX_TOKEN_CHARACTERS),
        progress,
    )


OPERATIONS: dict[str, Work] = {"serve": _serve}
"""Route to what it does."""

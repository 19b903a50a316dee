"""The routes of models' versions, `model/…` and `train/…` of the control API: each reads its fields and asks `Registry`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from swarm.control.fields import MAX_INT

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from swarm.control.api import NodeApi, Progress
    from swarm.control.fields import Fields

    Work = Callable[[NodeApi, Fields, Progress], Awaitable[Any]]

LOG_VERSIONS = 20
MAX_VERSIONS = 10_000
MAX_PATHS = 1_000
"""That are labelled at once."""
MAX_TOP = 1_000
"""Labels told of one sample."""


async def _log(node: NodeApi, fields: Fields, progress: Progress) -> Any:  # noqa: ANN401 - JSON
    limit = fields.integer("limit", LOG_VERSIONS, 1, MAX_VERSIONS)
    return await node.registry.log(fields.text("name"), limit, progress)


async def _diff(node: NodeApi, fields: Fields, progress: Progress) -> Any:  # noqa: ANN401
    old = fields.text("old"), fields.optional_integer("old_version", 0, MAX_INT)
    new = fields.text("new"), fields.optional_integer("new_version", 0, MAX_INT)
    return await node.registry.diff(old, new, progress)


async def _rollback(node: NodeApi, fields: Fields, progress: Progress) -> Any:  # noqa: ANN401
    version = fields.integer("version", None, 0, MAX_INT)
    return await node.registry.rollback(fields.text("name"), version, progress)


async def _classify(node: NodeApi, fields: Fields, progress: Progress) -> Any:  # noqa: ANN401
    return await node.registry.classify(
        fields.text("name"),
        fields.optional_integer("version", 0, MAX_INT),
        fields.paths("paths", MAX_PATHS),
        fields.integer("top", 1, 1, MAX_TOP),
        fields.optional_text("resize"),
        progress,
    )


async def _watch(node: NodeApi, fields: Fields, _: Progress) -> Any:  # noqa: ANN401
    return await node.registry.watch(fields.text("task"))


OPERATIONS: dict[str, Work] = {
    "model/log": _log,
    "model/diff": _diff,
    "model/rollback": _rollback,
    "model/classify": _classify,
    "train/watch": _watch,
}
"""Route to what it does."""

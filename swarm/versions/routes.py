"""The routes of datasets, `dataset/…` of the control API: each reads its fields and asks `Versions`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from swarm.errors import UsageError
from swarm.versions.commit import MAX_MESSAGE_BYTES
from swarm.versions.history import MAX_COMMITS
from swarm.versions.reference import HEAD, MAX_CHARACTERS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from swarm.control.api import NodeApi, Progress
    from swarm.control.fields import Fields
    from swarm.versions.merge import Side

    Work = Callable[[NodeApi, Fields, Progress], Awaitable[Any]]

LOG_COMMITS = 20


async def _list(node: NodeApi, _: Fields, __: Progress) -> Any:  # noqa: ANN401 - JSON
    return {"datasets": await node.versions.datasets()}


async def _init(node: NodeApi, fields: Fields, _: Progress) -> Any:  # noqa: ANN401
    return await node.versions.init(_version(fields, "name"), fields.path("folder"))


async def _commit(node: NodeApi, fields: Fields, progress: Progress) -> Any:  # noqa: ANN401
    return await node.versions.commit(
        fields.path("folder"),
        fields.optional_text("message", max_chars=MAX_MESSAGE_BYTES),
        progress,
        publish=fields.flag("publish", default=False),
    )


async def _log(node: NodeApi, fields: Fields, progress: Progress) -> Any:  # noqa: ANN401
    return await node.versions.log(
        fields.optional_path("folder"),
        _optional_version(fields, "version") or HEAD,
        fields.integer("limit", LOG_COMMITS, 1, MAX_COMMITS),
        progress,
    )


async def _diff(node: NodeApi, fields: Fields, progress: Progress) -> Any:  # noqa: ANN401
    return await node.versions.diff(
        fields.optional_path("folder"),
        _optional_version(fields, "old"),
        _optional_version(fields, "new"),
        progress,
    )


async def _branch(node: NodeApi, fields: Fields, progress: Progress) -> Any:  # noqa: ANN401
    return await node.versions.branch(
        fields.optional_path("folder"),
        _optional_version(fields, "dataset"),
        _optional_version(fields, "new"),
        _optional_version(fields, "version"),
        _optional_version(fields, "delete"),
        progress,
    )


async def _checkout(node: NodeApi, fields: Fields, progress: Progress) -> Any:  # noqa: ANN401
    return await node.versions.checkout(
        fields.optional_path("folder"),
        fields.path("here"),
        _version(fields, "version"),
        fields.optional_path("output"),
        progress,
        force=fields.flag("force", default=False),
    )


async def _merge(node: NodeApi, fields: Fields, progress: Progress) -> Any:  # noqa: ANN401
    return await node.versions.merge(
        fields.path("folder"),
        _version(fields, "version"),
        fields.optional_text("message", max_chars=MAX_MESSAGE_BYTES),
        _side(fields),
        progress,
    )


async def _fork(node: NodeApi, fields: Fields, progress: Progress) -> Any:  # noqa: ANN401
    return await node.versions.fork(
        fields.optional_path("folder"),
        _version(fields, "version"),
        _version(fields, "name"),
        progress,
    )


def _version(fields: Fields, name: str) -> str:
    return fields.text(name, max_chars=MAX_CHARACTERS)


def _optional_version(fields: Fields, name: str) -> str | None:
    return fields.optional_text(name, max_chars=MAX_CHARACTERS)


def _side(fields: Fields) -> Side | None:
    match fields.optional_text("prefer"):
        case None:
            return None
        case "ours":
            return "ours"
        case "theirs":
            return "theirs"
        case other:
            message = f"prefer: {other!r} is neither 'ours' nor 'theirs'"
            raise UsageError(message)


OPERATIONS: dict[str, Work] = {
    "dataset/list": _list,
    "dataset/init": _init,
    "dataset/commit": _commit,
    "dataset/log": _log,
    "dataset/diff": _diff,
    "dataset/branch": _branch,
    "dataset/checkout": _checkout,
    "dataset/merge": _merge,
    "dataset/fork": _fork,
}
"""Route to what it does; all are operations with progress, since any may have to fetch."""

"""The routes of the care of a node, `care/…` of the control API: each reads its fields and asks `Care`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from swarm.care import levels
from swarm.care.controls import ALL, MAX_PAUSE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from swarm.control.api import NodeApi, Progress
    from swarm.control.fields import Fields

    Question = Callable[[NodeApi, Fields], Awaitable[Any]]
    Work = Callable[[NodeApi, Fields, Progress], Awaitable[Any]]


async def _report(node: NodeApi, _: Fields) -> Any:  # noqa: ANN401 - JSON
    return await node.care.report()


async def _pause(node: NodeApi, fields: Fields, _: Progress) -> Any:  # noqa: ANN401
    return await node.care.pause(
        fields.optional_text("part") or ALL,
        fields.optional_integer("seconds", 1, MAX_PAUSE_SECONDS),
    )


async def _resume(node: NodeApi, fields: Fields, _: Progress) -> Any:  # noqa: ANN401
    return await node.care.resume(fields.optional_text("part") or ALL)


async def _leave(node: NodeApi, fields: Fields, _: Progress) -> Any:  # noqa: ANN401
    return await node.care.leave(fields.text("what"))


async def _limit(node: NodeApi, fields: Fields, _: Progress) -> Any:  # noqa: ANN401
    return await node.care.limit(fields.text("name"), fields.text("value"))


async def _finish(node: NodeApi, fields: Fields, progress: Progress) -> Any:  # noqa: ANN401
    return await node.care.finish(progress, wait=fields.flag("wait", default=True))


async def _levels(_: NodeApi, __: Fields) -> Any:  # noqa: ANN401
    return levels.told()


async def _set_levels(_: NodeApi, fields: Fields, __: Progress) -> Any:  # noqa: ANN401
    levels.change(levels.parse(fields.text("levels")))
    return levels.told()


QUESTIONS: dict[str, Question] = {"care": _report, "care/levels": _levels}
OPERATIONS: dict[str, Work] = {
    "care/pause": _pause,
    "care/resume": _resume,
    "care/finish": _finish,
    "care/limit": _limit,
    "care/leave": _leave,
    "care/levels": _set_levels,
}

"""Whose turn it is at the worker process: a job that a phase of some round waits for goes before one that can wait longer.

Scores and merges are due within a phase of a few blocks, and who misses one loses its reward; a segment that is run
again is due within hours; training, and what a person asks for, comes last.
Jobs of one rank go in order of asking.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

Progress: TypeAlias = "Callable[[int, int, float], None]"

_RANKS: Final = {"score": 0, "merge": 0, "replay": 1}
_LAST: Final = 2
YIELDING: Final = frozenset({"train", "replay"})
"""Jobs that let one of a lower rank in between two steps: by then they hold all their data themselves."""


@dataclass(eq=False, slots=True)
class Job:
    """What was asked of the process, and what came of it."""

    kind: str
    number: int
    packed: bytes
    on_progress: Progress | None
    on_text: Callable[[str], None] | None = None
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    done: trio.Event = field(default_factory=trio.Event)
    result: dict[str, Any] | None = None
    error: BaseException | None = None
    seconds: float = 0.0
    """Of waiting for it, without those in which it stood still for another."""

    @property
    def turn(self) -> tuple[int, int]:
        """The least is first."""
        return _RANKS.get(self.kind, _LAST), self.number

    def goes_before(self, other: Job) -> bool:
        """Whether another one that is under way lets it in."""
        return other.kind in YIELDING and self.turn[0] < other.turn[0]

    def hear(self, answer: dict[str, Any]) -> None:
        """Hand on what the process says on the way."""
        if self.scope.cancel_called:
            return
        if answer.get("progress") and self.on_progress is not None:
            self.on_progress(*answer["progress"])
        if "text" in answer and self.on_text is not None:
            self.on_text(answer["text"])


class Turns:
    """The jobs that wait."""

    def __init__(self) -> None:
        self._waiting: list[Job] = []
        self._added = trio.Event()
        self.is_closed = False

    def add(self, job: Job) -> None:
        """Let a job wait; one that was begun and has to be done again too."""
        self._waiting.append(job)
        self._added.set()

    def drop(self, job: Job) -> None:
        """Forget a job that nobody waits for any more."""
        if job in self._waiting:
            self._waiting.remove(job)

    async def next(self) -> Job:
        """Wait for a job, and take the first."""
        while not self._waiting:
            self._added = trio.Event()
            await self._added.wait()
        return self._taken(min(self._waiting, key=lambda one: one.turn))

    def before(self, job: Job) -> Job | None:
        """Take the first one that a job under way lets in, if there is one."""
        found = [one for one in self._waiting if one.goes_before(job)]
        return self._taken(min(found, key=lambda one: one.turn)) if found else None

    def close(self) -> list[Job]:
        """Take all that are left; none is added any more."""
        self.is_closed = True
        left, self._waiting = self._waiting, []
        return left

    def _taken(self, job: Job) -> Job:
        self._waiting.remove(job)
        return job

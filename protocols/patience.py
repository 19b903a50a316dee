"""What a machine lacks for a while: room on its disk, files, memory, threads.

Whoever needs it does the same again until it goes, and says meanwhile what is missing: a node that keeps data for others,
and votes, does not end for that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

import structlog
import trio

from storage.errors import DiskFullError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

AGAIN_SECONDS: Final = 2.0
"""Before the same is done again."""
_NO_THREAD: Final = "can't start new thread"

_log = structlog.get_logger("swarm.node")


def lack(error: BaseException) -> str | None:
    """What the machine lacked, or how its disk failed; None if an error, or a part of a group of them, is another."""
    if isinstance(error, BaseExceptionGroup):
        found = [lack(one) for one in error.exceptions]
        return None if None in found else found[0]
    if isinstance(error, MemoryError):
        return "there is no memory left"
    if isinstance(error, OSError | DiskFullError):
        return str(error)
    if isinstance(error, RuntimeError) and _NO_THREAD in str(error):
        return "the system gives no more threads"
    return None


class Patience:
    """Does again what the machine could not do.

    Args:
        what: That cannot be done meanwhile, for people: `the ledger cannot be written`.

    Attributes:
        problem: What cannot be done now, and why; None while all goes well.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self.problem: str | None = None

    async def until_done(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do it, and again for as long as the machine lacks something.

        Args:
            work: A failure of it leaves everything as it was.
        """
        while True:
            try:
                done = await work()
            except Exception as error:  # noqa: BLE001 - what is not lacked is raised by `note`
                self.note(error)
            else:
                self.problem = None
                return done
            await trio.sleep(AGAIN_SECONDS)

    def note(self, error: Exception) -> None:
        """Remember what is missing; an error that is another is raised."""
        why = lack(error)
        if why is None:
            raise error
        problem = f"{self._what}: {why}"
        if problem != self.problem:
            _log.error("machine.lacks", problem=problem)
        self.problem = problem

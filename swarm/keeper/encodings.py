"""What kept encodings of frozen bases take of what is lent: as much as they have, and while they may grow all that they may.

The worker process writes them without asking; so before a job that may, its whole allowance is claimed, and the job is
told how much it is. One that does not fit keeps what is there and makes the rest anew each time.
"""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

import trio

from storage.errors import QuotaError
from swarm.training.drawers import DEFAULT_BYTES, Drawers
from swarm.training.errors import SpecError
from swarm.training.spec import CACHED, parse_spec

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from pathlib import Path

SHARE: Final = 8
"""One part in so many of what is lent may be encodings, up to `DEFAULT_BYTES`."""
CLAIM_SECONDS: Final = 10.0
"""A job waits no longer for slots to give way to encodings."""


class EncodingSpace:
    """The account of one folder of encodings.

    Args:
        folder: Where the worker keeps them.
        lent: Tells how many bytes are lent.
        claim: Waits until what `taken` says fits into what is lent; raises QuotaError where it will not.
        look: Counts anew what `taken` says, when it has become less.
    """

    def __init__(
        self,
        folder: Path,
        lent: Callable[[], int],
        claim: Callable[[], Awaitable[None]],
        look: Callable[[], None],
    ) -> None:
        self._drawers = Drawers(folder)
        self._lent = lent
        self._claim = claim
        self._look = look
        self._granted = 0

    @property
    def most(self) -> int:
        """Bytes that they may take."""
        return min(DEFAULT_BYTES, self._lent() // SHARE)

    def taken(self) -> int:
        """Bytes that are to be counted now."""
        return max(self._drawers.used, self.most if self._granted else 0)

    @asynccontextmanager
    async def grant(self, spec: bytes) -> AsyncGenerator[int, None]:
        """Let one job keep encodings; how many bytes they may be in all.

        Args:
            spec: The job's task.
        """
        if not _keeps(spec):
            yield 0
            return
        self._granted += 1
        try:
            if await self._fits():
                yield self.most
                return
        finally:
            self._granted -= 1
            with suppress(QuotaError):
                self._look()
        yield self._drawers.used

    async def _fits(self) -> bool:
        try:
            with trio.fail_after(CLAIM_SECONDS):
                await self._claim()
        except (QuotaError, trio.TooSlowError):
            return False
        return True


def _keeps(spec: bytes) -> bool:
    """Whether a task's peers keep encodings that they made."""
    try:
        task = parse_spec(spec)
    except SpecError:
        return False
    return task.kind == "finetune" and task.data.encodings == CACHED

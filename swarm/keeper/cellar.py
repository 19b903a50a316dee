"""Coded pieces go into sealed slots once they are here, and slots whose pieces are over go back to zeros.

A coded piece is cold: whoever reads the content takes it from the publisher or from copies, and pieces when those are gone.
So it may cost some 30 ms of one core to read a chunk of one, and the piece takes the place of zeros and not of chunks.
Whole copies stay in the store: they are there to be fetched.

Work goes at the sealer's pace, a batch at a time: a slot that waits for the ledger to count it takes the room of two.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import structlog
import trio

from storage.errors import ChunkNotFoundError, CorruptChunkError, QuotaError, StorageError
from storage.sealing import SLOT_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

    from storage.cid import Cid
    from storage.sealer import Pace
    from storage.slot_contents import SlotContents
    from storage.slots import SlotStore
    from swarm.keeper.duties import Duties

LOOK_SECONDS: Final = 1.0
"""Between two looks for something to do."""
AT_ONCE: Final = 16
"""Slots that are emptied for one walk over all that is kept."""

_log = structlog.get_logger("swarm.cellar")


class Cellar:
    """What is in the slots of one keeper.

    Args:
        slots: Its sealed slots.
        contents: What lies in them.
        duties: Say which pieces are here, and when some are let go.
        pace: At which may be sealed now; None: nothing may.
        batch: Slots that may wait to be settled at once.
        stay: Slots that stay, however many there are.
        released: Called when the store has let go of chunks, so that its room is collected.

    Attributes:
        is_ripe: Whether what was replaced should be committed now: a batch is full, or nothing more is to be done.
    """

    def __init__(
        self,
        slots: SlotStore,
        contents: SlotContents,
        duties: Duties,
        *,
        pace: Callable[[], Pace | None],
        batch: Callable[[], int],
        stay: Callable[[], int],
        released: Callable[[], None] = lambda: None,
    ) -> None:
        self._slots = slots
        self._contents = contents
        self._duties = duties
        self._pace = pace
        self._batch = batch
        self._stay = stay
        self._released = released
        self._limiter = trio.CapacityLimiter(1)
        self._left: list[Cid] = []
        self._failed: list[Cid] = []
        self._done = 0
        self.is_ripe = True

    async def run(self) -> None:
        """Put away, move and empty until cancelled."""
        while True:
            try:
                is_busy = await self._step()
            except (StorageError, OSError) as error:
                if not isinstance(error, QuotaError):
                    _log.warning("cellar.failed", error=str(error))
                is_busy = False
            if not is_busy:
                self.is_ripe = True
                await trio.sleep(LOOK_SECONDS)

    async def _step(self) -> bool:
        """Seal some slots anew, if any are to be; whether there may be more to do at once."""
        pace, room = self._pace(), self._batch() - self._slots.waiting
        if pace is None or room <= 0:
            return False
        sealed, seconds = await trio.to_thread.run_sync(self._timed, room, limiter=self._limiter)
        if not self._left and self._done:
            _log.info("cellar.put_away", chunks=self._done)
            self._done = 0
            self._released()
        if sealed:
            self.is_ripe = False
            await trio.sleep(pace.rest_s(seconds, sealed * SLOT_BYTES))
        return bool(sealed)

    # In a thread, one at a time.

    def _timed(self, room: int) -> tuple[int, float]:
        began = time.thread_time()
        sealed = self._empty(min(room, AT_ONCE)) or self._move() or self._put()
        return sealed, time.thread_time() - began

    def _empty(self, most: int) -> int:
        if not self._duties.has_let_go:
            return 0
        self._duties.has_let_go = False
        emptied = self._contents.clear(most)
        self._duties.has_let_go |= emptied > 0
        return emptied

    def _move(self) -> int:
        try:
            return 2 * self._contents.move_down(self._stay())
        except (ChunkNotFoundError, CorruptChunkError):
            return 0  # it stays where it was until `_put` mends it, which must go on

    def _put(self) -> int:
        """Seal the next chunk of the pieces that are here; chunks that lie in a slot already only leave the store.

        One that fails is tried again after all others.
        """
        below = min(self._slots.settled.slots, max(self._stay(), self._slots.top))
        while True:
            while self._left:
                before = self._slots.waiting
                try:
                    is_put = self._contents.put(self._left[-1], below)
                except (ChunkNotFoundError, CorruptChunkError):
                    self._left.pop()  # let go meanwhile, or to be fetched again
                    continue
                except QuotaError:
                    raise  # for the next one there is no room either
                except (StorageError, OSError):
                    self._failed.append(self._left.pop())
                    raise
                if not is_put:  # no zeros are left; with the next audit it is looked at again
                    self._left.clear()
                    self._failed.clear()
                    return 0
                self._left.pop()
                self._done += 1
                if self._slots.waiting > before:
                    return 1
            root = self._duties.take_cold()
            if root is not None:
                self._left = self._contents.waiting(root)[::-1]
            elif self._failed:
                self._left, self._failed = self._failed[::-1], []
            else:
                return 0

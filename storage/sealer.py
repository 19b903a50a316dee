"""Sealing in the background: slot after slot until a goal, at the share of processor and disk that the owner lends."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from storage.sealing import SLOT_BYTES, SealingStoppedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from storage.slots import SlotStore

MAX_REST_S: Final = 60.0
"""However long a slot took; a machine that slept for a night does not rest for three."""
RETRY_S: Final = 60.0
"""After a failed write, a full disk for one."""
NICENESS: Final = 10


@dataclass(frozen=True, slots=True)
class Pace:
    """How much of a machine sealing may take.

    Attributes:
        share: Of one core, above 0 and at most 1.
        bytes_per_s: Written to the disk, on average.
    """

    share: float = 0.25
    bytes_per_s: float = 64e6

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1 or self.bytes_per_s <= 0:
            message = f"sealing cannot take {self.share} of a core and {self.bytes_per_s} bytes/s"
            raise ValueError(message)

    def rest_s(self, worked_s: float, written: int) -> float:
        """How long to rest after so many seconds of work that wrote so many bytes."""
        for_core = worked_s * (1 / self.share - 1)
        for_disk = written / self.bytes_per_s - worked_s
        return min(MAX_REST_S, max(0.0, for_core, for_disk))


class Sealer:
    """A thread that appends slots of zeros to a store until there are as many as `goal`.

    AES and the transposition let go of the GIL or take a millisecond, so that the other threads are not held up.

    Args:
        store: Where the slots go.
        pace: How much of the machine it may take.
        on_failure: Told why sealing rests; called in the sealer's thread.
    """

    def __init__(
        self, store: SlotStore, pace: Pace, on_failure: Callable[[Exception], None] | None = None
    ) -> None:
        self._store = store
        self._pace = pace
        self._on_failure = on_failure
        self._goal = 0
        self._changed = threading.Event()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="swarm-seal", daemon=True)

    @property
    def goal(self) -> int:
        """Slots that the store is to have; less than it has asks for nothing (`SlotStore.shrink` gives back)."""
        return self._goal

    @goal.setter
    def goal(self, slots: int) -> None:
        self._goal = slots
        self._changed.set()

    @property
    def pace(self) -> Pace:
        """How much of the machine it may take; a new pace holds from the next slot on."""
        return self._pace

    @pace.setter
    def pace(self, pace: Pace) -> None:
        self._pace = pace
        self._changed.set()

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Give up the slot that is being sealed; returns when the thread has ended."""
        self._stopped = True
        self._changed.set()
        self._thread.join()

    def _run(self) -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        while True:
            self._changed.clear()
            if self._stopped:
                return
            if len(self._store) >= self._goal:
                self._changed.wait()
                continue
            began = time.thread_time()
            try:
                self._store.append(is_stopped=lambda: self._stopped)
                rest = self._pace.rest_s(time.thread_time() - began, SLOT_BYTES)
            except SealingStoppedError:
                return
            except Exception as error:  # noqa: BLE001 - whatever it was, the thread tells it and goes on
                rest = RETRY_S
                if self._on_failure is not None:
                    self._on_failure(error)
            self._changed.wait(rest)

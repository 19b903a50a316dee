"""How fast the line to other machines is, and the share of it that is taken where nobody names a rate; pure.

A rate says something of the line only while the line is what is waited for: a stretch counts when sockets were full for
most of it, and the stretch before it too, since the first one also fills the kernel's buffers.
The best rate that was seen so stands for the line. Now and then nothing is limited for some seconds, so that a line that
was thought too slow shows that it is not; one that has become slower is believed a tenth a time.
Until sockets have been full nothing is limited: the line was never filled.
"""

from __future__ import annotations

from typing import Final

AUTO: Final = -1
"""As a rate: a share of the line, as it was measured."""
SHARE: Final = (4, 5)
"""Of the line, that a node takes if nobody says."""
STRETCH_SECONDS: Final = 5.0
BUSY: Final = 0.8
"""The part of a stretch in which sockets have to be full."""
PROBE_EVERY_SECONDS: Final = 900.0
PROBE_SECONDS: Final = 15.0
"""Three stretches: the first fills buffers, the second shows the line."""
FADE: Final = 0.9
MIN_RATE: Final = 50_000
"""Bytes a second; a line that is slower is not shared further, and a person cannot ask for less."""


class Line:
    """What is known of the way out."""

    def __init__(self) -> None:
        self.best = 0.0
        """Bytes a second; 0: it was never full."""
        self._begun = 0.0
        self._bytes = 0
        self._busy = 0.0
        self._sending = 0
        self._full_since = 0.0
        self._was_full = False
        self._probed = 0.0

    def begin(self, now: float) -> None:
        """A socket is given bytes."""
        if not self._sending:
            self._full_since = now
        self._sending += 1

    def end(self, now: float, count: int) -> None:
        """It has taken so many of them."""
        self._sending -= 1
        self._bytes += count
        length = now - self._begun
        if not self._sending or length >= STRETCH_SECONDS:
            self._busy += now - max(self._full_since, self._begun)
            self._full_since = now
        if length >= STRETCH_SECONDS:
            self._close(now, length)

    def limit(self, now: float) -> int:
        """The rate that is taken, in bytes a second; 0: there is no limit now."""
        if not self.best:
            return 0
        if now - self._probed >= PROBE_EVERY_SECONDS:
            self._probed = now
        if now - self._probed < PROBE_SECONDS:
            return 0
        part, whole = SHARE
        return max(MIN_RATE, int(self.best * part / whole))

    def _close(self, now: float, length: float) -> None:
        """The end of a stretch."""
        is_full = self._busy >= BUSY * length
        if is_full and self._was_full:
            rate = self._bytes / length
            if not self.best:
                self._probed = now - PROBE_SECONDS
            is_probe = now - self._probed < PROBE_SECONDS + STRETCH_SECONDS
            self.best = max(rate, self.best * FADE if is_probe else self.best)
        self._was_full = is_full
        self._begun, self._bytes, self._busy = now, 0, 0.0

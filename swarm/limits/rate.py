"""A token bucket; pure.

What must go at once is counted too and may leave a debt; what can wait goes only while there is none, so that both
together keep to the rate.
"""

from __future__ import annotations

from typing import Final

BURST_SECONDS: Final = 0.25
"""Of the rate, that may go at once after a rest."""
MIN_BURST: Final = 2**16
MAX_DEBT_SECONDS: Final = 5.0
"""What went at once holds back what can wait for no longer."""
TURN_SECONDS: Final = 0.1
"""Of the rate, that one sender takes in its turn."""


class Bucket:
    """One direction.

    Args:
        rate: Bytes a second; 0: no limit.
    """

    def __init__(self, rate: int = 0) -> None:
        self._rate = rate
        self._tokens = float(self.burst)
        self._at = 0.0

    @property
    def rate(self) -> int:
        """Bytes a second; 0: no limit."""
        return self._rate

    @property
    def burst(self) -> int:
        """Bytes that may go at once after a rest."""
        return max(MIN_BURST, int(self._rate * BURST_SECONDS))

    def turn(self, least: int, most: int) -> int:
        """Bytes that one sender takes at a time.

        Args:
            least: That it cannot cut.
            most: That it takes without a limit.
        """
        return most if not self._rate else min(most, max(least, int(self._rate * TURN_SECONDS)))

    def limit(self, now: float, rate: int) -> None:
        """Go on at another rate; what was saved is lost, a debt stays as far as one may last."""
        if rate != self._rate:
            self._refill(now)
            self._rate = rate
            least = -MAX_DEBT_SECONDS * rate
            self._tokens = max(min(self._tokens, float(self.burst)), least)

    def take(self, now: float, count: int) -> None:
        """So many bytes went.

        Args:
            now: Seconds, of a clock that never goes back.
            count: Bytes.
        """
        if self._rate:
            self._refill(now)
            self._tokens = max(self._tokens - count, -MAX_DEBT_SECONDS * self._rate)

    def wait(self, now: float) -> float:
        """Seconds until what can wait may go; 0: now."""
        if not self._rate:
            return 0.0
        self._refill(now)
        return 0.0 if self._tokens > 0 else (1 - self._tokens) / self._rate

    def _refill(self, now: float) -> None:
        self._tokens = min(self.burst, self._tokens + max(0.0, now - self._at) * self._rate)
        self._at = max(self._at, now)

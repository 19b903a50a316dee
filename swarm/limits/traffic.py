"""The one limiter of what goes to other machines and comes from them.

Every socket of the network room is counted here, but for those to this machine. What can wait, content and its checks, snapshots and old
blocks, waits for its turn; votes, transactions and audits go ahead of it and are counted.
What comes is limited by not reading it: the peer's window is not given back, so it stops.
The gateway, the page and the measures listen on the loopback only, and nothing else of a node opens a port.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import structlog
import trio

from swarm.limits.line import AUTO, Line
from swarm.limits.month import Month, auto_cap
from swarm.limits.rate import Bucket
from swarm.limits.turns import Turns

if TYPE_CHECKING:
    from collections.abc import Callable

    from swarm.limits.turns import Place

SERVED: Final = ("/swarm/exchange/", "/swarm/retrieval/", "/swarm/snapshot/", "/ipfs/bitswap/")
"""Protocols that hand out content: not answered while serving is held back."""
PATIENT: Final = (*SERVED, "/swarm/sync/")
"""Protocols whose bytes can wait."""
LOOK_SECONDS: Final = 1.0
WINDOW_SECONDS: Final = 1.0
"""Of the rate, that a peer may be ahead of the reader of a stream."""

_log = structlog.get_logger("swarm.limits")


class Traffic:
    """What one node sends and receives.

    Args:
        month: Where it is counted; None: in memory.
        clock: Seconds, never going back.
        now: Seconds since 1970.

    Attributes:
        is_cut: Whether content is not served now.
        going: The line of connections before the rate of what can wait.
        coming: The line of streams before the rate at which such bytes are taken off them.
    """

    def __init__(
        self,
        month: Month | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.month = month or Month(None, now())
        self.line = Line()
        self.is_cut: Callable[[], bool] = lambda: False
        self._clock = clock
        self._now = now
        self._up = Bucket()
        self._down = Bucket()
        self.going = Turns(self._up)
        self.coming = Turns(self._down)
        self._asked = AUTO
        self._asked_cap = AUTO
        self.sent_rate = self.received_rate = 0.0
        """Bytes a second, lately."""

    # What a person asks.

    def limit(self, upload: int, download: int, monthly_cap: int) -> None:
        """Keep to these from now on.

        Args:
            upload: Bytes a second; 0: no limit; `AUTO`: a share of the line.
            download: Bytes a second; 0: no limit.
            monthly_cap: Bytes of both directions; 0: none; `AUTO`: a share of the line.
        """
        self._asked, self._asked_cap = upload, monthly_cap
        self._down.limit(self._clock(), max(0, download))
        self._aim()

    @property
    def upload(self) -> int:
        """The rate of what can wait, in bytes a second; 0: no limit now."""
        return self._up.rate

    @property
    def download(self) -> int:
        """Likewise of what comes."""
        return self._down.rate

    @property
    def is_measured(self) -> bool:
        """Whether the limit follows from the line."""
        return self._asked == AUTO

    # What sockets tell.

    @staticmethod
    def applies(here: str, there: str) -> bool:
        """Whether a socket goes to another machine, by the IP addresses of its two ends."""
        return here != there and not there.startswith("127.") and there != "::1"

    def begins(self, count: int) -> None:
        """A socket is given so many bytes; they are off the rate now, or many sockets would each take the same turn."""
        now = self._clock()
        self.line.begin(now)
        self._up.take(now, count)

    def sent(self, count: int) -> None:
        """It took them, or is gone after so many of them."""
        self.line.end(self._clock(), count)
        self.month.sent += count

    def received(self, count: int) -> None:
        """A socket gave bytes."""
        self.month.received += count

    # What streams ask.

    @staticmethod
    def can_wait(protocol: str) -> bool:
        """Whether what is said in a protocol waits for its turn."""
        return protocol.startswith(PATIENT)

    def refuses(self, protocol: str) -> bool:
        """Whether a peer that wants to be served is sent away."""
        return protocol.startswith(SERVED) and self.is_cut()

    def wait(self, place: Place) -> float:
        """Seconds until one in the line `going` looks again whether it may send what can wait; 0: now."""
        return self.going.wait(self._clock(), place)

    def turn(self, least: int, most: int) -> int:
        """Bytes that one connection sends in its turn, and at most those of a frame."""
        return self._up.turn(least, most)

    def window(self, least: int, most: int) -> int:
        """How far a peer may be ahead of a reader, in bytes."""
        rate = self._down.rate
        return most if not rate else max(least, min(most, int(rate * WINDOW_SECONDS)))

    def reading_wait(self, place: Place) -> float:
        """Seconds until one in the line `coming` looks again whether it may take what can wait off its stream; 0: now."""
        return self.coming.wait(self._clock(), place)

    def part(self, least: int, most: int) -> int:
        """Bytes that one reader takes in its turn."""
        return self._down.turn(least, most)

    def came(self, count: int) -> None:
        """Bytes of a stream are off the rate: of what can wait those that are taken by its reader, or many would each take the same turn."""
        self._down.take(self._clock(), count)

    # The shell.

    async def run(self) -> None:
        """Count, write down and measure until cancelled."""
        before, at = (self.month.sent, self.month.received), self._clock()
        try:
            while True:
                await trio.sleep(LOOK_SECONDS)
                now = self._clock()
                self.month.roll(self._now())
                after = (self.month.sent, self.month.received)
                took = max(now - at, 1e-9)
                self.sent_rate = max(0, after[0] - before[0]) / took
                self.received_rate = max(0, after[1] - before[1]) / took
                before, at = after, now
                self._aim()
                if self.month.is_due:
                    try:
                        rates = (self.sent_rate, self.received_rate)
                        await trio.to_thread.run_sync(self.month.promise, *rates)
                    except OSError as error:
                        _log.warning("traffic.not_written", error=str(error))
        finally:
            with trio.CancelScope(shield=True), suppress(OSError):
                await trio.to_thread.run_sync(self.month.close)

    def _aim(self) -> None:
        now = self._clock()
        self._up.limit(now, self.line.limit(now) if self._asked == AUTO else max(0, self._asked))
        self.month.line = round(self.line.best) or self.month.line
        cap = self._asked_cap
        self.month.cap = auto_cap(self.month.line) if cap == AUTO else cap

"""The rules: how many may ask, and who for a fetch now; pure, the time comes in."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from protocols.transport import PeerId

FETCHES_AT_ONCE: Final = 2
FETCHES_A_MINUTE: Final = 12
"""From one peer."""
MINUTE_S: Final = 60.0
STREAMS: Final = 16
STREAMS_PER_PEER: Final = 2
MAX_REMEMBERED: Final = 1_024
"""Peers whose questions are counted."""
MAX_FETCHED_BYTES: Final = 8 * 2**20
"""On one way, fetched for a question."""


class Fetches:
    """Those that are made for others now, and who asked for them lately."""

    def __init__(self) -> None:
        self._fetching = 0
        self._asked: OrderedDict[PeerId, deque[float]] = OrderedDict()

    def begin(self, peer: PeerId, now: float) -> bool:
        """A peer asks for one; False: not now. `end` follows a True one."""
        asked = self._asked.pop(peer, None) or deque()
        while asked and asked[0] <= now - MINUTE_S:
            asked.popleft()
        is_allowed = len(asked) < FETCHES_A_MINUTE and self._fetching < FETCHES_AT_ONCE
        if is_allowed:
            asked.append(now)
            self._fetching += 1
        self._asked[peer] = asked
        if len(self._asked) > MAX_REMEMBERED:
            self._asked.popitem(last=False)
        return is_allowed

    def end(self) -> None:
        """One is done."""
        self._fetching -= 1

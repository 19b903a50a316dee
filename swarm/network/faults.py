"""Peers that misbehave: remembered for a while, refused when they go on, forgotten in the end."""

from __future__ import annotations

from collections import OrderedDict, deque

MAX_PEERS = 4096
"""Peers remembered; the one heard of least recently is forgotten first."""
STRIKES = 5
"""Reasons within `WINDOW_S` after which a peer is refused."""
WINDOW_S = 60.0
REFUSED_S = 600.0


class Offenders:
    """The table of misbehaviour; time comes in as an argument."""

    def __init__(self) -> None:
        self._strikes: OrderedDict[str, deque[tuple[float, str]]] = OrderedDict()
        self._refused: OrderedDict[str, tuple[float, str]] = OrderedDict()

    def note(self, peer: str, reason: str, now: float) -> bool:
        """Remember one reason; True when the peer is to be refused from now on."""
        strikes = self._strikes.setdefault(peer, deque(maxlen=STRIKES))
        self._strikes.move_to_end(peer)
        strikes.append((now, reason))
        while len(self._strikes) > MAX_PEERS:
            self._strikes.popitem(last=False)
        if len(strikes) < STRIKES or now - strikes[0][0] > WINDOW_S:
            return False
        del self._strikes[peer]
        self._refused[peer] = (now + REFUSED_S, reason)
        self._refused.move_to_end(peer)
        while len(self._refused) > MAX_PEERS:
            self._refused.popitem(last=False)
        return True

    def is_refused(self, peer: str, now: float) -> bool:
        """Whether a peer is refused at this time."""
        entry = self._refused.get(peer)
        if entry is None:
            return False
        if now >= entry[0]:
            del self._refused[peer]
            return False
        return True

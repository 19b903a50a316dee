"""Whom to ask next: tips as peers told them, peers that failed, peers that lied. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

MAX_PEERS: Final = 256
"""Peers remembered; the rest is forgotten oldest first."""
REST_SECONDS: Final = 30.0
"""How long a peer that failed is left alone, if there is another."""


@dataclass(slots=True)
class PeerBook:
    """What is known of the peers.

    `lied` are never asked again; `tips` are claims, worth a question and nothing more.
    """

    tips: dict[str, int] = field(default_factory=dict)
    rested: dict[str, float] = field(default_factory=dict)
    lied: set[str] = field(default_factory=set)

    def told(self, peer: str, height: int) -> None:
        """A peer named its height."""
        if peer not in self.lied:
            self.tips.pop(peer, None)
            self.tips[peer] = height
            while len(self.tips) > MAX_PEERS:
                del self.tips[next(iter(self.tips))]

    def failed(self, peer: str, now: float) -> None:
        """A peer did not answer, or not in time, or not as far as it had claimed."""
        self.tips.pop(peer, None)
        self.rested[peer] = now + REST_SECONDS
        while len(self.rested) > MAX_PEERS:
            del self.rested[next(iter(self.rested))]

    def caught(self, peer: str) -> None:
        """A peer lied."""
        self.tips.pop(peer, None)
        self.lied.add(peer)

    def to_probe(self, peers: list[str], now: float, count: int, turn: int) -> list[str]:
        """Whose tip to ask for: those at rest only when nobody else is there; others in turn."""
        honest = sorted(set(peers) - self.lied)
        awake = [peer for peer in honest if self.rested.get(peer, now) <= now] or honest
        start = turn * count % len(awake) if awake else 0
        return (awake[start:] + awake[:start])[:count]

    def best(self, peers: list[str], height: int) -> str | None:
        """The connected peer with the highest claim above a height; None if there is none."""
        ahead = [(self.tips[p], p) for p in peers if self.tips.get(p, -1) > height]
        return max(ahead)[1] if ahead else None

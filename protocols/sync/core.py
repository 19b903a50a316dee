"""Whom to ask next and for what: peers as they told and failed, and the parts of a snapshot. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

T = TypeVar("T")

MAX_PEERS: Final = 256
"""Peers remembered; the rest is forgotten oldest first."""
REST_SECONDS: Final = 30.0
"""How long a peer that failed is left alone, if there is another; twice as long after each time that it fails again."""
MAX_REST_SECONDS: Final = 240.0
MAX_FAILURES: Final = 8
"""More are not counted."""


@dataclass(slots=True)
class PeerBook:
    """What is known of the peers.

    `lied` are never asked again; `tips` are claims, worth a question and nothing more; `failures` are those since a peer
    last gave what it had claimed to have. Each remembers `MAX_PEERS`.
    """

    tips: dict[str, int] = field(default_factory=dict)
    rested: dict[str, float] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    lied: dict[str, None] = field(default_factory=dict)

    def told(self, peer: str, height: int) -> None:
        """A peer named its height."""
        if peer not in self.lied:
            _remember(self.tips, peer, height)

    def failed(self, peer: str, now: float) -> None:
        """A peer did not answer, or not in time, or not as far as it had claimed."""
        self.tips.pop(peer, None)
        rest = REST_SECONDS * 2.0 ** self.failures.get(peer, 0)
        _remember(self.failures, peer, min(self.failures.get(peer, 0) + 1, MAX_FAILURES))
        _remember(self.rested, peer, now + min(rest, MAX_REST_SECONDS))

    def gave(self, peer: str) -> None:
        """A peer gave what it had claimed to have, in time."""
        self.failures.pop(peer, None)

    def caught(self, peer: str) -> None:
        """A peer lied."""
        self.tips.pop(peer, None)
        _remember(self.lied, peer, None)

    def to_probe(self, peers: list[str], now: float, count: int, turn: int) -> list[str]:
        """Whose tip to ask for: those at rest only when nobody else is there; others in turn."""
        honest = sorted(set(peers) - self.lied.keys())
        awake = [peer for peer in honest if self.rested.get(peer, now) <= now] or honest
        start = turn * count % len(awake) if awake else 0
        return (awake[start:] + awake[:start])[:count]

    def best(self, peers: list[str], height: int) -> str | None:
        """The connected peer that claims to be above a height; of several the one that failed least, then the highest."""
        ahead = [
            (-self.failures.get(p, 0), self.tips[p], p)
            for p in peers
            if self.tips.get(p, -1) > height
        ]
        return max(ahead)[2] if ahead else None


def _remember(book: dict[str, T], peer: str, value: T) -> None:
    """Write a peer into a book, and the oldest out of it."""
    book.pop(peer, None)
    book[peer] = value
    while len(book) > MAX_PEERS:
        del book[next(iter(book))]


def choose(offers: Mapping[str, Sequence[int]], useful: Iterable[int], arriving: int) -> int | None:
    """Which snapshot to take.

    Args:
        offers: The heights that each peer can give.
        useful: Those of them that bring this node on.
        arriving: The height of which a part is here already; -1 for none.

    Returns:
        The one begun, if somebody has it still; else the one that most peers have, of equals the newest.
    """
    wanted = set(useful)
    if arriving in wanted:
        return arriving
    counts = {height: sum(height in held for held in offers.values()) for height in wanted}
    return max(wanted, key=lambda height: (counts[height], height), default=None)


@dataclass(slots=True)
class Piece:
    """A stretch of paths that is not here yet; `low` moves up as ranges come."""

    low: int
    high: int
    askers: int = 0


class Pieces:
    """What of a snapshot is missing, cut so that several peers can be asked at once.

    Args:
        missing: From and to (not with it), in order.
        parts: Into about how many pieces the whole would be cut.
        end: One above the last path.
    """

    def __init__(self, missing: Iterable[tuple[int, int]], parts: int, end: int) -> None:
        step = -(-end // parts)
        self._pieces = [
            Piece(max(low, start), min(high, start + step))
            for low, high in missing
            for start in range(low // step * step, high, step)
        ]

    @property
    def done(self) -> bool:
        """Nothing is missing."""
        return not self._pieces

    def take(self, *, again: bool = False) -> Piece | None:
        """A piece that nobody is asked for; or one that is, which somebody may be slow with.

        The caller gives it back when it has done with it, whatever came of it.
        """
        piece = min(self._pieces, key=lambda one: one.askers, default=None)
        if piece is None or (piece.askers and not again):
            return None
        piece.askers += 1
        return piece

    def arrived(self, low: int, high: int) -> None:
        """A range came and is stored."""
        for piece in self._pieces:
            if low <= piece.low < high:
                piece.low = min(high, piece.high)
        self._pieces = [piece for piece in self._pieces if piece.low < piece.high]

    @staticmethod
    def give_back(piece: Piece) -> None:
        """One asker less."""
        piece.askers -= 1

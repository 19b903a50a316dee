"""Where the copies of each piece are, and how long it takes until all are there: at first, and after one was lost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from storage.cid import Cid
    from swarm.ledger.keeping import Deal
    from swarm.simulator.pieces import Content


@dataclass(slots=True)
class Watched:
    """One piece of an open deal.

    Attributes:
        root: Its name.
        wanted: Copies.
        since: When it was posted, or lost a copy; None while all are there.
        is_placed: Whether all were there once.
        is_gone: Whether none was left when it was looked at last.
    """

    root: Cid
    wanted: int
    since: int | None
    is_placed: bool = False
    is_gone: bool = False


class Copies:
    """The pieces of all deals; times are virtual milliseconds."""

    def __init__(self) -> None:
        self.contents: dict[Cid, Content] = {}
        """Of every deal that was or will be posted."""
        self.placed: list[int] = []
        """From the post of a deal to the last copy of a piece."""
        self.healed: list[int] = []
        """From the loss of a copy to the last that was made anew."""
        self.gone = 0
        """How often no copy of a piece was left."""
        self._watched: dict[tuple[bytes, int], Watched] = {}

    def follow(self, deals: list[Deal], now: int) -> None:
        """Watch the pieces of open deals, and no others."""
        open_ = {(one.id, at): (one, at) for one in deals for at in range(len(one.pieces))}
        for name in self._watched.keys() - open_.keys():
            del self._watched[name]
        for name, (deal, at) in open_.items():
            if name not in self._watched:
                self._watched[name] = Watched(deal.pieces[at].root, deal.replicas, now)

    def count(self, now: int, holders: Callable[[Cid], int]) -> None:
        """Look at all pieces.

        Args:
            now: The time.
            holders: How many of those that can be reached hold all of a root.
        """
        for one in self._watched.values():
            here = holders(one.root)
            if here >= one.wanted and one.since is not None:
                (self.healed if one.is_placed else self.placed).append(now - one.since)
                one.since, one.is_placed = None, True
            elif here < one.wanted and one.since is None:
                one.since = now
            is_gone = one.is_placed and not here
            self.gone += is_gone and not one.is_gone
            one.is_gone = is_gone

    def is_placed(self, root: Cid) -> bool:
        """Whether its owner has given it away."""
        return any(one.is_placed for one in self._watched.values() if one.root == root)

    def content(self, deal: bytes, at: int) -> Content | None:
        """A piece of an open deal."""
        one = self._watched.get((deal, at))
        return self.contents[one.root] if one is not None else None

    @property
    def hurt(self) -> int:
        """Pieces that lack a copy now and had all of them once."""
        return sum(one.is_placed and one.since is not None for one in self._watched.values())

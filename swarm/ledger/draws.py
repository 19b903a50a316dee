"""What the beacon draws on the ledger: auditors and seats. Pure, and the same for every node.

    auditor i of K       = the validator at SHA-256("swarm/auditor/1" || 0 || seed2 || K || u32 i) mod W, by weight
    try t for a seat     = the keeper at SHA-256("swarm/duty/1" || 0 || beacon || deal || u32 piece || u32 seat || u32 t)
                           mod the free slots of all, by free slots

What is asked of a keeper (leaves, whole slots, chunks of its pieces) is drawn from the same seeds in `protocols.audit.draw`.
Integers are big endian. 256 bits over less than 2^90: the bias of a remainder is nil.

A keeper's auditors are drawn by weight, and counted as often as they are drawn, so that many small validators do not outvote
one that holds more than all of them. There are at least `auditors` draws, and more of them until so many validators were
drawn, or all that there are: so that the word of one, who may be cut off or mistaken, is not the word of all.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from swarm.ledger.holdings import EpochSet

DRAWS: Final = 8
"""Draws of an auditor for each that is wanted, at most: one that holds nearly all weight stays alone."""
_AUDITOR_TAG: Final = b"swarm/auditor/1\x00"
_SEAT_TAG: Final = b"swarm/duty/1\x00"


def seat_draw(beacon: bytes, deal: bytes, piece: int, seat: int, at: int, total: int) -> int:
    """A number below `total` for one try to fill a seat."""
    body = b"".join(one.to_bytes(4, "big") for one in (piece, seat, at))
    return _number(_SEAT_TAG + beacon + deal + body) % total


class Panel:
    """The auditors of all keepers of one audit."""

    def __init__(self, seed2: bytes, members: EpochSet, count: int) -> None:
        """Prepare to draw.

        Args:
            seed2: Of the audit.
            members: The validators of its epoch.
            count: `auditors` of the network: so many different ones a keeper, where there are.
        """
        self.count = count
        self._start = _AUDITOR_TAG + seed2
        self._keys = [one.public_key for one in members.validators]
        self._ends = list(accumulate(one.weight for one in members.validators))
        self._at = {key: at for at, key in enumerate(self._keys)}
        self._drawn: dict[bytes, dict[bytes, int]] = {}

    def of(self, keeper: bytes) -> dict[bytes, int]:
        """A keeper's auditors, and how often each was drawn: so often its word counts.

        Nobody audits itself, unless it is the only validator. Drawn once: a settlement asks for each piece that is named.
        """
        if keeper not in self._drawn:
            self._drawn[keeper] = self._draw(keeper)
        return self._drawn[keeper]

    def _draw(self, keeper: bytes) -> dict[bytes, int]:
        before, own = 0, 0
        at = self._at.get(keeper)
        if at is not None and len(self._keys) > 1:
            before = self._ends[at - 1] if at else 0
            own = self._ends[at] - before
        total = self._ends[-1] - own
        wanted = min(self.count, len(self._keys) - bool(own))
        votes: dict[bytes, int] = {}
        for draw in range(DRAWS * self.count):
            if draw >= self.count and len(votes) >= wanted:
                break
            place = _number(self._start + keeper + draw.to_bytes(4, "big")) % total
            if own and place >= before:
                place += own
            key = self._keys[bisect_right(self._ends, place)]
            votes[key] = votes.get(key, 0) + 1
        return votes


def auditors_of(seed2: bytes, keeper: bytes, members: EpochSet, count: int) -> dict[bytes, int]:
    """One keeper's auditors, and how often each was drawn; `Panel` is quicker for many keepers."""
    return Panel(seed2, members, count).of(keeper)


def audited_by(
    validator: bytes, seed2: bytes, keepers: Iterable[bytes], members: EpochSet, count: int
) -> list[bytes]:
    """The keepers that a validator was drawn to audit, in the order given."""
    panel = Panel(seed2, members, count)
    return [keeper for keeper in keepers if validator in panel.of(keeper)]


def _number(body: bytes) -> int:
    return int.from_bytes(hashlib.sha256(body).digest(), "big")

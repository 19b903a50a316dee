"""What the beacon draws for an audit: leaves, auditors, slots, pieces, seats. Pure, and the same for every node.

    leaf i of keeper K   = SHA-256("swarm/audit-leaf/1" || 0 || seed || K || u32 i) mod (slots * 256)
    auditor i of K       = the validator at SHA-256("swarm/auditor/1" || 0 || seed2 || K || u32 i) mod W, by weight
    whole slot i of K    = SHA-256("swarm/audit-slot/1" || 0 || seed2 || K || auditor || u32 i) mod slots
    challenge of a piece = SHA-256("swarm/audit-held/1" || 0 || seed2 || deal || u32 piece || K)
    try t for a seat     = the keeper at SHA-256("swarm/duty/1" || 0 || beacon || deal || u32 piece || u32 seat || u32 t)
                           mod the free slots of all, by free slots

Integers are big endian. 256 bits over less than 2^90: the bias of a remainder is nil.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from swarm.ledger.keeping import SLOT_LEAVES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from swarm.ledger.holdings import EpochSet

_LEAF_TAG: Final = b"swarm/audit-leaf/1\x00"
_AUDITOR_TAG: Final = b"swarm/auditor/1\x00"
_SLOT_TAG: Final = b"swarm/audit-slot/1\x00"
_HELD_TAG: Final = b"swarm/audit-held/1\x00"
_SEAT_TAG: Final = b"swarm/duty/1\x00"


def drawn_leaves(seed: bytes, keeper: bytes, slots: int, count: int) -> list[int]:
    """The leaves that a keeper answers with, in order; one may be drawn twice.

    Args:
        seed: Of the audit.
        keeper: Its public key, so that no two keepers answer with the same leaves.
        slots: That it committed to; not 0.
        count: `audit_leaves` of the network.

    Returns:
        Numbers of leaves over all slots: leaf n is leaf `n % 256` of slot `n // 256`.
    """
    leaves = slots * SLOT_LEAVES
    start = _LEAF_TAG + seed + keeper
    return [_number(start + at.to_bytes(4, "big")) % leaves for at in range(count)]


def held_challenge(seed2: bytes, deal: bytes, piece: int, keeper: bytes) -> bytes:
    """32 bytes that draw the chunk of a piece that a keeper has to show: the seed of `storage.sampling`."""
    body = seed2 + deal + piece.to_bytes(4, "big") + keeper
    return hashlib.sha256(_HELD_TAG + body).digest()


def drawn_slots(seed2: bytes, keeper: bytes, auditor: bytes, slots: int, count: int) -> list[int]:
    """The slots that one auditor asks for whole, to unseal them; one may be drawn twice.

    Leaves show that bytes stand under the committed root, and nothing of what they are: only a whole slot shows that
    it is sealed with this keeper's key and holds zeros or its chunk.

    Args:
        seed2: Of the audit.
        keeper: Whose slots.
        auditor: Who asks: each has others.
        slots: That the keeper committed to; not 0.
        count: How many are asked for.
    """
    start = _SLOT_TAG + seed2 + keeper + auditor
    return [_number(start + at.to_bytes(4, "big")) % slots for at in range(count)]


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
            count: `auditors` of the network: draws a keeper.
        """
        self.count = count
        self._start = _AUDITOR_TAG + seed2
        self._keys = [one.public_key for one in members.validators]
        self._ends = list(accumulate(one.weight for one in members.validators))
        self._at = {key: at for at, key in enumerate(self._keys)}

    def of(self, keeper: bytes) -> dict[bytes, int]:
        """A keeper's auditors, and how often each was drawn: so often its word counts.

        Nobody audits itself, unless it is the only validator.
        """
        before, own = 0, 0
        at = self._at.get(keeper)
        if at is not None and len(self._keys) > 1:
            before = self._ends[at - 1] if at else 0
            own = self._ends[at] - before
        total = self._ends[-1] - own
        votes: dict[bytes, int] = {}
        for draw in range(self.count):
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

"""Into how many pieces content is cut: as many as there are keepers to hold one each, fourteen at most; pure.

No keeper gets two pieces of one content, so pieces beyond the keepers that have room for one would lie nowhere.
Two pieces in seven are spare, rounded up, and two at least: 10+4, 7+3, 5+2, 2+2.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from storage.cid import Cid
from storage.erasure import MAX_PIECES
from swarm.errors import RefusedError, UsageError
from swarm.ledger.keeping import Piece

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swarm.ledger.state import LedgerView

MOST_PIECES: Final = 14
"""More of them make content no safer in practice, and slower to put together."""
LEAST_PIECES: Final = 4
"""Fewer with two to spare take more room than whole copies do."""
LEAST_SPARE: Final = 2
"""One may be lost while another is being made again."""
SPARE_PARTS: Final = (2, 7)


@dataclass(frozen=True, slots=True)
class Coding:
    """How content is cut.

    Attributes:
        needed: Pieces that give it back, whichever they are.
        spare: Pieces beside those.

    Raises:
        UsageError: It cannot be cut like that.
    """

    needed: int
    spare: int

    def __post_init__(self) -> None:
        """Check that there are so many pieces."""
        if self.needed < 1 or self.spare < 1 or self.pieces > MAX_PIECES:
            message = (
                f"{self.needed}+{self.spare} pieces, where 1+1 to {MAX_PIECES} in all can be made"
            )
            raise UsageError(message)

    @property
    def pieces(self) -> int:
        """All of them."""
        return self.needed + self.spare

    def cut(self, size: int) -> list[Piece]:
        """Pieces of about the sizes that coding so many bytes will give; without names."""
        return [Piece(Cid(b""), max(1, -(-size // self.needed)))] * self.pieces


def coding_of(pieces: int) -> Coding:
    """How so many pieces are divided into needed and spare ones."""
    part, whole = SPARE_PARTS
    spare = max(LEAST_SPARE, -(-pieces * part // whole))
    return Coding(pieces - spare, spare)


def choose(size: int, free: Sequence[int]) -> Coding:
    """The most pieces for which there is a keeper each.

    Args:
        size: Of the content, in bytes.
        free: Slots that each keeper in good standing has free.

    Raises:
        RefusedError: Too few keepers have room for a piece.
    """
    for pieces in range(min(MOST_PIECES, len(free)), LEAST_PIECES - 1, -1):
        coding = coding_of(pieces)
        slots = coding.cut(size)[0].slots + 1  # its manifests take some bytes more
        if sum(one >= slots for one in free) >= pieces:
            return coding
    slots = coding_of(LEAST_PIECES).cut(size)[0].slots + 1
    room = sum(one >= slots for one in free)
    message = f"{room} keepers have room for a piece of it, where {LEAST_PIECES} have to"
    hint = "keep it whole, without --erasure; or say into how many pieces, with --erasure K+M"
    raise RefusedError(message, hint)


def free_slots(view: LedgerView) -> list[int]:
    """Slots of each keeper in good standing that no duty fills, as the ledger counts them."""
    taken: Counter[bytes] = Counter()
    for key, duty in view.duties():
        taken[key] += Piece(duty.root, duty.size).slots
    return [max(0, one.proven - taken[one.public_key]) for one in view.keepers() if one.in_order]

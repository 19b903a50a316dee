"""What one peer may have of this node's time and line: blocks that it asks for, and votes it takes back. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from protocols.consensus.blocks import MAX_BLOCK_BYTES
from protocols.consensus.evidence import decode_evidence
from protocols.consensus.messages import Cast, Proposal

if TYPE_CHECKING:
    from protocols.consensus.core import Simplex
    from protocols.consensus.messages import Message

GIVE_BURST_BYTES: Final = 8 * MAX_BLOCK_BYTES
"""Blocks that a peer is given at once; who lacks more in one epoch than that is helped by others and by sync too."""
GIVE_BYTES_PER_INTERVAL: Final = 2 * MAX_BLOCK_BYTES
"""And then in each block interval: twice what a chain of full blocks grows by, so whoever lags catches up."""


class Allowance:
    """Bytes of blocks that each peer is given over time; a new stream brings no new allowance.

    Args:
        interval_ms: Between two blocks.
    """

    def __init__(self, interval_ms: int) -> None:
        self._bytes_per_ms = GIVE_BYTES_PER_INTERVAL / max(1, interval_ms)
        self._left: dict[bytes, tuple[float, int]] = {}

    def take(self, peer: bytes, size: int, tick_ms: int) -> bool:
        """Whether a peer is given so many bytes now; if so, they are counted."""
        left, at = self._left.get(peer, (float(GIVE_BURST_BYTES), tick_ms))
        left = min(float(GIVE_BURST_BYTES), left + (tick_ms - at) * self._bytes_per_ms)
        is_given = size <= left
        self._left[peer] = (left - size if is_given else left, tick_ms)
        return is_given

    def forget(self, peer: bytes) -> None:
        """A peer is no validator of these epochs any more."""
        self._left.pop(peer, None)


class Accused:
    """Who was accused in which epoch: further second votes of theirs say nothing, and cost a signature check each."""

    def __init__(self) -> None:
        self._known: set[tuple[int, bytes]] = set()

    def note(self, evidence: bytes) -> None:
        """Somebody was accused, by evidence that this node's core made."""
        vote, _ = decode_evidence(evidence)
        self._known.add((vote.epoch, vote.voter))

    def forget(self, before: int) -> None:
        """Epochs before this one are not spoken of any more."""
        self._known = {(epoch, key) for epoch, key in self._known if epoch >= before}

    def is_spent(self, message: Message, core: Simplex) -> bool:
        """Whether a message brings only another vote where the first one of that kind is known, of an accused.

        A core would check its signature and count nothing: the first vote stands, and there is evidence already.
        A proposal whose block is missed is no such message.
        """
        match message:
            case Cast(vote):
                pass
            case Proposal(vote=vote, block=block) if block.id not in core.tree.missing:
                pass
            case _:
                return False
        index, view = core.committee.index.get(vote.voter), core.views.get(vote.view)
        if index is None or view is None or (vote.epoch, vote.voter) not in self._known:
            return False
        first = view.votes[vote.kind].get(index)
        return first is not None and first.block_id != vote.block_id

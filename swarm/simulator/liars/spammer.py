"""A validator that fills the others' memories with votes for views that are far away."""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocols.consensus.messages import Cast, Kind, Vote
from swarm.simulator.liars.behaviour import Behaviour

if TYPE_CHECKING:
    from collections.abc import Iterable

    from protocols.consensus.messages import Message
    from swarm.simulator.node import Node

FARTHEST = 1_000_000
EACH = 2
"""Votes beside each message."""


class FarViewSpammer(Behaviour):
    """Signed, of every kind, for blocks that are not: some near enough to be kept for a while, most not.

    Where one of these views comes, its votes of then contradict those of before.
    """

    contradicts = True

    def outgoing(self, node: Node, place: int, message: Message) -> Iterable[tuple[int, Message]]:
        """The message, and votes."""
        del place
        yield 0, message
        replica = node.replica
        if replica is None:
            return
        core = replica.core
        for at in range(EACH):
            ahead = self.chance.between(1, 24) if at == 0 else self.chance.between(17, FARTHEST)
            kind = self.chance.pick((Kind.NOTARIZE, Kind.FINALIZE))
            block_id = self.chance.bytes(32)
            vote = Vote.sign(
                node.signer, core.chain_id, kind, core.epoch, core.view + ahead, block_id
            )
            yield 0, Cast(vote)

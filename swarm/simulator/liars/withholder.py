"""A validator that keeps what it should pass on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocols.consensus.messages import Certify, Give, Proposal
from swarm.simulator.liars.behaviour import Behaviour

if TYPE_CHECKING:
    from collections.abc import Iterable

    from protocols.consensus.messages import Message
    from swarm.simulator.node import Node


class Withholder(Behaviour):
    """Shows its blocks to a bare quorum, gives no block to who asks, no certificate, and nothing to who syncs.

    Those that did not see a block find its certificate, and have to get the block from each other.
    """

    def outgoing(self, node: Node, place: int, message: Message) -> Iterable[tuple[int, Message]]:
        """Votes to all; its proposals to a bare quorum with it."""
        count = node.world.scenario.validators
        hidden = (place - node.place) % count > 2 * count // 3
        if isinstance(message, (Give, Certify)) or (isinstance(message, Proposal) and hidden):
            return ()
        return ((0, message),)

    def serves(self) -> bool:
        """Nothing."""
        return False

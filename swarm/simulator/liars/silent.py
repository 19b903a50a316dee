"""Validators that say less than they should."""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocols.consensus.messages import Proposal
from swarm.simulator.liars.behaviour import Behaviour

if TYPE_CHECKING:
    from collections.abc import Iterable

    from protocols.consensus.messages import Message
    from swarm.simulator.node import Node


class Silent(Behaviour):
    """Votes, and never proposes: its views have to be nullified."""

    def outgoing(self, node: Node, place: int, message: Message) -> Iterable[tuple[int, Message]]:
        """All but proposals."""
        del node, place
        return () if isinstance(message, Proposal) else ((0, message),)


class Mute(Behaviour):
    """Says nothing at all; with a third of the weight or more of these nothing becomes final."""

    def outgoing(self, node: Node, place: int, message: Message) -> Iterable[tuple[int, Message]]:
        """Nothing."""
        del node, place, message
        return ()

    def serves(self) -> bool:
        """Nor that."""
        return False

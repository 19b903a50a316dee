"""A validator that says everything, too late."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swarm.simulator.liars.behaviour import Behaviour

if TYPE_CHECKING:
    from collections.abc import Iterable

    from protocols.consensus.messages import Message
    from swarm.simulator.node import Node


class Slow(Behaviour):
    """Each message leaves up to 2D late, half of them just about when the others give up waiting for its proposals."""

    def outgoing(self, node: Node, place: int, message: Message) -> Iterable[tuple[int, Message]]:
        """The message, later."""
        del place
        delta = node.world.scenario.consensus.delta_ms
        return ((self.chance.between(delta, 2 * delta), message),)

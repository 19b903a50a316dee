"""One key on two machines: each is honest, and together they contradict themselves.

Source: Bano and others, "Twins: BFT Systems Made Robust" (2020).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from swarm.simulator.liars.behaviour import Behaviour

if TYPE_CHECKING:
    from swarm.simulator.node import Node


class Twin(Behaviour):
    """Each of the two hears one half of the others; of messages, a share of `strength` passes all the same."""

    contradicts = True
    doubles = True

    def meets(self, node: Node, other: Node) -> bool:
        """Twins by their side; the others by half."""
        if other.behaviour.doubles:
            return node.side == other.side
        if self.chance.happens(self.strength):
            return True
        return other.half == node.side

"""A keeper that lost a part of what it lends, and goes on as if it had not."""

from __future__ import annotations

from swarm.simulator.chance import MILLION
from swarm.simulator.liars.behaviour import Behaviour


class Dropper(Behaviour):
    """Its slots of one share, `strength`, are gone; where one is drawn, it shows zeros."""

    role = "keeper"

    def loses(self, slots: int) -> frozenset[int]:
        """At least one."""
        count = max(1, self.strength * slots // MILLION)
        return frozenset(self.chance.sample(range(slots), count))

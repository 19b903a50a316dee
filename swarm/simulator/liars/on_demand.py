"""A keeper that keeps nothing and seals what is drawn, when it is drawn."""

from __future__ import annotations

from swarm.simulator.liars.behaviour import Behaviour


class OnDemand(Behaviour):
    """Each leaf tells where the next one is, so it seals one slot after the other, and the answer comes too late."""

    role = "keeper"
    seals_on_demand = True

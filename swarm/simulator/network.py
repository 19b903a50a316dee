"""The wires: when a message arrives, how often, and whether at all; drawn from one stream, in the order of sending."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from swarm.simulator.chance import Chance
    from swarm.simulator.scenario import Scenario

DUPLICATE_AFTER_MS = 200
"""The second copy of a message comes up to so much after it was sent anew."""


class Network:
    """Links between the validators, by place; order is kept by none of them.

    Args:
        scenario: Latencies, losses, partitions and when they end.
        chance: The stream.
    """

    def __init__(self, scenario: Scenario, chance: Chance) -> None:
        links = scenario.links
        self._chance = chance
        self._latency = links.latency_ms
        self._loss = links.loss
        self._duplicates = links.duplicates
        self._calm_from = scenario.chaos_ms
        self._cuts = [(one, frozenset(one.nodes)) for one in scenario.partitions]
        self._same = links.latency_ms[0] == links.latency_ms[3]

    def connected(self, source: int, target: int, now: int) -> bool:
        """Whether any message passes from one to the other."""
        if now >= self._calm_from:
            return True
        for cut, inside in self._cuts:
            if cut.begin_ms <= now < cut.end_ms:
                leaves, enters = source in inside, target in inside
                if leaves != enters and (leaves or not cut.one_way):
                    return False
        return True

    def delays(self, source: int, target: int, now: int) -> tuple[int, ...]:
        """How long each copy of a message that is sent now takes; none is lost for none."""
        if now >= self._calm_from:
            return (self.delay(),)
        if self._cuts and not self.connected(source, target, now):
            return ()
        copies = [self.delay()]
        if self._chance.happens(self._duplicates):
            copies.append(self.delay() + self._chance.below(DUPLICATE_AFTER_MS))
        return tuple(one for one in copies if not self._chance.happens(self._loss))

    def delay(self) -> int:
        """One latency."""
        return self._latency[0] if self._same else self._chance.quantiles(*self._latency)

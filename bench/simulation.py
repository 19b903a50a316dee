"""Consensus in virtual time: block interval and finality in link delays, and what a simulated event costs here.

    python -m bench.simulation

Links of 50 ms without jitter, no fault, no ledger: what the protocol itself takes.
"""

from __future__ import annotations

import time

from bench.machine import describe
from swarm.simulator.measures import quantile
from swarm.simulator.scenario import Consensus, Links, Scenario
from swarm.simulator.simulation import Simulation

DELAY_MS = 50
BLOCKS = 12


def measure(validators: int) -> None:
    """Run one size and print a line."""
    scenario = Scenario(
        validators=validators,
        chaos_ms=2 * DELAY_MS * BLOCKS,
        calm_ms=0,
        consensus=Consensus(500, 0, 1_000),
        links=Links((DELAY_MS,) * 4),
    )
    simulation = Simulation(scenario, 1)
    began = time.process_time()
    simulation.run()
    took = time.process_time() - began
    simulation.check()
    measures = simulation.measures
    interval = (quantile(measures.intervals(), 50) or 0) / DELAY_MS
    most = max(measures.intervals()) / DELAY_MS
    finality = [late for _, late in measures.finality]
    median, worst = (quantile(finality, 50) or 0) / DELAY_MS, max(finality) / DELAY_MS
    events = simulation.schedule.happened
    print(
        f"n = {validators:>3}: a block every {interval:.1f} link delays (at most {most:.1f}),"
        f" final after {median:.1f} (at most {worst:.1f}); {events:,} events,"
        f" {1e6 * took / events:.0f} us each, {took / max(simulation.heights):.2f} s a block"
    )


def main() -> None:
    """Measure and print."""
    print(describe())
    for validators in (4, 7, 31, 100):
        measure(validators)


if __name__ == "__main__":
    main()

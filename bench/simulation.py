"""Consensus in virtual time: block interval and finality in link delays, and what a simulated event costs here.

    python -m bench.simulation

Links of 50 ms without jitter, no fault, no ledger: what the protocol itself takes. Last a day of audits, with the ledger:
what it costs to simulate, and how often lost slots are found beside what the formula gives.
"""

from __future__ import annotations

import time

from bench.machine import describe
from swarm.simulator import report, scenario, storage_report
from swarm.simulator.measures import quantile
from swarm.simulator.scenario import Consensus, Links, Scenario
from swarm.simulator.simulation import Simulation

DELAY_MS = 50
BLOCKS = 12
DAYS = 3


def measure(validators: int) -> None:
    """Run one size and print a line."""
    plan = Scenario(
        validators=validators,
        chaos_ms=2 * DELAY_MS * BLOCKS,
        calm_ms=0,
        consensus=Consensus(500, 0, 1_000),
        links=Links((DELAY_MS,) * 4),
    )
    simulation = Simulation(plan, 1)
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


def audits() -> None:
    """Run days of audits and print a line."""
    plan = scenario.load("dropper")
    began = time.process_time()
    found = []
    for seed in range(DAYS):
        simulation = Simulation(plan, seed)
        simulation.run()
        simulation.check()
        found.append(report.summary(simulation))
    took = (time.process_time() - began) / DAYS
    print(
        f"a day of audits of {plan.lenders} keepers: {took:.1f} s; {storage_report.together(found)}"
    )


def main() -> None:
    """Measure and print."""
    print(describe())
    for validators in (4, 7, 31, 100):
        measure(validators)
    audits()


if __name__ == "__main__":
    main()

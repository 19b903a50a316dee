"""One seed, one trace: twice, in another process, on every machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from swarm.simulator import scenario as scenarios
from swarm.simulator.chance import Chance
from swarm.simulator.simulation import Simulation
from tests.simulation.plans import drawn

VECTORS = json.loads((Path(__file__).parents[1] / "vectors/simulation.json").read_text())
TOWN = """
title = "everything at once"
chaos_s = 12
calm_s = 2
[links]
latency_ms = [5, 20, 60, 100]
loss = 0.05
[consensus]
delta_ms = 200
block_interval_ms = 200
epoch_length = 10
[churn]
per_minute = 10
[[liars]]
kind = "colluder"
[ledger]
transfers_per_s = 5
[[hardware]]
workers = 2
steps_per_s = 100
[training]
rounds = 3
"""
PROGRAM = """
import sys
from swarm.simulator.scenario import parse
from swarm.simulator.simulation import Simulation
simulation = Simulation(parse(sys.stdin.read()), 5)
simulation.run()
print(simulation.trace.digest)
"""


def trace(scenario, seed):
    simulation = Simulation(scenario, seed)
    simulation.run()
    return simulation.trace.digest


@pytest.mark.slow
def test_equal_seeds_give_equal_traces_and_others_do_not():
    found = [trace(drawn(3), seed) for seed in (42, 42, 43)]
    assert found[0] == found[1] != found[2]


@pytest.mark.slow
@pytest.mark.parametrize("vector", VECTORS, ids=[one["name"] for one in VECTORS])
def test_the_trace_is_the_pinned_one(vector):
    plan = scenarios.parse("\n".join(vector["scenario"]))
    assert trace(plan, vector["seed"]) == vector["trace"]


@pytest.mark.slow
def test_a_run_with_a_ledger_and_training_does_not_hang_on_the_order_of_hashes():
    found = set()
    for hashes in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            input=TOWN,
            env={**os.environ, "PYTHONHASHSEED": hashes},
            capture_output=True,
            text=True,
            check=True,
        )
        found.add(done.stdout)
    assert found == {trace(scenarios.parse(TOWN), 5) + "\n"}


def test_draws_are_the_pinned_ones():
    chance = Chance("pinned", 1)
    assert [chance.below(1000) for _ in range(5)] == VECTORS[0]["draws"]["below"]
    assert [chance.normal(100) for _ in range(5)] == VECTORS[0]["draws"]["normal"]
    assert chance.bytes(4).hex() == VECTORS[0]["draws"]["bytes"]

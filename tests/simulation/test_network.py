"""How fast: with no fault, after a partition, and at what cost."""

from __future__ import annotations

import pytest

from swarm.simulator.memo import remembered
from swarm.simulator.scenario import Consensus, Links, Partition, Scenario
from swarm.simulator.simulation import Simulation

DELAY_MS = 50


@pytest.fixture(autouse=True)
def _fast():
    with remembered():
        yield


def test_without_a_fault_blocks_come_every_two_delays_and_are_final_after_three():
    scenario = Scenario(
        validators=7,
        chaos_ms=2_000,
        calm_ms=0,
        consensus=Consensus(500, 0, 1_000),
        links=Links((DELAY_MS,) * 4),
    )
    simulation = Simulation(scenario, 1)
    simulation.run()
    simulation.check()
    assert set(simulation.measures.intervals()) == {2 * DELAY_MS}
    assert {took for _, took in simulation.measures.finality} == {3 * DELAY_MS}
    assert not simulation.measures.blamed


@pytest.mark.slow
@pytest.mark.parametrize("validators", [4, 7])
def test_after_a_partition_a_block_is_final_within_two_leader_cycles(validators):
    end = 2_500
    for seed in range(3):
        scenario = Scenario(
            validators=validators,
            chaos_ms=end,
            calm_ms=1_500,
            consensus=Consensus(100, 60, 1_000),
            links=Links((2, 10, 20, 20)),
            partitions=(Partition(500, end, tuple(range(validators // 2))),),
        )
        simulation = Simulation(scenario, seed)
        simulation.run_until(end)
        height = max(simulation.heights)
        view = max(node.replica.core.view for node in simulation.nodes)
        simulation.run_until(simulation.length_ms)
        simulation.check()
        assert min(simulation.heights) > height, seed
        assert simulation.nodes[0].chain[height][0].view <= view + 2 * validators


def test_a_partition_without_a_quorum_on_either_side_makes_nothing_final():
    scenario = Scenario(
        validators=4,
        chaos_ms=4_000,
        calm_ms=0,
        consensus=Consensus(100, 0, 1_000),
        links=Links((10, 10, 10, 10)),
        partitions=(Partition(1_000, 4_000, (0, 1)),),
    )
    simulation = Simulation(scenario, 1)
    simulation.run_until(1_100)  # what was on its way has arrived
    before = max(simulation.heights)
    simulation.run_until(4_000)
    assert max(simulation.heights) <= before + 1


@pytest.mark.slow
def test_duplicates_and_reordering_change_nothing_that_is_agreed():
    scenario = Scenario(
        validators=4,
        chaos_ms=2_000,
        calm_ms=500,
        consensus=Consensus(100, 60, 1_000),
        links=Links((1, 10, 40, 80), duplicates=1_000_000),
    )
    simulation = Simulation(scenario, 1)
    simulation.run()
    simulation.check()
    assert min(simulation.heights) > 20

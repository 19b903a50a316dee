"""Each liar among seven: nothing forks, nobody honest is accused, the network goes on, and who contradicts itself is found."""

from __future__ import annotations

import pytest

from protocols.consensus.views import VIEWS_AHEAD, VIEWS_BEHIND
from swarm.simulator.liars import KINDS
from swarm.simulator.memo import remembered
from swarm.simulator.scenario import Consensus, Liars, Links, Scenario
from swarm.simulator.simulation import Simulation
from tests.simulation.plans import play

PLACES = (5, 6)
"""Two of seven: as many as may lie."""

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _fast():
    with remembered():
        yield


def among_seven(kind, **links):
    return Scenario(
        title=kind,
        validators=7,
        chaos_ms=1_500,
        calm_ms=1_500,
        consensus=Consensus(100, 100, 10),
        links=Links((2, 10, 20, 30), **links),
        liars=(Liars(kind, nodes=PLACES, strength=1_000_000),),
    )


def accused_places(simulation):
    return {simulation.place_of[key] for key in simulation.measures.accused}


ON_THE_LEDGER = ("score_liar", "false_auditor", "silent_auditor")
"""Validators that lie about nothing that consensus sees."""
CONSENSUS = [
    name for name, kind in KINDS.items() if kind.role == "validator" and name not in ON_THE_LEDGER
]


@pytest.mark.parametrize("kind", CONSENSUS)
def test_two_liars_of_seven_neither_fork_nor_stop_the_chain_nor_have_the_honest_accused(kind):
    for seed in range(2):
        simulation = play(among_seven(kind, loss=50_000), seed)
        assert accused_places(simulation) <= (set(PLACES) if KINDS[kind].contradicts else set())


@pytest.mark.parametrize("kind", ["equivocator", "colluder", "twin", "spammer"])
def test_every_one_that_contradicts_itself_is_found_on_a_calm_network(kind):
    simulation = play(among_seven(kind), 1)
    assert accused_places(simulation) == set(PLACES)


def test_no_block_with_a_wrong_root_becomes_final():
    simulation = play(among_seven("wrong_root"), 1)
    leaders = {simulation.place_of[block.leader] for block, _ in simulation.nodes[0].chain}
    assert leaders == {0, 1, 2, 3, 4}


def test_a_silent_leader_loses_its_views_and_nothing_else():
    simulation = play(among_seven("silent"), 1)
    leaders = {simulation.place_of[block.leader] for block, _ in simulation.nodes[0].chain}
    assert leaders == {0, 1, 2, 3, 4}
    assert {place for place in PLACES if simulation.nodes[place].height} == set(PLACES)


def test_what_is_held_is_bounded_under_votes_for_views_that_never_come():
    simulation = play(among_seven("spammer"), 1)
    for node in simulation.honest:
        views = node.replica.core.views
        assert len(views) <= VIEWS_AHEAD + 2 * VIEWS_BEHIND
        assert max(views) <= node.replica.core.view + VIEWS_AHEAD


def test_blocks_that_a_withholder_shows_to_some_reach_the_others():
    simulation = play(among_seven("withholder"), 1)
    made = [
        block
        for block, _ in simulation.nodes[0].chain
        if simulation.place_of[block.leader] in PLACES
    ]
    assert made
    assert simulation.measures.messages["Ask"]
    assert simulation.measures.messages["Give"]


def test_a_third_that_says_nothing_stops_the_chain_and_does_not_fork_it():
    scenario = Scenario(
        validators=6,
        chaos_ms=3_000,
        calm_ms=0,
        consensus=Consensus(100, 50, 10),
        links=Links((2, 10, 20, 30)),
        liars=(Liars("mute", nodes=(4, 5)),),
    )
    simulation = Simulation(scenario, 1)
    simulation.run()
    simulation.check()
    assert max(simulation.heights) == 0

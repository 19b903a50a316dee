"""The shipped core under loss, partitions, crashes and liars; every failure names its seed.

`python -m tests.simulation.soak SEED` plays one seed again.
"""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest

from protocols.consensus import core, replica, views
from protocols.consensus.evidence import verify_evidence
from protocols.consensus.messages import MAX_NULLIFICATIONS
from swarm.ledger.errors import LedgerError
from swarm.simulator.errors import SimulationError
from swarm.simulator.memo import remembered
from swarm.simulator.plain import CHAIN
from swarm.simulator.scenario import Consensus, Crash, Liars, Links, Partition, Scenario
from swarm.simulator.simulation import Simulation
from tests.simulation.plans import CONSENSUS, crash_often, drawn, play

SEEDS = 500
BATCH = 20


@pytest.fixture(autouse=True)
def _fast():
    with remembered():
        yield


def test_a_node_that_nobody_can_bring_over_the_end_of_an_epoch_asks_for_it():
    """The others had restarted behind the boundary, and had forgotten the epoch that it was left in."""
    play(drawn(2562), 2562)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, SEEDS, BATCH))
def test_with_up_to_f_liars_no_seed_forks_accuses_the_honest_or_stays_halted(first):
    for seed in range(first, first + BATCH):
        play(drawn(seed), seed)


TWINS = Scenario(
    title="twins",
    chaos_ms=3_000,
    calm_ms=0,
    consensus=CONSENSUS,
    links=Links((2, 10, 20, 20)),
    liars=(Liars("twin", nodes=(0, 1)),),
)


@pytest.mark.slow
def test_above_f_the_chain_forks_and_the_evidence_weighs_more_than_a_third():
    forked = 0
    for seed in range(8):  # the two halves of the honest hear each other, so that it is a race
        simulation = Simulation(TWINS, seed)
        simulation.run()
        if not simulation.measures.forks:
            continue
        forked += 1
        with pytest.raises(SimulationError, match="two blocks are final"):
            simulation.check()
        found = simulation.audit()
        honest = {node.signer.public_key for node in simulation.honest}
        assert not honest & found.keys()
        assert all(verify_evidence(proof, CHAIN) == key for key, proof in found.items())
        accused = sum(TWINS.weight(simulation.place_of[key]) for key in found)
        assert 3 * accused > sum(TWINS.weight(place) for place in range(4))
    assert forked >= 3


@pytest.mark.slow
def test_one_who_was_away_for_hundreds_of_views_that_came_to_nothing_votes_again_when_it_is_needed():
    """No proposal shows so many, and without its vote no block would ever be final again."""
    away, back, gone = 3, 450_000, 0
    plan = Scenario(
        chaos_ms=back,
        calm_ms=120_000,
        consensus=Consensus(delta_ms=100, block_interval_ms=0, epoch_length=50),
        links=Links((20,) * 4),
        partitions=(Partition(0, back, (away,)),),
        crashes=(Crash(back - 100, gone, 10**6),),
    )
    simulation = Simulation(plan, 1)
    for node in simulation.nodes:
        node.application.prepare = _no_block
    simulation.run_until(back)
    views = [node.replica.core.view for node in simulation.nodes if node.place not in (away, gone)]
    assert simulation.heights == [0, 0, 0, 0]
    assert min(views) > MAX_NULLIFICATIONS + 1
    for node in simulation.nodes:
        del node.application.prepare
    simulation.run()
    simulation.check()
    assert min(height for at, height in enumerate(simulation.heights) if at != gone) > 3


def _no_block(*_):
    message = "nothing to build a block of"
    raise LedgerError(message)


@pytest.mark.slow
def test_a_larger_committee_of_unequal_weights_agrees():
    plan = Scenario(
        validators=7,
        weights=(1, 2, 3, 4, 5, 6, 7),
        chaos_ms=1_500,
        calm_ms=2_000,
        consensus=Consensus(100, 150, 4),
        links=Links((2, 10, 20, 20), loss=100_000),
        liars=(Liars("twin", nodes=(6,)),),
    )
    play(plan, 3)


@pytest.mark.parametrize("delta", [1.55, 1.75, 4, 11])
def test_messages_that_take_longer_than_the_genesis_thinks_only_make_blocks_slower(delta):
    """Above 3D/2 everybody nullifies a view whose notarization is on the way, so that none of them finalizes it."""
    milliseconds = int(delta * CONSENSUS.delta_ms)
    plan = Scenario(
        chaos_ms=0,
        calm_ms=60 * milliseconds,
        consensus=CONSENSUS,
        links=Links((milliseconds,) * 4),
    )
    play(plan, 1)


@pytest.mark.slow
def test_a_crash_at_any_write_of_the_log_contradicts_nothing():
    for seed in range(12):
        play(crash_often(), seed)


MUTANTS = {
    "who nullified finalizes": (
        "if Kind.FINALIZE in view.own or Kind.NULLIFY in view.own:",
        "if Kind.FINALIZE in view.own:",
    ),
    "who finalized nullifies": (
        "        if Kind.FINALIZE not in view.own and Kind.NULLIFY not in view.own:",
        "        view = self.book.at(max(1, self.view - 1))\n        if Kind.NULLIFY not in view.own:",
    ),
    "a second block of a view is notarized": (
        "if proposal is None or view.rejected or Kind.NOTARIZE in view.own:",
        "if proposal is None or view.rejected:",
    ),
    "a later proposal takes the place of the first": (
        "if view.proposal is None and number >= self.view:",
        "view.own.pop(Kind.NOTARIZE, None)\n            if number >= self.view:",
    ),
    "own votes are forgotten in a crash": (
        "elif entry.voter == self._me:",
        "elif False:",
    ),
    "certificates are forgotten in a crash": (
        "            if isinstance(entry, Certificate):\n                self._hold(view, entry)",
        "            if isinstance(entry, Certificate):\n                pass",
    ),
    "a vote is sent and not persisted": (
        "        self._effects.append(Persist(tuple(entries)))\n        view.own[kind] = vote",
        "        view.own[kind] = vote",
    ),
    "the last block of an epoch gets children": (
        "        if parent.height == self.last_height:\n            self._send_proposal",
        "        if False:\n            self._send_proposal",
    ),
    "nobody sends again": (
        "        self._effects += [Broadcast(message) for message in messages]",
        "",
    ),
    "nobody asks for a missing block": (
        "            self._effects.append(SendTo(target, Ask(self.epoch, block_id)))",
        "            pass",
    ),
    "laggards are not helped": (
        "            self._effects.append(SendTo(peer, Certify(certificate)))",
        "            pass",
    ),
}


RARE = (94, 103, 138, 277, 298, 439)
"""Seeds that see what few do, such as a storm of votes for the one block of a view."""


def caught(seeds):
    """Whether any seed fails, in whichever way."""
    for seed in seeds:
        for plan in (drawn(seed), crash_often()):
            try:
                play(plan, seed)
            except (AssertionError, KeyError, ValueError, SimulationError):
                return True
    return False


@pytest.mark.slow
@pytest.mark.parametrize("rule", MUTANTS)
def test_the_simulator_catches_a_core_that_breaks_a_rule(rule, monkeypatch):
    old, new = MUTANTS[rule]
    source = Path(core.__file__).read_text()
    assert source.count(old) == 1, "the mutant no longer fits the source"
    mutant = types.ModuleType("mutant")
    monkeypatch.setitem(sys.modules, "mutant", mutant)
    exec(compile(source.replace(old, new), "mutant", "exec"), mutant.__dict__)  # noqa: S102 - our own source
    monkeypatch.setattr(replica, "Simplex", mutant.Simplex)
    assert caught([*range(60), *RARE]), f"no seed saw that {rule}"


@pytest.mark.slow
def test_the_simulator_catches_a_quorum_of_half(monkeypatch):
    monkeypatch.setattr(views, "quorum", lambda total: total // 2 + 1)
    monkeypatch.setattr("protocols.consensus.votes.quorum", lambda total: total // 2 + 1)
    assert caught([*range(60), *RARE])

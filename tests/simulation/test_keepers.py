"""Keepers in the simulator: real proofs, real draws, real rules; the world around them is drawn from a seed."""

from __future__ import annotations

import json
from dataclasses import replace
from math import sqrt
from types import SimpleNamespace

import pytest

from cli.main import main
from storage import cid as cids
from storage.slots import SlotStore
from swarm.ledger.genesis import Params
from swarm.ledger.keeping import Verdict
from swarm.ledger.transactions import AuditReport
from swarm.simulator import report, sealed
from swarm.simulator.accounts import Account
from swarm.simulator.chance import Chance
from swarm.simulator.copies import Copies
from swarm.simulator.memo import remembered
from swarm.simulator.scenario import (
    Consensus,
    Crash,
    Deals,
    Keepers,
    Ledger,
    Liars,
    Links,
    Partition,
    Scenario,
    Storage,
)
from swarm.simulator.simulation import Simulation

SCENARIO = Scenario(
    title="a depot",
    chaos_ms=80_000,
    calm_ms=5_000,
    consensus=Consensus(300, 1_000, 20),
    links=Links((5, 20, 60, 150)),
    ledger=Ledger(1, 0),
    storage=Storage(audit_blocks=14, report_blocks=6, leaves=8, standing_audits=2),
    keepers=(Keepers("disk", 4, 2, 50),),
)
DEALS = Deals(count=1, pieces=2, piece_kib=128, audits=50)


@pytest.fixture(autouse=True)
def _fast():
    with remembered():
        yield


def run(scenario, seed=1):
    simulation = Simulation(scenario, seed)
    simulation.run()
    simulation.check()  # every unit is counted, among others
    return simulation


def verdicts(simulation, keeper=None):
    """What each audit made of one keeper, or of all."""
    return [
        after.verdict
        for one in simulation.town.depot.audits
        for at, (_, after) in one.keepers.items()
        if keeper in (None, at)
    ]


def account(simulation, keeper):
    key = simulation.town.keeper_keys[keeper].public_key
    return simulation.town.newest.view().account(key)


def test_a_piece_whose_copies_go_one_after_the_other_is_gone_once():
    copies, piece = Copies(), SimpleNamespace(root=cids.of_raw(b"piece"))
    copies.follow([SimpleNamespace(id=b"d", pieces=(piece,), replicas=2)], 0)
    found = []
    for now, here in enumerate((0, 1, 2, 1, 0, 0, 1, 2, 0)):
        copies.count(now, lambda _root, here=here: here)
        found.append(copies.gone)
    assert found == [0, 0, 0, 0, 1, 1, 1, 1, 2]
    assert (copies.placed, copies.healed, copies.hurt) == ([2], [4], 1)


def storage(simulation):
    return report.summary(simulation)["storage"]


def test_simulated_slots_are_those_of_a_disk(tmp_path):
    key, chain = b"k" * 32, b"c" * 32
    simulated = sealed.SealedSlots(key, chain, sealed.sealer())
    simulated.grow(3)
    store = SlotStore(tmp_path, key, chain, sealed.LOG_N, sealed.PASSES)
    for _ in range(3):
        store.append()
    version = store.stage(3)
    store.settle(version.root)
    assert simulated.version(3) == version
    assert simulated.leaf(3, 1, 200) == store.prove(version.root, 1, 200)
    assert simulated.whole(3, 2) == store.prove_slot(version.root, 2)
    store.close()


AUDITS = Storage(audit_blocks=20, leaves=4)
"""Answers and reports are taken for as many blocks as by default."""


def shaken(seed):
    """A tenth of the messages is lost, and two halves without a quorum do not hear each other for a while."""
    chance = Chance("keepers", seed)
    begin, length = chance.between(15_000, 60_000), chance.between(3_000, 15_000)
    cut = Partition(begin, begin + length, tuple(sorted(chance.sample(range(4), 2))))
    return replace(
        SCENARIO,
        chaos_ms=60_000 + length,
        links=replace(SCENARIO.links, loss=100_000),
        partitions=(cut,),
        storage=AUDITS,
        deals=DEALS,
    )


def test_the_blocks_for_answers_and_reports_are_those_of_a_network_by_default():
    assert (AUDITS.answer_blocks, AUDITS.report_blocks, AUDITS.auditors) == (
        Params().audit_answer_blocks,
        Params().audit_report_blocks,
        Params().auditors,
    )


@pytest.mark.slow
@pytest.mark.parametrize("first", [0, 3, 6])
def test_honest_keepers_are_never_struck_under_loss_and_partitions(first):
    for seed in range(first, first + 3):
        simulation = run(shaken(seed), seed)
        found = verdicts(simulation)
        assert len(found) >= 8, seed
        assert not [one for one in found if one.is_strike], seed
        assert simulation.town.depot.copies.gone == 0, seed


def test_an_auditor_that_was_away_names_nobody_whom_it_had_no_time_to_ask(monkeypatch):
    """Blocks that it missed become final all at once there: by their heights it is late before it has asked."""
    named, submit = [], Account.submit

    def noted(self, payload):
        if isinstance(payload, AuditReport) and (payload.failed or payload.missing):
            named.append((self.home.name, payload))
        return submit(self, payload)

    monkeypatch.setattr(Account, "submit", noted)
    away = Crash(20_000, 1, 10_000)  # from the answers of the first audit to the end of its reports
    assert verdicts(run(replace(SCENARIO, chaos_ms=40_000, crashes=(away,))))
    assert named == []


LEAVES, DAY, SEEDS = 32, 24, 4
DROPPED = replace(
    SCENARIO,
    validators=1,  # whom nobody contradicts: it is the draws that are looked at
    chaos_ms=(DAY + 1) * 10_000,
    storage=Storage(10, 2, 3, LEAVES, strike_limit=1_000),
    keepers=(Keepers("dropper", 1, 100, 20, 1),),
    liars=(Liars("dropper", strength=10_000),),
)


@pytest.mark.slow
def test_who_lost_a_hundredth_is_caught_within_a_day_and_as_often_as_the_formula_says():
    audits = strikes = 0
    for seed in range(SEEDS):
        simulation = run(DROPPED, seed)
        (lost,) = storage(simulation)["lost"]
        assert (lost["lost"], lost["slots"]) == (1, 100)
        assert lost["first"] <= DAY, seed
        audits += lost["audits"]
        strikes += lost["strikes"]
        assert lost["strikes"] == verdicts(simulation).count(Verdict.FAILED)
    chance = 1 - 0.99 ** (LEAVES + 4)
    assert audits >= SEEDS * (DAY - 1)
    assert abs(strikes - audits * chance) < 3 * sqrt(audits * chance * (1 - chance))
    assert lost["chance_day"] == pytest.approx(1 - (1 - chance) ** DAY, abs=1e-6)


@pytest.mark.slow
def test_who_seals_on_demand_is_too_late_every_time_earns_nothing_and_is_dismissed():
    liars = (Liars("on_demand", nodes=(3,)),)
    keepers = (Keepers("disk", 3, 2, 50), Keepers("cheat", 1, 2, 1_000))
    simulation = run(replace(SCENARIO, chaos_ms=110_000, keepers=keepers, liars=liars))
    assert verdicts(simulation, 3) == [Verdict.NO_ANSWER] * 6
    assert account(simulation, 3).earned == 0
    assert simulation.measures.failed == 6  # its answers, which came
    (struck,) = storage(simulation)["struck"]
    assert (struck["suspended"], struck["dismissed"]) == (3, 6)
    assert struck["slashed"] > 0
    assert all(account(simulation, at).earned for at in range(3))


def test_who_seals_on_demand_quickly_enough_passes():
    """It is the price of sealing that catches the cheat above, and nothing else."""
    simulation = run(replace(SCENARIO, chaos_ms=40_000, liars=(Liars("on_demand", nodes=(3,)),)))
    assert set(verdicts(simulation, 3)) == {Verdict.PROVEN}


@pytest.mark.slow
def test_pieces_of_a_keeper_that_disappears_are_whole_again_once_it_is_suspended():
    liars = (Liars("vanisher", nodes=(0,)),)
    keepers = (Keepers("disk", 4, 4, 50),)
    simulation = run(replace(SCENARIO, chaos_ms=120_000, keepers=keepers, liars=liars, deals=DEALS))
    deals = storage(simulation)["deals"]
    assert deals["healed"] >= 1
    assert (deals["hurt"], deals["gone"]) == (0, 0)
    three = 3 * 14 * 1_000
    assert deals["heal_ms"]["most"] < three + 14_000
    found = verdicts(simulation, 0)
    assert set(found) == {Verdict.PROVEN, Verdict.NO_ANSWER}
    assert found.count(Verdict.NO_ANSWER) >= 3


@pytest.mark.slow
def test_a_keeper_that_leaves_in_order_is_paid_until_then_and_its_pieces_go_to_others():
    keepers = (Keepers("disk", 3, 4, 50), Keepers("sold", 1, 4, 50, leave_ms=50_000))
    simulation = run(replace(SCENARIO, keepers=keepers, deals=replace(DEALS, pieces=4)))
    found = verdicts(simulation, 3)
    assert set(found) == {Verdict.PROVEN}
    assert len(found) < len(verdicts(simulation, 0))
    deals = storage(simulation)["deals"]
    assert deals["healed"] >= 1
    assert (deals["hurt"], deals["gone"]) == (0, 0)
    assert account(simulation, 3).unbonding


@pytest.mark.slow
def test_who_was_away_for_too_long_is_slashed_and_returns_to_good_standing():
    keepers = (Keepers("disk", 3, 2, 50), Keepers("moving", 1, 2, 50, away_s=(20, 62)))
    simulation = run(replace(SCENARIO, chaos_ms=110_000, keepers=keepers))
    (struck,) = storage(simulation)["struck"]
    assert (struck["keeper"], struck["kind"], struck["strikes"]) == ("k3", "honest", 3)
    assert struck["suspended"] < struck["returned"]
    assert struck["dismissed"] is None
    view = simulation.town.newest.view()
    assert view.keeper(simulation.town.keeper_keys[3].public_key).in_order


@pytest.mark.slow
@pytest.mark.parametrize(
    ("liars", "struck"),
    [
        ((Liars("false_auditor", nodes=(3,)),), set()),
        ((Liars("silent_auditor", nodes=(3,)),), set()),
        ((Liars("false_auditor", nodes=(1, 2, 3)),), {Verdict.FAILED}),
    ],
    ids=["one names all", "one is silent", "three of four name all"],
)
def test_it_takes_two_thirds_of_the_auditors_to_strike_who_is_in_order(liars, struck):
    audits = replace(SCENARIO.storage, auditors=15)
    simulation = run(replace(SCENARIO, chaos_ms=35_000, storage=audits, liars=liars))
    found = verdicts(simulation)
    assert len(found) >= 8
    assert {one for one in found if one.is_strike} == struck


def test_a_day_is_told_in_words_and_in_numbers(tmp_path, capsys):
    file = tmp_path / "depot.toml"
    file.write_text(
        """
        title = "a depot"
        chaos_s = 24
        calm_s = 1
        [links]
        latency_ms = [5, 10, 20, 30]
        [consensus]
        delta_ms = 200
        block_interval_ms = 500
        [ledger]
        transfers_per_s = 0
        [storage]
        audit_blocks = 14
        report_blocks = 6
        leaves = 8
        [[keepers]]
        name = "spinning disk"
        count = 2
        slots = 4
        [[liars]]
        kind = "dropper"
        strength = 0.5
        """
    )
    assert main(["simulate", str(file), "--json", "-o", str(tmp_path / "out")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["storage"]["classes"][0]["strikes"] == len(found["storage"]["audits"]) >= 2
    assert (tmp_path / "out/capacity.svg").exists()
    assert "| spinning disk | 2 | 8 |" in (tmp_path / "out/report.md").read_text()
    assert main(["simulate", str(file)]) == 0
    said = capsys.readouterr().out
    assert "k1 lost 2 of 4: 2 strikes in 2 audits where 1 - (1 - f)^k gives 2.0" in said
    assert "tokens earned by a keeper of each class" in said
    assert main(["simulate", str(file), "--seeds", "2"]) == 0
    assert "lost slots: 4 strikes in 4 audits" in capsys.readouterr().out

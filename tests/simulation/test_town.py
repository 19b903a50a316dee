"""The real ledger in the simulator: what liars lose by the real rules, and what hardware earns."""

from __future__ import annotations

from dataclasses import replace

import pytest

from swarm.ledger.state import Outcome
from swarm.simulator import report
from swarm.simulator.memo import remembered
from swarm.simulator.scenario import (
    Churn,
    Consensus,
    Hardware,
    Ledger,
    Liars,
    Links,
    Scenario,
    Training,
)
from swarm.simulator.simulation import Simulation

FAST, SLOW = Hardware("fast", 2, 100), Hardware("slow", 2, 10)
SCENARIO = Scenario(
    title="a town",
    chaos_ms=16_000,
    calm_ms=2_000,
    consensus=Consensus(200, 200, 20),
    links=Links((5, 20, 60, 100)),
    ledger=Ledger(4, 5),
    hardware=(FAST, SLOW),
    training=Training(rounds=2, steps=20, train=40),
)

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _fast():
    with remembered():
        yield


def run(scenario=SCENARIO, seed=1):
    simulation = Simulation(scenario, seed)
    simulation.run()
    simulation.check()
    return simulation


def rounds(simulation):
    view = simulation.town.newest.view()
    return [one for task in view.tasks() for one in view.history(task.id)]


def test_rounds_settle_the_loss_falls_and_every_worker_earns():
    simulation = run()
    done = rounds(simulation)
    assert [one.outcome for one in done] == [Outcome.MERGED] * 2
    assert done[1].merged_loss < done[0].merged_loss < done[0].base_loss
    view = simulation.town.newest.view()
    assert all(view.account(one.public_key).earned for one in simulation.town.worker_keys)
    assert simulation.measures.failed <= 2  # who attests after the quorum is late
    assert len(simulation.measures.paid) >= 4 * 16


def test_hardware_that_is_too_slow_for_the_phase_earns_nothing():
    training = replace(SCENARIO.training, train=12)  # 2.4 s; 20 steps take the slow ones over 2
    slow = replace(SLOW, steps_per_s=4)
    simulation = run(replace(SCENARIO, hardware=(FAST, slow), training=training))
    found = {one["class"]: one for one in report.summary(simulation)["earnings"]}
    assert found["fast"]["earned"] > 0
    assert found["slow"]["earned"] == 0


def test_a_score_liar_is_not_paid_for_scoring_and_changes_no_payment():
    truth = run()
    simulation = run(replace(SCENARIO, liars=(Liars("score_liar", nodes=(2,)),)))
    liar = simulation.signers[2].public_key
    for honest, lied in zip(rounds(truth), rounds(simulation), strict=True):
        assert liar in dict(honest.validators)
        assert liar not in dict(lied.validators)
        assert len(lied.validators) == 3
        assert {one.worker: one.accepted for one in lied.submissions} == {
            one.worker: one.accepted for one in honest.submissions
        }


def test_a_late_revealer_is_refused_with_its_reason_and_earns_nothing():
    simulation = run(replace(SCENARIO, liars=(Liars("late_revealer", nodes=(0,)),)))
    late = simulation.town.worker_keys[0].public_key
    assert simulation.town.newest.view().account(late).earned == 0
    done = rounds(simulation)
    assert done
    for one in done:
        (line,) = [line for line in one.submissions if line.worker == late]
        assert not line.accepted
        assert "reveal" in line.reason


def test_a_colluding_third_is_slashed_and_its_scores_are_outvoted():
    liars = (Liars("colluder", nodes=(5, 6)),)
    simulation = run(replace(SCENARIO, validators=7, liars=liars))
    view = simulation.town.newest.view()
    stakes = [view.account(one.public_key).stake for one in simulation.signers]
    assert max(stakes[5:]) < min(stakes[:5])
    assert len(set(stakes[:5])) == 1
    paid = {key for one in rounds(simulation) for key, _ in one.validators}
    assert paid
    assert not paid & {one.public_key for one in simulation.signers[5:]}


def test_a_ledger_survives_crashes_and_torn_logs():
    churn = Churn(per_minute=60, down_ms=(200, 1_500), torn_writes=3_000)
    quiet = replace(SCENARIO, training=None, hardware=(), churn=churn, chaos_ms=8_000)
    simulation = run(replace(quiet, links=Links((5, 20, 60, 100), loss=50_000)))
    assert simulation.measures.crashes >= 5
    assert min(simulation.heights) > 10
    assert (
        len(
            {
                node.application.view().root
                for node in simulation.nodes
                if node.height == max(simulation.heights)
            }
        )
        == 1
    )


def test_the_report_says_what_the_ledger_holds(tmp_path):
    simulation = run()
    found = report.summary(simulation)
    view = simulation.town.newest.view()
    earned = sum(view.account(one.public_key).earned for one in simulation.town.worker_keys)
    assert round(sum(one["earned"] for one in found["earnings"]) * 10**9) == earned
    assert found["forks"] == 0
    assert found["transactions"]["final"] == len(simulation.measures.paid)
    names = [path.name for path in report.write(found, tmp_path / "new")]
    assert names == ["report.json", "report.md", "finality.svg"]
    text = (tmp_path / "new/report.md").read_text()
    assert simulation.trace.digest in text
    assert "| fast | 2 | 100 |" in text

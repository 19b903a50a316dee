"""What is told of tasks, at a cost that does not grow with their rounds."""

from __future__ import annotations

import pytest

from swarm import reports
from swarm.ledger.state import Phases
from swarm.ledger.transactions import NameUpdate, Register, Stake, TaskPost, Transfer
from swarm.ledger.vrf import VrfKey
from tests.ledger.alone import ALICE, BOB, open_alone
from tests.ledger.world import BASE, MERGED, World, root


@pytest.fixture
def told():
    """A world whose task has one round that was merged and two that nobody opened."""
    world = World(worker_bond=0)
    alice, bob = world.people.values()
    world.register(alice)
    task = world.post(bob, rounds=4, budget=10**10, tolerance=0)
    world.commits(task, {alice: "a"})
    world.reveals(task, {alice: "a"})
    world.score(task, {one: {"a": 50} for one in world.validators}, base_loss=50_000)
    world.attest(task, dict.fromkeys(world.validators, MERGED), loss=49_000)
    for _ in range(2):
        world.commits(task, {alice: "b"})
        number = world.round(task).number
        while world.round(task).number == number:
            world.block()
    return world, task


def test_the_first_and_the_newest_loss_are_found_across_rounds_without_any(told) -> None:
    world, task = told
    summary = reports.task_summary(world.view, world.view.task(task))
    assert (summary["first_loss"], summary["loss"]) == (0.5, 0.49)
    assert (summary["round"], summary["version"]) == (4, 1)


def test_a_summary_never_reads_a_whole_history(told, monkeypatch) -> None:
    world, task = told
    monkeypatch.setattr(type(world.view), "history", None)
    monkeypatch.setattr(reports, "MAX_LOOKED_AT", 2)
    summary = reports.task_summary(world.view, world.view.task(task))
    assert (summary["first_loss"], summary["loss"]) == (0.5, None)


def test_a_transaction_of_a_block_is_told_without_what_is_never_known(tmp_path) -> None:
    """What it paid depends on the price of gas of its own block, and only the newest price is kept."""
    with open_alone(tmp_path) as alone:
        assert alone.run(ALICE, Transfer(BOB.public_key, 5)) == ""
        (data,) = alone.ledger.transactions_of(alone.ledger.block(1))
        told = reports.transaction_report(alone.ledger, data)
    assert told.pop("error") is None
    assert None not in told.values()
    assert set(told) == {"id", "from", "type", "gas", "ok"}


def test_an_account_is_a_validator_only_with_a_stake_that_makes_it_one() -> None:
    world = World(worker_bond=0)
    alice = world.people["alice"]
    key = alice.public_key
    assert reports.roles(world.view, key) == []
    both = ("validator", "worker")
    world.ok((alice, Register(VrfKey.of(alice.seed).public_key, "cpu", both)))
    assert reports.roles(world.view, key) == ["worker"]
    world.ok((alice, Stake(world.view.params.min_bond)))
    assert reports.roles(world.view, key) == ["validator", "worker"]
    for one in world.validators:
        assert reports.roles(world.view, one.public_key) == ["validator"]


def test_the_task_behind_a_version_made_it_or_began_with_it_or_made_what_it_brings_back() -> None:
    """Tasks are kept by their ids, which are hashes: their order does not say which is newer."""
    world = World(worker_bond=0)
    alice, bob = world.people.values()
    world.register(alice)
    lengths, behind = Phases(5, 3, 3, 3, 3), {}
    for at in range(5):
        base, made = root(f"base {at}"), root(f"made {at}")
        payload = TaskPost("gpt", "lm", b"", base, BASE, BASE, 1, 10**9, lengths, 0)
        task = world.ok((bob, payload))[0].id
        behind[world.view.name("gpt").version] = task
        world.commits(task, {alice: f"a{at}"})
        world.reveals(task, {alice: f"a{at}"})
        world.score(task, {one: {f"a{at}": 50} for one in world.validators}, base_loss=50_000)
        world.attest(task, dict.fromkeys(world.validators, made), loss=49_000)
        behind[world.view.name("gpt").version] = task
    for back in ("made 1", "base 3", "published by hand"):
        entry = world.view.name("gpt")
        world.ok((bob, NameUpdate("gpt", root(back), entry.version + 1, entry.root)))
    last = world.view.name("gpt").version
    behind |= {last - 2: behind[3], last - 1: behind[6], last: behind[9]}
    assert sorted(behind) == list(range(last + 1))
    found = {at: reports.task_behind(world.view, "gpt", at).id for at in behind}
    assert found == behind
    assert reports.task_behind(world.view, "other", 0) is None

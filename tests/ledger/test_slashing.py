"""What contradicting oneself costs: alone, together with others, on the way out, and in jail."""

from __future__ import annotations

import itertools

import pytest

from protocols.consensus.evidence import encode_evidence
from protocols.consensus.messages import Kind, Vote
from swarm.ledger.transactions import Evidence, Register, Stake, Transfer, Unjail, Unstake, Withdraw
from swarm.ledger.vrf import VrfKey
from tests.ledger.world import World


def double_vote(world, accused, view=3, epoch=0):
    votes = [
        Vote.sign(accused, world.genesis.chain_id, Kind.NOTARIZE, epoch, view, block)
        for block in (b"a" * 32, b"b" * 32)
    ]
    return Evidence(encode_evidence(*votes))


def stakes(world):
    return [world.account(one).stake for one in world.validators]


def members(world, epoch):
    return {one.public_key for one in world.view.validators(epoch).validators}


def test_one_of_ten_loses_the_base_part_and_three_times_its_share():
    world = World(validators=10)
    alice = world.people["alice"]
    held, burned = world.account(alice).balance, world.view.money().burned
    assert world.run(alice, double_vote(world, world.validators[0])) == ""
    assert stakes(world)[:2] == [600, 1000]
    assert world.account(alice).balance == held + 40
    assert world.view.money().burned == burned + 360


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_those_slashed_together_lose_the_same_whoever_is_reported_first(order):
    world = World(validators=15)
    alice = world.people["alice"]
    held = world.account(alice).balance
    left = {1: 701, 2: 502, 3: 302}  # the share is 666 parts in 10,000 each
    for reported, at in enumerate(order, 1):
        assert world.run(alice, double_vote(world, world.validators[at])) == ""
        for slashed in order[:reported]:
            assert abs(world.account(world.validators[slashed]).stake - left[reported]) <= 2
    assert len(set(stakes(world)[:3])) == 1
    assert 2 * 93 < world.account(alice).balance - held < 3 * 70
    assert stakes(world)[3:] == [1000] * 12


def test_a_third_of_the_weight_that_is_slashed_together_loses_everything():
    world = World(validators=9)
    alice = world.people["alice"]
    for at in range(3):
        world.run(alice, double_vote(world, world.validators[at]))
    assert stakes(world) == [0] * 3 + [1000] * 6
    assert "nothing at stake" in world.run(alice, double_vote(world, world.validators[0], view=4))


def test_what_was_slashed_two_epochs_before_does_not_count_any_more():
    world = World(validators=10, epoch_length=3)
    alice, first, second, third = (world.people["alice"], *world.validators[:3])
    assert world.run(alice, double_vote(world, first)) == ""
    world.blocks(4)
    assert world.view.epoch == 1
    assert world.run(alice, double_vote(world, second)) == ""  # height 6, epoch 1: the first counts
    assert (world.account(first).stake, world.account(second).stake) == (300, 300)
    world.blocks(3)
    assert world.run(alice, double_vote(world, third)) == ""  # epoch 3: neither counts
    assert (world.account(first).stake, world.account(third).stake) == (300, 600)


def test_a_second_offence_takes_the_base_part_of_what_is_left():
    world = World(validators=10)
    alice, accused = world.people["alice"], world.validators[0]
    world.run(alice, double_vote(world, accused))
    assert world.run(alice, double_vote(world, accused, view=4)) == ""
    assert world.account(accused).stake == 540
    assert "has been punished" in world.run(alice, double_vote(world, accused, view=4))


def test_stake_on_its_way_out_is_slashed_for_an_offence_before_it_had_left_the_set():
    world = World(validators=10, epoch_length=3)
    alice, accused = world.people["alice"], world.validators[0]
    world.ok((accused, Unstake(400)))  # epoch 0: it has weight in epochs 0 and 1
    world.blocks(3)
    assert world.run(alice, double_vote(world, accused, epoch=1)) == ""
    account = world.account(accused)
    assert (account.stake, [one.amount for one in account.unbonding]) == (360, [240])


def test_stake_that_had_left_the_set_before_the_offence_is_not_slashed():
    world = World(validators=10, epoch_length=3, unbonding=100)
    alice, accused = world.people["alice"], world.validators[0]
    world.ok((accused, Unstake(400)))
    world.blocks(6)
    assert world.view.validators(2).weight_of(accused.public_key) == 600
    assert world.run(alice, double_vote(world, accused, epoch=2)) == ""
    account = world.account(accused)
    share = 600 * 10_000 // 9_600
    assert account.stake == 600 - 600 * (1000 + 3 * share) // 10_000
    assert [one.amount for one in account.unbonding] == [400]


def test_a_slashed_validator_is_in_no_set_that_is_not_fixed_yet_until_it_asks_after_its_time():
    world = World(validators=10, epoch_length=3, jail_blocks=8)
    accused, alice = world.validators[0], world.people["alice"]
    key = accused.public_key
    assert world.run(alice, double_vote(world, accused)) == ""  # height 1
    assert world.view.jailed_until(key) == 9
    world.blocks(2)
    assert key in members(world, 1)
    assert key not in members(world, 2)
    while world.height + 1 < 9:
        assert world.run(accused, Unjail()) == "jailed until height 9"
    assert world.run(accused, Unjail()) == ""
    assert world.view.jailed_until(key) is None
    assert world.run(accused, Unjail()) == "the account is not jailed"
    assert key not in members(world, 3)
    assert key in members(world, 4)  # fixed with block 9


def test_a_further_offence_begins_the_time_in_jail_anew():
    world = World(validators=10, jail_blocks=5)
    accused, alice = world.validators[0], world.people["alice"]
    world.run(alice, double_vote(world, accused))
    world.block()
    world.run(alice, double_vote(world, accused, view=4))
    assert world.view.jailed_until(accused.public_key) == 8


def test_who_is_jailed_may_take_its_stake_out_and_comes_back_with_a_new_one():
    world = World(validators=10, epoch_length=3, jail_blocks=2)
    accused, alice = world.validators[1], world.people["alice"]
    world.run(alice, double_vote(world, accused))
    world.ok((accused, Unstake(600)), (alice, Transfer(accused.public_key, 5000)))
    assert world.run(accused, Unjail()) == ""
    assert world.run(accused, Stake(700)) == ""
    world.blocks(8)
    assert world.run(accused, Withdraw()) == ""
    assert world.account(accused).balance == 5000 - 700 + 600
    assert accused.public_key in members(world, world.view.epoch + 1)


def test_a_set_of_whom_all_are_jailed_is_the_set_before():
    world = World(validators=1, epoch_length=2, slash_correlation=0)
    (only,) = world.validators
    assert world.run(world.people["alice"], double_vote(world, only)) == ""
    world.blocks(5)
    assert members(world, 3) == {only.public_key}


def test_who_joins_after_the_slash_is_not_jailed_with_it():
    world = World(validators=4, epoch_length=2)
    alice = world.people["alice"]
    world.run(alice, double_vote(world, world.validators[0]))
    world.ok((alice, Register(VrfKey.of(alice.seed).public_key, "cpu", ("validator",))))
    world.ok((alice, Stake(500)))
    world.block()
    assert alice.public_key in members(world, 3)

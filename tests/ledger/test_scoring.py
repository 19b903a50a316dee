"""Scores beyond one round: who is frozen for them, who leads views for them, and which money they earn."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from swarm.ledger import beacon, rewards, scoring, validators
from swarm.ledger.draft import Draft
from swarm.ledger.genesis import UNIT, Params
from swarm.ledger.holdings import Conduct, EpochSet, EpochValidator, Money
from swarm.ledger.state import Outcome, Refusal
from swarm.ledger.transactions import Register, ScoreCommit, ScoreReveal, Stake, Unstake, score_hash
from swarm.ledger.vrf import VrfKey
from tests.ledger.world import MERGED, SALT, World, root

RIGHT = {"update 0": 300, "update 1": 110}
FAR = {"update 0": 3000, "update 1": 110}
NOT_FOUND = {"update 0": Refusal.NOT_FOUND.score, "update 1": 110}


def make_world(**params) -> World:
    world = World(people=("alice", "bob", "carol"), **params)
    world.w = [world.people["bob"], world.people["carol"]]
    world.register(*world.w)
    return world


def play(world, task, odd=RIGHT):
    """A whole round, in which the last validator scores as it likes; what each validator was paid."""
    made = {who: f"update {at}" for at, who in enumerate(world.w)}
    world.commits(task, made)
    world.reveals(task, made)
    last = world.validators[-1]
    by = {one: odd if one is last else RIGHT for one in world.validators}
    world.score(task, by)
    world.attest(task, dict.fromkeys(world.validators[:3], MERGED))
    settled = world.view.history(task)[-1]
    assert settled.outcome is Outcome.MERGED
    return dict(settled.validators)


def test_one_who_is_far_off_in_so_many_rounds_goes_unpaid_for_so_many_and_then_earns_again():
    world = make_world(deviation_limit=2, deviation_rounds=4, freeze_rounds=2)
    task = world.post(world.people["alice"], rounds=9)
    last = world.validators[-1].public_key
    paid = [last in play(world, task, odd) for odd in (FAR, RIGHT, FAR, RIGHT, RIGHT, RIGHT)]
    assert paid == [False, True, False, False, False, True]
    assert world.view.conduct(last) == Conduct()


def test_what_was_far_off_long_ago_is_forgotten():
    world = make_world(deviation_limit=2, deviation_rounds=2, freeze_rounds=2)
    task = world.post(world.people["alice"], rounds=9)
    last = world.validators[-1].public_key
    paid = [last in play(world, task, odd) for odd in (FAR, RIGHT, RIGHT, FAR, RIGHT)]
    assert paid == [False, True, True, False, True]


def test_a_file_that_was_not_found_costs_the_pay_of_the_round_and_freezes_nobody():
    world = make_world(deviation_limit=1)
    task = world.post(world.people["alice"], rounds=3)
    last = world.validators[-1].public_key
    assert last not in play(world, task, NOT_FOUND)
    assert world.view.conduct(last) == Conduct()
    assert last in play(world, task)


def test_scores_that_are_never_opened_count_as_far_off():
    world = make_world(deviation_limit=2, deviation_rounds=4, freeze_rounds=5)
    task = world.post(world.people["alice"], rounds=3)
    made = {who: f"update {at}" for at, who in enumerate(world.w)}
    world.commits(task, made)
    world.reveals(task, made)
    silent = world.validators[:2]
    for _ in range(2):
        world.ok(*[(one, ScoreCommit(task, 1, b"h" * 32)) for one in silent])
        scores = tuple(RIGHT[f"update {at}"] for at in order(world, task))
        others = world.validators[2:]
        hashes = [score_hash(task, 1, one.public_key, 5, scores, SALT) for one in others]
        world.ok(
            *[(one, ScoreCommit(task, 1, hash_)) for one, hash_ in zip(others, hashes, strict=True)]
        )
        world.ok(*[(one, ScoreReveal(task, 1, 5, scores, SALT)) for one in others])
        world.blocks(2)
    assert {world.view.conduct(one.public_key) for one in silent} == {Conduct(0, 5)}
    assert {world.view.conduct(one.public_key) for one in others} == {Conduct()}


def test_who_improves_less_than_a_quarter_of_the_upper_median_is_not_accepted():
    world = World(people=("alice", *"bcdef"))
    world.w = [world.people[name] for name in "bcdef"]
    world.register(*world.w)
    task = world.post(world.people["alice"], rounds=2, tolerance=10)
    made = {who: f"update {at}" for at, who in enumerate(world.w)}
    world.commits(task, made)
    world.reveals(task, made)
    # The tolerance is 10, so the gains that pass are 100, 24, 25 and 9,000: the upper median of four is 100.
    given = dict(zip(made.values(), (110, 34, 36, 9010, 10), strict=True))
    world.score(task, dict.fromkeys(world.validators, given))
    names = {root(name): name for name in given}
    current = world.round(task)
    accepted = {names[current.submissions[one.index].root] for one in current.accepted}
    assert accepted == {"update 0", "update 2", "update 3"}
    world.attest(task, dict.fromkeys(world.validators[:3], MERGED))
    settled = world.view.history(task)[-1]
    reasons = {names[one.root]: one.reason for one in settled.submissions}
    assert reasons["update 1"] == "improves far less than the others"
    assert reasons["update 4"] == "no improvement above the tolerance"


def order(world, task):
    names = {root(f"update {at}"): at for at in range(2)}
    return [names[one.root] for one in world.round(task).submissions]


@pytest.mark.parametrize("rounds", [1, 4, 64])
def test_a_record_of_conduct_stays_small(rounds):
    params = Params(deviation_rounds=rounds, deviation_limit=64, freeze_rounds=3)
    one = Conduct()
    for at in range(200):
        one = scoring.conduct_after(one, params, far=at % 3 > 0)
        assert one.far < 2**rounds


# Who leads


def members(*leads):
    keys = [bytes([at]) * 32 for at in range(len(leads))]
    return tuple(EpochValidator(key, b"", 10, lead) for key, lead in zip(keys, leads, strict=True))


def led(epoch_set, views=6000):
    drawn = [validators.leader(epoch_set, view).public_key[0] for view in range(1, views + 1)]
    return [drawn.count(at) / views for at in range(len(epoch_set.validators))]


def test_a_share_of_the_views_is_led_for_scores_and_the_rest_by_stake():
    shares = led(EpochSet(3, b"s" * 32, members(1000, 500, 0, 0)))
    by_stake = (1 - 0.15) / 4
    for share, expected in zip(shares, (0.1, 0.05, 0, 0), strict=True):
        assert abs(share - expected - by_stake) < 0.02


def test_the_numbers_that_draw_a_leader_are_those_of_the_specification():
    views = (3).to_bytes(8, "big") + (7).to_bytes(8, "big")
    for tag, drawn, most in (
        (b"swarm/leader-slot/1\x00", beacon.draw_slot(b"s" * 32, 3, 7, 10_000), 10_000),
        (b"swarm/leader/1\x00", beacon.draw(b"s" * 32, 3, 7, 41), 41),
    ):
        digest = hashlib.sha256(tag + b"s" * 32 + views).digest()
        assert drawn == int.from_bytes(digest, "big") % most


def test_without_scores_stake_alone_draws_the_leaders():
    for share in led(EpochSet(3, b"s" * 32, members(0, 0, 0, 0))):
        assert abs(share - 0.25) < 0.02


def bonded(world, *workers):
    """Workers who validate too."""
    pairs = []
    for one in workers:
        roles = ("validator", "worker")
        pairs += [(one, Register(VrfKey.of(one.seed).public_key, "cpu", roles)), (one, Stake(500))]
    world.ok(*pairs)


def test_bonded_workers_lead_two_epochs_later_for_what_they_earned_of_emission():
    world = make_world(epoch_length=20, score_share=3000)
    bonded(world, world.w[0])  # the other trains and is no validator
    task = world.post(world.people["alice"], budget=UNIT)
    play(world, task)
    assert world.view.epoch == 0
    world.blocks(20 - world.height)
    bob, carol = (one.public_key for one in world.w)
    assert {one.public_key: one.lead for one in world.view.validators(2).validators} == {
        bob: 990,  # a third of the slots, though nobody else earned any
        **{one.public_key: 0 for one in world.validators},
    }
    assert world.view.validators(2).find(carol) is None
    world.blocks(20)
    assert {one.lead for one in world.view.validators(3).validators} == {0}


def test_what_a_poster_pays_its_own_workers_buys_no_slots():
    world = make_world(epoch_length=20, emission_per_day=0)
    bonded(world, *world.w)
    task = world.post(world.people["alice"], budget=UNIT)
    play(world, task)
    world.blocks(20 - world.height)
    assert {one.lead for one in world.view.validators(2).validators} == {0}


def test_who_left_the_validators_leads_nothing_for_its_scores():
    world = make_world(epoch_length=20)
    bonded(world, *world.w)
    task = world.post(world.people["alice"], budget=UNIT)
    play(world, task)
    world.ok((world.w[0], Unstake(500)))
    world.blocks(20 - world.height)
    members = world.view.validators(2)
    assert members.find(world.w[0].public_key) is None
    assert members.find(world.w[1].public_key).lead == 3333 * 33 // 100


def test_slots_are_in_proportion_and_at_most_a_third_each():
    world = make_world(epoch_length=20, score_share=10_000)
    draft = Draft(world.memory)
    for one in world.validators:
        draft.put_account(replace(draft.account(one.public_key), roles=("validator", "worker")))
    keys = [one.public_key for one in world.validators]
    for key, earned in zip(keys, (700, 200, 100, 0), strict=True):
        validators.note_score(draft, key, earned)
    validators.note_score(draft, world.people["alice"].public_key, 10**9)  # without a bond
    validators.fix(draft, 7, b"s" * 32)
    leads = {one.public_key: one.lead for one in draft.epoch_set(7).validators}
    assert [leads[key] for key in keys] == [3300, 3300, 3300, 0]
    draft.put_scored(dict.fromkeys(keys, 1000))
    validators.fix(draft, 8, b"s" * 32)
    assert {one.lead for one in draft.epoch_set(8).validators} == {2500}
    assert draft.scored == {}


# Which money


def test_half_of_what_waits_for_training_is_for_small_tasks_alone():
    for budget, takes_small in ((1000, True), (1001, False)):
        world = make_world(small_budget=1000, emission_match_percent=0, blocks_per_day=10**6)
        task = world.post(world.people["alice"], rounds=1, budget=budget)
        play(world, task)
        money = world.view.money()
        assert money.training == 59_999_999  # of the last block alone
        assert (money.small == money.training) is takes_small


def test_a_small_round_draws_from_what_is_kept_for_small_ones_first():
    world = make_world(small_budget=1000, emission_match_percent=100)
    task = world.post(world.people["alice"], rounds=1, budget=1000)
    play(world, task)
    money = world.view.money()
    assert money.training - money.small == 1000  # what a round may draw: its budget


def test_a_rounds_emission_is_at_most_its_budget_and_the_rest_keeps_waiting():
    world = make_world()
    task = world.post(world.people["alice"], rounds=1, budget=1000)
    waiting = world.view.money()
    play(world, task)
    (settled,) = world.view.history(task)
    paid = [one.payment for one in settled.submissions]
    assert sum(paid) <= 2000
    assert max(paid) <= 2 * 400
    after = world.view.money()
    assert after.small + after.training > waiting.small + waiting.training


def test_a_task_without_a_budget_earns_no_emission():
    world = make_world()
    task = world.post(world.people["alice"], rounds=1, budget=0)
    play(world, task)
    (settled,) = world.view.history(task)
    assert [one.payment for one in settled.submissions] == [0, 0]


def test_the_split_of_a_block_is_forty_twenty_twenty_and_the_treasurys_five():
    params = Params(emission_per_day=100, blocks_per_day=100)
    money = Money(0, 0, 0, 10**9, 0, 0, 0, 0)
    after, leader = rewards.emit(money, params)
    amount = 10**9 // 10_000
    assert (after.training, after.small, after.storage) == (20 * amount // 100,) * 3
    assert (after.scoring, leader, after.treasury) == (
        10 * amount // 100,
        10 * amount // 100,
        5 * amount // 100,
    )
    assert after.pool == 10**9 - 85 * amount // 100
    assert after.emitted == 15 * amount // 100


# Who misses views


def earning(world, scores):
    """A draft in which the validators are bonded workers that earned so much."""
    draft = Draft(world.memory)
    keys = [one.public_key for one in world.validators]
    for key, earned in zip(keys, scores, strict=True):
        draft.put_account(replace(draft.account(key), roles=("validator", "worker")))
        validators.note_score(draft, key, earned)
    return draft, keys


def test_a_leader_loses_a_view_of_its_scores_for_each_that_it_missed_beyond_the_free_ones():
    world = make_world(epoch_length=100, score_share=4_000)
    draft, keys = earning(world, (1, 1, 1, 1))
    free = validators.FREE_MISSES
    validators.note_missed(draft, (keys[0],) * free + (keys[1],) * (free + 3) + (keys[2],) * 90)
    validators.fix(draft, 7, b"s" * 32)
    leads = {one.public_key: one.lead for one in draft.epoch_set(7).validators}
    assert [leads[key] for key in keys] == [1_000, 1_000 - 300, 0, 1_000]
    assert draft.missed == {}, "they count once"
    for key in keys:
        validators.note_score(draft, key, 1)
    validators.fix(draft, 8, b"s" * 32)
    assert {one.lead for one in draft.epoch_set(8).validators} == {1_000}


def test_what_a_leader_lost_is_drawn_by_stake():
    kept, lost = (
        led(EpochSet(3, b"s" * 32, members(3000, 0, 0, 0))),
        led(EpochSet(3, b"s" * 32, members(0, 0, 0, 0))),
    )
    assert kept[0] > lost[0] + 0.15


def test_views_without_a_block_are_counted_against_their_leaders():
    members_of = EpochSet(3, b"s" * 32, members(1000, 500, 0, 0))
    between = [validators.leader(members_of, view).public_key for view in (5, 6, 7)]
    assert validators.missed_leaders(members_of, 4, 8) == tuple(between)
    assert validators.missed_leaders(members_of, 7, 8) == ()
    assert validators.missed_leaders(members_of, 8, 8) == (), "an epoch's last block, again"


def test_an_outage_is_nobodys_fault():
    members_of = EpochSet(3, b"s" * 32, members(1000, 500, 0, 0))
    most = validators.OUTAGE_VIEWS
    assert len(validators.missed_leaders(members_of, 0, most)) == most - 1
    assert validators.missed_leaders(members_of, 0, most + 1) == ()
    assert validators.missed_leaders(members_of, 0, 2**63) == ()

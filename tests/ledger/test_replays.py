from __future__ import annotations

import hashlib
import random

import pytest

from swarm.ledger import replays
from swarm.ledger.genesis import UNIT
from swarm.ledger.holdings import EpochSet, EpochValidator
from swarm.ledger.state import Finding, Phase, Stage
from swarm.ledger.transactions import Register, ReplayFinding, Withdraw
from swarm.ledger.vrf import VrfKey
from tests.ledger.world import MERGED, World, root

BOND = 50 * UNIT
WINDOW = 6
MATCH, MISMATCH, WITHHELD = Finding.MATCH, Finding.MISMATCH, Finding.WITHHELD


def world_of(**params) -> World:
    changes = {"replay_one_in": 1, "replay_blocks": WINDOW, "worker_bond": BOND, **params}
    return World(validators=5, people=("alice", "bob", "carol"), **changes)


@pytest.fixture
def world() -> World:
    return world_of()


def settle(world: World, *, rounds: int = 2) -> bytes:
    """A round of bob and carol, settled and paid."""
    bob, carol = world.people["bob"], world.people["carol"]
    if not world.view.workers():
        world.register(bob, carol)
    task = world.post(world.people["alice"], rounds=rounds, budget=UNIT)
    play(world, task)
    return task


def play(world: World, task: bytes) -> None:
    made = {world.people[name]: f"update {name}" for name in ("bob", "carol")}
    world.commits(task, made)
    world.reveals(task, made)
    assert world.round(task).phase is Phase.SCORE_COMMIT
    scores = {"update bob": 300, "update carol": 290}
    world.score(task, dict.fromkeys(world.validators, scores))
    world.attest(task, dict.fromkeys(world.validators, MERGED))


def of(world: World, task: bytes, name: str = "bob", number: int = 1):
    return world.view.replay(task, number, world.people[name].public_key)


def says(world: World, one, key: bytes, finding: Finding, distance: int = 0) -> str:
    who = next(one for one in world.validators if one.public_key == key)
    return world.run(who, ReplayFinding(one.task, one.round, one.worker, int(finding), distance))


def accuse(world: World, task: bytes, *referees: Finding, first: Finding = MISMATCH):
    """The verifier finds fault, and the referees say what is given."""
    one = of(world, task)
    assert says(world, one, one.verifier, first, 40_000) == ""
    one = of(world, task)
    assert one.stage is Stage.REFEREES
    assert len(set(one.referees) | {one.verifier}) == 4
    for key, finding in zip(one.referees, referees, strict=False):
        if of(world, task).stage is Stage.REFEREES:
            assert says(world, one, key, finding) == ""
    return of(world, task)


def test_a_drawn_submissions_reward_is_held_until_its_verifier_finds_a_match(world):
    before = world.account(world.people["bob"]).balance - BOND
    task = settle(world)
    (settled,) = world.view.history(task)
    paid = {line.worker: line.payment for line in settled.submissions}
    bob = world.people["bob"]
    one = of(world, task)
    assert (one.stage, one.held) == (Stage.CHECK, paid[bob.public_key])
    assert one.held > 0
    assert (one.base, one.root) == (settled.base, root("update bob"))
    assert world.account(bob).balance == before
    assert says(world, one, one.verifier, MATCH) == ""
    assert (of(world, task).stage, of(world, task).held) == (Stage.CLEARED, 0)
    assert world.account(bob).balance == before + one.held
    assert world.account(bob).earned == one.held


def test_with_no_draws_everyone_is_paid_at_once():
    world = world_of(replay_one_in=0)
    task = settle(world)
    assert world.view.replays() == []
    assert world.account(world.people["bob"]).earned > 0
    assert of(world, task) is None


def test_silence_of_the_verifier_accuses_nobody(world):
    task = settle(world)
    one = of(world, task)
    while world.height < one.until:
        assert of(world, task).stage is Stage.CHECK
        world.block()
    assert of(world, task).stage is Stage.UNANSWERED
    assert world.account(world.people["bob"]).earned == one.held
    assert world.view.replays() == []


def test_only_who_was_drawn_is_heard_and_once(world):
    task = settle(world)
    one = of(world, task)
    other = next(who for who in world.validators if who.public_key != one.verifier)
    finding = ReplayFinding(task, 1, one.worker, int(MATCH), 0)
    assert "drawn" in world.run(other, finding)
    assert "not drawn" in world.run(other, ReplayFinding(task, 2, one.worker, int(MATCH), 0))
    assert says(world, one, one.verifier, MISMATCH) == ""
    assert says(world, one, one.verifier, MISMATCH) == "already said"
    one = of(world, task)
    for key in one.referees[:2]:
        assert says(world, one, key, MATCH) == ""
    assert "over" in says(world, one, one.referees[2], MISMATCH)


def test_a_match_of_two_referees_clears_who_was_accused(world):
    task = settle(world)
    held = of(world, task).held
    assert accuse(world, task, MISMATCH, MATCH, MATCH).stage is Stage.CLEARED
    bob = world.people["bob"]
    assert world.account(bob).earned == held
    assert world.account(bob).bond == BOND
    assert bob.public_key in world.view.workers()


def test_referees_that_are_silent_accuse_nobody(world):
    task = settle(world)
    accuse(world, task, MISMATCH)
    world.blocks(WINDOW)
    assert of(world, task).stage is Stage.UNANSWERED
    assert world.account(world.people["bob"]).earned > 0


def test_two_mismatches_take_reward_bond_and_role_and_the_verifier_gets_a_tenth(world):
    task = settle(world)
    one, bob = of(world, task), world.people["bob"]
    verifier = next(who for who in world.validators if who.public_key == one.verifier)
    other = of(world, task, "carol")
    if other.verifier != one.verifier:
        says(world, other, other.verifier, MATCH)
    burned, had = world.view.money().burned, world.account(bob).balance
    before = world.account(verifier).balance
    found = accuse(world, task, MISMATCH, MATCH, MISMATCH)
    assert (found.stage, found.held) == (Stage.CONVICTED, 0)
    taken = one.held + BOND
    assert world.account(bob).bond == 0
    assert world.account(bob).balance == had
    assert world.account(bob).earned == 0
    assert world.view.money().burned - burned == taken - taken // 10
    assert world.account(verifier).balance - before >= taken // 10
    assert bob.public_key not in world.view.workers()
    assert bob.public_key not in world.round(task).eligible
    assert world.account(bob).roles == ()


def test_a_convict_can_bond_again_and_begin_anew(world):
    task = settle(world)
    accuse(world, task, MISMATCH, MISMATCH)
    bob = world.people["bob"]
    world.register(bob)
    assert world.account(bob).bond == BOND
    assert bob.public_key in world.round(task).eligible


def test_a_bond_that_unbonds_since_the_draw_is_taken_and_an_older_one_is_not(world):
    task = settle(world)
    bob = world.people["bob"]
    key = VrfKey.of(bob.seed).public_key
    assert world.run(bob, Register(key, "cpu", ())) == ""
    assert world.account(bob).bond == 0
    accuse(world, task, MISMATCH, MISMATCH)
    assert world.account(bob).unbonding == ()
    assert "nothing" in world.run(bob, Withdraw())


def test_withheld_states_cost_the_reward_and_not_the_bond(world):
    task = settle(world)
    held, bob = of(world, task).held, world.people["bob"]
    burned = world.view.money().burned
    found = accuse(world, task, WITHHELD, WITHHELD, WITHHELD, first=WITHHELD)
    assert found.stage is Stage.LOST
    assert world.view.money().burned - burned == held
    assert world.account(bob).bond == BOND
    assert world.account(bob).earned == 0
    assert bob.public_key in world.view.workers()


def test_one_mismatch_among_withheld_states_does_not_convict(world):
    task = settle(world)
    assert accuse(world, task, MISMATCH, WITHHELD, WITHHELD).stage is Stage.LOST
    assert world.account(world.people["bob"]).bond == BOND


def test_who_withholds_again_and_again_loses_the_role_and_unbonds():
    world = world_of(strike_limit=2)
    task = settle(world, rounds=3)
    accuse(world, task, WITHHELD, WITHHELD, WITHHELD, first=WITHHELD)
    bob = world.people["bob"]
    assert bob.public_key in world.view.workers()
    play(world, task)
    one = of(world, task, number=2)
    says(world, one, one.verifier, WITHHELD)
    for key in of(world, task, number=2).referees:
        if of(world, task, number=2).stage is Stage.REFEREES:
            says(world, one, key, WITHHELD)
    assert of(world, task, number=2).stage is Stage.LOST
    assert bob.public_key not in world.view.workers()
    assert world.account(bob).bond == 0
    assert [one.amount for one in world.account(bob).unbonding] == [BOND]


def test_the_last_round_of_a_task_is_run_again_after_it_is_closed(world):
    task = settle(world, rounds=1)
    assert world.round(task) is None
    assert accuse(world, task, MISMATCH, MISMATCH).stage is Stage.CONVICTED


def test_too_few_validators_for_referees_accuse_nobody():
    world = World(
        validators=2, people=("alice", "bob", "carol"), replay_one_in=1, replay_blocks=WINDOW
    )
    task = settle(world)
    one = of(world, task)
    assert says(world, one, one.verifier, MISMATCH) == ""
    assert of(world, task).stage is Stage.UNANSWERED


def members_of(count: int) -> EpochSet:
    keys = [hashlib.sha256(b"member %d" % at).digest() for at in range(count)]
    members = tuple(EpochValidator(key, key, 1 + at) for at, key in enumerate(sorted(keys)))
    return EpochSet(0, bytes(32), members)


def test_draws_are_by_weight_and_without_repetition_and_leave_out_who_may_not():
    members = members_of(6)
    keys = [one.public_key for one in members.validators]
    firsts = []
    for at in range(600):
        seed = hashlib.sha256(b"%d" % at).digest()
        found = replays.drawn(seed, members, 3, frozenset({keys[5]}))
        assert len(set(found)) == 3
        assert keys[5] not in found
        firsts.append(found[0])
    assert 0.25 < firsts.count(keys[4]) / 600 < 0.42  # a third
    assert firsts.count(keys[0]) / 600 < 0.12  # a fifteenth
    assert replays.drawn(bytes(32), members_of(2), 3, frozenset()) != []
    assert len(replays.drawn(bytes(32), members_of(2), 3, frozenset())) == 2


def test_what_the_beacon_draws_is_pinned():
    members = members_of(6)
    seed = replays.seed_of(b"b" * 32, b"t" * 32, 3, b"w" * 32)
    assert seed.hex() == "f251078f7baf590dbbc213392ce4e0eec0510336a3a7d287c6752601db9af99f"
    assert replays.segment_of(seed, 7) == 6
    found = replays.drawn(seed, members, 3, frozenset())
    assert [key.hex()[:8] for key in found] == ["992cab6b", "7eae3130", "e7ae82be"]


def test_who_skips_a_third_of_the_steps_is_caught_within_sixty_rounds_as_the_formula_says():
    """Of three segments one is skipped: 1 - (29 / 30)^60 = 0.869 are caught, an honest one never."""
    random_ = random.Random(7)
    caught = touched = 0
    seeds = 2_000
    for at in range(seeds):
        worker = hashlib.sha256(b"skipper %d" % at).digest()
        was = False
        for number in range(1, 61):
            seed = replays.seed_of(random_.randbytes(32), b"t" * 32, number, worker)
            if replays.is_drawn(seed, 10):
                touched += 1
                was = was or replays.segment_of(seed, 3) == number % 3
        caught += was
    assert abs(caught / seeds - (1 - (29 / 30) ** 60)) < 0.025
    assert abs(touched / seeds / 60 - 0.1) < 0.005

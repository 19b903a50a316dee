from __future__ import annotations

import hashlib
import random
from dataclasses import replace

import pytest

from swarm.ledger import replays, verdicts
from swarm.ledger.draft import Draft
from swarm.ledger.genesis import UNIT
from swarm.ledger.holdings import EpochSet, EpochValidator
from swarm.ledger.replaying import PROOF_SIZE, Found, near, seal_of
from swarm.ledger.state import Finding, Phase, Stage
from swarm.ledger.transactions import Register, ReplayFinding, ReplaySeal, Withdraw
from swarm.ledger.verdicts import FINE, judge
from swarm.ledger.vrf import VrfKey
from tests.ledger.world import MERGED, SALT, World, root

BOND = 50 * UNIT
BUDGET = UNIT // 10
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
    task = world.post(world.people["alice"], rounds=rounds, budget=BUDGET)
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


RAN = tuple((at + 1) * 10**6 for at in range(PROOF_SIZE))
"""The proof of those who ran the segment."""
NEARLY = tuple(one + 20_000 for one in RAN)
"""That of another machine."""
GUESS = tuple(10**7 - one for one in RAN)


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    """No check is done twice, unless a test says so."""
    monkeypatch.setattr(replays, "SECOND_IN", 2**300)


@pytest.fixture
def twice(monkeypatch):
    """Each check is."""
    monkeypatch.setattr(replays, "SECOND_IN", 1)


def said(finding: Finding, proof=RAN) -> Found:
    if finding is WITHHELD:
        return Found(finding, 0, ())
    return Found(finding, 40_000 if finding is MISMATCH else 0, proof)


def who_has(world: World, key: bytes):
    return next(one for one in world.validators if one.public_key == key)


def seals(world: World, one, key: bytes, finding: Finding, proof=RAN) -> str:
    seal = seal_of(one.task, one.round, one.worker, key, said(finding, proof), SALT)
    return world.run(who_has(world, key), ReplaySeal(one.task, one.round, one.worker, seal))


def opens(world: World, one, key: bytes, finding: Finding, proof=RAN) -> str:
    found = said(finding, proof)
    fields = (int(found.finding), found.distance, found.proof, SALT)
    payload = ReplayFinding(one.task, one.round, one.worker, *fields)
    return world.run(who_has(world, key), payload)


def fined(before, after) -> int:
    """What an account has less than it had and earned since."""
    earned = after.earned - before.earned
    return before.balance + before.stake + earned - after.balance - after.stake


def check(world: World, task: bytes, finding: Finding, name="bob", number=1, **rest):
    """The verifier, alone, seals and opens what it found."""
    one = of(world, task, name, number)
    assert seals(world, one, one.verifier, finding, **rest) == ""
    assert of(world, task, name, number).stage is Stage.OPENING
    assert opens(world, one, one.verifier, finding, **rest) == ""
    return of(world, task, name, number)


def accuse(world: World, task: bytes, *referees, first: Finding = MISMATCH, number: int = 1):
    """The verifier finds fault, and the referees say what is given: a finding, or one with a proof."""
    one = check(world, task, first, number=number)
    assert one.stage is Stage.REFEREES
    assert len(set(one.referees) | {one.verifier}) == 4
    words = [word if isinstance(word, tuple) else (word, RAN) for word in referees]
    pairs = list(zip(one.referees, words, strict=False))
    for key, word in pairs:
        assert seals(world, one, key, *word) == ""
    while of(world, task, number=number).stage is Stage.REFEREES:
        world.block()
    for key, word in pairs:
        if of(world, task, number=number).stage is Stage.JUDGING:
            assert opens(world, one, key, *word) == ""
    while of(world, task, number=number).stage is Stage.JUDGING:
        world.block()
    return of(world, task, number=number)


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
    found = check(world, task, MATCH)
    assert (found.stage, found.held, found.put_aside) == (Stage.CLEARED, 0, 0)
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
    held, asked = of(world, task).held, []
    while (one := of(world, task)).stage is Stage.CHECK:
        asked += [one.verifier] * (one.verifier not in asked)
        world.block()
    assert len(asked) == 1 + replays.MAX_PASSED
    assert one.stage is Stage.UNANSWERED
    assert world.account(world.people["bob"]).earned == held
    assert world.view.replays() == []


def test_another_validator_is_drawn_for_one_that_is_silent(world):
    task = settle(world)
    first = of(world, task)
    world.blocks(first.until - world.height)
    second = of(world, task)
    assert (second.stage, second.passed) == (Stage.CHECK, (first.verifier,))
    assert second.verifier != first.verifier
    assert "not the one" in seals(world, first, first.verifier, MATCH)
    assert check(world, task, MATCH).stage is Stage.CLEARED


def test_only_who_was_drawn_is_heard_and_once_and_says_what_it_sealed(world):
    task = settle(world)
    one = of(world, task)
    other = next(who for who in world.validators if who.public_key != one.verifier)
    assert "drawn" in seals(world, one, other.public_key, MATCH)
    assert "not drawn" in world.run(other, ReplaySeal(task, 2, one.worker, SALT))
    assert "not yet" in opens(world, one, one.verifier, MATCH)
    assert seals(world, one, one.verifier, MISMATCH) == ""
    assert "opened" in seals(world, one, one.verifier, MATCH)
    assert "something else" in opens(world, one, one.verifier, MATCH)
    assert "something else" in opens(world, one, one.verifier, MISMATCH, GUESS)
    assert opens(world, one, one.verifier, MISMATCH) == ""
    assert opens(world, one, one.verifier, MISMATCH) == "already said"
    one = of(world, task)
    assert seals(world, one, one.referees[0], MATCH) == ""
    assert seals(world, one, one.referees[0], MATCH) == "already sealed"
    for key in one.referees[1:]:
        assert seals(world, one, key, MATCH) == ""
    for key in one.referees:
        assert opens(world, one, key, MATCH) == ""
    assert "over" in seals(world, one, one.referees[2], MISMATCH)


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
    assert accuse(world, task).stage is Stage.UNANSWERED
    assert world.account(world.people["bob"]).earned > 0


def test_two_mismatches_take_reward_bond_and_role_and_the_verifier_gets_a_tenth(world):
    task = settle(world)
    one, bob = of(world, task), world.people["bob"]
    verifier = next(who for who in world.validators if who.public_key == one.verifier)
    check(world, task, MATCH, "carol")
    burned, had = world.view.money().burned, world.account(bob).balance
    before, wage = world.account(verifier).balance, one.put_aside // 2
    escrow = world.view.task(task).escrow
    found = accuse(world, task, MISMATCH, MATCH, MISMATCH)
    assert (found.stage, found.held) == (Stage.CONVICTED, 0)
    taken = one.held + BOND
    assert world.account(bob).bond == 0
    assert world.account(bob).balance == had
    assert world.account(bob).earned == 0
    accuser_fined_and_paid = 3 * wage - FINE * wage  # one referee said match: it pays for the wages
    assert world.view.money().burned - burned == taken - taken // 10 - accuser_fined_and_paid
    earned = world.account(verifier).balance - before
    assert earned >= taken // 10 + wage > taken // 10
    assert world.view.task(task).escrow == escrow + one.put_aside
    assert bob.public_key not in world.view.workers()
    assert bob.public_key not in world.round(task).eligible
    assert world.account(bob).roles == ()


def test_a_convict_can_bond_again_and_begin_anew(world):
    task = settle(world)
    accuse(world, task, MISMATCH, MISMATCH)
    bob = world.people["bob"]
    world.register(bob)
    assert world.account(bob).bond == BOND
    assert bob.public_key in world.view.workers()
    assert bob.public_key not in world.round(task).eligible  # from the next round on


def test_a_bond_that_unbonds_since_the_draw_is_taken(world):
    task = settle(world)
    bob = world.people["bob"]
    key = VrfKey.of(bob.seed).public_key
    assert world.run(bob, Register(key, "cpu", ())) == ""
    assert world.account(bob).bond == 0
    accuse(world, task, MISMATCH, MISMATCH)
    assert world.account(bob).unbonding == ()
    assert "nothing" in world.run(bob, Withdraw())


def test_a_bond_that_unbonds_since_the_commit_is_taken_too(world):
    alice, bob, carol = (world.people[name] for name in ("alice", "bob", "carol"))
    world.register(bob, carol)
    task = world.post(alice, budget=BUDGET)
    made = {bob: "update bob", carol: "update carol"}
    world.commits(task, made)
    assert world.run(bob, Register(VrfKey.of(bob.seed).public_key, "cpu", ())) == ""
    world.reveals(task, made)
    scores = {"update bob": 300, "update carol": 290}
    world.score(task, dict.fromkeys(world.validators, scores))
    world.attest(task, dict.fromkeys(world.validators, MERGED))
    assert of(world, task).held > 0
    accuse(world, task, MISMATCH, MISMATCH)
    assert world.account(bob).unbonding == ()


def test_a_bond_that_unbonds_since_before_the_round_is_not_that_of_its_work(world):
    alice, bob, carol = (world.people[name] for name in ("alice", "bob", "carol"))
    world.register(bob, carol)
    world.ok((bob, Register(VrfKey.of(bob.seed).public_key, "cpu", ())))
    world.register(bob)
    task = world.post(alice, budget=BUDGET)
    play(world, task)
    accuse(world, task, MISMATCH, MISMATCH)
    assert world.account(bob).bond == 0
    assert [one.amount for one in world.account(bob).unbonding] == [BOND]


def test_withheld_states_cost_the_reward_and_not_the_bond(world):
    task = settle(world)
    held, bob = of(world, task).held, world.people["bob"]
    burned = world.view.money().burned
    wage = of(world, task).put_aside // 2
    found = accuse(world, task, WITHHELD, WITHHELD, WITHHELD, first=WITHHELD)
    assert found.stage is Stage.LOST
    assert world.view.money().burned - burned == held - 4 * wage
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
    accuse(world, task, WITHHELD, WITHHELD, first=WITHHELD, number=2)
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
    assert check(world, task, MISMATCH).stage is Stage.UNANSWERED
    assert world.account(world.people["bob"]).earned > 0


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


def test_who_runs_it_again_is_paid_from_a_part_of_the_budget_and_the_rest_returns(world):
    alice = world.people["alice"]
    task = settle(world, rounds=1)
    had = world.account(alice).balance
    one = of(world, task)
    wage = one.put_aside // 2
    assert (
        wage == BUDGET // 2 // 2 * 40 // 100
    )  # half of the budget is for checks where all are checked
    verifier = who_has(world, one.verifier)
    before = world.account(verifier).earned
    check(world, task, MATCH)
    assert world.account(verifier).earned - before >= wage
    assert world.account(alice).balance == had + wage  # the task is closed: to its poster


def test_of_a_check_that_is_done_twice_both_are_paid(world, twice):
    task = settle(world)
    one = of(world, task)
    assert seals(world, one, one.verifier, MATCH) == ""
    one = of(world, task)
    assert one.stage is Stage.SECOND
    assert one.second not in ("", one.verifier)
    escrow = world.view.task(task).escrow
    assert seals(world, one, one.second, MATCH, NEARLY) == ""
    assert opens(world, one, one.second, MATCH, NEARLY) == ""
    assert opens(world, one, one.verifier, MATCH) == ""
    assert of(world, task).stage is Stage.CLEARED
    assert world.view.task(task).escrow == escrow


def test_a_verifier_that_says_match_and_ran_nothing_is_fined_where_it_is_compared(world, twice):
    task = settle(world)
    one = of(world, task)
    lazy = who_has(world, one.verifier)
    seals(world, one, one.verifier, MATCH, GUESS)
    one = of(world, task)
    seals(world, one, one.second, MATCH)
    before = world.account(lazy)
    opens(world, one, one.verifier, MATCH, GUESS)
    opens(world, one, one.second, MATCH)
    one = of(world, task)
    assert one.stage is Stage.REFEREES
    assert len({*one.referees, one.verifier, one.second}) == 5
    for key in one.referees:
        seals(world, one, key, MATCH, NEARLY)
    for key in one.referees:
        opens(world, one, key, MATCH, NEARLY)
    assert of(world, task).stage is Stage.CLEARED
    assert fined(before, world.account(lazy)) == FINE * (one.put_aside // 2)
    assert world.account(world.people["bob"]).earned > 0


def test_who_seals_and_does_not_open_is_fined(world, twice):
    task = settle(world)
    one = of(world, task)
    key, other = one.verifier, of(world, task, "carol")
    seals(world, one, key, MATCH, GUESS)
    one = of(world, task)
    seals(world, one, one.second, MATCH)
    before = world.account(who_has(world, key))
    opens(world, one, one.second, MATCH)
    while of(world, task).stage is Stage.OPENING:
        world.block()
    assert of(world, task).stage is Stage.CLEARED
    assert other.stage is Stage.CHECK
    assert fined(before, world.account(who_has(world, key))) == FINE * (one.put_aside // 2)


def test_a_referee_that_guesses_does_not_count_and_pays(world):
    task = settle(world)
    wage = of(world, task).put_aside // 2
    before = {one.public_key: world.account(one) for one in world.validators}
    lazy_first = accuse(world, task, (MATCH, GUESS), MISMATCH, (MISMATCH, NEARLY))
    assert lazy_first.stage is Stage.CONVICTED
    fines = [fined(before[key], world.account(who_has(world, key))) for key in lazy_first.referees]
    assert fines == [FINE * wage, 0, 0]


def test_a_fine_takes_a_hundredth_of_a_stake_at_most(world):
    key = world.validators[0].public_key
    draft = Draft(world.memory)
    draft.put_account(replace(draft.account(key), balance=7, stake=1_000))
    assert verdicts._fine(draft, key, 10) == 10
    assert (draft.account(key).balance, draft.account(key).stake) == (0, 997)
    assert verdicts._fine(draft, key, 10**9) == 9
    assert draft.account(key).stake == 988


def test_guesses_alone_decide_nothing():
    others = [tuple(one * at for one in GUESS) for at in (1, 2, 3)]
    found = {bytes([at]): said(MATCH, proof) for at, proof in enumerate(others)}
    assert judge(found, 10_000).stage is Stage.UNANSWERED
    found[b"a"], found[b"b"] = said(MATCH), said(MATCH, NEARLY)
    assert judge(found, 10_000).stage is Stage.CLEARED
    assert judge(found, 10_000).standing == (b"a", b"b")


def test_proofs_are_near_within_five_tolerances_of_their_length():
    assert near(RAN, NEARLY, 10_000)
    assert near(RAN, tuple(one + one // 25 for one in RAN), 10_000)
    assert not near(RAN, tuple(one + one // 15 for one in RAN), 10_000)
    assert not near(RAN, (0,) * PROOF_SIZE, 10_000)
    assert not near((), (), 10_000)
    assert near((0,) * PROOF_SIZE, (0,) * PROOF_SIZE, 10_000)


def test_a_task_that_pays_for_checks_pays_its_workers_less_and_never_more_than_its_budget():
    plain, checked = world_of(replay_one_in=0), world_of(replay_one_in=10)
    paid = []
    for one in (plain, checked):
        task = settle(one)
        (line,) = one.view.history(task)
        paid.append(sum(submission.payment for submission in line.submissions))
    assert 0.9 * paid[0] < paid[1] < paid[0]

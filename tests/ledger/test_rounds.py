from __future__ import annotations

import pytest

from swarm.ledger.genesis import UNIT
from swarm.ledger.rewards import capped, lower_median, split
from swarm.ledger.rounds import MAX_ATTEMPTS
from swarm.ledger.state import Outcome, Phase, Refusal
from swarm.ledger.transactions import (
    CheckpointCommit,
    CheckpointReveal,
    MergeAttest,
    NameUpdate,
    Register,
    ScoreCommit,
    ScoreReveal,
    commit_hash,
)
from swarm.ledger.vrf import VrfKey
from tests.ledger.world import BASE, MERGED, SALT, World, root, signer

SCORES = {"update 0": 300, "update 1": 110}


@pytest.fixture
def world():
    made = World(people=("alice", "bob", "carol", "dave"))
    made.w = [made.people["bob"], made.people["carol"], made.people["dave"]]
    return made


def to_scoring(world, *, workers=2, **post):
    workers = world.w[:workers]
    world.register(*workers)
    task = world.post(world.people["alice"], **post)
    made = {who: f"update {at}" for at, who in enumerate(workers)}
    world.commits(task, made)
    assert world.round(task).phase is Phase.REVEAL
    world.reveals(task, made)
    assert world.round(task).phase is Phase.SCORE_COMMIT
    return task


def all_score(world, task, scores, **kwargs):
    world.score(task, dict.fromkeys(world.validators, scores), **kwargs)


def test_a_round_pays_and_writes_the_next_version_and_the_next_round_starts(world):
    task = to_scoring(world)
    assert world.round(task).score_beacon == b""
    world.block()
    assert world.round(task).score_beacon == world.view.beacon
    start = world.round(task).started
    all_score(world, task, {"update 0": 300, "update 1": 110})
    current = world.round(task)
    assert current.phase is Phase.ATTEST
    assert [one.score for one in current.accepted] == list(current.medians)
    before = [world.account(who).balance for who in world.w[:2]]
    world.attest(task, dict.fromkeys(world.validators[:3], MERGED))
    (settled,) = world.view.history(task)
    assert settled.outcome is Outcome.MERGED
    assert (settled.base, settled.merged, settled.version) == (BASE, MERGED, 1)
    assert (settled.base_loss, settled.merged_loss, settled.started) == (50_000, 49_000, start)
    assert settled.settled == world.height
    paid = {one.worker: one.payment for one in settled.submissions}
    after = [world.account(who).balance for who in world.w[:2]]
    assert [late - early for early, late in zip(before, after, strict=True)] == [
        paid[who.public_key] for who in world.w[:2]
    ]
    # With two accepted both stand at the cap of 40 %, from the budget and from emission alike.
    assert paid[world.w[0].public_key] == paid[world.w[1].public_key] > 200
    assert world.view.task(task).escrow == 1000 - 2 * 200
    entry = world.view.name("gpt")
    assert (entry.root, entry.version, entry.previous, entry.task) == (MERGED, 1, BASE, task)
    assert world.view.name_version("gpt", 0).root == BASE
    assert world.view.name_version("gpt", 1).round == 1
    current = world.round(task)
    assert (current.number, current.phase, current.base, current.version) == (
        2,
        Phase.TRAIN,
        MERGED,
        1,
    )
    assert current.start_beacon == world.view.beacon
    assert current.eligible == tuple(sorted(who.public_key for who in world.w[:2]))


def test_all_four_validators_attest_before_the_quorum_and_all_are_paid(world):
    task = to_scoring(world)
    all_score(world, task, {"update 0": 300, "update 1": 110})
    world.attest(task, dict.fromkeys(world.validators, MERGED))
    (settled,) = world.view.history(task)
    amounts = {paid for _, paid in settled.validators}
    assert len(settled.validators) == 4
    assert len(amounts) == 1
    assert amounts.pop() > 0


def test_the_last_round_closes_the_task_and_returns_the_rest_of_the_budget(world):
    alice = world.people["alice"]
    before = world.account(alice).balance
    task = to_scoring(world, rounds=1)
    all_score(world, task, {"update 0": 300, "update 1": 110})
    world.attest(task, dict.fromkeys(world.validators, MERGED))
    closed = world.view.task(task)
    assert (closed.open, closed.escrow, closed.done) == (False, 0, 1)
    assert world.round(task) is None
    assert world.view.open_tasks() == []
    assert world.account(alice).balance == before - 2 * 400
    update = NameUpdate("gpt", root("mine"), 2, MERGED)
    assert world.run(alice, update) == ""
    assert world.view.name("gpt").root == root("mine")


def test_a_name_under_an_open_task_is_written_by_the_task_alone(world):
    world.post(world.people["alice"])
    refused = world.run(world.people["alice"], NameUpdate("gpt", root("mine"), 1, BASE))
    assert "open task" in refused


def test_train_ends_early_only_when_every_eligible_worker_has_committed(world):
    world.register(*world.w)
    task = world.post(world.people["alice"])
    world.commits(task, {world.w[0]: "a", world.w[1]: "b"})
    assert world.round(task).phase is Phase.TRAIN
    world.commits(task, {world.w[2]: "c"})
    assert world.round(task).phase is Phase.REVEAL


def test_train_ends_at_its_deadline_with_the_commits_that_came(world):
    world.register(*world.w)
    task = world.post(world.people["alice"], train=4)
    deadline = world.round(task).phase_deadline
    world.commits(task, {world.w[0]: "a"})
    while world.height < deadline:
        assert world.round(task).phase is Phase.TRAIN
        world.block()
    assert world.round(task).phase is Phase.REVEAL


def test_a_commit_at_the_deadline_counts_and_one_after_it_is_kept_as_late(world):
    world.register(*world.w)
    task = world.post(world.people["alice"], train=3)
    world.commits(task, {world.w[0]: "a"})
    world.block()
    assert world.height + 1 == world.round(task).phase_deadline
    world.commits(task, {world.w[1]: "b"})
    assert world.round(task).phase is Phase.REVEAL
    late = CheckpointCommit(task, 1, commit_hash(root("c"), world.w[2].public_key, SALT))
    assert world.run(world.w[2], late) == "committed too late"
    assert world.round(task).refused == {world.w[2].public_key: "committed too late"}


def test_a_round_without_commits_starts_again_with_the_samples_that_were_drawn(world):
    world.register(*world.w)
    task = world.post(world.people["alice"], train=3)
    first = world.round(task)
    world.blocks(3)
    second = world.round(task)
    assert (second.number, second.attempt, second.phase) == (1, 2, Phase.TRAIN)
    assert second.start_beacon == first.start_beacon != world.view.beacon
    assert second.started == world.height
    assert second.eligible == first.eligible
    assert second.phase_deadline == world.height + 3


def test_a_task_that_nobody_trains_is_closed_after_its_last_attempt_and_its_escrow_returned(world):
    alice = world.people["alice"]
    before = world.view.account(alice.public_key).balance
    task = world.post(alice, train=2)
    assert world.view.account(alice.public_key).balance < before
    while world.view.task(task).open:
        assert world.round(task).attempt <= MAX_ATTEMPTS
        world.block()
    assert world.view.open_tasks() == []
    assert world.view.task(task).escrow == 0
    assert world.view.name(world.view.task(task).name).task == b""
    assert before - world.view.account(alice.public_key).balance < UNIT  # fees alone


def test_a_worker_that_was_silent_is_not_waited_for_in_the_next_round_but_may_commit(world):
    world.register(*world.w)
    task = world.post(world.people["alice"], train=2)
    world.commits(task, {world.w[0]: "a", world.w[1]: "b"})
    world.block()
    world.reveals(task, {world.w[0]: "a", world.w[1]: "b"})
    all_score(world, task, {"a": 0, "b": 0})
    current = world.round(task)
    assert current.number == 2
    assert current.eligible == tuple(sorted(one.public_key for one in world.w[:2]))
    world.commits(task, {world.w[2]: "c"})
    assert world.round(task).phase is Phase.TRAIN


def test_a_worker_that_joins_while_training_is_not_waited_for_and_works_in_the_next_round(world):
    world.register(world.w[0])
    task = world.post(world.people["alice"])
    world.register(world.w[1])
    early = CheckpointCommit(task, 1, commit_hash(root("b"), world.w[1].public_key, SALT))
    assert "works from the next on" in world.run(world.w[1], early)
    world.commits(task, {world.w[0]: "a"})
    assert world.round(task).phase is Phase.REVEAL
    world.reveals(task, {world.w[0]: "a"})
    all_score(world, task, {"a": 0})
    assert world.round(task).eligible == tuple(sorted(one.public_key for one in world.w[:2]))
    world.commits(task, {world.w[1]: "b"})
    assert list(world.round(task).commits) == [world.w[1].public_key]


def test_a_worker_that_leaves_while_training_is_not_waited_for(world):
    world.register(*world.w[:2])
    task = world.post(world.people["alice"])
    world.commits(task, {world.w[0]: "a"})
    assert world.round(task).phase is Phase.TRAIN
    gone = Register(VrfKey.of(world.w[1].seed).public_key, "cpu", ())
    assert world.run(world.w[1], gone) == ""
    assert world.round(task).phase is Phase.REVEAL


def test_work_of_one_who_is_not_waited_for_counts_when_a_newcomer_starts_the_round_again(world):
    slow, new, *_ = world.w
    world.register(slow)
    task = world.post(world.people["alice"], train=3)
    world.commits(task, {slow: "a"})
    while world.round(task).number == 1:  # unopened: it is not waited for in the next
        world.block()
    world.blocks(3)
    first = world.round(task)
    world.register(new)
    again = world.round(task)
    while again.attempt == first.attempt:
        world.block()
        again = world.round(task)
    assert new.public_key in again.eligible
    assert again.start_beacon == first.start_beacon


def test_who_joins_and_leaves_in_turns_takes_the_last_attempt_from_nobody(world):
    task = world.post(world.people["alice"], train=200)
    joins, leaves = (
        Register(VrfKey.of(world.w[1].seed).public_key, "cpu", roles) for roles in (("worker",), ())
    )
    for _ in range(MAX_ATTEMPTS + 2):
        world.block()
        assert world.run(world.w[1], joins) == ""
        assert world.run(world.w[1], leaves) == ""
    last = world.round(task)
    assert last.attempt == MAX_ATTEMPTS
    world.register(world.w[0])
    assert world.round(task).phase_deadline == last.phase_deadline
    world.commits(task, {world.w[0]: "a"})
    assert world.round(task).phase is Phase.REVEAL


def test_a_round_that_nobody_works_in_begins_again_with_the_first_who_joins(world):
    task = world.post(world.people["alice"])
    first = world.round(task)
    world.block()
    world.register(world.w[0])
    second = world.round(task)
    assert (second.number, second.attempt, second.eligible) == (1, 2, (world.w[0].public_key,))
    assert second.start_beacon != first.start_beacon
    world.commits(task, {world.w[0]: "a"})
    assert world.round(task).phase is Phase.REVEAL


def test_who_joins_and_leaves_again_and_again_does_not_keep_a_task_open(world):
    task = world.post(world.people["alice"], train=5)
    key = VrfKey.of(world.w[0].seed).public_key
    while world.view.task(task).open:
        assert world.height < 200
        for roles in (("worker",), ()):
            world.run(world.w[0], Register(key, "cpu", roles))
    assert world.view.task(task).escrow == 0


def test_who_never_reveals_is_named_on_the_scoreboard_and_not_paid(world):
    world.register(*world.w[:2])
    task = world.post(world.people["alice"], reveal=2)
    world.commits(task, {world.w[0]: "a", world.w[1]: "b"})
    world.reveals(task, {world.w[0]: "a"})
    assert world.round(task).phase is Phase.REVEAL
    world.block()
    assert world.round(task).phase is Phase.SCORE_COMMIT
    late = CheckpointReveal(task, 1, root("b"), SALT)
    assert world.run(world.w[1], late) == "revealed too late"
    all_score(world, task, {"a": 100})
    world.attest(task, dict.fromkeys(world.validators, MERGED))
    (settled,) = world.view.history(task)
    lines = {one.worker: one for one in settled.submissions}
    assert lines[world.w[1].public_key].reason == "revealed too late"
    assert lines[world.w[1].public_key].payment == 0
    assert lines[world.w[0].public_key].accepted


def test_a_round_in_which_nobody_reveals_ends_unpaid_and_the_next_begins(world):
    world.register(world.w[0])
    task = world.post(world.people["alice"], reveal=1)
    world.commits(task, {world.w[0]: "a"})
    world.block()
    (settled,) = world.view.history(task)
    assert settled.outcome is Outcome.NOT_REVEALED
    assert settled.submissions[0].reason == "never revealed"
    assert (world.round(task).number, world.view.task(task).escrow) == (2, 1000)


def test_a_reveal_that_does_not_open_its_commit_is_refused(world):
    world.register(world.w[0])
    task = world.post(world.people["alice"])
    world.commits(task, {world.w[0]: "a"})
    assert world.run(world.w[0], CheckpointReveal(task, 1, root("b"), SALT)) != ""
    assert world.run(world.w[0], CheckpointReveal(task, 1, root("a"), b"x" * 32)) != ""
    assert world.round(task).reveals == {}


def test_a_copied_commit_opens_for_nobody_else(world):
    world.register(*world.w[:2])
    task = world.post(world.people["alice"])
    copied = commit_hash(root("a"), world.w[0].public_key, SALT)
    world.ok(*[(one, CheckpointCommit(task, 1, copied)) for one in world.w[:2]])
    world.reveals(task, {world.w[0]: "a"})
    assert world.run(world.w[1], CheckpointReveal(task, 1, root("a"), SALT)) != ""


def test_only_registered_workers_commit_and_only_once(world):
    world.register(*world.w[:2])
    task = world.post(world.people["alice"])
    asked = CheckpointCommit(task, 1, b"h" * 32)
    assert "registered" in world.run(world.w[2], asked)
    assert world.run(world.w[0], asked) == ""
    assert "already" in world.run(world.w[0], asked)
    assert "round is 1" in world.run(world.w[1], CheckpointCommit(task, 2, b"h" * 32))


def test_batches_are_drawn_again_so_often_and_then_the_round_ends_and_nobody_is_paid(world):
    task = to_scoring(world)
    held = [world.account(one).earned for one in world.validators[1:]]
    beacons = set()
    for redraws in range(3):
        assert (world.round(task).redraws, world.round(task).attempt) == (redraws, redraws + 1)
        world.ok(*[(one, ScoreCommit(task, 1, b"h" * 32)) for one in world.validators])
        beacons.add(world.round(task).score_beacon)
        assert world.round(task).phase is Phase.SCORE_REVEAL
        world.blocks(3)
    assert len(beacons) == 3
    (settled,) = world.view.history(task)
    assert (settled.outcome, settled.base_loss, settled.merged) == (Outcome.NO_SCORES, None, BASE)
    assert {one.reason for one in settled.submissions} == {"too few validators scored"}
    assert [world.account(one).earned for one in world.validators[1:]] == held
    assert world.view.task(task).escrow == 1000
    assert world.round(task).number == 2


def test_under_a_quorum_of_score_commits_their_deadline_draws_again_or_ends_the_round(world):
    task = to_scoring(world)
    for redraws in (1, 2, 0):
        for one in world.validators[:2]:
            world.ok((one, ScoreCommit(task, 1, b"h" * 32)))
        world.block()
        assert world.round(task).redraws == redraws
    assert world.view.history(task)[0].outcome is Outcome.NO_SCORES
    assert world.round(task).number == 2


def test_a_round_is_scored_on_other_batches_after_those_that_too_few_scored(world):
    task = to_scoring(world)
    world.block()
    before = world.round(task)
    world.ok(*[(one, ScoreCommit(task, 1, b"h" * 32)) for one in world.validators])
    world.blocks(3)
    again = world.round(task)
    assert (again.phase, again.score_commits, again.score_beacon) == (Phase.SCORE_COMMIT, {}, b"")
    assert again.submissions == before.submissions
    all_score(world, task, SCORES)
    assert world.round(task).score_beacon not in (b"", before.score_beacon)
    world.attest(task, dict.fromkeys(world.validators[:3], MERGED))
    (settled,) = world.view.history(task)
    assert (settled.outcome, settled.attempt) == (Outcome.MERGED, 2)


def test_the_rest_scores_at_the_deadline_when_one_validator_of_four_is_away(world):
    task = to_scoring(world)
    world.score(task, dict.fromkeys(world.validators[:3], SCORES))
    assert world.round(task).phase is Phase.ATTEST
    world.attest(task, dict.fromkeys(world.validators[:3], MERGED))
    (settled,) = world.view.history(task)
    assert settled.outcome is Outcome.MERGED
    assert {key for key, _ in settled.validators} == {
        one.public_key for one in world.validators[:3]
    }


def test_when_nobody_improved_the_round_settles_at_once_with_its_base(world):
    task = to_scoring(world)
    all_score(world, task, {"update 0": 10, "update 1": Refusal.NOT_FOUND.score})
    (settled,) = world.view.history(task)
    assert settled.outcome is Outcome.UNCHANGED
    assert (settled.merged, settled.version, settled.merged_loss) == (BASE, 0, None)
    reasons = {one.root: one.reason for one in settled.submissions}
    assert reasons[root("update 0")] == "no improvement above the tolerance"
    assert reasons[root("update 1")] == "file not found in time"
    assert world.view.name("gpt").version == 0
    assert len(settled.validators) == 4


def test_without_a_quorum_on_one_checkpoint_the_base_stays_and_nobody_is_paid(world):
    task = to_scoring(world)
    all_score(world, task, {"update 0": 300, "update 1": 110})
    split_vote = {one: root(f"merge {at % 2}") for at, one in enumerate(world.validators)}
    world.attest(task, split_vote)
    world.blocks(3)
    (settled,) = world.view.history(task)
    assert (settled.outcome, settled.merged, settled.validators) == (Outcome.NO_QUORUM, BASE, ())
    assert {one.payment for one in settled.submissions} == {0}
    assert not any(one.accepted for one in settled.submissions)
    assert world.view.name("gpt").version == 0


def test_a_validator_that_attests_another_checkpoint_or_scores_far_off_is_not_paid(world):
    task = to_scoring(world)
    honest = {"update 0": 300, "update 1": 110}
    scores = dict.fromkeys(world.validators, honest)
    scores[world.validators[1]] = {"update 0": 300 + 31, "update 1": 110}
    world.score(task, scores)
    attested = dict.fromkeys(world.validators, MERGED)
    attested[world.validators[2]] = root("another")
    world.attest(task, attested)
    (settled,) = world.view.history(task)
    paid = {key for key, _ in settled.validators}
    assert paid == {world.validators[0].public_key, world.validators[3].public_key}


def test_a_lying_scorer_with_under_half_the_weight_does_not_move_the_score(world):
    task = to_scoring(world)
    scores = {one: {"update 0": 300, "update 1": 110} for one in world.validators}
    scores[world.validators[0]] = {"update 0": 2**40, "update 1": Refusal.MALFORMED.score}
    world.score(task, scores)
    assert sorted(world.round(task).medians) == [110, 300]


def test_a_gan_round_takes_the_best_alone_and_the_rest_of_the_money_stays(world):
    task = to_scoring(world, kind="gan")
    all_score(world, task, {"update 0": 300, "update 1": 400})
    current = world.round(task)
    assert [current.submissions[one.index].root for one in current.accepted] == [root("update 1")]
    world.attest(task, dict.fromkeys(world.validators, MERGED))
    (settled,) = world.view.history(task)
    reasons = {one.root: one.reason for one in settled.submissions}
    assert reasons == {root("update 1"): "", root("update 0"): "not the best of the round"}
    assert world.view.task(task).escrow == 1000 - 200


def test_a_round_of_a_gan_that_takes_the_mean_takes_all_that_improved_and_pays_each_by_its_score(
    world,
):
    task = to_scoring(world, workers=3, kind="gan-mean")
    all_score(world, task, {"update 0": 210, "update 1": 310, "update 2": 310})
    assert len(world.round(task).accepted) == 3
    world.attest(task, dict.fromkeys(world.validators, MERGED))
    (settled,) = world.view.history(task)
    paid = {one.root: one.payment for one in settled.submissions}
    assert paid[root("update 0")] > 0
    assert abs(3 * paid[root("update 0")] - 2 * paid[root("update 1")]) <= 6  # units, rounded


def test_of_two_equal_gan_submissions_the_earlier_commit_wins(world):
    world.register(*world.w[:2])
    task = world.post(world.people["alice"], kind="gan")
    names = sorted(("update 0", "update 1"), key=root)
    world.commits(task, {world.w[0]: names[1], world.w[1]: names[0]})
    world.reveals(task, {world.w[0]: names[1], world.w[1]: names[0]})
    all_score(world, task, {"update 0": 300, "update 1": 300})
    current = world.round(task)
    assert [current.submissions[one.index].worker for one in current.accepted] == [
        world.w[0].public_key
    ]


def test_the_same_checkpoint_from_two_workers_counts_for_the_earlier_commit(world):
    world.register(*world.w[:2])
    task = world.post(world.people["alice"])
    world.commits(task, dict.fromkeys(world.w[:2], "same"))
    world.reveals(task, dict.fromkeys(world.w[:2], "same"))
    all_score(world, task, {"same": 300})
    current = world.round(task)
    assert [current.submissions[one.index].worker for one in current.accepted] == [
        world.w[0].public_key
    ]
    assert Refusal.DUPLICATE.score in current.medians
    world.attest(task, dict.fromkeys(world.validators, MERGED))
    (settled,) = world.view.history(task)
    assert len(settled.validators) == 4


def test_scores_of_another_length_or_of_a_stranger_are_refused(world):
    task = to_scoring(world)
    assert "SCORE_COMMIT" in world.run(world.validators[0], MergeAttest(task, 1, MERGED, 0))
    current = world.round(task)
    stranger = ScoreReveal(task, 1, 0, (1,) * len(current.submissions), SALT)
    assert world.run(world.w[0], stranger) != ""


def test_a_budget_the_poster_does_not_have_is_refused_and_leaves_no_name(world):
    poor = signer("nobody")
    with pytest.raises(AssertionError, match="balance"):
        world.post(poor)
    assert world.view.name("gpt") is None


def test_two_tasks_do_not_write_one_name_and_a_name_is_its_owners(world):
    world.post(world.people["alice"])
    with pytest.raises(AssertionError, match="another open task"):
        world.post(world.people["alice"])
    with pytest.raises(AssertionError, match="another account"):
        world.post(world.people["bob"])


def test_phases_of_a_round_that_crosses_an_epoch_keep_its_validators(world):
    task = to_scoring(world, score_commit=30)
    epoch = world.round(task).score_epoch
    world.blocks(15)
    assert world.view.epoch > epoch == world.round(task).score_epoch
    all_score(world, task, {"update 0": 300, "update 1": 110})
    assert world.round(task).phase is Phase.ATTEST


def test_money_is_split_to_the_last_unit_and_ties_go_by_place():
    assert split(10, [1, 1, 1]) == [4, 3, 3]
    assert split(0, [5]) == [0]
    assert sum(split(10**18 + 7, [3, 5, 11, 1])) == 10**18 + 7


def test_first_place_gets_at_most_forty_percent_and_the_others_divide_the_rest():
    assert capped(100, [80, 10, 10]) == [40, 30, 30]
    assert capped(100, [5]) == [40]
    assert capped(100, [1, 1]) == [40, 40]
    assert capped(1, [1, 1, 1]) == [0, 0, 0]
    assert capped(1000, [96, 2, 1, 1]) == [400, 300, 150, 150]


def test_the_lower_median_stays_among_the_honest_with_under_half_hostile():
    assert lower_median([(1, 1), (2, 1)]) == 1
    assert lower_median([(5, 10), (-100, 4), (100, 5)]) == 5
    assert lower_median([(3, 1)]) == 3

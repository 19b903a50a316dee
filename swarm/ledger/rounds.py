"""Rounds: TRAIN -> REVEAL -> SCORE_COMMIT -> SCORE_REVEAL -> ATTEST, then settled, and the next one starts.

A phase takes transactions up to and with its deadline height, and ends with the block in which everyone who is
waited for has acted, if that is earlier. All transitions happen at the end of a block, at most one a round.

- TRAIN waits for the workers in `eligible`: registered before it began, and new or committed in the round before. Who
  joins meanwhile works from the next round on: its peer id was chosen when the beacon that draws samples was known.
  Without a single commit at its deadline the round starts again, and takes in who joined; one that waits for nobody
  starts again as soon as somebody joins. The samples stay those that were drawn, so that work which outlasts an
  attempt counts in the next; where nobody may have begun any, a fresh beacon draws them.
- REVEAL waits for all who committed; who does not open is refused with a reason that the scoreboard keeps.
- SCORE_COMMIT waits for all validators of the epoch, SCORE_REVEAL for all of them that committed. Under a quorum of
  weight the batches are drawn again, for the validators of that height; after `score_redraws` such draws the round
  fails: nobody is paid and the base stays.
- A submission's score is the lower median by weight; it is accepted above the tolerance and not far behind
  the others (`scoring`). A task of kind "gan" takes only the best (of equals, the earlier commit); none accepted
  settles the round at once, with the base unchanged.
- ATTEST waits for a quorum of weight on one checkpoint, which becomes the name's next version.
"""

# ruff: noqa: EM101, EM102 - a refusal's reason is what its receipt keeps
from __future__ import annotations

from bisect import bisect_left
from dataclasses import replace
from typing import TYPE_CHECKING

from swarm.ledger import replays, scoring, settlement
from swarm.ledger.errors import Refused
from swarm.ledger.names import READS_AS_CID, reads_as_cid
from swarm.ledger.state import (
    NO_CID,
    REASON_LATE,
    REASON_LATE_REVEAL,
    REASON_NEVER_REVEALED,
    Attestation,
    NameEntry,
    Outcome,
    Phase,
    RoundState,
    ScoreReveal,
    Submission,
    TaskState,
)
from swarm.ledger.transactions import MAX_SUBMISSIONS, commit_hash, score_hash
from swarm.ledger.validators import epoch_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from storage.cid import Cid
    from swarm.ledger.draft import Draft
    from swarm.ledger.state import EpochSet
    from swarm.ledger.transactions import (
        CheckpointCommit,
        CheckpointReveal,
        MergeAttest,
        ScoreCommit,
        TaskPost,
    )
    from swarm.ledger.transactions import (
        ScoreReveal as ScoreRevealPayload,
    )

MAX_OPEN_TASKS = 64
MIN_SCORE_COMMIT = 2
"""Blocks: the beacon of the first of them draws the batches, so nobody commits to scores before the second."""
MAX_ATTEMPTS = 16
"""A round that so often found no worker by its deadline closes its task: nobody wants it, or nobody can do it."""


def post(
    draft: Draft, task_id: bytes, poster: bytes, asked: TaskPost, height: int, beacon: bytes
) -> None:
    """Post a task: escrow its budget, bind its name, start its first round.

    Raises:
        Refused: No funds, the name is another's or in use or reads as a CID, too many tasks are open, or nobody could score.
    """
    account = draft.account(poster)
    if len(draft.open_tasks) >= MAX_OPEN_TASKS:
        raise Refused(f"{MAX_OPEN_TASKS} tasks are open")
    if asked.budget < draft.params.min_task_budget:
        raise Refused(f"the budget is below {draft.params.min_task_budget:,}")
    if account.balance < asked.budget:
        raise Refused("the balance does not cover the budget")
    if asked.phases.score_commit < MIN_SCORE_COMMIT:
        raise Refused(
            f"score_commit is {MIN_SCORE_COMMIT} blocks at least: the first one draws the batches"
        )
    version = _bind(draft, task_id, poster, asked, height)
    draft.put_account(replace(account, balance=account.balance - asked.budget))
    task = TaskState(
        task_id,
        poster,
        asked.name,
        asked.kind,
        asked.spec,
        asked.base,
        asked.dataset,
        asked.pool,
        asked.rounds,
        asked.budget,
        asked.phases,
        asked.tolerance,
        posted=height,
        escrow=asked.budget,
    )
    draft.put_task(task)
    draft.put_open_tasks((*draft.open_tasks, task_id))
    _start(draft, task, 1, version, asked.base, tuple(draft.workers), height, beacon)


def left(draft: Draft, worker: bytes) -> None:
    """A worker is none any more: nobody waits for it."""
    for current in _training(draft):
        at = bisect_left(current.eligible, worker)
        if current.eligible[at : at + 1] == (worker,):
            eligible = current.eligible[:at] + current.eligible[at + 1 :]
            draft.put_round(replace(current, eligible=eligible))


def commit(draft: Draft, worker: bytes, asked: CheckpointCommit) -> str:
    """Take a worker's commit.

    Returns:
        Empty, or why it does not count although it is kept on the scoreboard.
    """
    current = _current(draft, asked.task, asked.round)
    if worker not in draft.workers:
        raise Refused("not a registered worker")
    if draft.workers[worker] > current.started:
        raise Refused("it registered after the round began, and works from the next on")
    if worker in current.commits:
        raise Refused("already committed in this round")
    if len(current.commits) + len(current.refused) >= MAX_SUBMISSIONS:
        raise Refused("the round is full")
    if current.phase is not Phase.TRAIN:
        if worker in current.refused:
            raise Refused(REASON_LATE)
        draft.put_round(replace(current, refused={**current.refused, worker: REASON_LATE}))
        return REASON_LATE
    draft.put_round(replace(current, commits={**current.commits, worker: asked.hash}))
    return ""


def reveal(draft: Draft, worker: bytes, asked: CheckpointReveal) -> str:
    """Open a worker's commit; returns as `commit` does."""
    current = _current(draft, asked.task, asked.round)
    if current.commits.get(worker) != commit_hash(asked.root, worker, asked.salt):
        raise Refused("it opens no commit of this round")
    if worker in current.reveals:
        raise Refused("already revealed")
    if current.phase is Phase.TRAIN:
        raise Refused("commits are still open")
    if current.phase is not Phase.REVEAL:
        if current.refused.get(worker) == REASON_LATE_REVEAL:
            raise Refused(REASON_LATE_REVEAL)
        draft.put_round(replace(current, refused={**current.refused, worker: REASON_LATE_REVEAL}))
        return REASON_LATE_REVEAL
    draft.put_round(replace(current, reveals={**current.reveals, worker: asked.root}))
    return ""


def commit_scores(draft: Draft, validator: bytes, asked: ScoreCommit) -> None:
    """Take a validator's commit to its scores."""
    current = _scoring(draft, validator, asked.task, asked.round, Phase.SCORE_COMMIT)
    if validator in current.score_commits:
        raise Refused("already committed to scores")
    kept = {**current.score_commits, validator: asked.hash}
    draft.put_round(replace(current, score_commits=kept))


def reveal_scores(draft: Draft, validator: bytes, asked: ScoreRevealPayload) -> None:
    """Open a validator's scores."""
    current = _scoring(draft, validator, asked.task, asked.round, Phase.SCORE_REVEAL)
    opened = score_hash(
        asked.task, asked.round, validator, asked.base_loss, asked.scores, asked.salt
    )
    if current.score_commits.get(validator) != opened:
        raise Refused("the scores open no commit")
    if validator in current.score_reveals:
        raise Refused("scores already revealed")
    if len(asked.scores) != len(current.submissions):
        raise Refused(f"{len(current.submissions)} scores are due")
    kept = {**current.score_reveals, validator: ScoreReveal(asked.base_loss, asked.scores)}
    draft.put_round(replace(current, score_reveals=kept))


def attest(draft: Draft, validator: bytes, asked: MergeAttest) -> None:
    """Take a validator's word on the merged checkpoint."""
    current = _scoring(draft, validator, asked.task, asked.round, Phase.ATTEST)
    if validator in current.attestations:
        raise Refused("already attested")
    kept = {**current.attestations, validator: Attestation(asked.merged, asked.loss)}
    draft.put_round(replace(current, attestations=kept))


def begin_block(draft: Draft, beacon: bytes) -> None:
    """Give rounds whose batches are to be drawn since the block before their scoring beacon."""
    for task_id in draft.open_tasks:
        current = draft.round(task_id)
        if current is not None and current.submissions and not current.score_beacon:
            draft.put_round(replace(current, score_beacon=beacon))


def end_block(draft: Draft, height: int, beacon: bytes) -> None:
    """Move every round on whose phase is over."""
    for task_id in draft.open_tasks:
        task, current = draft.task(task_id), draft.round(task_id)
        if task is not None and current is not None:
            _PHASES[current.phase](draft, task, current, height, beacon)


def _bind(draft: Draft, task_id: bytes, poster: bytes, asked: TaskPost, height: int) -> int:
    """Make the task the only writer of its name; returns the version whose root is the base."""
    entry = draft.name(asked.name)
    if entry is None:
        if reads_as_cid(asked.name):
            raise Refused(READS_AS_CID)
        entry = NameEntry(asked.name, poster, asked.base, 0, NO_CID, height)
        draft.put_name(entry)
    elif entry.owner != poster:
        raise Refused("the name is another account's")
    elif entry.task:
        raise Refused("another open task writes that name")
    elif entry.root != asked.base:
        entry = replace(
            entry, root=asked.base, version=entry.version + 1, previous=entry.root, height=height
        )
        draft.put_name(entry)
    draft.bind_name(replace(entry, task=task_id))
    return entry.version


def _start(
    draft: Draft,
    task: TaskState,
    number: int,
    version: int,
    base: Cid,
    eligible: tuple[bytes, ...],
    height: int,
    beacon: bytes,
) -> None:
    draft.put_round(
        RoundState(
            task.id,
            number,
            1,
            Phase.TRAIN,
            height + task.phases.train,
            height,
            base,
            version,
            beacon,
            eligible=tuple(sorted(eligible)),
        )
    )


def _current(draft: Draft, task: bytes, number: int) -> RoundState:
    current = draft.round(task)
    if current is None:
        raise Refused("no such open task")
    if current.number != number:
        raise Refused(f"the round is {current.number}")
    return current


def _scoring(draft: Draft, validator: bytes, task: bytes, number: int, phase: Phase) -> RoundState:
    current = _current(draft, task, number)
    if current.phase is not phase:
        raise Refused(f"the round is in {current.phase.name}, not in {phase.name}")
    if draft.epoch_set(current.score_epoch).find(validator) is None:
        raise Refused("not a validator of the round's epoch")
    return current


def _training(draft: Draft) -> list[RoundState]:
    rounds = [draft.round(task) for task in draft.open_tasks]
    return [one for one in rounds if one is not None and one.phase is Phase.TRAIN]


def _enter(draft: Draft, task: TaskState, current: RoundState, phase: Phase, height: int) -> None:
    deadline = height + task.phases.of(phase)
    draft.put_round(replace(current, phase=phase, phase_deadline=deadline))


def _after_train(
    draft: Draft, task: TaskState, current: RoundState, height: int, beacon: bytes
) -> None:
    new = {one for one, registered in draft.workers.items() if registered > current.started}
    over = height >= current.phase_deadline
    if current.commits:
        if over or all(worker in current.commits for worker in current.eligible):
            _enter(draft, task, current, Phase.REVEAL, height)
    elif over and current.attempt >= MAX_ATTEMPTS:
        _close(draft, task)
    elif over or (new and not current.eligible):
        is_last = current.attempt >= MAX_ATTEMPTS  # who joins then has what is left of it
        is_begun = any(registered <= current.started for registered in draft.workers.values())
        again = replace(
            current,
            attempt=min(current.attempt + 1, MAX_ATTEMPTS),
            phase_deadline=current.phase_deadline if is_last else height + task.phases.train,
            started=height,
            start_beacon=current.start_beacon if is_begun else beacon,
            eligible=tuple(sorted({*current.eligible, *new})),
        )
        draft.put_round(again)


def _after_reveal(
    draft: Draft, task: TaskState, current: RoundState, height: int, beacon: bytes
) -> None:
    if height < current.phase_deadline and len(current.reveals) < len(current.commits):
        return
    silent = [worker for worker in current.commits if worker not in current.reveals]
    refused = {**current.refused, **dict.fromkeys(silent, REASON_NEVER_REVEALED)}
    submissions = sorted(
        (Submission(worker, root) for worker, root in current.reveals.items()),
        key=lambda one: (one.root, one.worker),
    )
    closed = replace(current, refused=refused, submissions=tuple(submissions))
    if not submissions:
        _finish(draft, task, closed, Outcome.NOT_REVEALED, None, height, beacon)
        return
    epoch = epoch_of(height + 1, draft.params.epoch_length)
    _enter(draft, task, replace(closed, score_epoch=epoch), Phase.SCORE_COMMIT, height)


def _after_score_commit(
    draft: Draft, task: TaskState, current: RoundState, height: int, beacon: bytes
) -> None:
    members = draft.epoch_set(current.score_epoch)
    if len(current.score_commits) == len(members.validators):
        _enter(draft, task, current, Phase.SCORE_REVEAL, height)
    elif height >= current.phase_deadline:
        if _weight(members, current.score_commits) >= members.quorum:
            _enter(draft, task, current, Phase.SCORE_REVEAL, height)
        else:
            _redraw(draft, task, current, height, beacon)


def _after_score_reveal(
    draft: Draft, task: TaskState, current: RoundState, height: int, beacon: bytes
) -> None:
    if height < current.phase_deadline and len(current.score_reveals) < len(current.score_commits):
        return
    members = draft.epoch_set(current.score_epoch)
    if _weight(members, current.score_reveals) < members.quorum:
        scoring.note_silence(draft, current)
        _redraw(draft, task, current, height, beacon)
        return
    scored = scoring.judge(task, current, members)
    if scored.accepted:
        _enter(draft, task, scored, Phase.ATTEST, height)
    else:
        _finish(draft, task, scored, Outcome.UNCHANGED, None, height, beacon)


def _redraw(draft: Draft, task: TaskState, current: RoundState, height: int, beacon: bytes) -> None:
    """Too few scored: draw other batches with the next block's beacon, or give the round up.

    It counts as another attempt, so that nobody takes the scores that it has made for those that are due.
    """
    if current.redraws >= draft.params.score_redraws:
        _finish(draft, task, current, Outcome.NO_SCORES, None, height, beacon)
        return
    again = replace(
        current,
        attempt=current.attempt + 1,
        redraws=current.redraws + 1,
        score_beacon=b"",
        score_epoch=epoch_of(height + 1, draft.params.epoch_length),
        score_commits={},
        score_reveals={},
    )
    _enter(draft, task, again, Phase.SCORE_COMMIT, height)


def _after_attest(
    draft: Draft, task: TaskState, current: RoundState, height: int, beacon: bytes
) -> None:
    members = draft.epoch_set(current.score_epoch)
    weights: dict[Cid, int] = {}
    for key, one in current.attestations.items():
        weights[one.merged] = weights.get(one.merged, 0) + members.weight_of(key)
    for merged, weight in weights.items():
        if weight >= members.quorum:
            _finish(draft, task, current, Outcome.MERGED, merged, height, beacon)
            return
    if height >= current.phase_deadline:
        _finish(draft, task, current, Outcome.NO_QUORUM, None, height, beacon)


_PHASES = {
    Phase.TRAIN: _after_train,
    Phase.REVEAL: _after_reveal,
    Phase.SCORE_COMMIT: _after_score_commit,
    Phase.SCORE_REVEAL: _after_score_reveal,
    Phase.ATTEST: _after_attest,
}


def _weight(members: EpochSet, keys: Mapping[bytes, object]) -> int:
    return sum(members.weight_of(key) for key in keys)


def _finish(
    draft: Draft,
    task: TaskState,
    current: RoundState,
    outcome: Outcome,
    merged: Cid | None,
    height: int,
    beacon: bytes,
) -> None:
    """Settle, and start the next round or close the task."""
    task, version, root = settlement.settle(draft, task, current, outcome, merged, height)
    if outcome is Outcome.MERGED:
        task = replays.begin(draft, task, current, height, beacon)
    if task.done == task.rounds:
        _close(draft, task)
        return
    draft.put_task(task)
    eligible = tuple(
        worker
        for worker, registered in draft.workers.items()
        if worker in current.commits or registered >= current.started
    )
    _start(draft, task, current.number + 1, version, root, eligible, height, beacon)


def _close(draft: Draft, task: TaskState) -> None:
    """No round follows: what is left of the budget goes back, and the name is its owner's again."""
    poster = draft.account(task.poster)
    draft.put_account(replace(poster, balance=poster.balance + task.escrow))
    draft.put_task(replace(task, escrow=0, open=False))
    draft.put_open_tasks(tuple(one for one in draft.open_tasks if one != task.id))
    draft.drop_round(task.id)
    entry = draft.name(task.name)
    if entry is not None:
        draft.bind_name(replace(entry, task=b""))

"""What a round leaves behind: payments, the next version of the name, and its line in the history.

A round's money is its share of the budget and as much of what emission set aside for training as that share allows:
a small task's round draws from what is kept for small tasks first, and then from what is there for all.
It goes to the accepted workers by improvement above the tolerance, at most 40 % to one of them; what nobody
earned stays in escrow or goes back to the pool. What emission set aside for scoring goes by weight to the
validators that scored: one whose scores lie further from the medians than `score_spread` tolerances, that
attested another checkpoint, or that is frozen (`scoring`), earns nothing, and its part goes back to the pool.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from swarm.ledger import rewards, scoring, validators, wages
from swarm.ledger.state import (
    NO_CID,
    Outcome,
    SettledRound,
    SettledSubmission,
    refusal,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from storage.cid import Cid
    from swarm.ledger.draft import Draft
    from swarm.ledger.state import Money, RoundState, TaskState

REASON_NO_GAIN = "no improvement above the tolerance"
REASON_NOT_BEST = "not the best of the round"
REASON_FAR_BEHIND = "improves far less than the others"
REASON_NO_SCORES = "too few validators scored"
REASON_NO_QUORUM = "no quorum on the merged checkpoint"


def settle(
    draft: Draft,
    task: TaskState,
    current: RoundState,
    outcome: Outcome,
    merged: Cid | None,
    height: int,
) -> tuple[TaskState, int, Cid]:
    """Pay and record a round that ended.

    Args:
        draft: The state; the task itself is left to the caller to put.
        task: Whose round it is.
        current: As its last phase left it.
        outcome: How it ended.
        merged: What a quorum attested; None unless `outcome` is MERGED.
        height: Of this block.

    Returns:
        The task after the round, and the name's version and root to go on from.
    """
    task = replace(task, done=task.done + 1)
    paid: dict[bytes, int] = {}
    scorers: tuple[tuple[bytes, int], ...] = ()
    if outcome is Outcome.MERGED:
        task, paid = _pay_workers(draft, task, current)
    if outcome in (Outcome.MERGED, Outcome.UNCHANGED):
        scorers = _pay_scorers(draft, task, current, merged)
    version, root = current.version, current.base
    if merged is not None and merged != root:
        version, root = version + 1, merged
        _write_version(draft, task, current, root, height)
    settled = SettledRound(
        task.id,
        current.number,
        current.attempt,
        outcome,
        current.base,
        root,
        version,
        current.base_loss if current.medians else None,
        _merged_loss(draft, current, merged),
        _scoreboard(task, current, outcome, paid),
        scorers,
        current.started,
        height,
    )
    draft.put_history(settled)
    return task, version, root


def _write_version(
    draft: Draft, task: TaskState, current: RoundState, root: Cid, height: int
) -> None:
    entry = draft.name(task.name)
    if entry is None:  # the task holds the name: nobody can have removed it
        message = f"the name {task.name} of an open task is gone"
        raise LookupError(message)
    following = replace(
        entry, root=root, version=current.version + 1, previous=entry.root, height=height
    )
    draft.put_name(following, current.number)


def _merged_loss(draft: Draft, current: RoundState, merged: Cid | None) -> int | None:
    if merged is None:
        return None
    members = draft.epoch_set(current.score_epoch)
    return rewards.lower_median(
        [
            (one.loss, members.weight_of(key))
            for key, one in current.attestations.items()
            if one.merged == merged
        ]
    )


def _pay_workers(
    draft: Draft, task: TaskState, current: RoundState
) -> tuple[TaskState, dict[bytes, int]]:
    """Budget and emission to the accepted, by improvement above the tolerance."""
    money, params = draft.money, draft.params
    share = wages.share(task, params)
    small = money.small if share <= params.small_budget else 0
    emission = small + money.training
    if params.emission_match_percent:
        emission = min(emission, share * params.emission_match_percent // 100)
    weights = [one.score - task.tolerance for one in current.accepted]
    from_budget = rewards.capped(share, weights)
    from_pool = rewards.capped(emission, weights)
    paid: dict[bytes, int] = {}
    for one, budgeted, emitted in zip(current.accepted, from_budget, from_pool, strict=True):
        worker = current.submissions[one.index].worker
        paid[worker] = budgeted + emitted
        _earn(draft, worker, paid[worker])
        validators.note_score(draft, worker, emitted)
    draft.put_money(_drawn(money, min(small, emission), emission, sum(from_pool)))
    return replace(task, escrow=task.escrow - sum(from_budget)), paid


def _drawn(money: Money, small: int, emission: int, paid: int) -> Money:
    """After a round: what it could have drawn is no longer set aside, and what it did not pay is in the pool again."""
    return replace(
        money,
        small=money.small - small,
        training=money.training - (emission - small),
        pool=money.pool + emission - paid,
        emitted=money.emitted + paid,
    )


def _pay_scorers(
    draft: Draft, task: TaskState, current: RoundState, merged: Cid | None
) -> tuple[tuple[bytes, int], ...]:
    """What is set aside for scoring, by weight, to those who scored near the medians and are not frozen."""
    money, members = draft.money, draft.epoch_set(current.score_epoch)
    spread = task.tolerance * draft.params.score_spread
    frozen = scoring.note_conduct(draft, current, spread)
    paid = []
    for one in members.validators:
        scored = current.score_reveals.get(one.public_key)
        word = current.attestations.get(one.public_key)
        if scored is None or not scoring.near(scored, current, spread):
            continue
        if not frozen[one.public_key] and (word is None or word.merged == merged):
            paid.append((one.public_key, money.scoring * one.weight // members.weight))
    for key, amount in paid:
        _earn(draft, key, amount)
    drawn = sum(amount for _, amount in paid)
    draft.put_money(
        replace(
            money,
            scoring=0,
            pool=money.pool + money.scoring - drawn,
            emitted=money.emitted + drawn,
        )
    )
    return tuple(paid)


def _earn(draft: Draft, key: bytes, amount: int) -> None:
    account = draft.account(key)
    draft.put_account(
        replace(account, balance=account.balance + amount, earned=account.earned + amount)
    )


def _scoreboard(
    task: TaskState, current: RoundState, outcome: Outcome, paid: Mapping[bytes, int]
) -> tuple[SettledSubmission, ...]:
    chosen = {one.index for one in current.accepted}
    lines = []
    for at, one in enumerate(current.submissions):
        score = current.medians[at] if current.medians else None
        if score is None:
            reason = REASON_NO_SCORES
        elif at in chosen:
            reason = "" if outcome is Outcome.MERGED else REASON_NO_QUORUM
        else:
            refused = refusal(score)
            beaten = REASON_NOT_BEST if task.kind == "gan" else REASON_FAR_BEHIND
            weak = beaten if score > task.tolerance else REASON_NO_GAIN
            reason = refused.reason if refused is not None else weak
        payment = paid.get(one.worker, 0)
        lines.append(SettledSubmission(one.worker, one.root, score, not reason, reason, payment))
    shown = {one.worker for one in current.submissions}
    lines += [
        SettledSubmission(worker, NO_CID, None, accepted=False, reason=reason, payment=0)
        for worker, reason in current.refused.items()
        if worker not in shown
    ]
    return tuple(lines)

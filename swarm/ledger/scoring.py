"""What the validators' scores come to: medians, who is accepted by them, and whose scores lie far off.

A scorer that lies far from the medians, or committed to scores and did not open them, is not paid for the round. One
that did so in `deviation_limit` of the last `deviation_rounds` rounds that it scored is frozen: it goes unpaid for
`freeze_rounds` scored rounds, and begins anew after them. Its scores count as before, by its stake.
A file that one validator alone could not fetch is nobody's fault: it costs the pay, and is not held against it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from swarm.ledger import rewards
from swarm.ledger.holdings import Conduct
from swarm.ledger.tasks import SCORE_REFUSED, Accepted, Refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from storage.cid import Cid
    from swarm.ledger.draft import Draft
    from swarm.ledger.genesis import Params
    from swarm.ledger.state import EpochSet, RoundState, ScoreReveal, TaskState

_BY_HISTORY: Final = (Refusal.DUPLICATE.score, Refusal.NOT_OWN_DATA.score)
"""Refusals by what a scorer saw beside the file or in earlier rounds, which another may not have seen."""
LEAST_PERCENT: Final = 25
"""Of the upper median of the round's improvements; who improves less than that is not accepted."""


def judge(task: TaskState, current: RoundState, members: EpochSet) -> RoundState:
    """Medians of the revealed scores, and who is accepted by them."""
    revealed = [(members.weight_of(key), one) for key, one in current.score_reveals.items()]
    base_loss = rewards.lower_median([(one.base_loss, weight) for weight, one in revealed])
    order = {worker: at for at, worker in enumerate(current.commits)}
    first: dict[Cid, int] = {}
    for one in current.submissions:
        first[one.root] = min(order[one.worker], first.get(one.root, len(order)))
    medians = []
    for at, submission in enumerate(current.submissions):
        median = rewards.lower_median([(one.scores[at], weight) for weight, one in revealed])
        if first[submission.root] < order[submission.worker]:
            median = Refusal.DUPLICATE.score
        medians.append(median)
    least = _least(medians, task.tolerance)
    accepted = [Accepted(at, median) for at, median in enumerate(medians) if median > least]
    if task.kind == "gan" and accepted:
        submissions = current.submissions
        accepted = [
            min(accepted, key=lambda one: (-one.score, order[submissions[one.index].worker]))
        ]
    return replace(current, base_loss=base_loss, medians=tuple(medians), accepted=tuple(accepted))


def _least(medians: Sequence[int], tolerance: int) -> int:
    """What a score must pass: the tolerance, and a share of the upper median of all that pass it.

    Poison that just passes, and noise by its luck, lie far behind those who worked.
    """
    gains = sorted(median - tolerance for median in medians if median > tolerance)
    if not gains:
        return tolerance
    return tolerance + gains[len(gains) // 2] * LEAST_PERCENT // 100


def near(scored: ScoreReveal, current: RoundState, spread: int, *, excused: bool = False) -> bool:
    """Whether scores lie within the spread of the medians, refusals where the medians are refusals.

    Args:
        scored: Of one validator.
        current: The round, judged.
        spread: As far as a score may lie from its median.
        excused: A file that was not found counts as near.
    """
    if abs(scored.base_loss - current.base_loss) > spread:
        return False
    for score, median in zip(scored.scores, current.medians, strict=True):
        if excused and score == Refusal.NOT_FOUND.score:
            continue
        if median <= SCORE_REFUSED:
            if score > SCORE_REFUSED and median not in _BY_HISTORY:
                return False
        elif abs(score - median) > spread:
            return False
    return True


def note_conduct(draft: Draft, current: RoundState, spread: int) -> dict[bytes, bool]:
    """Note for everyone who committed scores in a round how they lay.

    Returns:
        Whether each validator of the round is frozen for it, by key.
    """
    frozen = {}
    for one in draft.epoch_set(current.score_epoch).validators:
        key = one.public_key
        before = draft.conduct(key)
        frozen[key] = before.frozen > 0
        if key in current.score_commits:
            scored = current.score_reveals.get(key)
            far = scored is None or not near(scored, current, spread, excused=True)
            after = conduct_after(before, draft.params, far=far)
            if after != before:
                draft.put_conduct(key, after)
    return frozen


def note_silence(draft: Draft, current: RoundState) -> None:
    """Note who committed scores and did not open them in a round that too few opened."""
    for key in current.score_commits:
        if key not in current.score_reveals:
            draft.put_conduct(key, conduct_after(draft.conduct(key), draft.params, far=True))


def conduct_after(before: Conduct, params: Params, *, far: bool) -> Conduct:
    """A scorer's record after one more round."""
    if before.frozen:
        return replace(before, frozen=before.frozen - 1)
    seen = (before.far << 1 | far) & ((1 << params.deviation_rounds) - 1)
    if seen.bit_count() >= params.deviation_limit:
        return Conduct(0, params.freeze_rounds)
    return Conduct(seen, 0)

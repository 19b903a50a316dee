"""Validators: who decides in an epoch, and who leads a view.

The set of epoch e is what the state held after the last block of epoch e - 2; epochs 0 and 1 are genesis's.
So a set is final before it decides, and a new stake counts, and an old one ceases to, two epochs later.

`score_share` of an epoch's views is led by those of its validators that train, in proportion to the emission that
they earned by score in epoch e - 2 while bonded, and at most a third of those views by one; all other views are led
in proportion to stake. Who leads has to vote, so a worker that is no validator of the epoch leads nothing.
Who missed views in epoch e - 2 as their leader leads as many fewer for its scores, `FREE_MISSES` apart.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from swarm.ledger import beacon, rewards
from swarm.ledger.state import EpochSet, EpochValidator, Unbonding

if TYPE_CHECKING:
    from swarm.ledger.draft import Draft
    from swarm.ledger.state import Account

EPOCHS_AHEAD = 2
WHOLE = 10_000
"""What parts of a stake and of an epoch's views are counted in."""
SLOTS_PERCENT = 33
"""Of the views led for scores, the most that one leads."""
FREE_MISSES = 2
"""Views of an epoch that a leader may miss at no cost: messages are lost."""
OUTAGE_VIEWS = 16
"""So many views in a row without a block are the network's fault, and nobody's."""
MAX_SCORED = 1_024
"""Accounts whose scores are counted in one epoch."""
MAX_UNBONDING = 32
"""Amounts of one account that unbond at once."""


def epoch_of(height: int, epoch_length: int) -> int:
    """The epoch of a height; genesis counts to the first."""
    return max(0, height - 1) // epoch_length


def leader(epoch_set: EpochSet, view: int) -> EpochValidator:
    """Who proposes in a view: drawn by score or by stake from the seed, the same for all and for ever."""
    slot = beacon.draw_slot(epoch_set.seed, epoch_set.epoch, view, WHOLE)
    for one in epoch_set.validators:
        slot -= one.lead
        if slot < 0:
            return one
    at = beacon.draw(epoch_set.seed, epoch_set.epoch, view, epoch_set.weight)
    for one in epoch_set.validators:
        at -= one.weight
        if at < 0:
            return one
    message = "an epoch without weight"
    raise ValueError(message)


def fix(draft: Draft, epoch: int, seed: bytes) -> None:
    """Fix the set of an epoch from the state as it stands; one without anybody is the set before.

    The jailed are left out. What was earned by score until now draws leaders, less what views that they missed cost
    them; both are counted anew.
    """
    params = draft.params
    bonded = [draft.account(key) for key in draft.stakers()]
    able = [
        one
        for one in bonded
        if one.vrf_key
        and one.stake >= params.min_bond
        and draft.jailed_until(one.public_key) is None
    ]
    able.sort(key=lambda one: (-one.stake, one.public_key))
    chosen = sorted(able[: params.max_validators], key=lambda one: one.public_key)
    members = tuple(EpochValidator(one.public_key, one.vrf_key, one.stake) for one in chosen)
    if not members:
        members = tuple(replace(one, lead=0) for one in draft.epoch_set(epoch - 1).validators)
    scored = draft.scored
    if scored:
        draft.put_scored({})
    best = [one.public_key for one in members if one.public_key in scored]
    parts = rewards.capped(params.score_share, [scored[key] for key in best], SLOTS_PERCENT)
    missed = draft.missed
    if missed:
        draft.put_missed({})
    leads = {
        key: max(0, part - _forfeit(missed.get(key, 0), params.epoch_length))
        for key, part in zip(best, parts, strict=True)
    }
    members = tuple(replace(one, lead=leads.get(one.public_key, 0)) for one in members)
    draft.put_epoch_set(EpochSet(epoch, seed, members))


def note_score(draft: Draft, worker: bytes, emission: int) -> None:
    """Count what a bonded worker earned of emission: it leads views for it, two epochs later.

    What the poster of a task paid is left out: leading cannot be bought from oneself.
    """
    scored = draft.scored
    known = worker in scored or len(scored) < MAX_SCORED
    if emission and known and draft.account(worker).stake >= max(1, draft.params.min_bond):
        draft.put_scored({**scored, worker: scored.get(worker, 0) + emission})


def missed_leaders(epoch_set: EpochSet, after: int, view: int) -> tuple[bytes, ...]:
    """Who led the views between two that brought blocks; nobody where these are as many as in an outage.

    Args:
        epoch_set: Of both.
        after: The view of the block before; 0 at the beginning of an epoch.
        view: Of this block.
    """
    if view - after - 1 >= OUTAGE_VIEWS:
        return ()
    return tuple(leader(epoch_set, one).public_key for one in range(after + 1, view))


def note_missed(draft: Draft, leaders: tuple[bytes, ...]) -> None:
    """Count the views that brought no block against their leaders."""
    if leaders:
        missed = dict(draft.missed)
        for key in leaders:
            missed[key] = missed.get(key, 0) + 1
        draft.put_missed(missed)


def _forfeit(missed: int, epoch_length: int) -> int:
    """What missed views cost, as parts of an epoch's views."""
    return max(0, missed - FREE_MISSES) * WHOLE // epoch_length


def release_height(draft: Draft, height: int) -> int:
    """When what unbonds now can be withdrawn: not while its weight can still vote."""
    params = draft.params
    return height + max(params.unbonding, (EPOCHS_AHEAD + 1) * params.epoch_length)


def unbond(account: Account, amount: int, height: int) -> Account:
    """Put an amount, which the caller took from stake or bond, on its way out."""
    return replace(account, unbonding=(*account.unbonding, Unbonding(amount, height)))

"""Validators: who decides in an epoch, who leads a view, and what contradicting itself costs.

The set of epoch e is what the state held after the last block of epoch e - 2; epochs 0 and 1 are genesis's.
So a set is final before it decides, and a new stake counts, and an old one ceases to, two epochs later.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from swarm.ledger import beacon
from swarm.ledger.state import EpochSet, EpochValidator, Unbonding

if TYPE_CHECKING:
    from swarm.ledger.draft import Draft
    from swarm.ledger.state import Account

EPOCHS_AHEAD = 2
REPORTER_PERCENT = 10
WHOLE = 10_000
"""What `slash_part` is counted in."""
MAX_UNBONDING = 32
"""Amounts of one account that unbond at once."""


def epoch_of(height: int, epoch_length: int) -> int:
    """The epoch of a height; genesis counts to the first."""
    return max(0, height - 1) // epoch_length


def leader(epoch_set: EpochSet, view: int) -> EpochValidator:
    """Who proposes in a view: drawn by stake from the seed, the same for all and for ever."""
    at = beacon.draw(epoch_set.seed, epoch_set.epoch, view, epoch_set.weight)
    for one in epoch_set.validators:
        at -= one.weight
        if at < 0:
            return one
    message = "an epoch without weight"
    raise ValueError(message)


def fix(draft: Draft, epoch: int, seed: bytes) -> None:
    """Fix the set of an epoch from the state as it stands; one without anybody is the set before."""
    params = draft.params
    bonded = [draft.account(key) for key in draft.stakers()]
    able = [one for one in bonded if one.vrf_key and one.stake >= params.min_bond]
    able.sort(key=lambda one: (-one.stake, one.public_key))
    chosen = sorted(able[: params.max_validators], key=lambda one: one.public_key)
    members = tuple(EpochValidator(one.public_key, one.vrf_key, one.stake) for one in chosen)
    if not members:
        members = draft.epoch_set(epoch - 1).validators
    draft.put_epoch_set(EpochSet(epoch, seed, members))


def release_height(draft: Draft, height: int) -> int:
    """When what unbonds now can be withdrawn: not while its weight can still vote."""
    params = draft.params
    return height + max(params.unbonding, (EPOCHS_AHEAD + 1) * params.epoch_length)


def unbond(account: Account, amount: int, height: int) -> Account:
    """Put an amount, which the caller took from stake or bond, on its way out."""
    return replace(account, unbonding=(*account.unbonding, Unbonding(amount, height)))


def slash(draft: Draft, accused: bytes, reporter: bytes) -> int:
    """Take a part of stake and unbonding; a tenth to the reporter, the rest burned.

    Returns:
        The units taken.
    """
    part = draft.params.slash_part
    account = draft.account(accused)
    from_stake = account.stake * part // WHOLE
    outgoing = tuple(
        replace(one, amount=one.amount - one.amount * part // WHOLE) for one in account.unbonding
    )
    taken = from_stake + sum(
        before.amount - after.amount
        for before, after in zip(account.unbonding, outgoing, strict=True)
    )
    draft.put_account(replace(account, stake=account.stake - from_stake, unbonding=outgoing))
    reward = taken * REPORTER_PERCENT // 100
    paid = draft.account(reporter)
    draft.put_account(replace(paid, balance=paid.balance + reward))
    money = draft.money
    draft.put_money(replace(money, burned=money.burned + taken - reward))
    return taken

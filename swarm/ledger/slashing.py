"""What contradicting itself costs a validator: a part of what it has at stake, and its place for a time.

    part = min(10,000, slash_part + slash_correlation * share)

`share` is the part of an epoch's weight, in 10,000, of everyone slashed in this epoch and the one before. One fault
alone is cheap, a conspiracy loses everything. Whenever the share grows, those slashed before lose the difference too,
so it does not matter who is reported first. A further offence of the same validator takes `slash_part` of what is left.

At stake is the stake itself, and what was on its way out only after the offence, or voted in its epoch still.
A tenth of what is taken goes to the reporter, the rest is burned. The slashed is jailed: it is in no set that is fixed
before it asks to be let out, which it may after `jail_blocks`.
"""

# ruff: noqa: EM101, EM102 - a refusal's reason is what its receipt keeps
from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from swarm.ledger import rewards
from swarm.ledger.errors import Refused
from swarm.ledger.holdings import Slashed
from swarm.ledger.validators import EPOCHS_AHEAD, WHOLE, epoch_of, release_height

if TYPE_CHECKING:
    from swarm.ledger.draft import Draft
    from swarm.ledger.state import Account, Unbonding

REPORTER_PERCENT: Final = 10
WINDOW_EPOCHS: Final = 2
"""Who was slashed in so many epochs, the present one included, counts for what others lose."""


def punish(draft: Draft, accused: bytes, offence: int, reporter: bytes, height: int) -> None:
    """Slash a validator for a contradiction, jail it, and take from those slashed lately what they owe now.

    Args:
        draft: The state.
        accused: A validator of the offence's epoch.
        offence: That epoch.
        reporter: Who brought the evidence.
        height: Of this block.

    Raises:
        Refused: It has nothing at stake.
    """
    params = draft.params
    epoch = epoch_of(height, params.epoch_length)
    at_stake = _at_stake(draft, draft.account(accused), offence)
    if not sum(at_stake):
        raise Refused("the accused has nothing at stake")
    window = [one for one in draft.slashed if one.epoch > epoch - WINDOW_EPOCHS]
    taken = 0
    if any(one.public_key == accused for one in window):
        taken = _take(draft, accused, offence, sum(at_stake) * params.slash_part // WHOLE)
    else:
        members = draft.epoch_set(offence)
        share = members.weight_of(accused) * WHOLE // members.weight
        window.append(Slashed(accused, epoch, offence, share, sum(at_stake), 0))
    share = sum(one.share for one in window)
    part = min(WHOLE, params.slash_part + params.slash_correlation * share)
    for at, one in enumerate(window):
        if part > one.part:
            owed = one.at_stake * part // WHOLE - one.at_stake * one.part // WHOLE
            taken += _take(draft, one.public_key, one.offence, owed)
            window[at] = replace(one, part=part)
    draft.put_slashed(tuple(window))
    draft.put_jailed(accused, height + params.jail_blocks)
    _share_out(draft, taken, reporter)


def unjail(draft: Draft, validator: bytes, height: int) -> None:
    """Let a validator back into the sets that are fixed from now on.

    Raises:
        Refused: It is not jailed, or not long enough.
    """
    until = draft.jailed_until(validator)
    if until is None:
        raise Refused("the account is not jailed")
    if height < until:
        raise Refused(f"jailed until height {until}")
    draft.put_jailed(validator, None)


def _at_stake(draft: Draft, account: Account, offence: int) -> list[int]:
    """What can be taken: of the stake, and of each amount that unbonds."""
    return [
        account.stake,
        *(one.amount * _voted(draft, one, offence) for one in account.unbonding),
    ]


def _voted(draft: Draft, one: Unbonding, offence: int) -> bool:
    """Whether an amount on its way out had weight in an epoch, or was bonded after it."""
    params = draft.params
    begun = one.height - (release_height(draft, 0))
    return offence < epoch_of(begun, params.epoch_length) + EPOCHS_AHEAD


def _take(draft: Draft, accused: bytes, offence: int, owed: int) -> int:
    """Take units from stake and unbonding in proportion, as far as there are any; returns how many."""
    account = draft.account(accused)
    amounts = _at_stake(draft, account, offence)
    taken = min(owed, sum(amounts))
    if not taken:
        return 0
    parts = rewards.split(taken, amounts)
    outgoing = tuple(
        replace(one, amount=one.amount - part)
        for one, part in zip(account.unbonding, parts[1:], strict=True)
    )
    draft.put_account(replace(account, stake=account.stake - parts[0], unbonding=outgoing))
    return taken


def _share_out(draft: Draft, taken: int, reporter: bytes) -> None:
    reward = taken * REPORTER_PERCENT // 100
    paid = draft.account(reporter)
    draft.put_account(replace(paid, balance=paid.balance + reward))
    money = draft.money
    draft.put_money(replace(money, burned=money.burned + taken - reward))

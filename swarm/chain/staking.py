"""What the ledger would refuse of an amount that is sent or staked, said before a fee is paid for it, in tokens; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swarm.chain.network_file import tokens
from swarm.errors import RefusedError
from swarm.ledger.validators import MAX_UNBONDING
from swarm.sizes import counted

if TYPE_CHECKING:
    from swarm.ledger.genesis import Params
    from swarm.ledger.state import Account


def check_stake(account: Account, amount: int, fees: int, params: Params) -> None:
    """Whether an account can stake an amount, in units.

    Args:
        account: As it stands.
        amount: To be staked.
        fees: What it takes to say so.
        params: The network's.

    Raises:
        RefusedError: It cannot.
    """
    _check_owned("stake", account.balance, amount, fees)
    if account.stake + amount < params.min_bond:
        message = f"a validator's stake is at least {tokens(params.min_bond)} tokens"
        raise RefusedError(message, f"stake {tokens(params.min_bond - account.stake)} or more")


def check_send(account: Account, amount: int, fees: int) -> None:
    """Whether an account can send an amount, in units, and pay the fees of that.

    Raises:
        RefusedError: It cannot.
    """
    _check_owned("send", account.balance, amount, fees)


def _check_owned(what: str, balance: int, amount: int, fees: int) -> None:
    if balance < amount:
        message = f"the account owns {tokens(balance)} tokens, not {tokens(amount)}"
        raise RefusedError(message, "`swarm balance` shows what is owned, and what is staked")
    if balance < amount + fees:
        message = f"{tokens(amount)} tokens leave too little for the fees, {tokens(fees)} at most"
        raise RefusedError(message, f"{what} at most {tokens(max(0, balance - fees))}")


def check_unstake(account: Account, amount: int, params: Params) -> None:
    """Whether an account can take an amount, in units, out of its stake.

    Raises:
        RefusedError: It cannot.
    """
    left = account.stake - amount
    if left < 0:
        message = f"the account has staked {tokens(account.stake)} tokens, not {tokens(amount)}"
        raise RefusedError(message)
    if 0 < left < params.min_bond:
        message = f"{tokens(left)} tokens would stay, where {tokens(params.min_bond)} are the least"
        spare = account.stake - params.min_bond
        some = f"at most {tokens(spare)}, or " if spare > 0 else ""
        raise RefusedError(message, f"unstake {some}all of it: {tokens(account.stake)}")
    if len(account.unbonding) >= MAX_UNBONDING:
        message = f"{len(account.unbonding)} amounts are unbonding, and no more can be"
        first = min(one.height for one in account.unbonding)
        raise RefusedError(message, f"`swarm withdraw` first, from block {first:,} on")


def check_withdraw(account: Account, height: int) -> int:
    """What of an account will have unbonded in the block after a height, in units.

    Raises:
        RefusedError: Nothing has.
    """
    due = sum(one.amount for one in account.unbonding if one.height <= height + 1)
    if due:
        return due
    if not account.unbonding:
        message = "nothing is unbonding"
        raise RefusedError(message, "`swarm unstake AMOUNT` comes first")
    following = min(account.unbonding, key=lambda one: one.height)
    message = f"nothing has unbonded yet; {tokens(following.amount)} tokens will have at block {following.height:,}"
    raise RefusedError(message, f"that is in {counted(following.height - height, 'block')}")


def check_unjail(until: int | None, height: int) -> None:
    """Whether an account can be let out of jail in the block after a height.

    Args:
        until: The height from which it can; None if it is not jailed.
        height: Of the newest block.

    Raises:
        RefusedError: It cannot.
    """
    if until is None:
        message = "the account is not jailed"
        raise RefusedError(message, "`swarm validators` shows who is")
    if height + 1 < until:
        message = f"the account is jailed until block {until:,}"
        raise RefusedError(message, f"that is in {counted(until - height, 'block')}")


def counts_from(height: int, epoch_length: int, ahead: int) -> int:
    """The epoch from which a stake of a block's height counts."""
    return max(0, height - 1) // epoch_length + ahead

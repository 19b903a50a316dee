"""The rules of a block: a view and transactions in, changes and receipts out, nothing else.

A transaction that may not stand in a block at all makes the block invalid: another chain, a wrong nonce, expired,
a fee below the base fee or that the account cannot pay, no room left. One that fails in its own rule stays,
pays its gas and uses its nonce. The base fee is burned and the tip goes to the leader.
"""

# ruff: noqa: EM101, EM102 - a refusal's reason is what its receipt keeps
from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from swarm.ledger import audits, beacon, replays, rewards, rounds, rules, validators, vrf
from swarm.ledger.draft import Draft
from swarm.ledger.errors import BlockError, LedgerError, Refused, VrfError
from swarm.ledger.rules import Context
from swarm.ledger.state import (
    Account,
    EpochSet,
    EpochValidator,
    Head,
    LedgerView,
    Money,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from swarm.ledger.genesis import Genesis
    from swarm.ledger.state import Reader
    from swarm.ledger.transactions import Transaction

__all__ = [
    "Context",
    "Execution",
    "Receipt",
    "check_supply",
    "execute_block",
    "genesis_changes",
]

_TRANSACTION_OVERHEAD: Final = 5
_PAYLOAD_OVERHEAD: Final = 96


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a transaction."""

    id: bytes
    height: int
    error: str  # why it failed; empty if it did not
    gas_used: int
    fee: int  # units: burned and tip


class Execution:
    """One block under way."""

    def __init__(self, view: Reader, context: Context) -> None:
        """Begin a block on the state of its parent.

        Raises:
            BlockError: Height or time do not follow the parent's.
        """
        self._draft = Draft(view)
        self._context = context
        head = self._draft.head
        if context.height != head.height + 1:
            message = f"height {context.height} does not follow {head.height}"
            raise BlockError(message)
        if context.timestamp_ms <= head.timestamp_ms:
            message = "the time is not after the parent's"
            raise BlockError(message)
        self._chain_id = bytes(self._draft.chain_id)
        self._base_fee = head.base_fee
        self._gas_used = 0
        self._bytes_used = _PAYLOAD_OVERHEAD
        self._tips = 0
        rounds.begin_block(self._draft, context.beacon)
        self._draft.keep()

    def apply(self, transaction: Transaction) -> Receipt:
        """Run a transaction.

        Raises:
            BlockError: It may not stand in this block; nothing was changed.
        """
        price = self._check(transaction)
        draft, used = self._draft, transaction.gas_used
        fee = used * (self._base_fee + price)
        sender = draft.account(transaction.sender)
        draft.put_account(replace(sender, balance=sender.balance - fee, nonce=sender.nonce + 1))
        if burned := used * self._base_fee:
            money = draft.money
            draft.put_money(replace(money, burned=money.burned + burned))
        draft.keep()
        self._tips += used * price
        self._gas_used += used
        self._bytes_used += len(transaction.data) + _TRANSACTION_OVERHEAD
        try:
            error = rules.run(draft, transaction, self._context)
        except Refused as refused:
            draft.roll_back()
            error = refused.reason
        draft.keep()
        return Receipt(transaction.id, self._context.height, error or "", used, fee)

    def finish(self) -> dict[bytes, bytes | None]:
        """End the block: rounds and audits move on, emission is paid, an epoch's end fixes a set.

        Returns:
            The changes of the state by key.
        """
        draft, context = self._draft, self._context
        params = draft.params
        rounds.end_block(draft, context.height, context.beacon)
        for worker in replays.end_block(draft, context.height, context.beacon):
            rounds.left(draft, worker)
        audits.end_block(draft, context.height, context.beacon)
        money, earned = rewards.emit(draft.money, params)
        draft.put_money(money)
        leader = draft.account(context.leader)
        draft.put_account(
            replace(
                leader,
                balance=leader.balance + earned + self._tips,
                earned=leader.earned + earned,
            )
        )
        validators.note_missed(draft, context.missed)
        if context.height % params.epoch_length == 0:
            epoch = validators.epoch_of(context.height, params.epoch_length)
            validators.fix(draft, epoch + validators.EPOCHS_AHEAD, context.beacon)
        fee = rewards.next_base_fee(self._base_fee, self._gas_used, params)
        draft.put_head(Head(context.height, context.beacon, fee, context.timestamp_ms))
        draft.keep()
        return draft.changes()

    def _check(self, transaction: Transaction) -> int:
        """The price of its gas above the base fee."""
        height = self._context.height
        if transaction.chain_id != self._chain_id:
            raise BlockError("a transaction of another chain")
        if transaction.valid_until < height:
            raise BlockError(f"a transaction that expired at height {transaction.valid_until}")
        sender = self._draft.account(transaction.sender)
        if transaction.nonce != sender.nonce:
            raise BlockError(f"nonce {transaction.nonce} where {sender.nonce} is next")
        price = transaction.tip_at(self._base_fee)
        if price < 0:
            raise BlockError("a fee below the base fee")
        if sender.balance < transaction.gas_used * (self._base_fee + price):
            raise BlockError("the balance does not cover the fee")
        params = self._draft.params
        if self._gas_used + transaction.gas_used > params.max_block_gas:
            raise BlockError("no gas left in the block")
        size = len(transaction.data) + _TRANSACTION_OVERHEAD
        if self._bytes_used + size > params.max_block_bytes:
            raise BlockError("no room left in the block")
        return price


def execute_block(
    view: Reader, context: Context, block: Sequence[Transaction]
) -> tuple[dict[bytes, bytes | None], list[Receipt]]:
    """Run a block.

    Args:
        view: The state of its parent.
        context: Of its header and proof.
        block: Its transactions, in order.

    Returns:
        The changes of the state by key, and a receipt each.

    Raises:
        BlockError: A transaction may not stand in it.
    """
    execution = Execution(view, context)
    receipts = [execution.apply(transaction) for transaction in block]
    return execution.finish(), receipts


def genesis_changes(genesis: Genesis) -> dict[bytes, bytes | None]:
    """The state before the first block."""
    draft = Draft(_Nothing())
    seed = beacon.first(genesis.chain_id)
    for key, amount in genesis.allocations:
        draft.put_account(Account(key, balance=amount))
    members = []
    for one in genesis.validators:
        if not vrf.is_key(one.vrf_key):
            raise VrfError("a validator's VRF key is not a point of prime order")
        account = draft.account(one.public_key)
        draft.put_account(
            replace(account, stake=one.stake, vrf_key=one.vrf_key, roles=("validator",))
        )
        members.append(EpochValidator(one.public_key, one.vrf_key, one.stake))
    held = sum(amount for _, amount in genesis.allocations)
    held += sum(one.stake for one in genesis.validators)
    for epoch in range(validators.EPOCHS_AHEAD):
        draft.put_epoch_set(EpochSet(epoch, seed, tuple(members)))
    draft.put_chain_id(genesis.chain_id)
    draft.put_params(genesis.params)
    draft.put_workers({})
    draft.put_open_tasks(())
    draft.put_no_keepers()
    draft.put_open_deals(())
    draft.put_money(Money(held, 0, 0, genesis.emission_pool, 0, 0, 0, 0))
    draft.put_head(Head(0, seed, genesis.params.base_fee_floor, genesis.timestamp_ms))
    return draft.changes()


def check_supply(view: Reader) -> None:
    """Count every unit; what is held has to be genesis + emitted - burned.

    Raises:
        LedgerError: A unit is missing or too many, or a balance is negative.
    """
    ledger = LedgerView(view)
    money = ledger.money()
    held = money.treasury + sum(task.escrow for task in ledger.tasks())
    locked = [one.collateral for one in ledger.keepers()] + [one.escrow for one in ledger.deals()]
    locked += [one.held + one.put_aside for one in ledger.replays()]
    if min(locked, default=0) < 0:
        message = "a collateral, an escrow or a held reward is less than nothing"
        raise LedgerError(message)
    held += sum(locked)
    for account in ledger.accounts():
        amounts = [account.balance, account.stake, account.bond]
        if min(amounts + [one.amount for one in account.unbonding]) < 0:
            message = f"account {account.public_key.hex()} holds less than nothing"
            raise LedgerError(message)
        held += account.held
    if held != money.supply:
        message = f"{held:,} units are held where {money.supply:,} exist"
        raise LedgerError(message)
    if (
        min(money.pool, money.training, money.scoring, money.treasury, money.storage, money.small)
        < 0
    ):
        message = "a pool holds less than nothing"
        raise LedgerError(message)


class _Nothing:
    """The state before genesis."""

    root = bytes(32)

    def get(self, key: bytes) -> bytes | None:
        return None

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        return iter(())

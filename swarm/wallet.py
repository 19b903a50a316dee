"""This node's account: signs transactions, hands them to the chain, and sees to it that they arrive.

Gossip loses messages, so a transaction of ours that is not final after two blocks is sent again with each block for a
while, since some are taken for a few blocks only, and then now and then until it is final or has expired.
It is also put back into this node's own mempool, which may have let it go for a higher tip: the nonces after it wait
for it. One that the base fee has outgrown is signed again with the same nonce and a higher fee, and stays known by its
first id. What was pending when the node stopped is forgotten; whoever asked for it asks again, and one of the two with
the same nonce is then passed over.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog
import trio

from swarm.errors import NetworkError, RefusedError
from swarm.ledger.errors import LedgerError
from swarm.ledger.mempool import raised
from swarm.ledger.transactions import decode, sign

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from protocols.signing import Signer
    from swarm.heights import Heights
    from swarm.ledger.application import Included as Known
    from swarm.ledger.application import LedgerApplication
    from swarm.ledger.transactions import Payload, Transaction

_log = structlog.get_logger("swarm.wallet")

FUNDS_HINT = "`swarm balance` says what the account owns; `swarm status` what is staked of it"
VALID_BLOCKS = 200
"""A transaction that is in no block after so many has expired."""
FIRST_BLOCKS = 2
"""After so many blocks a transaction that is in none of them is sent again: one is proposed while the other is voted on."""
QUICK_RESENDS = 16
"""With each block after that, so often: longer than the blocks in which an answer or a report is taken."""
RESEND_BLOCKS = 4
"""From then on."""
CONFIRM_SECONDS = 60.0
"""For a block to hold a transaction; then the person is told that none does."""
MAX_PENDING = 1024
TIP = 1
"""Units a gas for the leader, where the account can pay that for a while."""
TIP_GAS = 10_000_000
"""So much gas an account has to be able to tip for, before it tips at all."""
MAX_SIGNED = 16
"""Times that one transaction is signed: each but the first with a fee an eighth higher at least."""
MAX_KNOWN = 4096
"""Ids of transactions that were signed again, kept for those who wait for the first one."""


@dataclass(frozen=True, slots=True)
class Included:
    """A transaction that is final.

    Attributes:
        height: Of its block.
        error: Why it failed, or empty.
    """

    height: int
    error: str


def is_due(waited: int, since: int) -> bool:
    """Whether a transaction that no block holds is to be sent again.

    Args:
        waited: Blocks since it was sent first.
        since: Blocks since it was sent last.
    """
    if waited < FIRST_BLOCKS + QUICK_RESENDS:
        return waited >= FIRST_BLOCKS and since >= 1
    return since >= RESEND_BLOCKS


class Wallet:
    """Sends what this account asks of the ledger.

    Args:
        signer: The account's key.
        ledger: The application, with its mempool.
        heights: Tells of finalized blocks.
        gossip: Queues a transaction for the topic; never waits.
    """

    def __init__(
        self,
        signer: Signer,
        ledger: LedgerApplication,
        heights: Heights,
        gossip: Callable[[bytes], None],
    ) -> None:
        self._signer = signer
        self._ledger = ledger
        self._heights = heights
        self.gossip = gossip
        self._pending: dict[bytes, _Pending] = {}
        self._signed: OrderedDict[bytes, list[bytes]] = OrderedDict()  # by the first id

    async def submit(self, payload: Payload, last: int | None = None) -> bytes:
        """Sign and send; returns the transaction's id without waiting for a block.

        Args:
            payload: What is asked.
            last: No later block is to hold it.

        Raises:
            RefusedError: The ledger's rules do not allow it.
        """
        if len(self._pending) >= MAX_PENDING:
            message = f"{MAX_PENDING} transactions of this account wait for a block"
            raise RefusedError(message, "wait until the network makes blocks again")
        view = self._ledger.view()
        fee, tip = self._fee(view.base_fee, view.account(self._signer.public_key).balance)
        nonce = self._free_nonce()
        try:
            one = self._sign(payload, nonce, _valid_until(view.height, last), fee, tip)
            self._ledger.submit(one)
        except LedgerError as error:
            message = f"the ledger does not take it: {error}"
            raise RefusedError(message) from error
        self._pending[one.id] = _Pending(one, view.height, view.height, last)
        self.gossip(one.data)
        return one.id

    def cost(self, payloads: Iterable[Payload]) -> int:
        """Units that the fees of these come to at most, if they are submitted now."""
        view, nonce = self._ledger.view(), self._nonce()
        fee, tip = self._fee(view.base_fee, view.account(self._signer.public_key).balance)
        until = _valid_until(view.height, None)
        signed = (self._sign(one, nonce, until, fee, tip) for one in payloads)
        return sum(one.gas_used * one.max_fee for one in signed)

    async def confirm(self, identifier: bytes, seconds: float = CONFIRM_SECONDS) -> Included:
        """Wait until a transaction is final.

        Raises:
            NetworkError: No block held it in time.
            RefusedError: It is final, and failed; or it can be in no block any more.
        """
        height = self._heights.height
        with trio.move_on_after(seconds):
            while True:
                next_nonce = self._nonce()
                included = self._included(identifier)
                if included is not None:
                    if included.error:
                        message = f"the transaction failed: {included.error}"
                        hint = FUNDS_HINT if "balance" in included.error else None
                        raise RefusedError(message, hint)
                    return Included(included.height, included.error)
                self._check_possible(identifier, next_nonce)
                height = await self._heights.above(height)
        message = f"the transaction is in no block after {seconds:.0f} s"
        raise NetworkError(
            message, "see `swarm status`: blocks stop while too few validators answer"
        )

    def signed_as(self, identifier: bytes) -> Sequence[bytes]:
        """Every id that a transaction has had, by its first: one that is signed again gets another."""
        return tuple(self._signed.get(identifier, (identifier,)))

    async def run(self) -> None:
        """Send again what no block holds yet; runs until cancelled."""
        height = self._heights.height
        while True:
            height = await self._heights.above(height)
            next_nonce, base_fee = self._nonce(), self._ledger.view().base_fee
            for identifier, pending in list(self._pending.items()):
                one = pending.transaction
                if one.nonce < next_nonce or height > one.valid_until:
                    if self._included(identifier) is None:
                        _log.info("transaction.lost", id=identifier.hex(), nonce=one.nonce)
                    del self._pending[identifier]
                elif one.max_fee < base_fee:
                    self._raise_fee(identifier, pending, height)
                elif is_due(height - pending.first, height - pending.sent):
                    self._send_again(pending, height)

    def _send_again(self, pending: _Pending, height: int) -> None:
        pending.sent = height
        with contextlib.suppress(LedgerError):  # it waits there already, as it should
            self._ledger.submit(pending.transaction)
        self.gossip(pending.transaction.data)

    def _raise_fee(self, identifier: bytes, pending: _Pending, height: int) -> None:
        """Sign what no block can take any more with a fee that it can, as often as the account allows."""
        before, view = pending.transaction, self._ledger.view()
        known = self._signed.get(identifier, [identifier])
        if len(known) >= MAX_SIGNED:
            return
        fee, tip = self._fee(view.base_fee, view.account(self._signer.public_key).balance)
        tip = max(tip, raised(before.tip))
        fee = max(2 * view.base_fee + tip, raised(before.max_fee))
        try:
            until = _valid_until(height, pending.last)
            one = self._sign(before.payload, before.nonce, until, fee, tip)
            self._ledger.submit(one)
        except LedgerError as error:
            _log.info("transaction.fee_too_low", id=identifier.hex(), error=str(error))
            return
        _log.info("transaction.signed_again", id=identifier.hex(), new=one.id.hex(), fee=fee)
        self._signed[identifier] = [*known, one.id]
        while len(self._signed) > MAX_KNOWN:
            self._signed.popitem(last=False)
        pending.transaction, pending.first, pending.sent = one, height, height
        self.gossip(one.data)

    def _sign(
        self, payload: Payload, nonce: int, valid_until: int, fee: int, tip: int
    ) -> Transaction:
        return decode(
            sign(
                self._signer,
                self._ledger.chain_id,
                nonce,
                payload,
                valid_until=valid_until,
                max_fee=fee,
                tip=tip,
            )
        )

    def _included(self, identifier: bytes) -> Known | None:
        """What became of a transaction, whichever of its signatures a block holds."""
        found = (self._ledger.included(one) for one in self.signed_as(identifier))
        return next((one for one in found if one is not None), None)

    def _nonce(self) -> int:
        """The next nonce that a block takes from this account."""
        return self._ledger.view().account(self._signer.public_key).nonce

    def _free_nonce(self) -> int:
        """The nonce of a new transaction; what the mempool let go is put back there with its own."""
        nonce = self._ledger.next_nonce(self._signer.public_key)
        waiting = {one.transaction.nonce: one.transaction for one in self._pending.values()}
        while nonce in waiting:
            with contextlib.suppress(LedgerError):  # no room: `run` tries it again
                self._ledger.submit(waiting[nonce])
            nonce += 1
        return nonce

    def _check_possible(self, identifier: bytes, next_nonce: int) -> None:
        pending = self._pending.get(identifier)
        if pending is None or pending.transaction.nonce < next_nonce:
            message = "the transaction was passed over: it expired, or another took its number"
            raise RefusedError(message, "look at the balance and ask again")

    @staticmethod
    def _fee(base_fee: int, balance: int) -> tuple[int, int]:
        """(max fee, tip) a gas: room for the base fee to double; no tip from who has next to nothing."""
        tip = TIP if balance >= TIP * TIP_GAS else 0
        return (2 * base_fee + tip, tip)


@dataclass(slots=True)
class _Pending:
    transaction: Transaction  # as it was signed last
    first: int  # the height when that was sent
    sent: int  # likewise, the last time
    last: int | None  # no later block is to hold it


def _valid_until(height: int, last: int | None) -> int:
    return height + VALID_BLOCKS if last is None else min(height + VALID_BLOCKS, last)

"""This node's account: signs transactions, hands them to the chain, and sees to it that they arrive.

Gossip loses messages, so a transaction of ours that is not final after a few blocks is sent again
until it is, or until it has expired. It is also put back into this node's own mempool, which may have let
it go for a higher tip: the nonces after it wait for it. What was pending when the node stopped is forgotten;
whoever asked for it asks again, and one of the two with the same nonce is then passed over.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog
import trio

from swarm.errors import NetworkError, RefusedError
from swarm.ledger.errors import LedgerError
from swarm.ledger.transactions import decode, sign, transaction_id

if TYPE_CHECKING:
    from collections.abc import Callable

    from protocols.signing import Signer
    from swarm.heights import Heights
    from swarm.ledger.application import LedgerApplication
    from swarm.ledger.transactions import Payload

_log = structlog.get_logger("swarm.wallet")

VALID_BLOCKS = 200
"""A transaction that is in no block after so many has expired."""
RESEND_BLOCKS = 4
MAX_PENDING = 1024
TIP = 1
"""Units a gas for the leader, where the account can pay anything."""


@dataclass(frozen=True, slots=True)
class Included:
    """A transaction that is final.

    Attributes:
        height: Of its block.
        error: Why it failed, or empty.
    """

    height: int
    error: str


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
        self._gossip = gossip
        self._pending: dict[bytes, _Pending] = {}

    async def submit(self, payload: Payload) -> bytes:
        """Sign and send; returns the transaction's id without waiting for a block.

        Raises:
            RefusedError: The ledger's rules do not allow it.
        """
        if len(self._pending) >= MAX_PENDING:
            message = f"{MAX_PENDING} transactions of this account wait for a block"
            raise RefusedError(message, "wait until the network makes blocks again")
        view = self._ledger.view()
        height = view.height
        fee, tip = self._fee(view.base_fee, view.account(self._signer.public_key).balance)
        nonce = self._ledger.next_nonce(self._signer.public_key)
        try:
            data = sign(
                self._signer,
                self._ledger.chain_id,
                nonce,
                payload,
                valid_until=height + VALID_BLOCKS,
                max_fee=fee,
                tip=tip,
            )
            self._ledger.submit(decode(data))
        except LedgerError as error:
            message = f"the ledger does not take it: {error}"
            raise RefusedError(message) from error
        identifier = transaction_id(data)
        self._pending[identifier] = _Pending(data, nonce, height, height + VALID_BLOCKS)
        self._gossip(data)
        return identifier

    async def confirm(self, identifier: bytes, seconds: float = 60.0) -> Included:
        """Wait until a transaction is final.

        Raises:
            NetworkError: No block held it in time.
            RefusedError: It is final, and failed; or it can be in no block any more.
        """
        height = self._heights.height
        with trio.move_on_after(seconds):
            while True:
                next_nonce = self._nonce()
                included = self._ledger.included(identifier)
                if included is not None:
                    if included.error:
                        message = f"the transaction failed: {included.error}"
                        raise RefusedError(message)
                    return Included(included.height, included.error)
                self._check_possible(identifier, next_nonce)
                height = await self._heights.above(height)
        message = f"the transaction is in no block after {seconds:.0f} s"
        raise NetworkError(
            message, "see `swarm status`: blocks stop while too few validators answer"
        )

    async def run(self) -> None:
        """Send again what no block holds yet; runs until cancelled."""
        height = self._heights.height
        while True:
            height = await self._heights.above(height)
            next_nonce = self._nonce()
            for identifier, pending in list(self._pending.items()):
                if pending.nonce < next_nonce or height > pending.expires:
                    if self._ledger.included(identifier) is None:
                        _log.info("transaction.lost", id=identifier.hex(), nonce=pending.nonce)
                    del self._pending[identifier]
                elif height - pending.sent >= RESEND_BLOCKS:
                    pending.sent = height
                    with contextlib.suppress(LedgerError):  # it waits there already, as it should
                        self._ledger.submit(pending.data)
                    self._gossip(pending.data)

    def _nonce(self) -> int:
        """The next nonce that a block takes from this account."""
        return self._ledger.view().account(self._signer.public_key).nonce

    def _check_possible(self, identifier: bytes, next_nonce: int) -> None:
        pending = self._pending.get(identifier)
        if pending is None or pending.nonce < next_nonce:
            message = "the transaction was passed over: it expired, or another took its number"
            raise RefusedError(message, "look at the balance and ask again")

    @staticmethod
    def _fee(base_fee: int, balance: int) -> tuple[int, int]:
        """(max fee, tip) a gas: room for the base fee to double; nothing from who has nothing."""
        tip = TIP if balance else 0
        return (2 * base_fee + tip, tip)


@dataclass(slots=True)
class _Pending:
    data: bytes
    nonce: int
    sent: int
    expires: int

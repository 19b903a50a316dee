"""An account in the simulated world: signs, hands to its node, and sends again what no block holds."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from swarm.ledger.errors import LedgerError
from swarm.ledger.transactions import decode, sign
from swarm.wallet import VALID_BLOCKS, is_due

if TYPE_CHECKING:
    from protocols.signing import Signer
    from swarm.ledger.transactions import Payload, Transaction
    from swarm.simulator.node import Node
    from swarm.simulator.town import Town


class Account:
    """A key and the node over which it speaks.

    Args:
        town: Whose ledger it is.
        signer: The key.
        home: The node that takes its transactions first.
    """

    def __init__(self, town: Town, signer: Signer, home: Node) -> None:
        self.signer = signer
        self.key = signer.public_key
        self.home = home
        self._town = town
        # Nonce -> the transaction, and the heights when it was sent first and last.
        self._waiting: dict[int, tuple[Transaction, int, int]] = {}

    @property
    def is_waiting(self) -> bool:
        """Whether anything it sent may still come into a block."""
        return bool(self._waiting)

    def submit(self, payload: Payload) -> bool:
        """Sign and send; False if its own node does not take it."""
        if self.home.replica is None:
            return False
        ledger = self._town.ledger(self.home)
        view = ledger.view()
        height, base_fee = view.height, view.base_fee
        can_pay = view.account(self.key).balance > 10**9
        data = sign(
            self.signer,
            ledger.chain_id,
            ledger.next_nonce(self.key),
            payload,
            valid_until=height + VALID_BLOCKS,
            max_fee=2 * base_fee + can_pay,
            tip=int(can_pay),
        )
        transaction = decode(data)
        try:
            ledger.submit(transaction)
        except LedgerError:
            return False
        self._waiting[transaction.nonce] = (transaction, height, height)
        self._town.gossip(self.home, transaction)
        return True

    def resend(self, height: int) -> None:
        """Send again what waits for too long."""
        if not self._waiting or self.home.replica is None:
            return
        ledger = self._town.ledger(self.home)
        nonce = ledger.view().account(self.key).nonce
        for at, (transaction, first, last) in list(self._waiting.items()):
            if at < nonce or height > transaction.valid_until:
                del self._waiting[at]
            elif is_due(height - first, height - last):
                self._waiting[at] = (transaction, first, height)
                with suppress(LedgerError):  # it waits there already, as it should
                    ledger.submit(transaction)
                self._town.gossip(self.home, transaction)

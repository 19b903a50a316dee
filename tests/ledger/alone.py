"""The real ledger of a network with one validator, which makes a block whenever it is told to."""

from __future__ import annotations

from contextlib import contextmanager

from protocols.consensus.messages import Certificate, Kind, Vote
from storage.state_store import StateStore
from swarm.heights import Heights
from swarm.ledger import transactions
from swarm.ledger.application import LedgerApplication
from tests.ledger.world import make_genesis, signer

NOW = 1_800_000_000_000
VALIDATOR, ALICE, BOB = signer("validator"), signer("alice"), signer("bob")


class Alone:
    """A chain on disk.

    Args:
        folder: Where the state is.
        params: Of the genesis.
    """

    def __init__(self, folder, **params) -> None:
        self.genesis = make_genesis([VALIDATOR], [ALICE, BOB], **params)
        self.store = StateStore(folder)
        self.ledger = LedgerApplication(self.store, self.genesis, VALIDATOR)
        self.heights = Heights(self.ledger.finalized_height())

    def certificate(self, block) -> Certificate:
        vote = Vote.sign(
            VALIDATOR, self.genesis.chain_id, Kind.FINALIZE, block.epoch, block.view, block.id
        )
        return Certificate(Kind.FINALIZE, block.epoch, block.view, block.id, ((0, vote.signature),))

    def grow(self, count=1) -> None:
        for _ in range(count):
            tip = self.ledger.finalized()
            epoch = tip.height // self.ledger.epoch_length
            block = self.ledger.prepare(tip, epoch, tip.height + 1, NOW)
            self.ledger.finalize(block, self.certificate(block))
            self.heights.move(block.height)

    def signed(self, who, payload, *, nonce=None, valid_until=None, **fees) -> bytes:
        return transactions.sign(
            who,
            self.genesis.chain_id,
            self.ledger.next_nonce(who.public_key) if nonce is None else nonce,
            payload,
            valid_until=self.ledger.view().height + 10 if valid_until is None else valid_until,
            **fees,
        )

    def run(self, who, payload) -> str:
        """One transaction in a block of its own; its error."""
        sent = self.ledger.submit(self.signed(who, payload))
        self.grow()
        return self.ledger.included(sent).error

    def balance(self, key: bytes) -> int:
        return self.ledger.view().account(key).balance


@contextmanager
def open_alone(folder, **params):
    alone = Alone(folder, **params)
    try:
        yield alone
    finally:
        alone.store.close()

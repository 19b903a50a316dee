"""What this node answers to peers that sync: implements `protocols.sync.service.BlockSource`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocols.sync.messages import Proof
from swarm.ledger.errors import LedgerError

if TYPE_CHECKING:
    from protocols.consensus.messages import Block, Finalization
    from swarm.ledger.application import LedgerApplication


class LedgerSource:
    """The finalized chain of an application; short reads, from any thread."""

    def __init__(self, application: LedgerApplication) -> None:
        self._application = application

    def genesis_bytes(self) -> bytes:
        """Their SHA-256 is the chain id."""
        return self._application.genesis_bytes()

    def finalized_height(self) -> int:
        """Of the last final block."""
        return self._application.finalized_height()

    def blocks(self, from_height: int, limit: int) -> list[tuple[Block, Finalization]]:
        """Final blocks with their finalizations."""
        return self._application.blocks(from_height, limit)

    def prove(self, key: bytes) -> Proof | None:
        """A value with its proof; None while the newest block is final only through a descendant."""
        try:
            block, finalization, value, proof = self._application.prove(key)
        except LedgerError:
            return None
        if finalization.block_id != block.id:
            return None
        return Proof(block.header_bytes, finalization.encode(), value, proof)

"""A ledger that knows nothing but its own hash: what consensus agrees on where money does not matter.

    state root = SHA-256(root of the parent || payload)

Leaders take turns. Nothing that was not executed is committed: where consensus asks for that, this raises.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from protocols.consensus.messages import Block, genesis_block
from swarm.simulator.errors import SimulationError

if TYPE_CHECKING:
    from protocols.consensus.application import Validator
    from protocols.consensus.messages import Certificate
    from protocols.signing import Signer

KEPT_BLOCKS = 16
"""Below the tip: consensus may still ask for a block beside the one that has just become final."""
CHAIN = hashlib.sha256(b"swarm/simulation").digest()


class PlainLedger:
    """Implements `protocols.consensus.application.Application`.

    Args:
        validators: Of every epoch.
        epoch_length: In blocks.
        signer: Whose blocks `prepare` makes.
        start_ms: UTC of genesis.
        machine: Marks its blocks: two machines with one key make two blocks of one moment.
    """

    def __init__(
        self,
        validators: tuple[Validator, ...],
        epoch_length: int,
        signer: Signer,
        start_ms: int,
        machine: int = 0,
    ) -> None:
        self.chain_id = CHAIN
        self.epoch_length = epoch_length
        self._validators = validators
        self._signer = signer
        self._machine = machine
        self._tip = genesis_block(CHAIN, start_ms, bytes(32))
        self._executed: dict[bytes, Block] = {}

    def validators(self, epoch: int) -> tuple[Validator, ...]:
        """Always the same."""
        del epoch
        return self._validators

    def leader(self, epoch: int, view: int) -> bytes:
        """One after the other."""
        return self._validators[(epoch + view) % len(self._validators)].public_key

    def finalized(self) -> Block:
        """The last committed block."""
        return self._tip

    def prepare(self, parent: Block, epoch: int, view: int, now_ms: int) -> Block:
        """A child whose payload names the machine that made it and when."""
        time = max(now_ms, parent.timestamp_ms + 1)
        payload = self._machine.to_bytes(4, "big") + time.to_bytes(8, "big")
        return Block(
            CHAIN,
            epoch,
            view,
            parent.height + 1,
            parent.id,
            time,
            self._signer.public_key,
            _root(parent, payload),
            payload,
        )

    def process(self, block: Block) -> bool:
        """Whether the header's root is the one that the payload gives."""
        tip = self._tip
        parent = tip if block.parent == tip.id else self._executed.get(block.parent)
        if parent is None:
            message = "a block was to be executed before its parent"
            raise SimulationError(message)
        if block.state_root != _root(parent, block.payload):
            return False
        self._executed[block.id] = block
        return True

    def finalize(self, block: Block, certificate: Certificate) -> None:
        """Commit an executed child of the tip."""
        del certificate
        if block.parent != self._tip.id or block.id not in self._executed:
            message = (
                f"block {block.height} was to be committed, and is no executed child of the tip"
            )
            raise SimulationError(message)
        self._tip = block
        self._executed = {
            one.id: one
            for one in self._executed.values()
            if one.height > block.height - KEPT_BLOCKS
        }

    def restart(self) -> None:
        """What was not final is lost."""
        self._executed = {}


def _root(parent: Block, payload: bytes) -> bytes:
    return hashlib.sha256(parent.state_root + payload).digest()

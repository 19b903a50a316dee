"""What consensus asks of the ledger: the one door between agreement and what is agreed on.

Calls are synchronous and come from one thread at a time, save `validators` and `leader`: these are asked from
the event loop too, while another thread may be inside `finalize`, so they only read and answer in microseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from protocols.consensus.messages import Block, Finalization


@dataclass(frozen=True, slots=True)
class Validator:
    """A bonded voter of one epoch; a set is sorted by `public_key`."""

    public_key: bytes
    weight: int


class Application(Protocol):
    """A deterministic state machine that consensus drives."""

    @property
    def chain_id(self) -> bytes:
        """32 bytes."""

    @property
    def epoch_length(self) -> int:
        """In blocks; block h belongs to epoch (h - 1) // epoch_length; genesis is height 0."""

    def validators(self, epoch: int) -> tuple[Validator, ...]:
        """The voters of an epoch, sorted by public key; fixed by state finalized two epochs before.

        Asked for the epoch of any finalized block and for the one after the last finalized block.
        """

    def leader(self, epoch: int, view: int) -> bytes:
        """The public key that proposes in a view (counted from 1); fixed by the same state.

        It must be among `validators(epoch)`: who does not vote has no stream to those who do.
        """

    def finalized(self) -> Block:
        """The last committed block; genesis at first."""

    def prepare(self, parent: Block, epoch: int, view: int, now_ms: int) -> Block:
        """Make the child of a processed or finalized block; `process` is called on it afterwards.

        The timestamp must be greater than the parent's and not above `now_ms` by more than needed for that.
        """

    def process(self, block: Block) -> bool:
        """Execute a block on the state of its parent, which has been processed or finalized before.

        Returns:
            True if every rule holds; asked again for the same block, the same answer.
        """

    def finalize(self, block: Block, certificate: Finalization) -> None:
        """Commit a processed block, the child of `finalized()`; durable when it returns.

        Args:
            block: What is final now.
            certificate: Of this block, or of the nearest descendant that was certified itself.
        """

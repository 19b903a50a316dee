"""How this node comes to a state that it did not execute: implements `protocols.sync.snapshots.Newcomer`.

Trust begins at what this node has executed, at the newest hand-off that it has checked, or at the checkpoint that it was
given, whichever is the newest, and is handed on from there. Sync's blocks come through here too (`apply`), so that a
checkpoint holds for them as well.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from protocols.consensus.blocks import Block
from protocols.consensus.errors import MessageError
from protocols.sync.errors import CheckpointError, UnsignedError
from storage.incoming import Incoming
from storage.state_range import Range, RangeError
from swarm.ledger import validators
from swarm.ledger.errors import LedgerError
from swarm.ledger.handoff import (
    WEAK_SUBJECTIVITY_MS,
    Handoff,
    Trust,
    contradiction,
    handoff_key,
    is_final,
)
from swarm.ledger.keys import epoch_key
from swarm.ledger.state import EpochSet, load

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from protocols.consensus.finalizer import Finalizer
    from storage.state_store import StateStore
    from swarm.ledger.application import LedgerApplication
    from swarm.ledger.checkpoint import Checkpoint

FAR_BLOCKS: Final = 512
"""A node that is further behind looks for a snapshot: about the blocks that are executed while one is fetched."""

HANDOFFS_AT_ONCE: Final = 64
"""That are written in one transaction."""


class Landing:
    """A node's way to the present.

    Args:
        ledger: Over the store.
        store: Where a snapshot arrives.
        finalizer: The one way to the ledger while the node runs.
        checkpoint: What the person was given.
        utc_ms: The wall clock.

    Raises:
        CheckpointError: This node's own chain is not the one of the checkpoint.
        LedgerError: The checkpoint is not the last block of an epoch.
    """

    def __init__(
        self,
        ledger: LedgerApplication,
        store: StateStore,
        finalizer: Finalizer,
        checkpoint: Checkpoint | None = None,
        *,
        utc_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        far_blocks: int = FAR_BLOCKS,
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._finalizer = finalizer
        self._checkpoint = checkpoint
        self._utc_ms = utc_ms
        self._incoming = Incoming(store)
        self._trust: Trust | None = None
        self._unwritten: dict[bytes, bytes] = {}
        if 0 <= self._incoming.height <= ledger.finalized_height():
            self._incoming.drop()
        self._far_blocks = far_blocks
        self._check_checkpoint()

    # Blocks: implements `protocols.sync.service.Chain`

    def height(self) -> int:
        """Of the last final block."""
        return self._finalizer.height()

    async def apply(self, pairs: Sequence[tuple[bytes, bytes]]) -> int:
        """Check, execute and commit blocks, unless this node's newest is too old to build on; how many became final.

        Raises:
            MessageError: The peer lies.
            CheckpointError: It has another block than the checkpoint.
        """
        if self._is_old(self._finalizer.tip.timestamp_ms):
            return 0
        checkpoint = self._checkpoint
        if checkpoint is not None and self.height() < checkpoint.height:
            for data, _ in pairs:
                block = Block.decode(data)
                if block.height == checkpoint.height and block.id != checkpoint.block_id:
                    raise contradiction(checkpoint, block.id, "a peer")
        return await self._finalizer.apply(pairs)

    # Trust

    @property
    def behind_for_land(self) -> int:
        """So many blocks behind, a snapshot is looked for."""
        return 0 if self._is_old(self._finalizer.tip.timestamp_ms) else self._far_blocks

    def refusal(self) -> str | None:
        """Why nothing may be taken from peers now, and what to do; None if it may."""
        newest = max(self._finalizer.tip.timestamp_ms, self._known().timestamp_ms)
        if not self._is_old(newest) or self._needs_checkpoint():
            return None
        return self._too_old("the newest block that this node can trust", newest)

    def next_epoch(self) -> int:
        """Whose hand-off comes next."""
        if self._needs_checkpoint() and self._checkpoint is not None:
            return self.epoch_of(self._checkpoint.height)
        return self._known().epoch

    def epoch_of(self, height: int) -> int:
        """The epoch of a height."""
        return validators.epoch_of(height, self._ledger.epoch_length)

    def take_handoff(self, data: bytes) -> None:
        """Check the next hand-off and keep it.

        Raises:
            MessageError: It is not one.
            CheckpointError: It is not the checkpoint that this node was given, or that is too old.
        """
        handoff = Handoff.decode(data)
        chain_id, length = self._ledger.chain_id, self._ledger.epoch_length
        if self._needs_checkpoint() and self._checkpoint is not None:
            handoff.check_place(self.epoch_of(self._checkpoint.height), chain_id, length)
            handoff.check_checkpoint(self._checkpoint)
            if self._is_old(handoff.header.timestamp_ms):
                raise CheckpointError(self._too_old("the checkpoint", handoff.header.timestamp_ms))
            self._trust = handoff.trusted()
        else:
            self._trust = self._known().follow(handoff, chain_id, length)
        self._unwritten[handoff_key(handoff.header.epoch)] = data
        self._unwritten[_LAST] = handoff.header.epoch.to_bytes(8, "big")
        if len(self._unwritten) > HANDOFFS_AT_ONCE:
            self._write_handoffs()

    # The snapshot

    def useful(self, heights: Sequence[int], tip: int) -> list[int]:
        """The heights of snapshots that bring this node on, when somebody claims a tip."""
        least = max(self.height() + 1, 0 if self._checkpoint is None else self._checkpoint.height)
        length = self._ledger.epoch_length
        return [
            one
            for one in heights
            if least <= one <= tip and one % length == 0 and self._can_follow(self.epoch_of(one))
        ]

    def arriving(self) -> int:
        """The height of the snapshot of which a part is held; -1 for none."""
        return self._incoming.height

    def begin(self, height: int) -> list[tuple[int, int]]:
        """Make ready for a snapshot; the paths that are missing, from and to (not with it)."""
        self._write_handoffs()
        self._incoming.begin(height, self._handoff_at(height).header.state_root)
        return self._incoming.missing()

    def take_range(self, data: bytes) -> tuple[int, int]:
        """Check a range and store it; from and to (not with it).

        Raises:
            MessageError: It is not of this state.
        """
        try:
            part = Range.decode(data)
            self._incoming.put(part)
        except RangeError as error:
            raise MessageError(str(error)) from error
        return part.low, part.high

    async def finish(self, block: bytes) -> None:
        """Go on from the state that has arrived, unless blocks have led past it meanwhile.

        Args:
            block: The one of its height.

        Raises:
            MessageError: It is another block.
            UnsignedError: The finalization that came with the checkpoint does not hold; another peer may have it.
        """
        found = Block.decode(block)
        handoff = self._handoff_at(self._incoming.height)
        if found.header != handoff.header:
            message = f"block {found.height} is not the one that was made final"
            raise MessageError(message)
        # A checkpoint's own finalization could not be checked before: its voters stand in the state that it commits to.
        voters = self._incoming.get(epoch_key(found.epoch))
        if voters is None or not is_final(
            handoff.header, handoff.finalization, EpochSet.unpack(found.epoch, load(voters))
        ):
            self._trust = None
            self._store.add_notes({_LAST: b""})
            message = f"the finalization that came with block {found.height} does not hold"
            raise UnsignedError(message)
        certificate = handoff.finalization

        def change() -> None:
            self._incoming.finish(block, certificate.encode())
            self._ledger.adopt()

        if not await self._finalizer.adopt(found, certificate, change):
            self._incoming.drop()
        self._trust = None

    # Inside

    def _write_handoffs(self) -> None:
        if self._unwritten:
            self._store.add_notes(self._unwritten)
            self._unwritten = {}

    def _can_follow(self, epoch: int) -> bool:
        """Whether an epoch's hand-off is here or comes next: trust that began at a checkpoint has none from before."""
        self._write_handoffs()
        return epoch >= self.next_epoch() or self._ledger.handoff(epoch) is not None

    def _handoff_at(self, height: int) -> Handoff:
        data = self._ledger.handoff(self.epoch_of(height))
        if data is None:
            message = f"no hand-off for the state of height {height:,} was taken"
            raise LedgerError(message)
        return Handoff.decode(data)

    def _known(self) -> Trust:
        """From where this node can follow by itself."""
        tip = self._finalizer.tip
        epoch = tip.height // self._ledger.epoch_length
        if self._trust is None or self._trust.epoch < epoch:
            view = self._ledger.view()
            sets = (view.validators(epoch), view.validators(epoch + 1))
            self._trust = Trust(epoch, sets, tip.timestamp_ms)
            noted = self._store.note(_LAST)
            last = -1 if not noted else int.from_bytes(noted, "big")
            data = self._ledger.handoff(last) if last >= epoch else None
            if data is not None:
                self._trust = Handoff.decode(data).trusted()
        return self._trust

    def _is_old(self, timestamp_ms: int) -> bool:
        """Whether a header of that time is past the bound of weak subjectivity.

        A genesis that names no time (0) bounds nothing: such a network trusts its genesis for ever.
        """
        age = self._utc_ms() - timestamp_ms
        return self._ledger.genesis.timestamp_ms != 0 and age > WEAK_SUBJECTIVITY_MS

    def _too_old(self, what: str, timestamp_ms: int) -> str:
        days = (self._utc_ms() - timestamp_ms) // (24 * 3600 * 1000)
        return (
            f"{what} is {days:,} days old, and those who signed it may have left: "
            "ask somebody you trust for the last block of a recent epoch, and start with --checkpoint HEIGHT:ID"
        )

    def _needs_checkpoint(self) -> bool:
        """Whether the checkpoint is ahead of everything that this node knows."""
        checkpoint = self._checkpoint
        return checkpoint is not None and self._known().epoch <= self.epoch_of(checkpoint.height)

    def _check_checkpoint(self) -> None:
        checkpoint = self._checkpoint
        if checkpoint is None:
            return
        length = self._ledger.epoch_length
        if checkpoint.height <= 0 or checkpoint.height % length:
            below = checkpoint.height // length * length
            message = (
                f"a checkpoint is the last block of an epoch: its height is a multiple of {length:,}, "
                f"as {max(length, below):,} or {below + length:,} are, and {checkpoint.height:,} is not"
            )
            raise LedgerError(message)
        data = self._ledger.handoff(self.epoch_of(checkpoint.height))
        if data is not None:
            found = Handoff.decode(data).header.id
            if found != checkpoint.block_id:
                raise contradiction(checkpoint, found, "this node's own ledger")


_LAST: Final = b"handoff/last"

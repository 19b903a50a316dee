"""Blocks above the last final one: which are held, which are executed, which are missing.

Pure bookkeeping; it says what to process and what to ask for, and the core does so.
"""

from __future__ import annotations

from collections import OrderedDict
from enum import Enum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from protocols.consensus.blocks import Block

RECENT_BLOCKS: Final = 64
RECENT_BYTES: Final = 16 * 2**20
"""Final blocks kept to answer those who lag; further back it is sync's to answer."""


class Status(Enum):
    """Where a block stands with the application."""

    VALID = "executed, every rule held"
    INVALID = "refused, or not on the chain that is final"
    WAITING = "being executed, or a block before it is missing"


class BlockTree:
    """Blocks by id, from the last final block up.

    Args:
        root: The last final block.
    """

    def __init__(self, root: Block) -> None:
        self.root = root
        self._held: dict[bytes, Block] = {}
        self._answers: dict[bytes, bool] = {}
        self._asked: set[bytes] = set()
        self._recent: OrderedDict[bytes, Block] = OrderedDict({root.id: root})
        self._recent_bytes = len(root.payload)
        self.durable: set[bytes] = set()
        self.missing: set[bytes] = set()
        self.to_process: list[Block] = []

    def __len__(self) -> int:
        return len(self._held)

    def add(self, block: Block) -> None:
        """Hold a block above the root."""
        if block.height > self.root.height:
            self._held[block.id] = block
        self.missing.discard(block.id)

    def get(self, block_id: bytes) -> Block | None:
        """A block that is held or is the root."""
        return self.root if block_id == self.root.id else self._held.get(block_id)

    def find(self, block_id: bytes) -> Block | None:
        """A block for one who lags: held, or among the recent final ones."""
        return self._held.get(block_id) or self._recent.get(block_id)

    def answer(self, block_id: bytes, valid: bool) -> None:
        """What the application said."""
        self._asked.discard(block_id)
        if block_id in self._held:
            self._answers[block_id] = valid

    def path(self, block: Block) -> list[Block] | None:
        """The blocks after the root up to this one; None if one is missing (and noted) or it is off the chain."""
        path: list[Block] = []
        at = block
        while at.id != self.root.id:
            if at.height <= self.root.height:
                return None
            path.append(at)
            parent = self.get(at.parent)
            if parent is None:
                if at.height > self.root.height + 1:
                    self.missing.add(at.parent)
                return None
            at = parent
        return path[::-1]

    def is_off_chain(self, block: Block) -> bool:
        """Whether the block is known not to descend from the root."""
        at: Block | None = block
        while at is not None and at.height > self.root.height + 1:
            at = self._held.get(at.parent)
        if at is None or at.id == self.root.id:
            return False
        return at.height <= self.root.height or at.parent != self.root.id

    def status(self, block: Block) -> Status:
        """Where the block stands; queues what has to be executed before that is known."""
        path = self.path(block)
        if path is None:
            return Status.INVALID if self.is_off_chain(block) else Status.WAITING
        for step in path:
            known = self._answers.get(step.id)
            if known is False:
                return Status.INVALID
            if known is None:
                if step.id not in self._asked:
                    self._asked.add(step.id)
                    self.to_process.append(step)
                return Status.WAITING
        return Status.VALID

    def finalize(self, block: Block) -> None:
        """Move the root up to its child, or to a block from elsewhere, and forget what cannot be built on."""
        self.root = block
        self._recent[block.id] = block
        self._recent_bytes += len(block.payload)
        while len(self._recent) > 1 and (
            len(self._recent) > RECENT_BLOCKS or self._recent_bytes > RECENT_BYTES
        ):
            _, dropped = self._recent.popitem(last=False)
            self._recent_bytes -= len(dropped.payload)
        stale = {
            block_id
            for block_id, held in self._held.items()
            if held.height <= block.height or self.is_off_chain(held)
        }
        for block_id in stale:
            del self._held[block_id]
            self._answers.pop(block_id, None)
            self._asked.discard(block_id)
            self.durable.discard(block_id)
        self.missing.clear()

    def keep_only(self, keep: set[bytes]) -> None:
        """Forget held blocks that are neither named in `keep` nor an ancestor of one that is."""
        wanted: set[bytes] = set()
        for block_id in keep:
            at = self._held.get(block_id)
            while at is not None and at.id not in wanted:
                wanted.add(at.id)
                at = self._held.get(at.parent)
        for block_id in self._held.keys() - wanted:
            del self._held[block_id]
            self._answers.pop(block_id, None)
            self._asked.discard(block_id)
            self.durable.discard(block_id)

"""The trace: one line for each thing that a node did, and the SHA-256 over all of them.

    <milliseconds> <node> <what> <which>

Two runs are the same if their hashes are: every message is in it by what it says and by its signature.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from protocols.consensus.messages import Ask, Cast, Certify, Give, Proposal

if TYPE_CHECKING:
    from protocols.consensus.messages import Message


class Trace:
    """The hash of what has happened so far."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self.lines = 0

    def note(self, now: int, node: str, what: str, which: str) -> None:
        """Add one line."""
        self._hash.update(f"{now} {node} {what} {which}\n".encode())
        self.lines += 1

    @property
    def digest(self) -> str:
        """The hash, in hexadecimal."""
        return self._hash.hexdigest()


def told(message: Message) -> str:
    """A message in one word: what it says, and what nobody else could have said."""
    match message:
        case Proposal(view, block, _, gap, vote):
            return f"propose {view} {block.id.hex()} {len(gap)} {vote.signature.hex()}"
        case Cast(vote):
            return f"vote {vote.kind:d} {vote.view} {vote.block_id.hex()} {vote.signature.hex()}"
        case Certify(one):
            signers = ",".join(str(index) for index, _ in one.signatures)
            return f"certify {one.kind:d} {one.view} {one.block_id.hex()} {signers}"
        case Ask(_, block_id):
            return f"ask {block_id.hex()}"
        case Give(_, block):
            return f"give {block.id.hex()}"

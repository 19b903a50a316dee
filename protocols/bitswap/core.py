"""What one peer wants of this node, and what it is owed: the ledger of a peer. No I/O, no clock.

Only names and sizes stand here; a chunk is read when it is about to be sent.
Wants are answered in the order in which they came, which is the order of their priorities in what Kubo and Helia send.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from protocols.bitswap.messages import cid_of, forms_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from protocols.bitswap.messages import Message
    from storage.cid import Cid

MAX_WANTS = 4_096
"""Of one peer, whether they wait for a chunk to arrive or for the stream."""
MAX_WAITING = 1_024
"""Of those: wants of chunks that are not held, which are looked for again and again."""
MAX_PRESENCES = 1_024
"""In one message."""


@dataclass(frozen=True, slots=True)
class Due:
    """A chunk that is to be sent.

    Attributes:
        wire: Its CID as it was asked.
        cid: As it is held.
        size: Bytes.
    """

    wire: bytes
    cid: Cid
    size: int


class Ledger:
    """The wants of one peer."""

    def __init__(self) -> None:
        self._waiting: dict[bytes, bool] = {}
        self._blocks: dict[bytes, Due] = {}
        self._presences: dict[bytes, bool] = {}

    @property
    def is_idle(self) -> bool:
        """Whether nothing is to be sent."""
        return not self._blocks and not self._presences

    @property
    def pending(self) -> int:
        """Bytes of chunks that are to be sent."""
        return sum(due.size for due in self._blocks.values())

    @property
    def count(self) -> int:
        """Wants that are kept."""
        return len(self._waiting) + len(self._blocks) + len(self._presences)

    def waiting(self) -> list[Cid]:
        """Chunks that are wanted and not held."""
        return [cid for wire in self._waiting if (cid := cid_of(wire)) is not None]

    def take(self, message: Message, sizes: Mapping[Cid, int]) -> None:
        """Wants and cancels came.

        Args:
            message: What the peer said.
            sizes: Of those of its wants that are held, bytes.
        """
        if message.full:
            self._waiting.clear()
            self._blocks.clear()
            self._presences.clear()
        for entry in message.entries:
            wire = entry.wire
            if entry.cancel:
                self._forget(wire)
                continue
            cid = cid_of(wire)
            size = None if cid is None else sizes.get(cid)
            has_room = self.count < MAX_WANTS or self._knows(wire)
            if cid is not None and size is not None and has_room:
                self._owe(wire, cid, size, have=entry.have)
                continue
            if cid is not None and (len(self._waiting) < MAX_WAITING or wire in self._waiting):
                self._waiting[wire] = entry.have
            if entry.dont_have and len(self._presences) < MAX_WANTS:
                self._presences[wire] = False

    def arrived(self, sizes: Mapping[Cid, int]) -> bool:
        """Chunks came into the store; whether some of them are wanted."""
        found = False
        for cid, size in sizes.items():
            for wire in forms_of(cid):
                if wire in self._waiting:
                    self._owe(wire, cid, size, have=self._waiting[wire])
                    found = True
        return found

    def next_presences(self) -> tuple[tuple[bytes, bool], ...]:
        """Take the answers that carry no chunk, for one message."""
        found = tuple(self._presences.items())[:MAX_PRESENCES]
        for wire, _ in found:
            del self._presences[wire]
        return found

    def next_blocks(self, max_bytes: int) -> list[Due]:
        """Take chunks that are to be sent now, up to so many bytes; one is always taken."""
        found: list[Due] = []
        size = 0
        for due in self._blocks.values():
            if found and size + due.size > max_bytes:
                break
            found.append(due)
            size += due.size
        for due in found:
            del self._blocks[due.wire]
        return found

    def gone(self, dues: Iterable[Due]) -> None:
        """Chunks that were to be sent are not held any more."""
        for due in dues:
            self._presences[due.wire] = False

    def _knows(self, wire: bytes) -> bool:
        return wire in self._waiting or wire in self._blocks or wire in self._presences

    def _forget(self, wire: bytes) -> None:
        self._waiting.pop(wire, None)
        self._blocks.pop(wire, None)
        self._presences.pop(wire, None)

    def _owe(self, wire: bytes, cid: Cid, size: int, *, have: bool) -> None:
        self._waiting.pop(wire, None)
        self._presences.pop(wire, None)
        if not have:
            self._blocks[wire] = Due(wire, cid, size)
        elif wire not in self._blocks:
            self._presences[wire] = True

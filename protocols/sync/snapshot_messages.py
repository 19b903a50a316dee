"""Requests and answers about hand-offs and snapshots, and their bytes: `/swarm/snapshot/1.0.0`.

A hand-off and a range are bytes to this room: who takes them in knows how to check them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

from protocols.sync.errors import SyncMessageError
from protocols.sync.messages import MAX_HEIGHT, array
from storage import canonical

MAX_REQUEST_BYTES: Final = 128
MAX_HOLDINGS_BYTES: Final = 256
MAX_SNAPSHOTS: Final = 8
MAX_HANDOFFS: Final = 256
"""That one request brings."""
MAX_HANDOFF_BYTES: Final = 64 * 2**10
MAX_RANGES: Final = 64
"""That one request brings."""
MAX_RANGE_BYTES: Final = 2**20
PATH_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class AskHoldings:
    """What the peer holds."""

    def encode(self) -> bytes:
        """Its canonical bytes."""
        return canonical.encode([1])


@dataclass(frozen=True, slots=True)
class AskHandoffs:
    """Hand-offs from an epoch on."""

    from_epoch: int
    count: int

    def encode(self) -> bytes:
        """Its canonical bytes."""
        return canonical.encode([2, self.from_epoch, self.count])


@dataclass(frozen=True, slots=True)
class AskRanges:
    """The ranges of a snapshot from the one that a path falls into to the one of another path."""

    height: int
    first: bytes
    last: bytes

    def encode(self) -> bytes:
        """Its canonical bytes."""
        return canonical.encode([3, self.height, self.first, self.last])


Request: TypeAlias = AskHoldings | AskHandoffs | AskRanges


@dataclass(frozen=True, slots=True)
class Holdings:
    """What a node can give: a claim.

    Attributes:
        first_block: From this height on it holds every block; what is below was pruned, or never held.
        snapshots: Heights, the newest first.
    """

    first_block: int
    snapshots: tuple[int, ...]

    def encode(self) -> bytes:
        """Its canonical bytes."""
        return canonical.encode([self.first_block, list(self.snapshots)])

    @classmethod
    def decode(cls, data: bytes) -> Holdings:
        """Read it.

        Raises:
            SyncMessageError: Malformed.
        """
        match array(data, MAX_HOLDINGS_BYTES):
            case [int(first), list(heights)] if (
                0 <= first <= MAX_HEIGHT
                and len(heights) <= MAX_SNAPSHOTS
                and all(type(one) is int and 0 < one <= MAX_HEIGHT for one in heights)
            ):
                return cls(first, tuple(heights))
        message = "malformed holdings"
        raise SyncMessageError(message)


def decode_request(data: bytes) -> Request:
    """Read a request.

    Raises:
        SyncMessageError: Malformed; no other error, whatever the bytes.
    """
    match array(data, MAX_REQUEST_BYTES):
        case [1]:
            return AskHoldings()
        case [2, int(epoch), int(count)] if 0 <= epoch <= MAX_HEIGHT and count >= 1:
            return AskHandoffs(epoch, min(count, MAX_HANDOFFS))
        case [3, int(height), bytes(first), bytes(last)] if (
            0 < height <= MAX_HEIGHT and len(first) == len(last) == PATH_BYTES and first <= last
        ):
            return AskRanges(height, first, last)
    message = "a malformed snapshot request"
    raise SyncMessageError(message)

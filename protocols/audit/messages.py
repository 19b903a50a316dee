"""Requests and answers of an audit and their bytes; the package's text lists them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from protocols.audit.errors import AuditMessageError
from storage import canonical
from storage.chunks import MAX_CHUNK_BYTES
from storage.errors import CanonicalError
from storage.merkle import HASH_BYTES
from storage.sampling import MAX_BLOCKS
from storage.sealing import LEAF_BYTES, SLOT_BYTES
from storage.slot_tree import LABEL_BYTES, MAX_SLOTS

MAX_REQUEST_BYTES: Final = 128
MAX_LEAVES: Final = 4_096
MAX_AUDIT: Final = 2**63 - 1
MAX_PIECES: Final = 1_024
DEAL_BYTES: Final = 32
INNER_HASHES: Final = 8
"""From a leaf to its slot's root."""
MAX_PATH_HASHES: Final = 33
"""From a label to the root of 2^32 slots."""
MAX_LEAF_FRAME: Final = 8 * 2**10
MAX_SLOT_FRAME: Final = SLOT_BYTES + 2 * 2**10
MAX_BLOCK_FRAME: Final = MAX_CHUNK_BYTES + 16


@dataclass(frozen=True, slots=True)
class AskLeaves:
    """All drawn leaves of an audit."""

    audit: int

    def encode(self) -> bytes:
        """Its canonical bytes."""
        return canonical.encode([1, self.audit])


@dataclass(frozen=True, slots=True)
class AskSlot:
    """A whole slot, as committed when an audit began."""

    audit: int
    slot: int

    def encode(self) -> bytes:
        """Its canonical bytes."""
        return canonical.encode([2, self.audit, self.slot])


@dataclass(frozen=True, slots=True)
class AskHeld:
    """The challenged chunk of a duty."""

    audit: int
    deal: bytes
    piece: int

    def encode(self) -> bytes:
        """Its canonical bytes."""
        return canonical.encode([3, self.audit, self.deal, self.piece])


Request: TypeAlias = AskLeaves | AskSlot | AskHeld


@dataclass(frozen=True, slots=True)
class LeafAnswer:
    """One drawn leaf; which one it must be follows from those before it. Nothing of it is checked yet."""

    leaf: bytes
    label: bytes
    inner: list[bytes]
    path: list[bytes]

    def encode(self) -> bytes:
        """Its canonical bytes."""
        return canonical.encode([self.leaf, self.label, self.inner, self.path])

    @classmethod
    def decode(cls, data: bytes) -> LeafAnswer:
        """Read a leaf.

        Raises:
            AuditMessageError: Malformed.
        """
        match _array(data, MAX_LEAF_FRAME):
            case [bytes(leaf), bytes(label), list(inner), list(path)] if (
                len(leaf) == LEAF_BYTES
                and len(label) == LABEL_BYTES
                and len(inner) == INNER_HASHES
                and len(path) <= MAX_PATH_HASHES
                and _are_hashes([*inner, *path])
            ):
                return cls(leaf, label, inner, path)
        raise _malformed()


@dataclass(frozen=True, slots=True)
class SlotAnswer:
    """A whole slot. Nothing of it is checked yet."""

    sealed: bytes
    label: bytes
    path: list[bytes]

    def encode(self) -> bytes:
        """Its canonical bytes."""
        return canonical.encode([self.sealed, self.label, self.path])

    @classmethod
    def decode(cls, data: bytes) -> SlotAnswer | None:
        """Read a slot; None where the keeper has none to show.

        Raises:
            AuditMessageError: Malformed.
        """
        match _array(data, MAX_SLOT_FRAME):
            case []:
                return None
            case [bytes(sealed), bytes(label), list(path)] if (
                len(sealed) == SLOT_BYTES
                and len(label) == LABEL_BYTES
                and len(path) <= MAX_PATH_HASHES
                and _are_hashes(path)
            ):
                return cls(sealed, label, path)
        raise _malformed()


def decode_request(data: bytes) -> Request:
    """Read a request.

    Raises:
        AuditMessageError: Malformed; no other error, whatever the bytes.
    """
    match _array(data, MAX_REQUEST_BYTES):
        case [1, int(audit)] if 0 <= audit <= MAX_AUDIT:
            return AskLeaves(audit)
        case [2, int(audit), int(slot)] if 0 <= audit <= MAX_AUDIT and 0 <= slot < MAX_SLOTS:
            return AskSlot(audit, slot)
        case [3, int(audit), bytes(deal), int(piece)] if (
            0 <= audit <= MAX_AUDIT and len(deal) == DEAL_BYTES and 0 <= piece < MAX_PIECES
        ):
            return AskHeld(audit, deal, piece)
    raise _malformed()


def encode_nothing() -> bytes:
    """The answer of a keeper that has nothing to show, to any request."""
    return canonical.encode([])


def encode_count(count: int) -> bytes:
    """How many leaves or blocks follow, a frame each."""
    return canonical.encode([count])


def decode_leaf_count(data: bytes) -> int:
    """Read how many leaves follow; 0 where the keeper has nothing to show.

    Raises:
        AuditMessageError: Malformed.
    """
    return _count(data, MAX_LEAVES)


def decode_block_count(data: bytes) -> int:
    """Read how many blocks follow; 0 where the keeper has nothing to show.

    Raises:
        AuditMessageError: Malformed.
    """
    return _count(data, MAX_BLOCKS)


def encode_block(block: bytes) -> bytes:
    """One block of the way to a held chunk."""
    return canonical.encode([block])


def decode_block(data: bytes) -> bytes:
    """Read one block of the way to a held chunk.

    Raises:
        AuditMessageError: Malformed.
    """
    match _array(data, MAX_BLOCK_FRAME):
        case [bytes(block)] if len(block) <= MAX_CHUNK_BYTES:
            return block
    raise _malformed()


def _count(data: bytes, most: int) -> int:
    match _array(data, MAX_REQUEST_BYTES):
        case []:
            return 0
        case [int(count)] if 0 < count <= most:
            return count
    raise _malformed()


def _are_hashes(values: list[Any]) -> bool:
    return all(type(value) is bytes and len(value) == HASH_BYTES for value in values)


def _array(data: bytes, max_bytes: int) -> list[Any]:
    try:
        value = canonical.decode(data, max_bytes=max_bytes)
    except CanonicalError as error:
        raise AuditMessageError(str(error)) from error
    if type(value) is not list or any(type(item) is bool for item in value):
        raise _malformed()
    return value


def _malformed() -> AuditMessageError:
    message = "a malformed audit message"
    return AuditMessageError(message)

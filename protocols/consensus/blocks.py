"""Headers and blocks: their bytes, their ids and what makes them well-formed.

    header = [version, chain_id, epoch, view, height, parent, timestamp_ms, leader, state_root, payload_hash]
    id     = SHA-256("swarm/block/1" || 0x00 || header bytes)
    block  = [header bytes, payload]

`payload_hash` is the SHA-256 of the payload, which consensus does not read.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any, Final

from protocols.consensus.errors import MessageError
from storage import canonical
from storage.errors import CanonicalError

VERSION: Final = 1
MAX_PAYLOAD_BYTES: Final = 2**20
MAX_HEADER_BYTES: Final = 512
MAX_BLOCK_BYTES: Final = MAX_PAYLOAD_BYTES + MAX_HEADER_BYTES + 16
HASH_BYTES: Final = 32
MAX_NUMBER: Final = 2**63 - 1
"""Of epochs, views, heights and timestamps."""
ZERO_HASH: Final = bytes(HASH_BYTES)
_ID_TAG: Final = b"swarm/block/1\x00"


def number(value: object) -> int:
    """A decoded value as a count from 0 to `MAX_NUMBER`.

    Raises:
        MessageError: It is something else.
    """
    if type(value) is not int or not 0 <= value <= MAX_NUMBER:
        message = "not a number between 0 and 2^63 - 1"
        raise MessageError(message)
    return value


def exactly(value: object, length: int) -> bytes:
    """A decoded value as bytes of a given length.

    Raises:
        MessageError: It is something else.
    """
    if type(value) is not bytes or len(value) != length:
        message = f"not {length} bytes"
        raise MessageError(message)
    return value


def fields(value: object, count: int) -> list[Any]:
    """A decoded value as an array of a given length.

    Raises:
        MessageError: It is something else.
    """
    if type(value) is not list or len(value) != count:
        message = f"not an array of {count}"
        raise MessageError(message)
    return value


def decode(data: bytes, max_bytes: int) -> Any:  # noqa: ANN401 - canonical values have no one type
    """Decode canonical bytes.

    Raises:
        MessageError: They are not, or too long.
    """
    try:
        return canonical.decode(data, max_bytes=max_bytes)
    except CanonicalError as error:
        raise MessageError(str(error)) from error


@dataclass(frozen=True, slots=True)
class Header:
    """What a block's id commits to; enough to check a light proof."""

    chain_id: bytes
    epoch: int
    view: int
    height: int
    parent: bytes
    timestamp_ms: int
    leader: bytes
    state_root: bytes
    payload_hash: bytes

    def encode(self) -> bytes:
        """Its canonical bytes."""
        return canonical.encode(
            [
                VERSION,
                self.chain_id,
                self.epoch,
                self.view,
                self.height,
                self.parent,
                self.timestamp_ms,
                self.leader,
                self.state_root,
                self.payload_hash,
            ]
        )

    @property
    def id(self) -> bytes:
        """SHA-256 over a tag and the bytes."""
        return hashlib.sha256(_ID_TAG + self.encode()).digest()

    @classmethod
    def decode(cls, data: bytes) -> Header:
        """Read a header.

        Raises:
            MessageError: Malformed, or of another version.
        """
        items = fields(decode(data, MAX_HEADER_BYTES), 10)
        if items[0] != VERSION or type(items[0]) is not int:
            message = f"a block header of version {items[0]!r}; this node knows version {VERSION}"
            raise MessageError(message)
        return cls(
            chain_id=exactly(items[1], HASH_BYTES),
            epoch=number(items[2]),
            view=number(items[3]),
            height=number(items[4]),
            parent=exactly(items[5], HASH_BYTES),
            timestamp_ms=number(items[6]),
            leader=exactly(items[7], HASH_BYTES),
            state_root=exactly(items[8], HASH_BYTES),
            payload_hash=exactly(items[9], HASH_BYTES),
        )


@dataclass(frozen=True, slots=True)
class Block:
    """A header and the payload that it names.

    `header_bytes` and `id` are computed once; two blocks are equal if their ids are.
    """

    chain_id: bytes = field(compare=False)
    epoch: int = field(compare=False)
    view: int = field(compare=False)
    height: int = field(compare=False)
    parent: bytes = field(compare=False)
    timestamp_ms: int = field(compare=False)
    leader: bytes = field(compare=False)
    state_root: bytes = field(compare=False)
    payload: bytes = field(compare=False, repr=False)
    header_bytes: bytes = field(init=False, compare=False, repr=False)
    id: bytes = field(init=False)

    def __post_init__(self) -> None:
        header = Header(
            self.chain_id,
            self.epoch,
            self.view,
            self.height,
            self.parent,
            self.timestamp_ms,
            self.leader,
            self.state_root,
            hashlib.sha256(self.payload).digest(),
        ).encode()
        object.__setattr__(self, "header_bytes", header)
        object.__setattr__(self, "id", hashlib.sha256(_ID_TAG + header).digest())

    @property
    def header(self) -> Header:
        """The header alone."""
        return Header.decode(self.header_bytes)

    def encode(self) -> bytes:
        """Its canonical bytes."""
        return canonical.encode([self.header_bytes, self.payload])

    @classmethod
    def decode(cls, data: bytes) -> Block:
        """Read a block and check that the payload is the one its header names.

        Raises:
            MessageError: Malformed, too long, or another payload.
        """
        items = fields(decode(data, MAX_BLOCK_BYTES), 2)
        if type(items[0]) is not bytes or type(items[1]) is not bytes:
            message = "a block is a header and a payload"
            raise MessageError(message)
        if len(items[1]) > MAX_PAYLOAD_BYTES:
            message = (
                f"a payload of {len(items[1]):,} bytes where {MAX_PAYLOAD_BYTES:,} are allowed"
            )
            raise MessageError(message)
        header = Header.decode(items[0])
        if hashlib.sha256(items[1]).digest() != header.payload_hash:
            message = "the payload is not the one that the header names"
            raise MessageError(message)
        return cls(
            header.chain_id,
            header.epoch,
            header.view,
            header.height,
            header.parent,
            header.timestamp_ms,
            header.leader,
            header.state_root,
            items[1],
        )


def genesis_block(chain_id: bytes, timestamp_ms: int, state_root: bytes) -> Block:
    """Height 0, epoch 0, view 0: what the first block's parent is; it needs no certificate."""
    return Block(chain_id, 0, 0, 0, ZERO_HASH, timestamp_ms, ZERO_HASH, state_root, b"")


def epoch_of(height: int, epoch_length: int) -> int:
    """The epoch of a block; genesis counts to the first."""
    return max(0, height - 1) // epoch_length

"""Bitswap's messages and their bytes; see the folder's text for the layout.

Fields that are not known are skipped, as protobuf has it. Every count is bounded before anything is built from it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from protocols.transport import RemoteProtocolError
from storage import cid as cids
from storage.chunks import MAX_CHUNK_BYTES
from storage.cid import Cid
from storage.dag_pb import bytes_field, varint, varint_field
from storage.errors import CidError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PROTOCOLS = ("/ipfs/bitswap/1.2.0", "/ipfs/bitswap/1.1.0", "/ipfs/bitswap/1.0.0")
"""In the order in which they are tried."""
OLDEST = PROTOCOLS[-1]
"""Has no prefixes: its blocks are all CIDv0."""

MAX_FRAME_BYTES = 4 * 2**20
MAX_ENTRIES = 8_192
"""Wants or presences in one message."""
MAX_BLOCKS = 4_096
MAX_FIELDS = 2**16
"""In one message, those inside others counted: a message of `MAX_ENTRIES` wants has 57,345."""
MAX_CID_BYTES = 168
"""As other implementations have it; the CIDs that this node can hold have 36 bytes, or 34 as CIDv0."""
_V0 = b"\x12\x20"
_V0_PREFIX = b"\x00\x70\x12\x20"
_V0_BYTES = 34
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a want list.

    Attributes:
        wire: The CID as it was written.
        priority: Higher is more urgent.
        cancel: No longer wanted.
        have: Only whether it is held is asked.
        dont_have: Say so if it is not held.
    """

    wire: bytes
    priority: int = 1
    cancel: bool = False
    have: bool = False
    dont_have: bool = False


@dataclass(frozen=True, slots=True)
class Payload:
    """A chunk as it travels; its CID is what its prefix and its own hash say.

    Attributes:
        prefix: A CID without its digest.
        data: The bytes.
    """

    prefix: bytes
    data: bytes


@dataclass(frozen=True, slots=True)
class Message:
    """One message.

    Attributes:
        entries: Wants and cancels.
        full: The entries are all that is wanted.
        blocks: Chunks.
        presences: (CID as it was asked, whether it is held).
        pending: Bytes that the sender still has to send.
    """

    entries: tuple[Entry, ...] = ()
    full: bool = False
    blocks: tuple[Payload, ...] = ()
    presences: tuple[tuple[bytes, bool], ...] = ()
    pending: int = 0


def cid_of(wire: bytes) -> Cid | None:
    """The CID that this node would hold it by; None where it can hold no such chunk."""
    if len(wire) == _V0_BYTES and wire.startswith(_V0):
        return Cid(b"\x01\x70" + wire)
    try:
        return cids.from_bytes(wire)
    except CidError:
        return None


def forms_of(cid: Cid) -> tuple[bytes, ...]:
    """The forms in which a peer may ask for a chunk."""
    wire = bytes(cid)
    return (wire, wire[2:]) if cids.codec(cid) == cids.DAG_PB else (wire,)


def prefix_of(wire: bytes) -> bytes:
    """The CID as it was asked, without its digest."""
    return _V0_PREFIX if len(wire) == _V0_BYTES else wire[:4]


def name(payload: Payload) -> Cid | None:
    """Compute the CID of a chunk that came; None where it is of a kind that this node does not hold."""
    prefix = b"\x01\x70\x12\x20" if payload.prefix == _V0_PREFIX else payload.prefix
    if len(payload.data) > MAX_CHUNK_BYTES:
        return None
    try:
        return cids.from_bytes(prefix + hashlib.sha256(payload.data).digest())
    except CidError:
        return None


def encode(message: Message) -> bytes:
    """The frame of a message without blocks."""
    body = bytearray()
    if message.entries or message.full:
        wants = bytearray()
        for entry in message.entries:
            wants += bytes_field(1, _entry(entry))
        if message.full:
            wants += varint_field(2, 1)
        body += bytes_field(1, bytes(wants))
    for wire, is_held in message.presences:
        body += bytes_field(4, bytes_field(1, wire) + varint_field(2, 0 if is_held else 1))
    if message.pending:
        body += varint_field(5, min(message.pending, 2**31 - 1))
    return varint(len(body)) + bytes(body)


def block_frame(wire: bytes, data: bytes, *, protocol: str = PROTOCOLS[0]) -> bytes:
    """What stands before a chunk that is the one block of a message; the data follows."""
    if protocol == OLDEST:
        head = varint(2 << 3 | _BYTES) + varint(len(data))
    else:
        inner = bytes_field(1, prefix_of(wire)) + varint(2 << 3 | _BYTES) + varint(len(data))
        head = varint(3 << 3 | _BYTES) + varint(len(inner) + len(data)) + inner
    return varint(len(head) + len(data)) + head


def decode(frame: bytes) -> Message:
    """Read a message that a peer sent.

    Raises:
        RemoteProtocolError: Malformed, or with more of anything than allowed.
    """
    entries: list[Entry] = []
    blocks: list[Payload] = []
    presences: list[tuple[bytes, bool]] = []
    full = False
    pending = 0
    left = [MAX_FIELDS]
    for number, value in _fields(memoryview(frame), left):
        if number == 1 and isinstance(value, memoryview):
            for inner, part in _fields(value, left):
                if inner == 1 and isinstance(part, memoryview):
                    _check_count(entries, MAX_ENTRIES)
                    entries.append(_read_entry(part, left))
                elif inner == 2:
                    full = bool(part)
        elif number == 2 and isinstance(value, memoryview):
            _check_count(blocks, MAX_BLOCKS)
            blocks.append(Payload(_V0_PREFIX, bytes(value)))
        elif number == 3 and isinstance(value, memoryview):
            _check_count(blocks, MAX_BLOCKS)
            found = dict(_fields(value, left))
            blocks.append(Payload(_bytes(found, 1, MAX_CID_BYTES), _bytes(found, 2, len(frame))))
        elif number == 4 and isinstance(value, memoryview):
            _check_count(presences, MAX_ENTRIES)
            found = dict(_fields(value, left))
            presences.append((_bytes(found, 1, MAX_CID_BYTES), not found.get(2, 0)))
        elif number == 5 and isinstance(value, int):
            pending = value
    return Message(tuple(entries), full, tuple(blocks), tuple(presences), pending)


class Frames:
    """Cuts frames from the bytes of a stream; refuses a length before it waits for it."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    @property
    def held(self) -> int:
        """Bytes of a frame that is not complete."""
        return len(self._buffer)

    def feed(self, data: bytes, max_bytes: int) -> Iterator[bytes]:
        """Take the next bytes.

        Args:
            data: They may be cut anywhere.
            max_bytes: The longest frame that is allowed now.

        Yields:
            The frames that are complete.

        Raises:
            RemoteProtocolError: A frame is longer than allowed, or its length does not end.
        """
        self._buffer += data
        at = 0
        try:
            while True:
                found = _frame_length(self._buffer, at)
                if found is None:
                    return
                length, start = found
                if length > max_bytes:
                    message = f"a frame of {length:,} bytes where {max_bytes:,} are allowed"
                    raise RemoteProtocolError(message)
                if length > len(self._buffer) - start:
                    return
                at = start + length
                with memoryview(self._buffer) as view:
                    frame = bytes(view[start:at])
                yield frame
        finally:
            del self._buffer[:at]


def _frame_length(buffer: bytearray, at: int) -> tuple[int, int] | None:
    value = 0
    for shift in range(0, 35, 7):
        if at >= len(buffer):
            return None
        value |= (buffer[at] & 0x7F) << shift
        at += 1
        if buffer[at - 1] < 0x80:
            return value, at
    message = "the length of a frame does not end"
    raise RemoteProtocolError(message)


def _entry(entry: Entry) -> bytes:
    out = bytes_field(1, entry.wire) + varint_field(2, entry.priority)
    if entry.cancel:
        out += varint_field(3, 1)
    if entry.have:
        out += varint_field(4, 1)
    if entry.dont_have:
        out += varint_field(5, 1)
    return out


def _read_entry(body: memoryview, left: list[int]) -> Entry:
    found = dict(_fields(body, left))
    priority = found.get(2, 0)
    return Entry(
        _bytes(found, 1, MAX_CID_BYTES),
        priority if isinstance(priority, int) else 0,
        bool(found.get(3, 0)),
        found.get(4, 0) == 1,
        bool(found.get(5, 0)),
    )


def _bytes(found: dict[int, int | memoryview], number: int, most: int) -> bytes:
    value = found.get(number, memoryview(b""))
    if isinstance(value, int) or len(value) > most:
        message = f"field {number} is not of 0 to {most:,} bytes"
        raise RemoteProtocolError(message)
    return bytes(value)


def _check_count(found: Iterable[object], most: int) -> None:
    if len(found) >= most:  # type: ignore[arg-type]  # a list
        message = f"more than {most:,} entries in a message"
        raise RemoteProtocolError(message)


def _fields(body: memoryview, left: list[int]) -> Iterator[tuple[int, int | memoryview]]:
    """Walk the fields of a protobuf message: (number, integer or bytes); `left` counts down over the whole frame."""
    at = 0
    while at < len(body):
        left[0] -= 1
        if left[0] < 0:
            message = f"more than {MAX_FIELDS:,} fields in a message"
            raise RemoteProtocolError(message)
        key, at = _varint(body, at)
        kind = key & 7
        if kind == _VARINT:
            value, at = _varint(body, at)
            yield key >> 3, value
            continue
        if kind == _BYTES:
            length, at = _varint(body, at)
        elif kind in {_FIXED32, _FIXED64}:
            length = 4 if kind == _FIXED32 else 8
        else:
            message = f"a field of wire type {kind}"
            raise RemoteProtocolError(message)
        if length > len(body) - at:
            message = "a message that is cut short"
            raise RemoteProtocolError(message)
        if kind == _BYTES:
            yield key >> 3, body[at : at + length]
        at += length


def _varint(body: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(body):
            message = "a message that is cut short"
            raise RemoteProtocolError(message)
        byte = body[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (2**64 - 1), at
    message = "an integer beyond 64 bits"
    raise RemoteProtocolError(message)

"""The nodes of a manifest: DAG-PB, a list of named links and some bytes.

    PBNode { repeated PBLink Links = 2; optional bytes Data = 1; }      links are written before the data
    PBLink { bytes Hash = 1; string Name = 2; uint64 Tsize = 3; }

Source: https://ipld.io/specs/codecs/dag-pb/spec/. `decode` takes only the canonical order and minimal integers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from storage import cid as cids
from storage.chunks import MAX_CHUNK_BYTES
from storage.errors import CidError, ManifestError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from storage.cid import Cid

MAX_LINKS = 32_768
"""In one node; a folder below 256 KiB holds at most about 6,500, a file's node 1,024."""
MAX_INT = 2**63 - 1
_VARINT = 0
_BYTES = 2
_CID_V0_START = b"\x12\x20"
_IDENTITY = b"\x00"


@dataclass(frozen=True, slots=True)
class Link:
    """A named link to another node.

    Attributes:
        cid: What it names.
        name: The entry's name in a folder; empty in a file.
        size: Bytes of the whole tree below it, as its author claims; None where he does not say.
    """

    cid: Cid
    name: str
    size: int | None


@dataclass(frozen=True, slots=True)
class Node:
    """One DAG-PB node."""

    links: tuple[Link, ...]
    data: bytes


def encode(links: Iterable[Link], data: bytes) -> bytes:
    """The canonical bytes of a node; the links are written in the order given."""
    out = bytearray()
    for link in links:
        body = bytes_field(1, link.cid) + bytes_field(2, link.name.encode())
        if link.size is not None:
            body += varint_field(3, link.size)
        out += bytes_field(2, body)
    out += bytes_field(1, data)
    return bytes(out)


def decode(block: bytes) -> Node:
    """Read a node that somebody else may have made.

    Raises:
        ManifestError: Malformed, not canonical, too large, or a link is no CID that we know.
    """
    if len(block) > MAX_CHUNK_BYTES:
        message = f"a manifest node of {len(block):,} bytes where {MAX_CHUNK_BYTES:,} are allowed"
        raise ManifestError(message)
    links: list[Link] = []
    data: bytes | None = None
    for field, value in fields(block):
        if data is not None or not isinstance(value, bytes):
            message = "a manifest node does not have its links before its data"
            raise ManifestError(message)
        if field == 2:
            if len(links) == MAX_LINKS:
                message = f"a manifest node has more than {MAX_LINKS:,} links"
                raise ManifestError(message)
            links.append(_decode_link(value))
        elif field == 1:
            data = value
        else:
            message = f"a manifest node has a field {field}"
            raise ManifestError(message)
    return Node(tuple(links), data or b"")


def target(data: bytes) -> Cid:
    """The CID that a link names; of version 0, the same CID as version 1.

    Raises:
        ManifestError: Its codec or hash is not one that we know, or it carries its bytes within itself.
    """
    if len(data) == 34 and data.startswith(_CID_V0_START):
        data = b"\x01\x70" + data
    elif data[:1] == b"\x01" and data[2:3] == _IDENTITY:
        message = "a link carries its bytes within its CID (identity hash); that is not supported"
        raise ManifestError(message)
    try:
        return cids.from_bytes(data)
    except CidError as error:
        message = f"a link names nothing that we know: {error}"
        raise ManifestError(message) from error


def varint(value: int) -> bytes:
    """A protobuf integer, seven bits a byte, the low ones first."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def varint_field(number: int, value: int) -> bytes:
    """A field that holds an integer."""
    return varint(number << 3 | _VARINT) + varint(value)


def bytes_field(number: int, value: bytes) -> bytes:
    """A field that holds bytes."""
    return varint(number << 3 | _BYTES) + varint(len(value)) + value


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Walk the fields of a protobuf message.

    Yields:
        (field number, its integer or bytes)

    Raises:
        ManifestError: Cut short, a wire type that UnixFS does not use, or an integer that is not minimal.
    """
    at = 0
    while at < len(message):
        key, at = _read_varint(message, at)
        if key & 7 == _VARINT:
            number, at = _read_varint(message, at)
            yield key >> 3, number
        elif key & 7 == _BYTES:
            length, at = _read_varint(message, at)
            if length > len(message) - at:
                raise ManifestError(_CUT_SHORT)
            yield key >> 3, message[at : at + length]
            at += length
        else:
            text = f"a manifest has a field of wire type {key & 7}"
            raise ManifestError(text)


_CUT_SHORT = "a manifest node is cut short"


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 63, 7):
        if at >= len(message):
            raise ManifestError(_CUT_SHORT)
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if byte == 0 and shift:
                break
            return value, at
    text = "a manifest has an integer that is not minimal, or beyond 63 bits"
    raise ManifestError(text)


def _decode_link(body: bytes) -> Link:
    found: dict[int, int | bytes] = {}
    last = 0
    for field, value in fields(body):
        if not last < field <= 3:
            message = "a link's fields are not hash, name, size"
            raise ManifestError(message)
        last = field
        found[field] = value
    named, name, size = found.get(1), found.get(2, b""), found.get(3)
    if not isinstance(named, bytes) or not isinstance(name, bytes) or isinstance(size, bytes):
        message = "a link has no hash, or a field of the wrong type"
        raise ManifestError(message)
    try:
        return Link(target(named), name.decode(), size)
    except UnicodeDecodeError as error:
        message = "a link's name is not UTF-8"
        raise ManifestError(message) from error

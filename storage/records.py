"""Records in an append-only file: length, CRC-32 and bytes; a torn tail is found and named.

    record = length (u32, little endian) || crc32(length || body) (u32, little endian) || body

Used by the segment log and the consensus log, so that both recover from a crash in one way: what stands
before the first bad record is kept, the rest is cut if it is the tail, and refused if good records follow.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

HEADER = struct.Struct("<II")
MAX_RECORD_BYTES = 64 * 2**20


def pack(body: bytes) -> bytes:
    """Frame one record."""
    return header(body) + body


def header(body: bytes | memoryview) -> bytes:
    """The eight bytes that stand before a record's body."""
    length = len(body)
    return HEADER.pack(length, zlib.crc32(body, zlib.crc32(length.to_bytes(4, "little"))))


def scan(data: bytes | memoryview, start: int = 0) -> Iterator[tuple[int, memoryview]]:
    """Walk the good records from `start`.

    Yields:
        (offset of the body, body) of each record; ends before the first that is torn or damaged.
    """
    view = memoryview(data)
    at = start
    while at + HEADER.size <= len(view):
        length, crc = HEADER.unpack_from(view, at)
        body_at = at + HEADER.size
        if length > MAX_RECORD_BYTES or body_at + length > len(view):
            return
        body = view[body_at : body_at + length]
        if zlib.crc32(body, zlib.crc32(length.to_bytes(4, "little"))) != crc:
            return
        yield body_at, body
        at = body_at + length

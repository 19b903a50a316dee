"""TensorBoard's event files, written without it: records of protocol buffers, each length and body with a masked CRC-32C.

    record = u64 LE length | u32 LE masked crc of those 8 bytes | body | u32 LE masked crc of the body
    masked = ((crc >> 15 | crc << 17) + 0xa282ead8) mod 2^32
    body   = Event { 1: double wall_time, 2: int64 step, 3: string file_version, 5: Summary { 1: Value { 1: tag, 2: float } } }

Source: tensorflow/core/util/event.proto, tensorflow/core/framework/summary.proto, tensorflow/core/lib/io/record_writer.cc.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, Final

from swarm.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from swarm.export.scalars import Scalar

FILE_VERSION: Final = "brain.Event:2"
PREFIX: Final = "events.out.tfevents"
_POLYNOMIAL: Final = 0x82F63B78  # Castagnoli's, reversed
_MASK: Final = 0xA282EAD8
_U32: Final = 0xFFFFFFFF
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def _entry(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (_POLYNOMIAL if byte & 1 else 0)
    return byte


_TABLE: Final = tuple(_entry(byte) for byte in range(256))


def crc32c(data: bytes) -> int:
    """CRC-32C (RFC 3720, appendix B.4)."""
    crc = _U32
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ _U32


def _masked(data: bytes) -> bytes:
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + _MASK) & _U32)


def record(body: bytes) -> bytes:
    """One record of a file."""
    length = struct.pack("<Q", len(body))
    return length + _masked(length) + body + _masked(body)


def _varint(value: int) -> bytes:
    value &= 2**64 - 1
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def _field(number: int, kind: int, data: bytes) -> bytes:
    head = _varint(number << 3 | kind)
    return head + (_varint(len(data)) if kind == _BYTES else b"") + data


def opening(wall_time: float) -> bytes:
    """The first event of a file."""
    time = _field(1, _FIXED64, struct.pack("<d", wall_time))
    return time + _field(3, _BYTES, FILE_VERSION.encode())


def event(tag: str, step: int, value: float, wall_time: float) -> bytes:
    """One point of a curve."""
    scalar = _field(1, _BYTES, tag.encode()) + _field(2, _FIXED32, struct.pack("<f", value))
    summary = _field(1, _BYTES, scalar)
    time = _field(1, _FIXED64, struct.pack("<d", wall_time))
    return time + _field(2, _VARINT, _varint(step)) + _field(5, _BYTES, summary)


def write(folder: Path, name: str, points: Iterable[Scalar], times: Mapping[int, float]) -> int:
    """Write the event file of a task, in place of an earlier one; returns how many points it holds.

    Args:
        folder: Of the run, made where it is missing.
        name: In the file's name: the task's id, so that another export replaces the file.
        points: Of the curves.
        times: Seconds since 1970 of each round.

    Raises:
        RefusedError: It cannot be written.
    """
    start = min(times.values(), default=0.0)
    parts = [record(opening(start))]
    parts += [record(event(one.tag, one.step, one.value, times[one.round])) for one in points]
    path = folder / f"{PREFIX}.{int(start)}.swarm.{name}"
    fresh = path.with_name(f"writing.{name}")  # TensorBoard reads files whose name holds `tfevents`
    try:
        folder.mkdir(parents=True, exist_ok=True)
        fresh.write_bytes(b"".join(parts))
        os.replace(fresh, path)  # noqa: PTH105 - as one
        for earlier in folder.glob(f"{PREFIX}.*.swarm.{name}"):  # its start was another one then
            if earlier != path:
                earlier.unlink(missing_ok=True)
    except OSError as error:
        message = f"{path} cannot be written: {error.strerror}"
        raise RefusedError(message) from error
    return len(parts) - 1

"""The bytes of chunks in append-only files of 64 MiB, `00000001.seg` and on.

    segment = record*        record = header || CID (36) || chunk        (header as in `storage.records`)

A record that was torn by a crash is cut from the last file; one damaged in the middle is stepped over by looking for
the next header whose CRC holds.
Not thread safe but for `read`: the store calls `append` under its lock and `sync` under another.
"""

from __future__ import annotations

import errno
import mmap
import os
import re
import zlib
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from storage import records
from storage.chunks import MAX_CHUNK_BYTES
from storage.cid import CID_BYTES, Cid
from storage.errors import DiskFullError, StorageError
from storage.files import DISK, Files
from storage.index import Place, key

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

SEGMENT_BYTES = 64 * 2**20
PREFIX_BYTES = records.HEADER.size + CID_BYTES
MAX_GUESSED_BYTES = 2**32
"""What is read of a segment to see whether places that look like a record are one, after damaged ones: some seconds."""
LARGE_BYTES = 2**16
"""A chunk this large stays in the system's memory from the second time on that it is read."""
MAX_READ_ONCE = 2**16
"""Chunks of which it is remembered that they were read once."""
_RECORDS_PER_WRITE = 256
_NUMBER = re.compile("[0-9]{8,}")
_CID_START = re.compile(rb"\x01[\x55\x70\x71]\x12\x20")
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@dataclass(slots=True)
class Packed:
    """A chunk ready to be written: `prefix` is its record's header and its CID."""

    cid: Cid
    prefix: bytes
    data: bytes | memoryview


@dataclass(slots=True)
class Found:
    """What reading a segment again found.

    Attributes:
        rows: Good records.
        end: Where the last of them ends, bytes.
    """

    rows: list[tuple[Cid, Place]] = field(default_factory=list)
    end: int = 0


class DamagedRecordError(StorageError):
    """The bytes at a place are not the record that was written there."""


def pack(cid: Cid, data: bytes | memoryview) -> Packed:
    """Compute a chunk's record header, without copying the chunk."""
    length = CID_BYTES + len(data)
    crc = zlib.crc32(data, zlib.crc32(cid, zlib.crc32(length.to_bytes(4, "little"))))
    return Packed(cid, records.HEADER.pack(length, crc) + cid, data)


class SegmentLog:
    """The segment files of one folder.

    The last file is the one that is written to, and is never removed, so that no number is given twice.

    Attributes:
        size: Bytes in all segments.
        broken: A write failed and could not be taken back; the log must be opened again.

    Args:
        folder: Where they are.
        files: How they are written.
        segment_bytes: How large one grows.
    """

    def __init__(
        self, folder: Path, files: Files = DISK, segment_bytes: int = SEGMENT_BYTES
    ) -> None:
        self._folder = folder
        self._files = files
        self._segment_bytes = segment_bytes
        self._sizes = {
            int(path.stem): path.stat().st_size
            for path in folder.glob("*.seg")
            if _NUMBER.fullmatch(path.stem)  # what else lies there is a person's
        }
        self.size = sum(self._sizes.values())
        self.broken = False
        self._open: dict[int, int] = {}
        self._read_once: set[Place] = set()

    def sizes(self) -> dict[int, int]:
        """Bytes in each segment."""
        return dict(self._sizes)

    def end(self) -> int:
        """The place, as one number, at which nothing lies yet; call it under the lock of `append`."""
        last = max(self._sizes, default=0)
        return key(last, self._sizes.get(last, 0))

    def seal(self) -> None:
        """Write to a new file from now on; call it under the lock of `append`."""
        self._create(max(self._sizes, default=0) + 1)

    def remove(self, segment: int) -> int:
        """Remove a file that holds nothing which lives; returns its bytes.

        Call it under the locks of `append` and `sync`.
        """
        if segment == max(self._sizes):
            message = f"segment {segment} is being written to"
            raise StorageError(message)
        descriptor = self._open.pop(segment, None)
        if descriptor is not None:
            self._files.close(descriptor)
        self._files.unlink(self._path(segment))
        size = self._sizes.pop(segment)
        self.size -= size
        self._files.sync_folder(self._folder)
        return size

    def append(self, chunks: Sequence[Packed]) -> list[Place]:
        """Write records one after the other; they are durable after `sync`.

        Returns:
            Where each of them lies.

        Raises:
            DiskFullError: No room; nothing was written.
            StorageError: The disk failed; nothing was written, or the error says that the log must be opened again.
        """
        last = max(self._sizes, default=0)
        before = self._sizes.get(last, 0)
        places: list[Place] = []
        try:
            for segment, offset, group in self._plan(chunks):
                self._write(segment, offset, group)
                for chunk in group:
                    places.append(Place(segment, offset, len(chunk.data)))
                    offset += PREFIX_BYTES + len(chunk.data)
                self.size += offset - self._sizes[segment]
                self._sizes[segment] = offset
        except OSError as error:
            self._roll_back(last, before)
            if error.errno in _FULL:
                needed = sum(PREFIX_BYTES + len(chunk.data) for chunk in chunks)
                raise DiskFullError(needed, self._files.space(self._folder)[1]) from error
            message = f"the disk refused to write: {error}"
            raise StorageError(message) from error
        return places

    def sync(self, ends: dict[int, int]) -> None:
        """Make everything written before the call durable, and close the files that are full.

        Args:
            ends: Segments that hold unsynced bytes, as `sizes` gave them under the lock of `append`.

        Raises:
            OSError: The disk failed; what it kept is unknown.
        """
        last = max(ends, default=0)
        for segment in sorted(ends):
            descriptor = self._open.get(segment)
            if descriptor is None:
                continue
            self._files.sync(descriptor)
        # Appends go to the last segment only, so that those before it hold nothing that is not durable by now.
        for segment in [number for number in list(self._open) if number < last]:
            self._files.close(self._open.pop(segment))

    def read(self, cid: Cid, place: Place) -> bytes:
        """The chunk at a place; any thread may call this at any time.

        Raises:
            DamagedRecordError: Other bytes are there, or none.
            OSError: The file could not be opened for a reason that may pass.
        """
        try:
            descriptor = os.open(self._path(place.segment), os.O_RDONLY)
            try:
                prefix = os.pread(descriptor, PREFIX_BYTES, place.offset)
                data = os.pread(descriptor, place.length, place.offset + PREFIX_BYTES)
                if place.length >= LARGE_BYTES and self._is_first_read(place):
                    self._files.drop(descriptor, place.offset, PREFIX_BYTES + place.length)
            finally:
                os.close(descriptor)
        except OSError as error:
            if error.errno in {errno.ENOENT, errno.EIO}:
                message = f"segment {place.segment}: {error}"
                raise DamagedRecordError(message) from error
            raise
        if len(data) != place.length or pack(cid, data).prefix != prefix:
            message = f"segment {place.segment}, offset {place.offset}"
            raise DamagedRecordError(message)
        return data

    def _is_first_read(self, place: Place) -> bool:
        if place in self._read_once:
            return False
        if len(self._read_once) >= MAX_READ_ONCE:
            self._read_once.clear()
        self._read_once.add(place)
        return True

    def recover(self, segment: int, start: int) -> Found:
        """Read a segment from `start` again; cut a torn tail from it if it is the last."""
        found = Found(end=start)
        size = self._sizes[segment]
        if start < size:
            guessing = _Guessing(MAX_GUESSED_BYTES)
            with (
                self._path(segment).open("rb") as file,
                mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view,
            ):
                for cid, offset, length in _good_records(view, start, guessing):
                    found.rows.append((cid, Place(segment, offset, length)))
                    found.end = offset + PREFIX_BYTES + length
            # What was not looked through may hold good records: it stays.
            if found.end < size and segment == max(self._sizes) and not guessing.gave_up:
                self._files.truncate(self._path(segment), found.end)
                self.size -= size - found.end
                self._sizes[segment] = found.end
        return found

    def close(self) -> None:
        """Close the files; what was not synced may be lost."""
        for descriptor in self._open.values():
            self._files.close(descriptor)
        self._open.clear()

    def _plan(self, chunks: Iterable[Packed]) -> Iterator[tuple[int, int, list[Packed]]]:
        segment = max(self._sizes, default=0)
        offset = self._sizes.get(segment, self._segment_bytes)
        group: list[Packed] = []
        size = 0
        for chunk in chunks:
            length = PREFIX_BYTES + len(chunk.data)
            if offset + size + length > self._segment_bytes or len(group) == _RECORDS_PER_WRITE:
                if group:
                    yield segment, offset, group
                offset += size
                group, size = [], 0
                if offset + length > self._segment_bytes:
                    segment, offset = self._create(segment + 1), 0
            group.append(chunk)
            size += length
        if group:
            yield segment, offset, group

    def _create(self, segment: int) -> int:
        path = self._path(segment)
        descriptor = self._files.create(path)
        try:
            self._files.sync_folder(self._folder)
        except OSError:
            self._files.close(descriptor)
            with suppress(OSError):
                self._files.unlink(path)
            raise
        self._open[segment] = descriptor
        self._sizes[segment] = 0
        return segment

    def _write(self, segment: int, offset: int, group: list[Packed]) -> None:
        if segment not in self._open:
            self._open[segment] = self._files.open(self._path(segment))
        buffers: list[bytes | memoryview] = []
        for chunk in group:
            buffers += (chunk.prefix, chunk.data)
        self._files.write_all(self._open[segment], buffers, offset)

    def _roll_back(self, last: int, size: int) -> None:
        try:
            for segment in [number for number in self._sizes if number > last]:
                self._files.close(self._open.pop(segment))
                self._files.unlink(self._path(segment))
                self.size -= self._sizes.pop(segment)
            if last:
                self._files.truncate(self._path(last), size)
                self.size -= self._sizes[last] - size
                self._sizes[last] = size
        except OSError as error:
            self.broken = True
            message = f"the disk failed while a write was taken back; open the store again: {error}"
            raise StorageError(message) from error

    def _path(self, segment: int) -> Path:
        return self._folder / f"{segment:08}.seg"


@dataclass(slots=True)
class _Guessing:
    """What may still be read in search of the next good record."""

    bytes_left: int
    gave_up: bool = False


def _good_records(
    view: mmap.mmap, start: int, guessing: _Guessing
) -> Iterator[tuple[Cid, int, int]]:
    """(CID, offset of the header, length of the chunk) of each good record, stepping over damaged ones."""
    at: int | None = start
    while at is not None:
        record = _record_at(view, at)
        if record is None:
            at = _next_record(view, at + 1, guessing)
        else:
            yield record
            at += PREFIX_BYTES + record[2]


def _length_at(view: mmap.mmap, at: int) -> int | None:
    """The length of the body of what may be a record; None where there is none."""
    if at + PREFIX_BYTES > len(view):
        return None
    length: int = records.HEADER.unpack_from(view, at)[0]
    if not CID_BYTES <= length <= CID_BYTES + MAX_CHUNK_BYTES:
        return None
    return length if at + records.HEADER.size + length <= len(view) else None


def _record_at(view: mmap.mmap, at: int) -> tuple[Cid, int, int] | None:
    length = _length_at(view, at)
    if length is None:
        return None
    crc = records.HEADER.unpack_from(view, at)[1]
    body_at = at + records.HEADER.size
    with memoryview(view) as whole, whole[body_at : body_at + length] as body:
        if zlib.crc32(body, zlib.crc32(length.to_bytes(4, "little"))) != crc:
            return None
        return Cid(bytes(body[:CID_BYTES])), at, length - CID_BYTES


def _next_record(view: mmap.mmap, start: int, guessing: _Guessing) -> int | None:
    for match in _CID_START.finditer(view, start + records.HEADER.size):
        at = match.start() - records.HEADER.size
        length = _length_at(view, at)
        if length is None:
            continue
        if length > guessing.bytes_left:
            guessing.gave_up = True
            break
        guessing.bytes_left -= length
        if _record_at(view, at) is not None:
            return at
    return None

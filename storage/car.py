"""CAR files: chunks in a row, as other implementations exchange them.

    header  varint length || DAG-CBOR {"roots": [CID, …], "version": 1}
    section varint length || CID || chunk                                   until the file ends

Written is version 1, depth first from the roots, each chunk once; equal content gives equal bytes.
Read is version 1, and version 2 by its version 1 within; the index is not looked at.
A file may come from a stranger: every length is bounded before it is believed, and every chunk is hashed.
Source: https://ipld.io/specs/transport/car/.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import libipld

from storage import cid as cids
from storage import dag
from storage.chunks import MAX_CHUNK_BYTES
from storage.dag_pb import target, varint
from storage.errors import ManifestError
from storage.walk import missing_below

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from storage.blockstore import Blockstore, Progress
    from storage.cid import Cid

MAX_HEADER_BYTES = 2**20
MAX_BLOCKS = 2**22
"""Chunks in one file; with leaves of 1 MiB that is 4 TiB."""
MAX_PENDING = 2**20
"""Links known and not written yet, at any one time."""
MAX_SKIPPED_BYTES = 2**20
"""Between the header of a file of version 2 and the version 1 within."""
_MAX_VARINT_BYTES = 9
_V2_PRAGMA = bytes.fromhex("0aa16776657273696f6e02")
_V2_HEADER_BYTES = 40


class CarError(ManifestError):
    """A CAR file is malformed, cut short, or larger than allowed."""


class Source(Protocol):
    """Bytes that come in order: a file, standard input."""

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes; none at the end."""


@dataclass(frozen=True, slots=True)
class Imported:
    """What came of reading a file into a store.

    Attributes:
        roots: That it names, in its order.
        blocks: Chunks in it.
        size: Bytes of these.
        new_bytes: That the store did not hold before.
    """

    roots: tuple[Cid, ...]
    blocks: int
    size: int
    new_bytes: int


def header(roots: Sequence[Cid]) -> bytes:
    """The start of a file."""
    body = libipld.encode_dag_cbor({"roots": [bytes(root) for root in roots], "version": 1})
    return varint(len(body)) + body


def section(cid: Cid, block: bytes) -> bytes:
    """One chunk, as it stands in a file."""
    return varint(len(cid) + len(block)) + cid + block


def walk(roots: Sequence[Cid], store: Blockstore) -> Iterator[tuple[Cid, bytes]]:
    """Every chunk at and below the roots, depth first in the order of their links, each once.

    Raises:
        ChunkNotFoundError: One is not held.
        ManifestError: One is malformed, or they are more than a file may hold.
    """
    order = Order(roots)
    while (cid := order.next()) is not None:
        block = store.get(cid)
        order.push(cid, block)
        yield cid, block


class Order:
    """Which chunk of a DAG is written next: depth first, each once.

    Args:
        roots: Where it begins.
    """

    def __init__(self, roots: Sequence[Cid]) -> None:
        self._stack = list(reversed(roots))
        self._seen: set[Cid] = set()

    def next(self) -> Cid | None:
        """The next chunk; None at the end.

        Raises:
            CarError: There are more than a file may hold.
        """
        while self._stack:
            cid = self._stack.pop()
            if cid not in self._seen:
                if len(self._seen) == MAX_BLOCKS:
                    message = f"more than {MAX_BLOCKS:,} chunks for one CAR file"
                    raise CarError(message)
                self._seen.add(cid)
                return cid
        return None

    def push(self, cid: Cid, block: bytes) -> None:
        """Tell what the chunk is that came last.

        Raises:
            ManifestError: It is malformed, or names too much at once.
        """
        if not dag.is_manifest(cid):
            return
        self._stack.extend(link.cid for link in reversed(dag.links(cid, block)))
        if len(self._stack) > MAX_PENDING:
            message = f"{cids.text(cid)}: more than {MAX_PENDING:,} links wait to be followed"
            raise CarError(message)

    def coming(self, most: int) -> list[Cid]:
        """Some of what comes after, to be fetched ahead."""
        return [cid for cid in reversed(self._stack[-most:]) if cid not in self._seen]


def export(
    roots: Sequence[Cid], store: Blockstore, progress: Progress | None = None
) -> Iterator[bytes]:
    """The bytes of a file that holds everything below some roots, a chunk at a time.

    Raises:
        ChunkNotFoundError: A chunk is not held.
        ManifestError: A chunk is malformed.
    """
    total = sum(dag.tree_size(root, store.get(root)) or 0 for root in roots)
    done = 0
    yield header(roots)
    for cid, block in walk(roots, store):
        yield section(cid, block)
        done += len(block)
        if progress is not None:
            progress(done, max(done, total))


def load(
    source: Source, store: Blockstore, progress: Progress | None = None, total: int = 0
) -> Imported:
    """Read a file into a store, durable when this returns.

    What was read before a fault stays in the store, pinned by nobody.

    Args:
        source: The file.
        store: Where the chunks go.
        progress: Told of each chunk: bytes of the file.
        total: Bytes of the file, where they are known.

    Raises:
        CarError: The file is malformed, cut short, or larger than allowed.
        CorruptChunkError: A chunk is not what its CID says.
        QuotaError: It does not fit.
    """
    reader = Reader(source)

    def blocks() -> Iterator[tuple[Cid, bytes]]:
        for pair in reader:
            yield pair
            if progress is not None:
                progress(reader.at, max(reader.at, total))

    new_bytes = store.put_many(blocks(), verify=True)
    return Imported(reader.roots, reader.blocks, reader.size, new_bytes)


def first_missing(root: Cid, store: Blockstore) -> Cid | None:
    """A chunk at or below a root that is not held; None if all are.

    Raises:
        ManifestError: A chunk is malformed.
    """
    return next(missing_below(root, store, dag.links), None)


class Reader:
    """Reads a file from its start; iterate to get each CID and its chunk, which is not hashed yet.

    Args:
        source: The file.

    Attributes:
        roots: That its header names.
        blocks: Chunks that were read.
        size: Bytes of these.
        at: Bytes of the file that were read.

    Raises:
        CarError: From here or from a step: the file is malformed, cut short, or larger than allowed.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._end: int | None = None
        self.blocks = 0
        self.size = 0
        self.at = 0
        start = self._take(self._length(MAX_HEADER_BYTES, "a header"))
        if varint(len(start)) + start == _V2_PRAGMA:
            self._skip_to_version_1()
            start = self._take(self._length(MAX_HEADER_BYTES, "a header"))
        self.roots = _read_header(start)

    def __iter__(self) -> Iterator[tuple[Cid, bytes]]:
        while (length := self._next_length()) is not None:
            if self.blocks == MAX_BLOCKS:
                message = f"a CAR file holds more than {MAX_BLOCKS:,} chunks"
                raise CarError(message)
            body = self._take(length)
            size = 34 if body.startswith(b"\x12\x20") else cids.CID_BYTES
            try:
                cid = target(body[:size])
            except ManifestError as error:
                message = f"chunk {self.blocks + 1:,} of the CAR file: {error}"
                raise CarError(message) from error
            self.blocks += 1
            self.size += length - size
            yield cid, body[size:]

    def _skip_to_version_1(self) -> None:
        fixed = self._take(_V2_HEADER_BYTES)
        offset, size = (int.from_bytes(fixed[at : at + 8], "little") for at in (16, 24))
        if not self.at <= offset <= self.at + MAX_SKIPPED_BYTES:
            message = "a CAR file of version 2 does not say where its version 1 begins"
            raise CarError(message)
        self._take(offset - self.at)
        self._end = self.at + size

    def _next_length(self) -> int | None:
        if self.at == self._end:
            return None
        first = self._source.read(1)
        if not first and self._end is None:
            return None
        return self._length(cids.CID_BYTES + MAX_CHUNK_BYTES, "a chunk", first)

    def _length(self, most: int, what: str, start: bytes = b"") -> int:
        value, shift, self.at = 0, 0, self.at + len(start)
        while True:
            byte = (start or self._take(1))[0]
            start = b""
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
            if shift == 7 * _MAX_VARINT_BYTES:
                message = "a CAR file has a length of too many bytes"
                raise CarError(message)
        if not 0 < value <= most or (byte == 0 and shift > 7):
            message = f"a CAR file has {what} of {value:,} bytes, where 1 to {most:,} are allowed"
            raise CarError(message)
        return value

    def _take(self, size: int) -> bytes:
        self.at += size
        if self._end is not None and self.at > self._end:
            message = "a CAR file of version 2 goes on after its end"
            raise CarError(message)
        parts = bytearray()
        while len(parts) < size:
            part = self._source.read(size - len(parts))
            if not part:
                message = "a CAR file is cut short"
                raise CarError(message)
            parts += part
        return bytes(parts)


def _read_header(body: bytes) -> tuple[Cid, ...]:
    try:
        found = libipld.decode_dag_cbor(body)
    except (ValueError, RecursionError) as error:
        message = f"a CAR file has a header that is not DAG-CBOR: {error}"
        raise CarError(message) from error
    roots = found.get("roots") if isinstance(found, dict) else None
    if not isinstance(roots, list) or found.get("version") != 1:
        message = "a CAR file is of a version other than 1 and 2, or has no list of roots"
        raise CarError(message)
    if not all(isinstance(root, bytes) for root in roots):
        message = "a CAR file has a root that is no CID"
        raise CarError(message)
    try:
        return tuple(target(root) for root in roots)
    except ManifestError as error:
        message = f"a root of the CAR file: {error}"
        raise CarError(message) from error

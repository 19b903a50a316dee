"""Which chunk lies where: an SQLite table from CID to place, made anew from the segments whenever it is lost.

A place is one integer, `segment << 32 | offset of the record`.
Rows are added only after their bytes are durable, so the index never knows more than the disk holds; it may know less
after a crash, and then `scanned` says from where on the segments must be read again.
A chunk that lies in two places, because it was moved or dropped and put again, is known by the later one.
One connection writes, under a lock; readers take a connection from a pool, and in WAL mode never wait for the writer.
"""

from __future__ import annotations

import sqlite3
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from storage.cid import Cid
from storage.database import check, failures_as_ours
from storage.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

PAGE_ROWS = 1_000
_OFFSET_BITS = 32
_SCHEMA = """
CREATE TABLE IF NOT EXISTS chunks (place INTEGER PRIMARY KEY, cid BLOB NOT NULL UNIQUE, length INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS segments (segment INTEGER PRIMARY KEY, scanned INTEGER NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a chunk's record begins.

    Attributes:
        segment: The number of the file.
        offset: Of the record's header in it, bytes.
        length: Of the chunk itself, bytes.
    """

    segment: int
    offset: int
    length: int

    @property
    def key(self) -> int:
        """Segment and offset in one number, in the order of the disk."""
        return key(self.segment, self.offset)


def key(segment: int, offset: int) -> int:
    """A place as the index knows it."""
    return segment << _OFFSET_BITS | offset


class ChunkIndex:
    """The index of one store; thread safe."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._write_lock = threading.Lock()
        self._idle: list[sqlite3.Connection] = []
        self._closed = False
        self._writer = self._connect()
        try:
            self._writer.executescript(_SCHEMA)
        except (sqlite3.Error, UnicodeDecodeError):
            self._writer.close()
            raise

    def check(self) -> None:
        """Look it through.

        Raises:
            StorageError: It is damaged.
        """
        with self._reader() as reader:
            check(reader, _SCHEMA)

    def find(self, cid: Cid) -> Place | None:
        """Where the chunk lies, or None."""
        with self._reader() as reader:
            row = reader.execute(
                "SELECT place, length FROM chunks WHERE cid = ?", (cid,)
            ).fetchone()
        return None if row is None else _place(*row)

    def find_many(self, cids: Sequence[Cid]) -> list[Place | None]:
        """Where each chunk lies, or None."""
        with self._reader() as reader:
            rows = [
                reader.execute("SELECT place, length FROM chunks WHERE cid = ?", (cid,)).fetchone()
                for cid in cids
            ]
        return [None if row is None else _place(*row) for row in rows]

    def missing(self, cids: Iterable[Cid]) -> list[Cid]:
        """Those that have no row, each once, in their order."""
        with self._reader() as reader:
            return [
                cid
                for cid in dict.fromkeys(cids)
                if not reader.execute("SELECT 1 FROM chunks WHERE cid = ?", (cid,)).fetchone()
            ]

    def add(self, rows: Iterable[tuple[Cid, Place]], scanned: dict[int, int]) -> None:
        """Add chunks, and how far each segment is now known, in one transaction.

        Raises:
            DiskFullError: No room for the index.
        """
        with self._transaction() as writer:
            writer.executemany(
                "INSERT INTO chunks (cid, place, length) VALUES (?, ?, ?)"
                " ON CONFLICT (cid) DO UPDATE SET place = excluded.place, length = excluded.length"
                " WHERE excluded.place > place ON CONFLICT (place) DO NOTHING",
                ((cid, place.key, place.length) for cid, place in rows),
            )
            writer.executemany("INSERT OR REPLACE INTO segments VALUES (?, ?)", scanned.items())

    def remove(self, cid: Cid, place: Place) -> bool:
        """Forget a chunk that is damaged at this place; false if it was forgotten before."""
        with self._transaction() as writer:
            cursor = writer.execute(
                "DELETE FROM chunks WHERE cid = ? AND place = ?",
                (cid, place.key),
            )
            return cursor.rowcount > 0

    def drop(self, keys: Sequence[int]) -> int:
        """Forget what lies at these places, in one transaction; how many there were."""
        with self._transaction() as writer:
            cursor = writer.executemany(
                "DELETE FROM chunks WHERE place = ?", ((place,) for place in keys)
            )
            return cursor.rowcount

    def remove_from(self, segment: int, offset: int, overhead: int) -> None:
        """Forget what would end beyond `offset` of a segment, and know the segment up to there only."""
        first = key(segment, 0)
        with self._transaction() as writer:
            writer.execute(
                "DELETE FROM chunks WHERE place >= ? AND place < ? AND place - ? + length + ? > ?",
                (first, key(segment + 1, 0), first, overhead, offset),
            )
            writer.execute("INSERT OR REPLACE INTO segments VALUES (?, ?)", (segment, offset))

    def forget_segment(self, segment: int) -> None:
        """Forget a segment whose file is gone."""
        with self._transaction() as writer:
            writer.execute(
                "DELETE FROM chunks WHERE place >= ? AND place < ?",
                (key(segment, 0), key(segment + 1, 0)),
            )
            writer.execute("DELETE FROM segments WHERE segment = ?", (segment,))

    def has_segment(self, segment: int) -> bool:
        """Whether a chunk lies in a segment."""
        with self._reader() as reader:
            row = reader.execute(
                "SELECT 1 FROM chunks WHERE place >= ? AND place < ? LIMIT 1",
                (key(segment, 0), key(segment + 1, 0)),
            ).fetchone()
        return row is not None

    def scanned(self) -> dict[int, int]:
        """How many bytes of each segment the index knows."""
        with self._reader() as reader:
            return dict(reader.execute("SELECT segment, scanned FROM segments"))

    def totals(self) -> tuple[int, int]:
        """How many chunks there are, and their bytes."""
        with self._reader() as reader:
            count, size = reader.execute("SELECT count(*), total(length) FROM chunks").fetchone()
        return count, int(size)

    def rows(self, after: int = -1, before: int = 2**63 - 1) -> Iterator[tuple[Cid, Place]]:
        """Every chunk in the order of the disk; a bounded part is in memory at a time.

        Args:
            after: Only what lies behind this place.
            before: Only what lies before this place.
        """
        page = self._page(after, before)
        while page:
            for place, cid, length in page:
                yield Cid(cid), _place(place, length)
            page = self._page(page[-1][0], before) if len(page) == PAGE_ROWS else []

    def keys(self, before: int) -> Iterator[list[int]]:
        """The places before one, in their order, a page at a time."""
        after = -1
        while True:
            with self._reader() as reader:
                page = reader.execute(
                    "SELECT place FROM chunks WHERE place > ? AND place < ? ORDER BY place LIMIT ?",
                    (after, before, PAGE_ROWS),
                ).fetchall()
            if not page:
                return
            yield [place for (place,) in page]
            after = page[-1][0]

    def _page(self, after: int, before: int) -> list[tuple[int, bytes, int]]:
        with self._reader() as reader:
            return reader.execute(
                "SELECT place, cid, length FROM chunks WHERE place > ? AND place < ?"
                " ORDER BY place LIMIT ?",
                (after, before, PAGE_ROWS),
            ).fetchall()

    def close(self) -> None:
        """Close every connection."""
        with self._write_lock, self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            for connection in idle:
                connection.close()
            self._writer.close()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, timeout=60, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
        except (sqlite3.Error, UnicodeDecodeError):
            connection.close()
            raise
        return connection

    @contextmanager
    def _reader(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            if self._closed:
                message = "the store is closed"
                raise StorageError(message)
            connection = self._idle.pop() if self._idle else None
        with failures_as_ours():
            if connection is None:
                connection = self._connect()
            try:
                yield connection
            finally:
                with self._lock:
                    if self._closed:
                        connection.close()
                    else:
                        self._idle.append(connection)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._write_lock:
            if self._closed:
                message = "the store is closed"
                raise StorageError(message)
            with failures_as_ours():
                try:
                    self._writer.execute("BEGIN IMMEDIATE")
                    yield self._writer
                    self._writer.execute("COMMIT")
                except BaseException:
                    with suppress(sqlite3.Error):
                        self._writer.execute("ROLLBACK")
                    raise


def _place(place: int, length: int) -> Place:
    return Place(place >> _OFFSET_BITS, place & (1 << _OFFSET_BITS) - 1, length)

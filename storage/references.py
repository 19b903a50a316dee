"""Chunks that lie in the user's own files: what `publish --in-place` knows instead of copying.

    files        number -> path, size, mtime, inode, as they were when the file was read
    chunks       number -> CID, file, offset, length, CRC-32

A file belongs to the user, who may change it at any time. A chunk is therefore given back only if its CRC still holds;
and where size, time or inode are other than they were, only if its SHA-256 does.
A chunk that changed is forgotten. One whose file cannot be read, because its disk is not mounted or fails, or because
the file is gone, is not held as long as that is so: the file may come back.
Paths come from the user alone, never from a peer.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import stat as stats
import threading
import zlib
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from storage import cid as cids
from storage.cid import Cid
from storage.database import connect, failures_as_ours
from storage.errors import ChangedFileError, UnreadableFileError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

PAGE_ROWS = 1_000
_OURS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""What says nothing about a file: this process, or this machine, has no room to open it."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS files (number INTEGER PRIMARY KEY AUTOINCREMENT, path BLOB NOT NULL UNIQUE,
    size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, inode INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS chunks (number INTEGER PRIMARY KEY AUTOINCREMENT, cid BLOB NOT NULL UNIQUE,
    file INTEGER NOT NULL, start INTEGER NOT NULL, length INTEGER NOT NULL, crc INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS chunks_by_file ON chunks (file);
"""
_FIND = """
SELECT chunks.number, path, start, length, crc, size, mtime_ns, inode
    FROM chunks JOIN files ON files.number = chunks.file WHERE cid = ?
"""


class FileState(NamedTuple):
    """By what a change of a file is noticed."""

    size: int
    mtime_ns: int
    inode: int

    @classmethod
    def of(cls, found: os.stat_result) -> FileState:
        """The state that the system tells."""
        return cls(found.st_size, found.st_mtime_ns, found.st_ino)


@dataclass(frozen=True, slots=True)
class Reference:
    """A chunk in a file.

    Attributes:
        cid: Its name.
        path: The file, from the root of the file system.
        offset: Where it begins, bytes.
        length: Bytes.
        crc: CRC-32 of them.
        state: Of the file, before it was read.
    """

    cid: Cid
    path: Path
    offset: int
    length: int
    crc: int
    state: FileState


class ReferenceList:
    """The references of one store, durable at each change; thread safe.

    Attributes:
        count: How many chunks.
        size: Their bytes.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._database = connect(path, _SCHEMA)
        self.count: int
        self.size: int
        self.count, self.size = self._query(
            "SELECT count(*), cast(total(length) AS INTEGER) FROM chunks"
        )[0]
        self._away: set[Cid] = set()
        """Chunks whose files could not be read when that was tried last."""

    def end(self) -> int:
        """The number that the next reference gets, or one that was not given yet."""
        rows = self._query("SELECT seq FROM sqlite_sequence WHERE name = 'chunks'")
        return int(rows[0][0]) + 1 if rows else 1

    def add(self, references: Sequence[Reference]) -> int:
        """Remember references in one transaction; one that is known already is replaced.

        Returns:
            How many more there are.
        """
        with self._lock, failures_as_ours(), self._transaction():
            before = self.count
            for each in references:
                self._add(each)
            return self.count - before

    def missing(self, wanted: Iterable[Cid]) -> list[Cid]:
        """Those that lie in no file that can be read."""
        if not self.count:
            return list(wanted)
        return [cid for cid in wanted if not self.has(cid)]

    def has(self, cid: Cid) -> bool:
        """Whether a chunk lies in a file; one that could not be read last time is tried again."""
        if cid not in self._away:
            return self.find(cid) is not None
        found = self._row(cid)
        with suppress(ChangedFileError, OSError):
            if found is not None:
                self._read(found[1])
                return True
        return False

    def find(self, cid: Cid) -> tuple[int, int] | None:
        """(number, length) of a chunk, whether its file can be read or not; or None."""
        if not self.count:
            return None
        rows = self._query("SELECT number, length FROM chunks WHERE cid = ?", cid)
        return (rows[0][0], rows[0][1]) if rows else None

    def get(self, cid: Cid, forgot: Callable[[int], None] = lambda _: None) -> bytes | None:
        """A chunk's bytes, or None if it lies in no file.

        Args:
            cid: Of the chunk.
            forgot: Told how many references were dropped, where the file is not what it was.

        Raises:
            UnreadableFileError: The file cannot be read now; the chunk is not held until it can be.
            ChangedFileError: The file is not what it was; the chunk is then forgotten.
            OSError: This process cannot read it for a reason that may pass.
        """
        found = self._row(cid)
        if found is None:
            return None
        number, reference = found
        try:
            return self._read(reference)
        except UnreadableFileError:
            raise
        except ChangedFileError:
            forgot(self.drop([number]))  # another reader may have been quicker
            raise

    def rows(self, after: int = 0, before: int = 2**63 - 1) -> Iterator[list[tuple[int, Cid, int]]]:
        """(number, CID, length) of every chunk between two numbers, a page at a time."""
        while page := self._query(
            "SELECT number, cid, length FROM chunks WHERE number > ? AND number < ?"
            " ORDER BY number LIMIT ?",
            after,
            before,
            PAGE_ROWS,
        ):
            yield [(number, Cid(cid), length) for number, cid, length in page]
            after = page[-1][0]

    def drop(self, numbers: Sequence[int]) -> int:
        """Forget references, and files that no reference is in; how many there were."""
        with self._lock, failures_as_ours(), self._transaction():
            before = self.count
            for number in numbers:
                self._remove("number", number)
            self._database.execute(
                "DELETE FROM files WHERE NOT EXISTS (SELECT 1 FROM chunks WHERE file = files.number)"
            )
            return before - self.count

    def changed_files(self) -> list[str]:
        """The files that are gone, or whose size, time or inode are not what they were; sorted."""
        rows = self._query("SELECT path, size, mtime_ns, inode FROM files")
        return sorted(
            os.fsdecode(path)
            for path, *state in rows
            if state_of(os.fsdecode(path)) != FileState(*state)
        )

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._database.close()

    def _row(self, cid: Cid) -> tuple[int, Reference] | None:
        if not self.count:
            return None
        rows = self._query(_FIND, cid)
        if not rows:
            return None
        number, path, offset, length, crc, *state = rows[0]
        path = Path(os.fsdecode(path))
        return number, Reference(cid, path, offset, length, crc, FileState(*state))

    def _read(self, reference: Reference) -> bytes:
        try:
            data = read_in_place(reference)
        except UnreadableFileError:
            self._away.add(reference.cid)
            raise
        self._away.discard(reference.cid)
        return data

    def _add(self, each: Reference) -> None:
        path = os.fsencode(each.path)
        self._database.execute(
            "INSERT INTO files (path, size, mtime_ns, inode) VALUES (?, ?, ?, ?) ON CONFLICT (path)"
            " DO UPDATE SET size = excluded.size, mtime_ns = excluded.mtime_ns, inode = excluded.inode",
            (path, *each.state),
        )
        # A new row, not a changed one, so that its number lies beyond the floor of a collection under way.
        self._remove("cid", each.cid)
        self._database.execute(
            "INSERT INTO chunks (cid, file, start, length, crc)"
            " SELECT ?, number, ?, ?, ? FROM files WHERE path = ?",
            (each.cid, each.offset, each.length, each.crc, path),
        )

        self.count += 1
        self.size += each.length

    def _remove(self, column: Literal["cid", "number"], value: Cid | int) -> None:
        removed = self._database.execute(
            f"DELETE FROM chunks WHERE {column} = ? RETURNING length, cid",  # noqa: S608 one of two words
            (value,),
        ).fetchall()
        self.count -= len(removed)
        self.size -= sum(length for length, _ in removed)
        self._away.difference_update(cid for _, cid in removed)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        counted = (self.count, self.size)
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._database.execute("COMMIT")
        except BaseException:
            self.count, self.size = counted
            with suppress(sqlite3.Error):
                self._database.execute("ROLLBACK")
            raise

    def _query(self, statement: str, *arguments: object) -> list[tuple[Any, ...]]:
        with self._lock, failures_as_ours():
            return self._database.execute(statement, arguments).fetchall()


def read_in_place(found: Reference) -> bytes:
    """The bytes, which are still those of the chunk.

    Raises:
        UnreadableFileError: The file is not there, or cannot be read now.
        ChangedFileError: They are others, or what is there is no file.
        OSError: This process cannot read them for a reason that may pass.
    """
    changed = ChangedFileError(cids.text(found.cid), str(found.path))
    try:
        # O_NONBLOCK: what was a file may be a pipe by now, and would never open.
        descriptor = os.open(found.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            if not stats.S_ISREG(status.st_mode):
                raise changed
            data = os.pread(descriptor, found.length, found.offset)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno in _OURS:
            raise
        if error.errno == errno.ELOOP:  # a link stands where the file was
            raise changed from error
        why = error.strerror or str(error)
        raise UnreadableFileError(cids.text(found.cid), str(found.path), why) from error
    if len(data) != found.length or zlib.crc32(data) != found.crc:
        raise changed
    if FileState.of(status) != found.state and not cids.matches(found.cid, data):
        raise changed
    return data


def state_of(path: str) -> FileState | None:
    """A file's state now, or None if there is none."""
    try:
        return FileState.of(os.lstat(path))
    except OSError:
        return None

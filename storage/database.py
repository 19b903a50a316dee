"""A small SQLite database that is durable at each change, and whose failures are those of the store."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING

from storage.errors import DiskFullError, LogError, StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LITTLE_BYTES = 2**20
"""With less than this free, a failure to read or write is one of a full disk."""


def connect(path: Path, schema: str) -> sqlite3.Connection:
    """Open it, and make what it lacks; one connection serves all threads, under a lock of the caller.

    Raises:
        LogError: The file is damaged. It cannot be made anew, so it is left as it is.
        DiskFullError: No room.
    """
    database = sqlite3.connect(path, timeout=60, isolation_level=None, check_same_thread=False)
    try:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.executescript(schema)
    except sqlite3.DatabaseError as error:
        database.close()
        if _is_full(error, path.parent):
            raise DiskFullError(1, 0) from error
        message = f"{path} cannot be read ({error}); restore it from a copy, or move it away"
        raise LogError(message) from error
    return database


@contextmanager
def failures_as_ours() -> Iterator[None]:
    """Raise SQLite's errors as the store's.

    Raises:
        DiskFullError: No room.
        StorageError: Anything else.
    """
    try:
        yield
    except sqlite3.ProgrammingError as error:
        message = "the store is closed"
        raise StorageError(message) from error
    except sqlite3.Error as error:
        if _is_full(error):
            raise DiskFullError(1, 0) from error
        message = f"the disk failed: {error}"
        raise StorageError(message) from error


def _is_full(error: sqlite3.Error, folder: Path | None = None) -> bool:
    """Whether SQLite failed because the disk is full; a log that cannot be made there is an I/O error to it."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL or folder is None:
        return code == sqlite3.SQLITE_FULL
    free = shutil.disk_usage(folder).free
    return code in {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN} and free < LITTLE_BYTES

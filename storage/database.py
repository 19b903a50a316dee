"""A small SQLite database that is durable at each change, and whose failures are those of the store."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from storage.errors import DiskFullError, LogError, StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LITTLE_BYTES = 2**20
"""With less than this free, a failure to read or write is one of a full disk."""
CHECKED_BYTES = 2**27
"""A larger database is looked through less closely when it is opened: so much takes about two seconds."""
_SIZES = ("page_count", "page_size")
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


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
        check(database, schema)
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        database.close()
        if isinstance(error, sqlite3.Error) and _is_full(error, path.parent):
            raise DiskFullError(1, 0) from error
        message = f"{path} cannot be read ({error}); restore it from a copy, or move it away"
        raise LogError(message) from error
    return database


def check(database: sqlite3.Connection, schema: str) -> None:
    """Look a database through: a damaged page is read as it is, and an index that lies says that nothing is there.

    Args:
        database: Open.
        schema: What it was made with.

    Raises:
        sqlite3.DatabaseError: It is damaged.
        UnicodeDecodeError: So much so that SQLite cannot name it.
    """
    with closing(sqlite3.connect(":memory:")) as fresh:
        fresh.executescript(schema)
        missing = _columns(fresh) - _columns(database)
    if missing:
        message = f"a column is not what it was: {min(missing)[:2]}"
        raise sqlite3.DatabaseError(message)
    pages, size = (database.execute(f"PRAGMA {one}").fetchone()[0] for one in _SIZES)
    how = "integrity_check" if pages * size <= CHECKED_BYTES else "quick_check"
    found = database.execute(f"PRAGMA {how}(1)").fetchone()[0]
    if found != "ok":
        raise sqlite3.DatabaseError(" ".join(str(found).split()))


def _columns(database: sqlite3.Connection) -> set[tuple[str, str, str, int]]:
    """Table, name, type and place in the key of each column."""
    return set(
        database.execute(
            "SELECT found.name, part.name, part.type, part.pk"
            " FROM sqlite_master AS found, pragma_table_info(found.name) AS part WHERE found.type = 'table'"
        )
    )


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
        if _code(error) in _DAMAGED:
            message += "; start the node again: it makes anew what can be made anew, and says what to do about the rest"
        raise StorageError(message) from error
    except UnicodeDecodeError as error:  # SQLite names what is damaged, and the name is damaged too
        message = f"the disk failed: {error}"
        raise StorageError(message) from error


def _code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _is_full(error: sqlite3.Error, folder: Path | None = None) -> bool:
    """Whether SQLite failed because the disk is full; a log that cannot be made there is an I/O error to it."""
    code = _code(error)
    if code == sqlite3.SQLITE_FULL or folder is None:
        return code == sqlite3.SQLITE_FULL
    free = shutil.disk_usage(folder).free
    return code in {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN} and free < LITTLE_BYTES

"""What the sealed slots hold, what waits to be put into them, and what was committed: one SQLite database.

It is held by one process from the time it is opened, and is durable at the end of each transaction.
The caller keeps threads apart.
"""

from __future__ import annotations

import errno
import re
import sqlite3
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from storage import canonical
from storage.cid import Cid
from storage.database import check, failures_as_ours
from storage.errors import CanonicalError, FormatError, LogError, StorageError, StoreLockedError
from storage.sealing import ZEROS
from storage.slot_files import full_disk
from storage.slot_tree import Label

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ROW_BYTES: Final = 320
"""What a slot takes in the database at most; a test measures it."""
MAX_OWNER_BYTES: Final = 1_024

_SCHEMA = """
CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS slots (number INTEGER PRIMARY KEY, root BLOB NOT NULL, cid BLOB, length INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS slots_by_cid ON slots (cid) WHERE cid IS NOT NULL;
CREATE TABLE IF NOT EXISTS pending (number INTEGER PRIMARY KEY, root BLOB NOT NULL, cid BLOB, length INTEGER NOT NULL,
                                    file TEXT NOT NULL, staged INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS versions (name TEXT PRIMARY KEY, root BLOB NOT NULL, slots INTEGER NOT NULL,
                                     applying INTEGER NOT NULL);
"""
_FILE: Final = re.compile(r"[0-9]+-[0-9a-f]{16}\.slot")
_UNTOUCHED = "number NOT IN (SELECT number FROM pending)"


@dataclass(frozen=True, slots=True)
class Version:
    """What is, was or will be committed on the ledger."""

    root: bytes
    slots: int


@dataclass(frozen=True, slots=True)
class Pending:
    """A slot's next form.

    Attributes:
        slot: Its number.
        label: What it will be.
        file: The name that its bytes wait under.
        staged: Whether it belongs to the staged version, or to one after that.
    """

    slot: int
    label: Label
    file: str
    staged: bool


class SlotIndex:
    """The database of one slot store.

    Args:
        folder: Where `slots.db` lives; it is there.
        owner: Whose slots they are, as a canonical list that begins with the version of the layout.

    Raises:
        StoreLockedError: Another process has it open.
        FormatError: It is of another version.
        LogError: It is damaged, or of another owner.
    """

    def __init__(self, folder: Path, owner: bytes) -> None:
        self._folder = folder
        self._database = _open(folder)
        try:
            self._check_owner(owner)
        except BaseException:
            self._database.close()
            raise

    def _check_owner(self, owner: bytes) -> None:
        row = self._one("SELECT value FROM about WHERE name = 'owner'")
        if row is None:
            self._database.execute("INSERT INTO about VALUES ('owner', ?)", (owner,))
        elif row[0] != owner:
            found, known = _layout(row[0]), _layout(owner)
            if found is not None and known is not None and found != known:
                what = f"the store of sealed slots in {self._folder}"
                raise FormatError(what, found, known)
            message = f"the slots in {self._folder} were sealed for another key, chain or cost"
            raise LogError(message)

    def labels(self) -> Iterator[tuple[int, Label]]:
        """Every slot in its place, by number."""
        with failures_as_ours():
            rows = self._database.execute(
                "SELECT number, root, cid, length FROM slots ORDER BY number"
            )
            for number, *rest in rows:
                yield number, self._label(*rest)

    def label(self, slot: int) -> Label | None:
        """What stands in a slot's place."""
        row = self._one("SELECT root, cid, length FROM slots WHERE number = ?", slot)
        return None if row is None else self._label(*row)

    def put(self, slot: int, label: Label) -> None:
        """Say what stands in a slot's place."""
        self._database.execute(
            "INSERT OR REPLACE INTO slots VALUES (?, ?, ?, ?)",
            (slot, label.root, label.cid, label.length),
        )

    def pending(self, slot: int) -> Pending | None:
        """A slot's next form."""
        row = self._one("SELECT * FROM pending WHERE number = ?", slot)
        return None if row is None else self._pending(row)

    def all_pending(self) -> list[Pending]:
        """Every slot that waits, by number."""
        return [self._pending(row) for row in self._rows("SELECT * FROM pending ORDER BY number")]

    def count_pending(self) -> int:
        """How many slots wait."""
        row = self._one("SELECT count(*) FROM pending")
        return 0 if row is None else int(row[0])

    def add_pending(self, slot: int, label: Label, file: str) -> None:
        """Let a slot's next form wait, in place of another that did."""
        self._database.execute(
            "INSERT OR REPLACE INTO pending VALUES (?, ?, ?, ?, ?, 0)",
            (slot, label.root, label.cid, label.length, file),
        )

    def drop_pending(self, slot: int) -> None:
        """Forget a slot's next form."""
        self._database.execute("DELETE FROM pending WHERE number = ?", (slot,))

    def version(self, name: Literal["settled", "staged"]) -> Version | None:
        """What was committed under a name."""
        row = self._one("SELECT root, slots FROM versions WHERE name = ?", name)
        if row is None:
            return None
        root, slots = row
        if type(root) is not bytes or type(slots) is not int:
            raise damaged(self._folder, f"the {name} version has no root")
        return Version(root, slots)

    def stage(self, version: Version) -> None:
        """Make what waits part of a staged version, as far as it reaches."""
        self._database.execute("UPDATE pending SET staged = 1 WHERE number < ?", (version.slots,))
        self._keep("staged", version)

    def unstage(self) -> None:
        """Drop the staged version; what was part of it waits."""
        self._database.execute("UPDATE pending SET staged = 0")
        self._database.execute("DELETE FROM versions WHERE name = 'staged'")

    def settle(self, version: Version) -> None:
        """Make a version the settled one."""
        self._keep("settled", version)

    def apply(self) -> None:
        """Note that the staged version is being moved in, which must then be brought to its end."""
        self._database.execute("UPDATE versions SET applying = 1 WHERE name = 'staged'")

    @property
    def is_applying(self) -> bool:
        """Whether the staged version is half moved in."""
        row = self._one("SELECT applying FROM versions WHERE name = 'staged'")
        return row is not None and bool(row[0])

    def truncate(self, slots: int) -> None:
        """Forget all slots from number `slots` on."""
        self._database.execute("DELETE FROM slots WHERE number >= ?", (slots,))
        self._database.execute("DELETE FROM pending WHERE number >= ?", (slots,))

    def find(self, cid: Cid) -> int | None:
        """The slot that holds a chunk, or will."""
        row = self._one(
            f"SELECT number FROM pending WHERE cid = ? UNION ALL SELECT number FROM slots WHERE cid = ? AND {_UNTOUCHED}"  # noqa: S608 - a constant
            " LIMIT 1",
            cid,
            cid,
        )
        return None if row is None else int(row[0])

    def chunks(self) -> dict[Cid, int]:
        """The chunks that the slots hold, or will, and where."""
        rows = self._rows(
            f"SELECT cid, number FROM slots WHERE cid IS NOT NULL AND {_UNTOUCHED}"  # noqa: S608 - a constant
            " UNION ALL SELECT cid, number FROM pending WHERE cid IS NOT NULL"
        )
        return {Cid(cid): int(number) for cid, number in rows}

    def length(self, cid: Cid) -> int | None:
        """Bytes of a chunk that a slot holds, or will."""
        row = self._one(
            f"SELECT length FROM pending WHERE cid = ? UNION ALL SELECT length FROM slots WHERE cid = ? AND {_UNTOUCHED}"  # noqa: S608 - a constant
            " LIMIT 1",
            cid,
            cid,
        )
        return None if row is None else int(row[0])

    def top(self) -> int:
        """Slots up to the last that holds a chunk, or will; 0 where none does."""
        row = self._one(
            f"SELECT max(number) FROM (SELECT max(number) AS number FROM slots WHERE cid IS NOT NULL AND {_UNTOUCHED}"  # noqa: S608 - a constant
            " UNION ALL SELECT max(number) FROM pending WHERE cid IS NOT NULL)"
        )
        return 0 if row is None or row[0] is None else int(row[0]) + 1

    def count_chunks(self) -> int:
        """How many slots hold a chunk, or will."""
        row = self._one(
            f"SELECT (SELECT count(*) FROM slots WHERE cid IS NOT NULL AND {_UNTOUCHED})"  # noqa: S608 - a constant
            " + (SELECT count(*) FROM pending WHERE cid IS NOT NULL)"
        )
        return 0 if row is None else int(row[0])

    def count_unstaged(self) -> int:
        """How many slots wait for a version that is not staged yet."""
        row = self._one("SELECT count(*) FROM pending WHERE staged = 0")
        return 0 if row is None else int(row[0])

    def vacant(self) -> int | None:
        """The lowest slot that holds zeros and does not wait to be replaced."""
        row = self._one(
            f"SELECT number FROM slots WHERE cid IS NULL AND {_UNTOUCHED} ORDER BY number LIMIT 1"  # noqa: S608 - a constant
        )
        return None if row is None else int(row[0])

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All that is changed within is durable at its end, or nothing of it.

        Raises:
            DiskFullError: The disk is full.
        """
        with full_disk(self._folder):
            self._database.execute("BEGIN")
            try:
                yield
                self._database.execute("COMMIT")
            except BaseException as error:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                if isinstance(error, sqlite3.OperationalError):
                    if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
                        raise OSError(errno.ENOSPC, str(error)) from error
                    raise StorageError(str(error)) from error
                raise

    def close(self) -> None:
        """Let go of the database."""
        self._database.close()

    def _keep(self, name: str, version: Version) -> None:
        self._database.execute(
            "INSERT OR REPLACE INTO versions VALUES (?, ?, ?, 0)",
            (name, version.root, version.slots),
        )

    def _one(self, query: str, *values: object) -> tuple[Any, ...] | None:
        with failures_as_ours():
            row: tuple[Any, ...] | None = self._database.execute(query, values).fetchone()
        return row

    def _rows(self, query: str) -> list[tuple[Any, ...]]:
        with failures_as_ours():
            return self._database.execute(query).fetchall()

    def _pending(self, row: tuple[Any, ...]) -> Pending:
        number, root, cid, length, file, staged = row
        if type(file) is not str or not _FILE.fullmatch(file):
            raise damaged(self._folder, f"slot {number} waits under no name")
        return Pending(number, self._label(root, cid, length), file, bool(staged))

    def _label(self, root: Any, cid: Any, length: Any) -> Label:  # noqa: ANN401 - the disk's word for it
        """A label as it was written.

        Raises:
            LogError: It is none: the disk has changed it.
        """
        try:
            content = ZEROS if cid is None else cid + length.to_bytes(4, "big")
            return Label.decode(root + content)
        except (TypeError, AttributeError, OverflowError, StorageError) as error:
            raise damaged(self._folder, "a slot has no label") from error


def damaged(folder: Path, what: object) -> LogError:
    """The error, with what to do."""
    message = (
        f"the database of the slots in {folder} is damaged: {what}; put a copy of that folder back, "
        "or move it away, and its slots are sealed anew"
    )
    return LogError(message)


def _layout(owner: bytes) -> int | None:
    """The version of the layout that an owner's bytes begin with; None where they cannot be read."""
    try:
        fields = canonical.decode(owner, max_bytes=MAX_OWNER_BYTES)
    except CanonicalError:
        return None
    first = fields[0] if isinstance(fields, list) and fields else None
    return first if type(first) is int else None


def _open(folder: Path) -> sqlite3.Connection:
    database = sqlite3.connect(
        folder / "slots.db", timeout=0, isolation_level=None, check_same_thread=False
    )
    try:
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.executescript(_SCHEMA)
        database.execute("BEGIN IMMEDIATE")  # takes the lock, which is then kept
        database.execute("COMMIT")
        check(database, _SCHEMA)
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        database.close()
        if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_BUSY:
            raise StoreLockedError(str(folder), "unknown") from error
        raise damaged(folder, error) from error
    return database

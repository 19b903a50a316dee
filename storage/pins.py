"""What the owner and the node have said about chunks: the one thing that cannot be made anew from the segments.

pins      root -> label                  what the user keeps
holds     (root, label)                  what a task of the node keeps: a duty, a fetch that is to go on
damaged   CID                            what was held, could not be read, and has not been put again
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from storage.cid import Cid
from storage.database import connect, failures_as_ours
from storage.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

MAX_LABEL_CHARACTERS = 1_024
_SCHEMA = """
CREATE TABLE IF NOT EXISTS pins (root BLOB PRIMARY KEY, label TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS holds (root BLOB NOT NULL, label TEXT NOT NULL, PRIMARY KEY (root, label)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS damaged (cid BLOB PRIMARY KEY) WITHOUT ROWID;
"""


class PinList:
    """The pins, holds and damage of one store, durable at each change; thread safe.

    Attributes:
        damaged: Chunks to be fetched again.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._database = connect(path, _SCHEMA)
        rows = self._database.execute("SELECT cid FROM damaged")
        self.damaged = frozenset(Cid(cid) for (cid,) in rows)

    def add(self, root: Cid, label: str) -> None:
        """Keep a root; a new label replaces the old.

        Raises:
            StorageError: The label is longer than 1,024 characters.
        """
        check_label(label)
        # A label is often a file's name, which need not be UTF-8.
        label = label.encode(errors="replace").decode()
        with self._lock, failures_as_ours():
            self._database.execute("INSERT OR REPLACE INTO pins VALUES (?, ?)", (root, label))

    def remove(self, root: Cid) -> None:
        """Let a root go."""
        with self._lock, failures_as_ours():
            self._database.execute("DELETE FROM pins WHERE root = ?", (root,))

    def all(self) -> dict[Cid, str]:
        """The roots and their labels, in the order of the roots."""
        with self._lock, failures_as_ours():
            rows = self._database.execute("SELECT root, label FROM pins ORDER BY root").fetchall()
        return {Cid(root): label for root, label in rows}

    def hold(self, root: Cid, label: str) -> None:
        """Keep a root for one more reason.

        Raises:
            StorageError: The label is longer than 1,024 characters.
        """
        check_label(label)
        with self._lock, failures_as_ours():
            self._database.execute("INSERT OR IGNORE INTO holds VALUES (?, ?)", (root, label))

    def release(self, root: Cid, label: str) -> None:
        """End one reason."""
        with self._lock, failures_as_ours():
            self._database.execute("DELETE FROM holds WHERE root = ? AND label = ?", (root, label))

    def holds(self) -> list[tuple[Cid, str]]:
        """Each (root, label), sorted."""
        with self._lock, failures_as_ours():
            rows = self._database.execute("SELECT root, label FROM holds ORDER BY 1, 2").fetchall()
        return [(Cid(root), label) for root, label in rows]

    def damage(self, cid: Cid) -> None:
        """Note that a chunk was found to be damaged."""
        with self._lock, failures_as_ours():
            if cid not in self.damaged:
                self._database.execute("INSERT OR IGNORE INTO damaged VALUES (?)", (cid,))
                self.damaged |= {cid}

    def mend(self, cids: Iterable[Cid]) -> None:
        """Note that chunks are held again, or wanted by nobody."""
        with self._lock, failures_as_ours():
            gone = self.damaged.intersection(cids)
            if gone:
                self._database.executemany(
                    "DELETE FROM damaged WHERE cid = ?", [(cid,) for cid in gone]
                )
                self.damaged -= gone

    def close(self) -> None:
        """Close the database."""
        with self._lock, failures_as_ours():
            self._database.close()


def check_label(label: str) -> None:
    """Refuse a label that is no label.

    Raises:
        StorageError: It is longer than 1,024 characters.
    """
    if len(label) > MAX_LABEL_CHARACTERS:
        message = f"a label of {len(label):,} characters where {MAX_LABEL_CHARACTERS:,} are allowed"
        raise StorageError(message)

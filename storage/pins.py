"""The roots that are kept, with their labels: the one thing in the store that cannot be made anew from the chunks."""

from __future__ import annotations

import sqlite3
import threading
from typing import TYPE_CHECKING

from storage.cid import Cid
from storage.errors import StorageError

if TYPE_CHECKING:
    from pathlib import Path

MAX_LABEL_CHARACTERS = 1_024


class PinList:
    """The pins of one store, durable at each change; thread safe."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._database = sqlite3.connect(
            path, timeout=60, isolation_level=None, check_same_thread=False
        )
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = FULL")
        self._database.execute(
            "CREATE TABLE IF NOT EXISTS pins (root BLOB PRIMARY KEY, label TEXT NOT NULL)"
        )

    def add(self, root: Cid, label: str) -> None:
        """Keep a root; a new label replaces the old.

        Raises:
            StorageError: The label is longer than 1,024 characters.
        """
        if len(label) > MAX_LABEL_CHARACTERS:
            message = (
                f"a label of {len(label):,} characters where {MAX_LABEL_CHARACTERS:,} are allowed"
            )
            raise StorageError(message)
        with self._lock:
            self._database.execute("INSERT OR REPLACE INTO pins VALUES (?, ?)", (root, label))

    def remove(self, root: Cid) -> None:
        """Let a root go."""
        with self._lock:
            self._database.execute("DELETE FROM pins WHERE root = ?", (root,))

    def all(self) -> dict[Cid, str]:
        """The roots and their labels, in the order of the roots."""
        with self._lock:
            rows = self._database.execute("SELECT root, label FROM pins ORDER BY root").fetchall()
        return {Cid(root): label for root, label in rows}

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._database.close()

"""A state that arrives in ranges: checked, written beside the one in use, and taken over when it is whole.

What has arrived is on the disk with the note that it has, in one transaction, so that a process that is killed goes on
where it was. A state of another root begins anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from storage.errors import StorageError
from storage.state_range import END, gaps

if TYPE_CHECKING:
    import lmdb

    from storage.state_range import Range
    from storage.state_store import StateStore

_ARRIVING = b"arriving"


class Incoming:
    """The spare tables of a store; one thread at a time."""

    def __init__(self, store: StateStore) -> None:
        self._store = store
        found = store.read_meta(_ARRIVING)
        self.height = -1 if found is None else int.from_bytes(found[:8], "big", signed=True)
        """Of the state that is arriving; -1 for none."""
        self.root = b"" if found is None else found[8:]

    def begin(self, height: int, root: bytes) -> None:
        """Make ready for a state; what has arrived of another one is dropped."""
        if (height, root) == (self.height, self.root):
            return

        def clear(transaction: lmdb.Transaction) -> None:
            for table in (*self._store.spare, self._store.covered):
                transaction.drop(table, delete=False)
            mark = height.to_bytes(8, "big", signed=True) + root
            self._store.write_meta(transaction, _ARRIVING, mark)

        self._store.transact(clear, "the tables for an arriving state could not be emptied")
        self.height, self.root = height, root

    def drop(self) -> None:
        """Give up what has arrived, and its room on the disk."""
        self.begin(-1, b"")

    def missing(self) -> list[tuple[int, int]]:
        """Which paths have not arrived: from and to (not with it), as numbers, in order."""
        with (
            self._store.reading() as transaction,
            transaction.cursor(db=self._store.covered) as cursor,
        ):
            covered = [
                (int.from_bytes(low, "big"), int.from_bytes(high, "big")) for low, high in cursor
            ]
        return gaps(covered)

    def put(self, part: Range) -> None:
        """Check a range and write it; durable when it returns.

        Raises:
            RangeError: It is not what the root commits to.
            StorageError: No state is arriving, or the disk is full.
        """
        if self.height < 0:
            message = "no state is arriving"
            raise StorageError(message)
        nodes = part.nodes(self.root)
        records = sorted(part.records)

        def write(transaction: lmdb.Transaction) -> None:
            for table, items in zip(
                self._store.spare, (records, sorted(nodes.items())), strict=True
            ):
                with transaction.cursor(db=table) as cursor:
                    cursor.putmulti(items)
            # Peers cut as they like: what has arrived from here on may reach further than this.
            before = transaction.get(part.first, db=self._store.covered)
            high = part.high.to_bytes(33, "big")
            if before is None or bytes(before) < high:
                transaction.put(part.first, high, db=self._store.covered)

        self._store.transact(write, "a range of the state could not be written")

    def get(self, key: bytes) -> bytes | None:
        """A value that has arrived."""
        with self._store.reading() as transaction:
            found = transaction.get(key, db=self._store.spare[0])
        return None if found is None else bytes(found)

    def finish(self, block: bytes, certificate: bytes) -> None:
        """Make the arrived state the newest committed one.

        Raises:
            StorageError: Something is still missing.
        """
        if missing := self.missing():
            share = sum(high - low for low, high in missing) * 100 // END
            message = f"{share} % of the state has not arrived"
            raise StorageError(message)
        self._store.change_over(self.height, self.root, block, certificate)
        self.height, self.root = -1, b""

"""The ledger's state on disk: values, tree nodes, finalized blocks and certificates, in one LMDB environment.

A commit is one durable transaction: the state of a height, its block and its certificate, or nothing.
Only the newest committed state is kept; blocks that are not final are `View` layers over it, in memory.

Values and nodes have two pairs of tables. One is in use; into the other a state may arrive in ranges
(`storage.incoming`), and a last transaction changes over.

What was committed last is noted a second time (`storage.state_witness`): a database that comes back older than that
says so (`lost`), and takes the heights that it lost only with the roots that they had.
"""

from __future__ import annotations

import threading
import weakref
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import lmdb

from storage import state_check, state_tree
from storage.errors import DiskFullError, FormatError, LogError, StorageError
from storage.state_view import Layer, Snapshot, StaleViewError, View
from storage.state_witness import Commit, Witness

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

__all__ = ["StaleViewError", "StateStore", "View"]

FORMAT: Final = 2
READ_FORMATS: Final = (1, 2)
"""Format 1 is format 2 that never changed tables nor pruned."""
MAX_MAP_BYTES: Final = 2**40
"""The map grows by doubling up to here: 1 TiB."""
FIRST_MAP_BYTES: Final = 2**28
WITNESS_FILE: Final = "newest"
_DAMAGED: Final = b"damaged"
_MAX_READERS: Final = 1024
_MAX_NUMBER: Final = 2**63


class StateStore:
    """The environment in one folder; one thread commits, any number read."""

    def __init__(self, folder: Path, *, map_bytes: int = FIRST_MAP_BYTES) -> None:
        """Open or make it.

        Args:
            folder: Its own; made if need be.
            map_bytes: The size of the map at first; it grows.

        Raises:
            LogError: The folder holds another format, or damage.
            DiskFullError: No room for what is made anew.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._lock = threading.RLock()
        self._snapshots: weakref.WeakSet[Snapshot] = weakref.WeakSet()
        self._height = -1
        self._in_use = 0
        self._first = 0
        self.is_checked = False
        """Whether the values and the tree were found to agree; a large state waits for `check`."""
        self.lost: Commit | None = None
        """What was committed here and is not there any more; None when nothing is missing."""
        try:
            self.environment = lmdb.open(
                str(folder), map_size=map_bytes, max_dbs=8, max_readers=_MAX_READERS
            )
            state_check.check_file(folder, self.environment)
            self._open_tables()
            self.environment.reader_check()  # slots of readers that were killed
            self._current = self._newest()
        except lmdb.Error as error:
            if state_check.is_full(error, folder):
                raise DiskFullError(1, 0) from error
            raise state_check.damaged(folder, f"it cannot be opened: {error}") from error
        try:
            self._witness = Witness(folder / WITNESS_FILE)
        except OSError as error:
            self.environment.close()
            message = f"{folder / WITNESS_FILE} cannot be written: {error}"
            raise StorageError(message) from error
        self._hear_witness()

    @property
    def tables(self) -> tuple[lmdb._Database, lmdb._Database]:
        """Where the values and the tree nodes are."""
        return self._pairs[self._in_use]

    @property
    def spare(self) -> tuple[lmdb._Database, lmdb._Database]:
        """The pair of tables that is not in use."""
        return self._pairs[1 - self._in_use]

    @property
    def first_block(self) -> int:
        """From this height on every block is held; genesis always is."""
        return self._first

    @property
    def height(self) -> int:
        """Of the newest commit; -1 before the first."""
        return self._height

    def view(self) -> View:
        """The newest committed state."""
        return self._current

    def commit(
        self,
        layer: View,
        block: bytes,
        certificate: bytes,
        height: int,
        notes: Mapping[bytes, bytes] = MappingProxyType({}),
    ) -> None:
        """Make a layer over the newest committed state the newest itself; durable when it returns.

        Args:
            layer: Made by `layer` from `view()`, or from a view that was committed last.
            block: Bytes to keep under the height.
            certificate: Likewise.
            height: One above the last; anything for the first.
            notes: What this node wants to find again by key (`note`); no part of the state.

        Raises:
            StaleViewError: The layer is not directly over the newest committed state.
            StorageError: The height does not follow, or the disk is full.
        """
        with self._lock:
            source = layer.source
            if not isinstance(source, Layer) or not self._is_newest(source.parent):
                message = f"the layer for height {height} is not over the newest committed state"
                raise StaleViewError(message)
            if self._height >= 0 and height != self._height + 1:
                message = f"height {height} does not follow {self._height}"
                raise StorageError(message)
            self._compare(height, source.root)
            self.transact(
                lambda transaction: self._write(
                    transaction, source, block, certificate, height, notes
                ),
                f"height {height} could not be written",
            )
            self._height = height
            self._note(height, source.root)
            snapshot = Snapshot(self, height, source.root)
            self._snapshots.add(snapshot)
            layer.source = snapshot
            self._current = layer

    def block(self, height: int) -> tuple[bytes, bytes] | None:
        """The block and certificate of a height."""
        with self.reading() as transaction:
            body = transaction.get(_height_key(height, 0), db=self._blocks)
            certificate = transaction.get(_height_key(height, 1), db=self._blocks)
        if body is None or certificate is None:
            return None
        return bytes(body), bytes(certificate)

    def note(self, key: bytes) -> bytes | None:
        """What a commit noted under a key."""
        with self.reading() as transaction:
            found = transaction.get(key, db=self._notes)
        return None if found is None else bytes(found)

    def add_notes(self, notes: Mapping[bytes, bytes]) -> None:
        """Note things outside of a commit; durable when it returns."""

        def write(transaction: lmdb.Transaction) -> None:
            for key, value in notes.items():
                transaction.put(key, value, db=self._notes)

        self.transact(write, "notes could not be written")

    def prove(self, key: bytes) -> bytes:
        """Shows the key's value, or that it has none, under the newest committed root."""
        return self._current.prove(key)

    def prune(self, below: int, limit: int, notes: Callable[[bytes], Iterable[bytes]]) -> int:
        """Remove the oldest blocks with their certificates and notes.

        Args:
            below: Blocks of this height and above stay.
            limit: How many at most; commits wait meanwhile.
            notes: The keys of what was noted for a block, from its bytes.

        Returns:
            How many heights were removed; fewer than `limit` when no more are to go.
        """
        with self._lock:
            first = max(1, self._first)
            end = min(below, self._height, first + limit)
            if end <= first:
                return 0

            def remove(transaction: lmdb.Transaction) -> None:
                for height in range(first, end):
                    block = transaction.pop(_height_key(height, 0), db=self._blocks)
                    transaction.delete(_height_key(height, 1), db=self._blocks)
                    for key in notes(bytes(block)) if block is not None else ():
                        transaction.delete(key, db=self._notes)
                transaction.put(b"first", end.to_bytes(8, "big"), db=self._meta)

            self.transact(remove, f"blocks below {end} could not be removed")
            self._first = end
            return end - first

    def change_over(self, height: int, root: bytes, block: bytes, certificate: bytes) -> None:
        """Make what stands in the spare tables the newest committed state, in one durable transaction.

        The blocks held until now are removed, save genesis: they do not reach up to the new height.

        Raises:
            StorageError: The height is not above the newest, the tree there has another root, or the disk is full.
        """
        with self._lock:
            nodes = self.spare[1]
            with self.reading() as transaction:
                top = transaction.get(state_tree.node_key(0, 0), db=nodes)
                found = state_tree.root_of(lambda _: None if top is None else bytes(top))
            if found != root or height <= self._height:
                message = f"the state that arrived for height {height} is not whole, or not newer"
                raise StorageError(message)
            self._compare(height, root)
            old, spare = self.tables, 1 - self._in_use

            def change(transaction: lmdb.Transaction) -> None:
                genesis = [
                    transaction.get(_height_key(0, part), db=self._blocks) for part in (0, 1)
                ]
                for table in (*old, self._blocks, self.covered):
                    transaction.drop(table, delete=False)
                for part, body in enumerate(genesis):
                    if body is not None:
                        transaction.put(_height_key(0, part), body, db=self._blocks)
                transaction.put(_height_key(height, 0), block, db=self._blocks)
                transaction.put(_height_key(height, 1), certificate, db=self._blocks)
                transaction.put(b"height", height.to_bytes(8, "big"), db=self._meta)
                transaction.put(b"first", height.to_bytes(8, "big"), db=self._meta)
                transaction.put(b"root", root, db=self._meta)
                transaction.put(b"in use", bytes((spare,)), db=self._meta)
                transaction.delete(b"arriving", db=self._meta)

            self.transact(change, f"the state of height {height} could not be taken over")
            self._in_use, self._height, self._first = spare, height, height
            self._note(height, root)
            snapshot = Snapshot(self, height, root)
            self._snapshots.add(snapshot)
            self._current = View(snapshot)

    def transact(self, work: Callable[[lmdb.Transaction], None], failure: str) -> None:
        """Run work in one durable transaction; again in a larger map if it does not fit.

        Raises:
            DiskFullError: No room; everything is as it was before.
            StorageError: The disk fails.
        """
        with self._lock:
            while True:
                try:
                    with self.environment.begin(write=True) as transaction:
                        work(transaction)
                except lmdb.MapFullError:
                    self._grow()
                except lmdb.Error as error:
                    if state_check.is_full(error, self._folder):
                        raise DiskFullError(1, 0) from error
                    message = f"{failure}: {error}"
                    raise StorageError(message) from error
                else:
                    return

    def read_meta(self, key: bytes) -> bytes | None:
        """What stands under a key beside the state."""
        with self.reading() as transaction:
            found = transaction.get(key, db=self._meta)
        return None if found is None else bytes(found)

    @contextmanager
    def reading(self) -> Iterator[lmdb.Transaction]:
        """A short read of what was committed last; commits and other such reads wait."""
        with self._lock, self.environment.begin() as transaction:
            yield transaction

    def write_meta(self, transaction: lmdb.Transaction, key: bytes, value: bytes) -> None:
        """Put something beside the state."""
        transaction.put(key, value, db=self._meta)

    def check(self) -> Iterator[None]:
        """Look through the whole state while it is in use, a step each time that this is taken on.

        Damage that is found is noted: the store does not open any more.

        Raises:
            LogError: It is damaged; the text says what to do.
        """
        try:
            yield from state_check.check_parts(self._folder, self)
        except LogError as error:
            self._mark_damaged()
            raise error from None
        self.is_checked = True

    def close(self) -> None:
        """Close the environment; views of it must not be read afterwards."""
        with self._lock:
            self._witness.close()
            for snapshot in list(self._snapshots):
                snapshot.suspend()
                snapshot.resume(current=False)
            self.environment.close()

    def _open_tables(self) -> None:
        """Open or make all of them, with the format, in one transaction: where one is, all are."""
        is_new = state_check.is_new(self.environment)
        with self.environment.begin(write=True) as transaction:

            def table(name: bytes) -> lmdb._Database:
                return self.environment.open_db(name, txn=transaction)

            self._pairs = tuple(
                (table(values), table(nodes))
                for values, nodes in ((b"values", b"nodes"), (b"values.1", b"nodes.1"))
            )
            self._blocks, self._notes, self._meta = (
                table(b"blocks"),
                table(b"notes"),
                table(b"meta"),
            )
            self.covered = table(b"covered")
            found = transaction.get(b"format", db=self._meta)
            if found is None and not is_new:
                raise state_check.damaged(self._folder, "its format is not there")
            version = FORMAT if found is None else self._number(found)
            if version not in READ_FORMATS:
                what = f"the ledger's state in {self._folder}"
                raise FormatError(what, version, FORMAT)
            if version != FORMAT or found is None:
                transaction.put(b"format", FORMAT.to_bytes(4, "big"), db=self._meta)
            in_use = transaction.get(b"in use", db=self._meta)
            first = transaction.get(b"first", db=self._meta)
            self._in_use = 0 if in_use is None else self._number(in_use, len(self._pairs) - 1)
            self._first = 0 if first is None else self._number(first)

    def _number(self, body: bytes, most: int = _MAX_NUMBER) -> int:
        found = int.from_bytes(body, "big")
        if found > most:
            raise state_check.damaged(self._folder, f"a number beside it is {found:,}")
        return found

    def _newest(self) -> View:
        with self.environment.begin() as transaction:
            height = transaction.get(b"height", db=self._meta)
            root = transaction.get(b"root", db=self._meta)
        self._height = -1 if height is None else self._number(height)
        snapshot = Snapshot(self, self._height, state_tree.EMPTY if root is None else root)
        self._snapshots.add(snapshot)
        view = View(snapshot)
        if state_tree.root_of(view.node) != view.root:
            what = f"the tree of height {self._height} does not have the root noted for it"
            raise state_check.damaged(self._folder, what)
        with self.environment.begin() as transaction:
            with transaction.cursor(db=self._blocks) as cursor:
                newest = bytes(cursor.key()) if cursor.last() else b""
            if newest != (_height_key(self._height, 1) if self._height >= 0 else b""):
                what = f"its newest block is not the one of height {self._height}"
                raise state_check.damaged(self._folder, what)
            if transaction.get(_DAMAGED, db=self._meta) is not None:
                what = "the check of an earlier run found its values and its tree to differ"
                raise state_check.damaged(self._folder, what)
            self.is_checked = state_check.check_tree(
                self._folder, transaction, self.tables, view.root
            )
        return view

    def _hear_witness(self) -> None:
        known, here = self._witness.newest, Commit(self._height, self._current.root)
        if known is not None and known.height > here.height:
            self.lost = known
        elif known is not None and known.height == here.height and known != here:
            self.close()
            what = f"height {here.height} had another root when it was committed"
            raise state_check.damaged(self._folder, what)
        elif known != here and here.height >= 0:
            self._witness.note(here)

    def _compare(self, height: int, root: bytes) -> None:
        """Refuse another state for a height that was committed here before.

        Raises:
            LogError: It is another.
        """
        if self.lost is not None and height == self.lost.height and root != self.lost.root:
            what = f"height {height} was committed with another root than it has now"
            raise state_check.damaged(self._folder, what)

    def _note(self, height: int, root: bytes) -> None:
        if self.lost is None or height >= self.lost.height:
            self.lost = None
            self._witness.note(Commit(height, root))

    def _mark_damaged(self) -> None:
        def mark(transaction: lmdb.Transaction) -> None:
            self.write_meta(transaction, _DAMAGED, b"\x01")

        self.transact(mark, "that the state is damaged could not be noted")

    def _is_newest(self, view: View) -> bool:
        source = view.source
        return isinstance(source, Snapshot) and source.height == self._height

    def _write(
        self,
        transaction: lmdb.Transaction,
        layer: Layer,
        block: bytes,
        certificate: bytes,
        height: int,
        notes: Mapping[bytes, bytes],
    ) -> None:
        for table, changes in zip(self.tables, (layer.changes, layer.nodes), strict=True):
            items = sorted(changes.items())
            with transaction.cursor(db=table) as cursor:
                cursor.putmulti([(key, value) for key, value in items if value is not None])
            for key, value in items:
                if value is None:
                    transaction.delete(key, db=table)
        transaction.put(_height_key(height, 0), block, db=self._blocks)
        transaction.put(_height_key(height, 1), certificate, db=self._blocks)
        for key, value in notes.items():
            transaction.put(key, value, db=self._notes)
        transaction.put(b"height", height.to_bytes(8, "big"), db=self._meta)
        transaction.put(b"root", layer.root, db=self._meta)

    def _grow(self) -> None:
        """Double the map; LMDB wants no transaction open meanwhile, so snapshots pause."""
        size = self.environment.info()["map_size"] * 2
        if size > MAX_MAP_BYTES:
            message = f"the ledger's state would need more than {MAX_MAP_BYTES:,} bytes"
            raise StorageError(message)
        snapshots = list(self._snapshots)
        for snapshot in snapshots:
            snapshot.suspend()
        try:
            self.environment.set_mapsize(size)
        finally:
            for snapshot in snapshots:
                snapshot.resume(current=snapshot.height == self._height)


def _height_key(height: int, part: int) -> bytes:
    return height.to_bytes(8, "big") + bytes((part,))

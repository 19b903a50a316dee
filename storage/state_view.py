"""States as they are read: a committed one, or a layer of changes over another.

A view never changes: a committed one reads an LMDB snapshot, a layer reads its changes and then its parent.
Committing a layer turns it into a committed view (its source is replaced by the new snapshot in one
assignment), so that layers above it go on reading the same state and the chain of layers stays short.
"""

from __future__ import annotations

import heapq
import threading
from itertools import groupby
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from storage import state_tree
from storage.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import lmdb

MAX_KEY_BYTES: Final = 256
_SCAN_BATCH: Final = 256

Changes: TypeAlias = "dict[bytes, bytes | None]"


class Environment(Protocol):
    """Where committed states are; `storage.state_store.StateStore` is one."""

    environment: lmdb.Environment

    @property
    def tables(self) -> tuple[lmdb._Database, lmdb._Database]:
        """Where the values and the tree nodes are."""


class StaleViewError(StorageError):
    """The view is of a state that is neither the newest committed one nor above it."""


class Snapshot:
    """A committed state: an LMDB read transaction that many threads may use in turn."""

    __slots__ = (
        "__weakref__",
        "_lock",
        "_nodes",
        "_store",
        "_transaction",
        "_values",
        "height",
        "root",
    )

    def __init__(self, store: Environment, height: int, root: bytes) -> None:
        self._store = store
        self._values, self._nodes = store.tables
        self._lock = threading.Lock()
        self._transaction: lmdb.Transaction | None = store.environment.begin(buffers=False)
        self.height = height
        self.root = root

    def get(self, key: bytes, nodes: bool) -> bytes | None:
        """A value, or a tree node."""
        with self._lock:
            found = self._open().get(key, db=self._nodes if nodes else self._values)
        return None if found is None else bytes(found)

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values below a prefix, in order; the lock is held a batch at a time."""
        start = prefix
        while True:
            batch: list[tuple[bytes, bytes]] = []
            with self._lock, self._open().cursor(db=self._values) as cursor:
                if cursor.set_range(start):
                    for key, value in cursor:
                        if not bytes(key).startswith(prefix):
                            break
                        batch.append((bytes(key), bytes(value)))
                        if len(batch) == _SCAN_BATCH:
                            break
            yield from batch
            if len(batch) < _SCAN_BATCH:
                return
            start = batch[-1][0] + b"\x00"

    def count(self) -> int:
        """How many values there are."""
        with self._lock:
            return int(self._open().stat(self._values)["entries"])

    def suspend(self) -> None:
        """Let go of the transaction; the lock stays held until `resume`."""
        self._lock.acquire()
        if self._transaction is not None:
            self._transaction.abort()
            self._transaction = None

    def resume(self, *, current: bool) -> None:
        """Read again, if the state is still the one on disk."""
        if current:
            self._transaction = self._store.environment.begin(buffers=False)
        self._lock.release()

    def _open(self) -> lmdb.Transaction:
        if self._transaction is None:
            message = f"the state of height {self.height} is no longer kept"
            raise StaleViewError(message)
        return self._transaction

    def __del__(self) -> None:
        if self._transaction is not None:
            self._transaction.abort()


class Layer:
    """Changes over a parent view."""

    __slots__ = ("changes", "nodes", "parent", "root")

    def __init__(self, parent: View, changes: Changes, nodes: Changes, root: bytes) -> None:
        self.parent = parent
        self.changes = changes
        self.nodes = nodes
        self.root = root


class View:
    """A state: committed, or a layer of changes over another view."""

    __slots__ = ("__weakref__", "source")

    def __init__(self, source: Snapshot | Layer) -> None:
        self.source = source

    @property
    def root(self) -> bytes:
        """The root of its tree."""
        return self.source.root

    def get(self, key: bytes) -> bytes | None:
        """A value, or None."""
        source = self.source
        while isinstance(source, Layer):
            if key in source.changes:
                return source.changes[key]
            source = source.parent.source
        return source.get(key, nodes=False)

    def node(self, key: bytes) -> bytes | None:
        """A tree node by `state_tree.node_key`."""
        source = self.source
        while isinstance(source, Layer):
            if key in source.nodes:
                return source.nodes[key]
            source = source.parent.source
        return source.get(key, nodes=True)

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values below a prefix, in key order."""
        layers: list[Layer] = []
        source = self.source
        while isinstance(source, Layer):
            layers.append(source)
            source = source.parent.source
        changed: Changes = {}
        for layer in reversed(layers):
            changed.update(
                (key, value) for key, value in layer.changes.items() if key.startswith(prefix)
            )
        over: list[tuple[bytes, int, bytes | None]] = sorted(
            (key, 0, value) for key, value in changed.items()
        )
        below = ((key, 1, value) for key, value in source.scan(prefix))
        merged = heapq.merge(over, below, key=lambda item: item[:2])
        for key, candidates in groupby(merged, key=lambda item: item[0]):
            value = next(candidates)[2]
            if value is not None:
                yield key, value

    def count(self) -> int:
        """How many values the committed state below has."""
        source = self.source
        while isinstance(source, Layer):
            source = source.parent.source
        return source.count()

    def layer(self, changes: Mapping[bytes, bytes | None]) -> View:
        """The state after changes; its root is computed here.

        Args:
            changes: New values by key; None removes a key.

        Raises:
            StorageError: A key is empty or too long.
        """
        for key in changes:
            if not 0 < len(key) <= MAX_KEY_BYTES:
                message = f"a key has 1 to {MAX_KEY_BYTES} bytes, this one {len(key)}"
                raise StorageError(message)
        root, nodes = state_tree.update(self.node, changes)
        return View(Layer(self, dict(changes), nodes, root))

    def prove(self, key: bytes) -> bytes:
        """Shows the key's value, or that it has none, under `root`."""
        return state_tree.prove(self.node, key)

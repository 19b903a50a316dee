"""The ledger's state in a dict: what `storage.state_store` does, without the disk.

A view is a whole dict of values and one of tree nodes, and a layer is a copy with changes: a simulated
state has some hundred keys, which are copied in microseconds, and a view never changes under its reader.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from storage import state_tree

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class MemoryView:
    """A state; as `storage.state_store.View`."""

    __slots__ = ("_nodes", "_values", "root")

    def __init__(self, values: dict[bytes, bytes], nodes: dict[bytes, bytes], root: bytes) -> None:
        self._values = values
        self._nodes = nodes
        self.root = root

    def get(self, key: bytes) -> bytes | None:
        """A value, or None."""
        return self._values.get(key)

    def node(self, key: bytes) -> bytes | None:
        """A tree node by its place."""
        return self._nodes.get(key)

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values below a prefix, in key order."""
        for key in sorted(key for key in self._values if key.startswith(prefix)):
            yield key, self._values[key]

    def layer(self, changes: Mapping[bytes, bytes | None]) -> MemoryView:
        """The state after changes; None removes a key."""
        root, nodes = state_tree.update(self.node, changes)
        return MemoryView(_changed(self._values, changes), _changed(self._nodes, nodes), root)

    def prove(self, key: bytes) -> bytes:
        """Shows the key's value, or that it has none, under `root`."""
        return state_tree.prove(self.node, key)


class MemoryStore:
    """Committed heights of one node; as `storage.state_store.StateStore`. It survives a simulated crash."""

    def __init__(self) -> None:
        self.height = -1
        self._view = MemoryView({}, {}, state_tree.EMPTY)
        self._blocks: dict[int, tuple[bytes, bytes]] = {}
        self._notes: dict[bytes, bytes] = {}

    def view(self) -> MemoryView:
        """The newest committed state."""
        return self._view

    def commit(
        self,
        layer: MemoryView,
        block: bytes,
        certificate: bytes,
        height: int,
        notes: Mapping[bytes, bytes] = MappingProxyType({}),
    ) -> None:
        """Make a layer over the newest committed state the newest itself."""
        self._view = layer
        self._blocks[height] = (block, certificate)
        self._notes.update(notes)
        self.height = height

    def block(self, height: int) -> tuple[bytes, bytes] | None:
        """The block and certificate of a height."""
        return self._blocks.get(height)

    def note(self, key: bytes) -> bytes | None:
        """What a commit noted under a key."""
        return self._notes.get(key)


def _changed(
    before: Mapping[bytes, bytes], changes: Mapping[bytes, bytes | None]
) -> dict[bytes, bytes]:
    after = dict(before)
    for key, value in changes.items():
        if value is None:
            after.pop(key, None)
        else:
            after[key] = value
    return after

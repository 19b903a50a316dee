"""Publishing without copying: leaves stay in the user's files and are known by where they lie; nodes are stored.

A sink of `storage.importer`, which says where each file begins and then gives its leaves in their order.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from storage import cid as cids
from storage.references import FileState, Reference

if TYPE_CHECKING:
    import os
    from pathlib import Path

    from storage.cid import Cid
    from storage.contract import Blockstore

REFERENCES_PER_WRITE = 1_000
NODE_BYTES_PER_WRITE = 4 * 2**20


class InPlaceSink:
    """Puts nodes into a store and tells it where the leaves are; used by one thread.

    Attributes:
        new_bytes: Of chunks that the store did not hold before.
    """

    def __init__(self, store: Blockstore) -> None:
        self._store = store
        self._references: dict[Cid, Reference] = {}  # content that occurs twice lies in one place
        self._nodes: list[tuple[Cid, bytes]] = []
        self._node_bytes = 0
        self.new_bytes = 0

    def begin(self, path: Path, status: os.stat_result) -> None:
        """The leaves that follow are those of this file."""
        self._path = path
        self._state = FileState.of(status)
        self._offset = 0

    def put(self, cid: Cid, data: bytes) -> None:
        """Take a leaf of the file, or a node."""
        if cids.codec(cid) == cids.RAW:
            self._references[cid] = Reference(
                cid, self._path, self._offset, len(data), zlib.crc32(data), self._state
            )
            self._offset += len(data)
        else:
            self._nodes.append((cid, data))
            self._node_bytes += len(data)
        if (
            len(self._references) == REFERENCES_PER_WRITE
            or self._node_bytes >= NODE_BYTES_PER_WRITE
        ):
            self.flush()

    def flush(self) -> None:
        """Make what was taken durable."""
        self.new_bytes += self._store.add_references(list(self._references.values()))
        self.new_bytes += self._store.put_many(self._nodes)
        self._references = {}
        self._nodes = []
        self._node_bytes = 0

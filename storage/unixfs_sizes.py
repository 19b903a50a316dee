"""What is really held below a root, beside what its manifests claim.

A manifest may come from a stranger, who can write any number into it: how large a part of a file is, and how much lies below
a link.
A file's parts have to be exactly as large as its manifest says, or it cannot be read.
A link may say less than there is, as some tools write it, and never more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from storage import cid as cids
from storage import dag
from storage.errors import ManifestError
from storage.unixfs_nodes import Kind, read_node

MAX_CLAIM = 2**64
"""More than a link can claim; a few nodes can name a byte 2^1,000,000 times, which nobody has to count."""

if TYPE_CHECKING:
    from storage.blockstore import Blockstore
    from storage.cid import Cid


def check_sizes(root: Cid, store: Blockstore) -> int:
    """Hold each claim of a size below a root against what is held; all of it is.

    Args:
        root: Of any codec.
        store: Where its chunks are.

    Returns:
        Bytes of all its chunks, each once.

    Raises:
        ManifestError: A manifest is malformed, or claims more than there is.
        ChunkNotFoundError: A chunk is not held.
    """
    sizes = _Sizes(store)
    waiting = [root]
    while waiting:
        cid = waiting[-1]
        if cid in sizes.trees or not (below := sizes.unknown_below(cid)):
            waiting.pop()
            sizes.add(cid)
        else:
            waiting += below
    return sizes.held


class _Sizes:
    """One walk from the leaves up.

    Attributes:
        trees: Bytes at and below each chunk that was looked at, those that occur twice counted twice.
        held: Bytes of these chunks.
    """

    def __init__(self, store: Blockstore) -> None:
        self._store = store
        self._files: dict[Cid, int] = {}
        self.trees: dict[Cid, int] = {}
        self.held = 0

    def unknown_below(self, cid: Cid) -> list[Cid]:
        """The manifests that one names and that were not looked at."""
        if not dag.is_manifest(cid):
            return []
        links = dag.links(cid, self._store.get(cid))
        unknown = (one.cid for one in links if one.cid not in self.trees)
        return [one for one in dict.fromkeys(unknown) if dag.is_manifest(one)]

    def add(self, cid: Cid) -> None:
        """Take a chunk to what was looked at, of which all manifests below were."""
        if cid in self.trees:
            return
        if not dag.is_manifest(cid):
            size = self._store.size(cid)
            self.trees[cid] = self._files[cid] = size
            self.held += size
            return
        block = self._store.get(cid)
        tree = len(block)
        for link in dag.links(cid, block):
            self.add(link.cid)
            below = self.trees[link.cid]
            if link.size is not None and link.size > below:
                message = f"{cids.text(cid)} says that {link.size:,} bytes are below {link.name[:64]!r}, where {below:,} are"
                raise ManifestError(message)
            tree += below
        if cids.codec(cid) == cids.DAG_PB:
            self._check_parts(cid, block)
        self.trees[cid] = min(tree, MAX_CLAIM)
        self.held += len(block)

    def _check_parts(self, cid: Cid, block: bytes) -> None:
        node = read_node(cid, block)
        if node.kind is not Kind.FILE:
            return
        for link, size in zip(node.links, node.block_sizes, strict=True):
            if self._files.get(link.cid) != size:
                message = (
                    f"{cids.text(link.cid)} is not the part of {size:,} bytes that it should be"
                )
                raise ManifestError(message)
        self._files[cid] = node.size

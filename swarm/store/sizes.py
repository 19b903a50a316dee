"""How large a root is: counted where all of it is here, since a manifest of a stranger can claim any size."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from storage import cid as cids
from storage import dag
from storage.errors import ChunkNotFoundError, CorruptChunkError, ManifestError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from storage.blockstore import Blockstore
    from storage.cid import Cid

MAX_CHUNKS: Final = 200_000
"""That are counted of one root: 200 GB of files, in about a second."""
MAX_KNOWN: Final = 4_096
"""Roots whose size is remembered: what a CID names never changes."""


@dataclass(frozen=True, slots=True)
class Size:
    """Of a root.

    Attributes:
        bytes: Of all its chunks, each once; None where nobody says.
        is_counted: They were counted; else its author claims so, and a part is not here, or it is too large to count.
    """

    bytes: int | None
    is_counted: bool


class Sizes:
    """Counts what is held below roots, and remembers it; for one thread at a time.

    Args:
        store: Where chunks are held.
    """

    def __init__(self, store: Blockstore) -> None:
        self._store = store
        self._known: OrderedDict[Cid, int] = OrderedDict()

    def of(self, root: Cid) -> Size:
        """The size of a root; of a commit that of its own tree."""
        found = self._known.get(root)
        if found is None:
            try:
                found = self._counted(self._trees(root))
            except (ChunkNotFoundError, CorruptChunkError, ManifestError):
                return Size(None, is_counted=False)
        if found is None:
            return Size(self._claimed(root), is_counted=False)
        self._known[root] = found
        self._known.move_to_end(root)
        while len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
        return Size(found, is_counted=True)

    def _trees(self, root: Cid) -> list[Cid]:
        """What is counted for a root: itself, or the trees of a commit, whose history is not its size.

        Raises:
            ManifestError: It has none.
        """
        if cids.codec(root) != cids.DAG_CBOR:
            return [root]
        links = dag.links(root, self._store.get(root))
        trees = [one.cid for one in links if cids.codec(one.cid) == cids.DAG_PB]
        if not trees:
            message = f"{cids.text(root)} names no files"
            raise ManifestError(message)
        return trees

    def _counted(self, trees: Sequence[Cid]) -> int | None:
        """Bytes below, each chunk once; None where a chunk is not here, or there are too many."""
        seen = set(trees)
        waiting, total = list(trees), 0
        while waiting:
            cid = waiting.pop()
            try:
                total += self._store.size(cid)
                below = dag.links(cid, self._store.get(cid)) if dag.is_manifest(cid) else []
            except ChunkNotFoundError:
                return None
            fresh = {one.cid for one in below} - seen
            seen |= fresh
            if len(seen) > MAX_CHUNKS:
                return None
            waiting += fresh
        return total

    def _claimed(self, root: Cid) -> int | None:
        """As its author says; None where he does not."""
        try:
            sizes = [dag.tree_size(one, self._store.get(one)) for one in self._trees(root)]
        except (ChunkNotFoundError, CorruptChunkError, ManifestError):
            return None
        known = [size for size in sizes if size is not None]
        return sum(known) if len(known) == len(sizes) else None

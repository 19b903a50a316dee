"""Walks from a root over what is held: what is missing below it, and what of that was lost to damage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias

from storage import cid as cids
from storage.cid import Cid
from storage.errors import ChunkNotFoundError, CorruptChunkError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from storage.contract import Blockstore


class Named(Protocol):
    """What a node says of one of its children."""

    @property
    def cid(self) -> Cid:
        """The child's name."""


Links: TypeAlias = Callable[[Cid, bytes], Sequence[Named]]
"""What a block names, such as `storage.unixfs.links`; raises ManifestError where it cannot tell."""


def missing_below(root: Cid, store: Blockstore, links: Links) -> Iterator[Cid]:
    """Each chunk that a root names and that is not held, as far as the nodes that are held tell, once.

    A node that comes while the walk goes on is not looked into again: walk until nothing is missing.

    Raises:
        ManifestError: A node that is held cannot be understood.
    """
    seen = {root}
    stack = [root]
    while stack:
        cid = stack.pop()
        try:
            children = _children(cid, store, links)
        except (ChunkNotFoundError, CorruptChunkError):
            yield cid
            continue
        fresh = [child for child in children if child not in seen]
        leaves = store.missing(child for child in fresh if cids.codec(child) == cids.RAW)
        seen.update(leaves)
        yield from leaves
        nodes = [child for child in fresh if cids.codec(child) != cids.RAW]
        seen.update(nodes)
        stack += reversed(nodes)


def damaged_below(root: Cid, store: Blockstore, links: Links) -> list[Cid]:
    """The chunks of a root that were held and are lost to damage, so that they must be fetched again.

    Raises:
        ManifestError: As `missing_below`.
    """
    damaged = store.damaged()
    return [cid for cid in missing_below(root, store, links) if cid in damaged]


def _children(cid: Cid, store: Blockstore, links: Links) -> list[Cid]:
    if cids.codec(cid) == cids.RAW:
        if not store.has(cid):
            raise ChunkNotFoundError(cids.text(cid))
        return []
    return list(dict.fromkeys(link.cid for link in links(cid, store.get(cid))))

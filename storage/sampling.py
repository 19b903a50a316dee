"""One chunk of a root, drawn by a seed: what a keeper shows to prove that it holds the root.

From the root down, at each node of depth d:

    number = SHA-256("swarm/sample/1" || 0x00 || seed (32) || u32 BE d || CID of the node (36)), as an integer
    at     = number mod the sum of the weights of its links
    link   = the one in whose weight `at` falls, in their order

A link's weight is its Tsize, at least 1, and all weigh 1 where a node does not tell every size.
The walk ends at a block without links, and at the latest with block 96: whatever a root's author made, who holds all
of it can show the way. All blocks on the way are the proof: each is named by the one before it and
hashes to its name, and the seed leaves no choice of another.

A root whose author lies about sizes makes some of its chunks rare in these draws; the lie costs only what he published.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from storage import cid as cids
from storage.chunks import MAX_CHUNK_BYTES
from storage.dag import links
from storage.errors import ManifestError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from storage.cid import Cid

MAX_BLOCKS: Final = 96
"""On one way: 64 folders inside each other, and the levels of a large file."""
SEED_BYTES: Final = 32
_TAG: Final = b"swarm/sample/1\x00"
_MAX_WEIGHT: Final = 2**63


def path(root: Cid, seed: bytes, get: Callable[[Cid], bytes]) -> list[bytes]:
    """The blocks from a root to the chunk that the seed draws.

    Args:
        root: Where to start.
        seed: 32 bytes.
        get: Gives a block by its CID; what it raises is passed on.

    Raises:
        ManifestError: A block is malformed.
    """
    return [get(cid) for cid in way(root, seed, get)]


def way(root: Cid, seed: bytes, get: Callable[[Cid], bytes]) -> list[Cid]:
    """The names of the blocks of `path`, of which one is in memory at a time."""
    found: list[Cid] = []
    at: Cid | None = root
    while at is not None:
        found.append(at)
        at = _next(at, get(at), seed, len(found) - 1)
    return found


def check(root: Cid, seed: bytes, blocks: Iterable[bytes]) -> bool:
    """Whether these are the blocks from the root to the chunk that the seed draws.

    Args:
        root: Where they start.
        seed: 32 bytes.
        blocks: A stranger's.
    """
    walk = Walk(root, seed)
    try:
        for block in blocks:
            walk.take(block)
    except ManifestError:
        return False
    return walk.is_done


class Walk:
    """The check of a way as its blocks come, without keeping them.

    Args:
        root: Where it starts.
        seed: 32 bytes.
    """

    def __init__(self, root: Cid, seed: bytes) -> None:
        self._at: Cid | None = root
        self._seed = seed
        self._depth = 0

    @property
    def is_done(self) -> bool:
        """Whether the drawn chunk has been shown."""
        return self._at is None

    @property
    def wanted(self) -> Cid | None:
        """The block that comes next; None when the drawn chunk has been shown."""
        return self._at

    def take(self, block: bytes) -> None:
        """Check the next block.

        Raises:
            ManifestError: It is not the one that comes next, or none does.
        """
        if self._at is None or len(block) > MAX_CHUNK_BYTES:
            message = "the way has ended, or the block is too large"
            raise ManifestError(message)
        if not cids.matches(self._at, block):
            message = f"the bytes are not those of {cids.text(self._at)}"
            raise ManifestError(message)
        self._at = _next(self._at, block, self._seed, self._depth)
        self._depth += 1


def _next(at: Cid, block: bytes, seed: bytes, depth: int) -> Cid | None:
    """The link that the seed draws; None at a leaf, and at the last block of the longest way."""
    if len(seed) != SEED_BYTES:
        message = f"a seed has {SEED_BYTES} bytes, not {len(seed)}"
        raise ValueError(message)
    if depth == MAX_BLOCKS - 1:
        return None
    found = links(at, block)
    if not found:
        return None
    sizes = [link.size for link in found]
    weights = [1 if size is None else min(max(1, size), _MAX_WEIGHT) for size in sizes]
    if None in sizes:
        weights = [1] * len(found)
    number = hashlib.sha256(_TAG + seed + depth.to_bytes(4, "big") + at).digest()
    left = int.from_bytes(number, "big") % sum(weights)
    for link, weight in zip(found, weights, strict=True):
        if left < weight:
            return link.cid
        left -= weight
    raise AssertionError  # the remainder is below the sum

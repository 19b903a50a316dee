"""A binary Merkle tree over a list of leaves, with proofs that a leaf stands at an index.

    leaf = SHA-256(0x00 || bytes)      node = SHA-256(0x01 || left || right)      no leaves = SHA-256("")

A tree of n leaves has the largest power of two below n on its left. The tags keep a node from passing as a leaf.
Source: RFC 6962, section 2.1.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

HASH_BYTES = 32
MAX_LEAVES = 2**40
"""Proofs are then at most 40 hashes."""


def root(leaves: Sequence[bytes]) -> bytes:
    """The 32 bytes that commit to the leaves and their order."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    return _levels([leaf_hash(leaf) for leaf in leaves])[-1][0]


def prove(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """The hashes beside the way from a leaf to the root, the lowest first.

    Raises:
        IndexError: There is no such leaf.
    """
    if not 0 <= index < len(leaves):
        message = f"there is no leaf {index} among {len(leaves)}"
        raise IndexError(message)
    proof = []
    for level in _levels([leaf_hash(leaf) for leaf in leaves])[:-1]:
        if index ^ 1 < len(level):
            proof.append(level[index ^ 1])
        index >>= 1
    return proof


def verify(root: bytes, leaf: bytes, index: int, count: int, proof: Sequence[bytes]) -> bool:
    """Whether the leaf stands at `index` of the `count` leaves that the root commits to.

    Args:
        root: 32 bytes.
        leaf: The leaf's bytes, not their hash.
        index: From 0.
        count: Of all leaves; the caller must know it from where it knows the root.
        proof: As `prove` gives it; a stranger's.
    """
    if not 0 <= index < count <= MAX_LEAVES or len(proof) > count.bit_length():
        return False
    if any(len(sibling) != HASH_BYTES for sibling in proof):
        return False
    hashed = leaf_hash(leaf)
    last = count - 1
    siblings = iter(proof)
    while last:
        if index ^ 1 <= last:
            sibling = next(siblings, None)
            if sibling is None:
                return False
            hashed = node_hash(sibling, hashed) if index & 1 else node_hash(hashed, sibling)
        index >>= 1
        last >>= 1
    return next(siblings, None) is None and hashed == root


def leaf_hash(leaf: bytes) -> bytes:
    """The hash of a leaf."""
    return hashlib.sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of two subtrees."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def _levels(hashes: list[bytes]) -> list[list[bytes]]:
    """All levels, the leaves first; a last hash without a sibling goes up as it is."""
    levels = [hashes]
    while len(hashes) > 1:
        above = [node_hash(hashes[at], hashes[at + 1]) for at in range(0, len(hashes) - 1, 2)]
        if len(hashes) % 2:
            above.append(hashes[-1])
        hashes = above
        levels.append(hashes)
    return levels

"""The compact sparse Merkle tree of the ledger: one root for a set of keys and values, and proofs.

    path = SHA-256(key), walked from its highest bit: 0 is left
    leaf = SHA-256(0x00 || path || SHA-256(value))
    node = SHA-256(0x01 || left || right); an empty side is 32 zero bytes
    root = the node at the top; 32 zero bytes for no keys

A subtree that holds one leaf *is* that leaf, so the shape and the root depend on the set alone, not on its history.
A node is stored under its place in the tree (`node_key`), so only the latest version is kept, and a version that
is not committed is a mapping of changed nodes over it.

    proof = depth (u16, big endian) || end (1) || other leaf (64, if end is 2) || bitmap || siblings (32 each)

`end` says what the walk met: 0 nothing, 1 the key's own leaf, 2 the leaf of another key (its path and value hash).
The bitmap has a bit a level from the top, highest bit first; a clear bit is an empty sibling.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from typing import TYPE_CHECKING, Final, TypeAlias

from storage.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

EMPTY: Final = bytes(32)
DEPTH: Final = 256
MAX_PROOF_BYTES: Final = 2 + 1 + 64 + DEPTH // 8 + 32 * DEPTH

Read: TypeAlias = "Callable[[bytes], bytes | None]"
"""Node bytes by `node_key`, or None where the tree has nothing."""

_LEAF: Final = 0
_LEAF_BYTES: Final = 65
_ABSENT: Final = 0
_OWN: Final = 1
_OTHER: Final = 2
_sha256 = hashlib.sha256


def path_of(key: bytes) -> bytes:
    """Where a key stands: 32 bytes."""
    return _sha256(key).digest()


def node_key(prefix: int, depth: int) -> bytes:
    """Under what a node is stored: its bits, left-justified in whole bytes, and its depth.

    Children sort beside their parents, so that an update touches few pages of a sorted store.
    """
    length = (depth + 7) // 8
    return (prefix << (8 * length - depth)).to_bytes(length, "big") + bytes((depth & 0xFF,))


def is_leaf(node: bytes) -> bool:
    """Whether a stored node is a leaf: a subtree of one key."""
    return node[0] == _LEAF


def root_of(read: Read) -> bytes:
    """The root of a stored tree."""
    top = read(node_key(0, 0))
    return EMPTY if top is None else _sha256(top).digest()


def update(
    read: Read, changes: Mapping[bytes, bytes | None]
) -> tuple[bytes, dict[bytes, bytes | None]]:
    """Apply changes to a tree without writing them.

    Args:
        read: The tree as it stands.
        changes: New values by key; None removes a key.

    Returns:
        The new root, and the nodes that changed by `node_key`; None is a node that is gone.
    """
    items = sorted(
        (path_of(key), None if value is None else _sha256(value).digest())
        for key, value in changes.items()
    )
    batch = _Batch(read, items)
    top_key = node_key(0, 0)
    old = read(top_key)
    top = batch.apply(0, 0, old, 0, len(items)) if items else old
    if top != old:
        batch.nodes[top_key] = top
    return EMPTY if top is None else _sha256(top).digest(), batch.nodes


def prove(read: Read, key: bytes) -> bytes:
    """What shows that a key has its value, or that it has none; at most `MAX_PROOF_BYTES`."""
    path = path_of(key)
    bits = int.from_bytes(path, "big")
    siblings: list[bytes] = []
    depth = 0
    node = read(node_key(0, 0))
    while node is not None and node[0] != _LEAF:
        right = bits >> (DEPTH - 1 - depth) & 1
        siblings.append(node[1:33] if right else node[33:65])
        depth += 1
        node = read(node_key(bits >> (DEPTH - depth), depth))
    if node is None:
        end = bytes((_ABSENT,))
    elif node[1:33] == path:
        end = bytes((_OWN,))
    else:
        end = bytes((_OTHER,)) + node[1:]
    bitmap = bytearray((depth + 7) // 8)
    for level, sibling in enumerate(siblings):
        if sibling != EMPTY:
            bitmap[level // 8] |= 0x80 >> level % 8
    given = b"".join(sibling for sibling in siblings if sibling != EMPTY)
    return depth.to_bytes(2, "big") + end + bytes(bitmap) + given


def verify_proof(root: bytes, key: bytes, value: bytes | None, proof: bytes) -> bool:
    """Whether a proof shows that a key has a value, or none, under a root.

    Args:
        root: 32 bytes, trusted.
        key: What was asked.
        value: What is claimed; None claims that the key is absent.
        proof: Bytes from anyone; False for malformed ones, never an error.
    """
    if not 3 <= len(proof) <= MAX_PROOF_BYTES:
        return False
    depth, end = int.from_bytes(proof[:2], "big"), proof[2]
    at = 3
    path = path_of(key)
    bits = int.from_bytes(path, "big")
    if depth > DEPTH or (end == _OWN) != (value is not None):
        return False
    if end == _OWN and value is not None:
        current = _sha256(b"\x00" + path + _sha256(value).digest()).digest()
    elif end == _ABSENT:
        current = EMPTY
    elif end == _OTHER:
        leaf = proof[at : at + 64]
        at += 64
        other = int.from_bytes(leaf[:32], "big")
        if len(leaf) != 64 or other == bits or (other ^ bits) >> (DEPTH - depth):
            return False
        current = _sha256(b"\x00" + leaf).digest()
    else:
        return False
    return _climb(current, bits, depth, proof[at:]) == root


def _climb(current: bytes, bits: int, depth: int, tail: bytes) -> bytes | None:
    length = (depth + 7) // 8
    bitmap = int.from_bytes(tail[:length], "big")
    count = bitmap.bit_count()
    spare = 8 * length - depth
    if len(tail) != length + 32 * count or bitmap & ((1 << spare) - 1):
        return None
    at = len(tail)
    for level in range(depth - 1, -1, -1):
        sibling = EMPTY
        if bitmap >> (8 * length - 1 - level) & 1:
            at -= 32
            sibling = tail[at : at + 32]
            if sibling == EMPTY:
                return None
        right = bits >> (DEPTH - 1 - level) & 1
        pair = sibling + current if right else current + sibling
        current = _sha256(b"\x01" + pair).digest()
    return current


def build(
    prefix: int,
    depth: int,
    leaves: list[bytes],
    nodes: dict[bytes, bytes | None] | dict[bytes, bytes],
) -> bytes | None:
    """The subtree at a place from all of its leaf nodes, in order; None for none.

    The caller records the node itself; nodes below it are put into `nodes`.
    """
    if len(leaves) < 2:
        return leaves[0] if leaves else None
    boundary = ((prefix << 1 | 1) << (DEPTH - 1 - depth)).to_bytes(32, "big")
    middle = bisect_left(leaves, b"\x00" + boundary)
    sides = []
    for bit, part in ((0, leaves[:middle]), (1, leaves[middle:])):
        child = build(prefix << 1 | bit, depth + 1, part, nodes)
        if child is not None:
            nodes[node_key(prefix << 1 | bit, depth + 1)] = child
        sides.append(EMPTY if child is None else _sha256(child).digest())
    return b"\x01" + sides[0] + sides[1]


class _Batch:
    """One update: sorted `(path, value hash or None)`, and the nodes that it changes."""

    def __init__(self, read: Read, items: list[tuple[bytes, bytes | None]]) -> None:
        self._read = read
        self._items = items
        self._paths = [path for path, _ in items]
        self.nodes: dict[bytes, bytes | None] = {}

    def apply(
        self, prefix: int, depth: int, node: bytes | None, low: int, high: int
    ) -> bytes | None:
        """The node at a place after the items from `low` to `high`, all of which stand below it.

        The caller records the node itself; nodes below it are recorded here.
        """
        if node is None or node[0] == _LEAF:
            return self._rebuild(prefix, depth, node, low, high)
        shift = DEPTH - 1 - depth
        if high - low == 1:
            middle = low if self._paths[low][depth >> 3] >> (7 - (depth & 7)) & 1 else high
        else:
            boundary = ((prefix << 1 | 1) << shift).to_bytes(32, "big")
            middle = bisect_left(self._paths, boundary, low, high)
        left, right = node[1:33], node[33:65]
        if middle > low:
            left = self._side(prefix << 1, depth + 1, left, low, middle)
        if high > middle:
            right = self._side(prefix << 1 | 1, depth + 1, right, middle, high)
        if left != EMPTY and right != EMPTY:
            return b"\x01" + left + right
        return self._collapse(prefix, depth, left, right)

    def _side(self, prefix: int, depth: int, old: bytes, low: int, high: int) -> bytes:
        key = node_key(prefix, depth)
        node = None
        if old != EMPTY:
            node = self._read(key)
            if node is None:
                message = f"the state tree lacks a node at depth {depth}"
                raise StorageError(message)
        new = self.apply(prefix, depth, node, low, high)
        if new != node:
            self.nodes[key] = new
        return EMPTY if new is None else _sha256(new).digest()

    def _collapse(self, prefix: int, depth: int, left: bytes, right: bytes) -> bytes | None:
        """A node with an empty side: nothing, the single leaf below it, or itself."""
        if left == right:
            return None
        key = node_key(prefix << 1 | (left == EMPTY), depth + 1)
        child = self.nodes[key] if key in self.nodes else self._read(key)
        if child is not None and child[0] == _LEAF:
            self.nodes[key] = None
            return child
        return b"\x01" + left + right

    def _rebuild(
        self, prefix: int, depth: int, leaf: bytes | None, low: int, high: int
    ) -> bytes | None:
        """The subtree where there was nothing or one leaf."""
        leaves = [
            b"\x00" + path + value for path, value in self._items[low:high] if value is not None
        ]
        if leaf is not None:
            at = bisect_left(self._paths, leaf[1:33], low, high)
            if at == high or self._paths[at] != leaf[1:33]:
                leaves.append(leaf)
                leaves.sort()
        return build(prefix, depth, leaves, self.nodes)

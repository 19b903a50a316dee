"""Ranges of the state tree: every record below one place of it, with the proof that they are all.

    range = [depth, first path (32), [[key, value], ...], siblings]

A range is the subtree at a node, or at an empty side of one: all paths that share the first `depth` bits.
Its records stand in the order of their paths. Whoever has the root rebuilds the subtree from them alone and climbs
to the top with the siblings (a bitmap and hashes, as in `state_tree`'s proofs); a record that is left out, added or
changed gives another root. The nodes that this makes, above the range too, are the tree's own, so that the ranges of a
whole state leave a whole tree behind, in whatever order they come.

Whoever gives ranges chooses how deep to cut: `cut` goes down until a subtree's records fit into `CUT_BYTES`.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from storage import canonical, state_tree
from storage.errors import CanonicalError, StorageError
from storage.state_tree import DEPTH, EMPTY, node_key

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CUT_BYTES: Final = 128 * 2**10
"""Keys and values of a range; one record alone may be larger."""
MAX_RANGE_BYTES: Final = 2**20
"""Of an encoded range that is read from anyone."""
MAX_KEY_BYTES: Final = 256
END: Final = 1 << DEPTH
"""One above the last path, as a number."""
SLICE_RECORDS: Final = 2**18
"""About how many records are held in memory while a state is cut."""
_RECORD_BYTES: Final = 8
_RANGE_OVERHEAD: Final = 2 + 35 + 9 + 3 + DEPTH // 8 + 32 * DEPTH
_sha256 = hashlib.sha256

Record: TypeAlias = tuple[bytes, bytes, bytes]
"""Path, key, value."""


class RangeError(StorageError):
    """A range of the state is malformed, or is not what its root commits to."""


class Readable(Protocol):
    """A committed state; `storage.state_store.View` is one."""

    @property
    def root(self) -> bytes:
        """Of its tree."""

    def node(self, key: bytes) -> bytes | None:
        """A tree node."""

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values."""

    def count(self) -> int:
        """About how many records there are."""


@dataclass(frozen=True, slots=True)
class Range:
    """All records below one place of a tree.

    Attributes:
        depth: How many bits their paths share.
        first: The lowest path of the range, 32 bytes.
        records: Key and value, in the order of their paths.
        siblings: What stands beside the way to the top: a bitmap and hashes.
    """

    depth: int
    first: bytes
    records: tuple[tuple[bytes, bytes], ...]
    siblings: bytes

    @property
    def low(self) -> int:
        """The first path, as a number."""
        return int.from_bytes(self.first, "big")

    @property
    def high(self) -> int:
        """One above the last path, as a number."""
        return self.low + (1 << DEPTH - self.depth)

    def encode(self) -> bytes:
        """The canonical bytes."""
        records = [[key, value] for key, value in self.records]
        return canonical.encode([self.depth, self.first, records, self.siblings])

    @classmethod
    def decode(cls, data: bytes) -> Range:
        """Read a range; nothing of it is proven yet.

        Raises:
            RangeError: Malformed, or over `MAX_RANGE_BYTES`.
        """
        try:
            value = canonical.decode(data, max_bytes=MAX_RANGE_BYTES)
        except CanonicalError as error:
            raise RangeError(str(error)) from error
        match value:
            case [int(depth), bytes(first), list(records), bytes(siblings)] if (
                type(depth) is int and 0 <= depth <= DEPTH and len(first) == 32
            ):
                if int.from_bytes(first, "big") & ((1 << DEPTH - depth) - 1):
                    message = "a range begins where no subtree of its depth does"
                    raise RangeError(message)
                return cls(depth, first, tuple(_record(one) for one in records), siblings)
        message = "a range is a depth, a path, records and siblings"
        raise RangeError(message)

    def nodes(self, root: bytes) -> dict[bytes, bytes]:
        """Check the range against a root.

        Args:
            root: 32 bytes, trusted.

        Returns:
            The tree's nodes from the top through the whole range, by `node_key`.

        Raises:
            RangeError: These are not the records that stand there under the root.
        """
        prefix = self.low >> DEPTH - self.depth
        leaves: list[bytes] = []
        for key, value in self.records:
            leaves.append(b"\x00" + _sha256(key).digest() + _sha256(value).digest())
        if leaves:
            first, last = leaves[0][1:33], leaves[-1][1:33]
            inside = first >= self.first and int.from_bytes(last, "big") < self.high
            if not inside or any(a[1:33] >= b[1:33] for a, b in pairwise(leaves)):
                message = "a range's records are out of order or out of the range"
                raise RangeError(message)
        nodes: dict[bytes, bytes] = {}
        node = state_tree.build(prefix, self.depth, leaves, nodes)
        if node is not None:
            nodes[node_key(prefix, self.depth)] = node
        current = EMPTY if node is None else _sha256(node).digest()
        for level, sibling in enumerate(reversed(_siblings(self.siblings, self.depth)), 1):
            right = prefix >> level - 1 & 1
            node = b"\x01" + (sibling + current if right else current + sibling)
            nodes[node_key(prefix >> level, self.depth - level)] = node
            current = _sha256(node).digest()
        if current != root:
            message = f"the records from {self.first[:4].hex()} on are not those of the state root"
            raise RangeError(message)
        return nodes


def cut(
    view: Readable, *, cut_bytes: int = CUT_BYTES, slice_records: int = SLICE_RECORDS
) -> Iterator[Range]:
    """Cut a whole state into ranges, in order.

    The state is read once for every `slice_records` of it, so that no more than about so many are held at a time.

    Raises:
        StorageError: A record that is too large for any range, or a damaged tree.
    """
    bits = max(0, (view.count() - 1) // slice_records).bit_length()
    yield from _Cutter(view, bits, cut_bytes).whole(0, 0, view.node(node_key(0, 0)), ())


class _Cutter:
    """One walk from the top; `siblings` are those on the way to the place."""

    def __init__(self, view: Readable, bits: int, cut_bytes: int) -> None:
        self._view = view
        self._bits = bits
        self._cut_bytes = cut_bytes

    def whole(
        self, prefix: int, depth: int, node: bytes | None, siblings: tuple[bytes, ...]
    ) -> Iterator[Range]:
        """The ranges of a subtree whose records are not read yet."""
        if depth == self._bits or node is None or node[0] == 0:
            records = sorted(self._below(prefix, depth))
            sizes = [0]
            for _, key, value in records:
                sizes.append(sizes[-1] + len(key) + len(value) + _RECORD_BYTES)
            yield from self._part(prefix, depth, records, sizes, 0, len(records), siblings)
            return
        for bit in (0, 1):
            child = self._child(prefix, depth, node, bit)
            beside = node[33:65] if bit == 0 else node[1:33]
            yield from self.whole(prefix << 1 | bit, depth + 1, child, (*siblings, beside))

    def _part(
        self,
        prefix: int,
        depth: int,
        records: Sequence[Record],
        sizes: Sequence[int],
        low: int,
        high: int,
        siblings: tuple[bytes, ...],
    ) -> Iterator[Range]:
        """The ranges of a subtree whose records are those from `low` to `high`."""
        size = sizes[high] - sizes[low]
        if high - low < 2 or size <= self._cut_bytes:
            if size > MAX_RANGE_BYTES - _RANGE_OVERHEAD:
                message = f"a record of {size:,} bytes fits into no range"
                raise StorageError(message)
            first = (prefix << DEPTH - depth).to_bytes(32, "big")
            pairs = tuple((key, value) for _, key, value in records[low:high])
            yield Range(depth, first, pairs, _pack(siblings))
            return
        node = self._view.node(node_key(prefix, depth))
        if node is None or node[0] != 1:
            message = f"the state tree lacks a node at depth {depth}"
            raise StorageError(message)
        boundary = ((prefix << 1 | 1) << DEPTH - 1 - depth).to_bytes(32, "big")
        middle = bisect_left(records, (boundary,), low, high)
        left, right = node[1:33], node[33:65]
        yield from self._part(
            prefix << 1, depth + 1, records, sizes, low, middle, (*siblings, right)
        )
        yield from self._part(
            prefix << 1 | 1, depth + 1, records, sizes, middle, high, (*siblings, left)
        )

    def _child(self, prefix: int, depth: int, node: bytes, bit: int) -> bytes | None:
        if node[1 + 32 * bit : 33 + 32 * bit] == EMPTY:
            return None
        return self._view.node(node_key(prefix << 1 | bit, depth + 1))

    def _below(self, prefix: int, depth: int) -> Iterator[Record]:
        for key, value in self._view.scan(b""):
            path = _sha256(key).digest()
            if not depth or int.from_bytes(path[:8], "big") >> 64 - depth == prefix:
                yield path, key, value


def gaps(covered: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """What of the whole is not covered.

    Args:
        covered: From and to (not with it), sorted; they may overlap.
    """
    found: list[tuple[int, int]] = []
    at = 0
    for low, high in covered:
        if low > at:
            found.append((at, low))
        at = max(at, high)
    if at < END:
        found.append((at, END))
    return found


def _record(value: object) -> tuple[bytes, bytes]:
    match value:
        case [bytes(key), bytes(held)] if 0 < len(key) <= MAX_KEY_BYTES:
            return key, held
    message = "a record is a key and a value"
    raise RangeError(message)


def _pack(siblings: tuple[bytes, ...]) -> bytes:
    bitmap = bytearray((len(siblings) + 7) // 8)
    for level, sibling in enumerate(siblings):
        if sibling != EMPTY:
            bitmap[level // 8] |= 0x80 >> level % 8
    return bytes(bitmap) + b"".join(one for one in siblings if one != EMPTY)


def _siblings(data: bytes, depth: int) -> list[bytes]:
    """From the top down.

    Raises:
        RangeError: Malformed.
    """
    length = (depth + 7) // 8
    bitmap = int.from_bytes(data[:length], "big")
    spare = 8 * length - depth
    if len(data) != length + 32 * bitmap.bit_count() or bitmap & ((1 << spare) - 1):
        message = "the siblings of a range are malformed"
        raise RangeError(message)
    found: list[bytes] = []
    at = length
    for level in range(depth):
        if bitmap >> 8 * length - 1 - level & 1:
            found.append(data[at : at + 32])
            at += 32
        else:
            found.append(EMPTY)
    return found

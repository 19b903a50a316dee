"""A root as m pieces, any k of which give it back: for content that is seldom read.

    content  the root's CAR (`storage.car`): every chunk at and below it, depth first, each once
    stripe   k blocks of 1 MiB of it; the last stripe's blocks are as short as its bytes allow, filled up with zeros
    coded    m blocks for each stripe: the k as they are, and m - k made by zfec (Reed-Solomon over GF(256))
    piece i  block i of each stripe in a row, as a UnixFS file with a leaf a block: an ordinary root
    recipe   canonical ["swarm/recipe/1", k, m, size of the CAR, root, [root of each piece]], kept as a chunk

A recipe is a leaf and names no links, so that to keep it is not to keep everything it tells of.
The leaves of a stripe stand at the same place in all pieces: what is lost is made again a stripe at a time, from any k
leaves of it that are left, whichever pieces they are of, with `m` MiB in memory.
10 of 14 takes 1.4 times the space and survives the loss of any 4; four whole copies survive 3 and take 4 times.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from storage import canonical, car, dag
from storage import cid as cids
from storage.errors import (
    CanonicalError,
    ChunkNotFoundError,
    CidError,
    CorruptChunkError,
    ManifestError,
    StorageError,
)
from storage.unixfs_nodes import FILE_LINKS, Built, file_node

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from storage.blockstore import Blockstore, Progress
    from storage.cid import Cid

BLOCK_BYTES: Final = 2**20
MAX_PIECES: Final = 32
MAX_SIZE: Final = 2**50
MAX_RECIPE_BYTES: Final = 4_096
MAX_TOP_NODES: Final = 64
"""Of a piece, beside as many as it has leaves."""
_TAG: Final = "swarm/recipe/1"


class ErasureMissingError(StorageError):
    """zfec, which is an extra of the installation, is not there."""

    def __init__(self) -> None:
        super().__init__("erasure coding needs zfec: pip install 'swarm-node[erasure]'")


class TooFewPiecesError(StorageError):
    """Less is left of the pieces than it takes to make the content again.

    Attributes:
        needed: Blocks of each stripe.
        held: Blocks of this stripe that are here.
        stripe: Its number.
    """

    def __init__(self, needed: int, held: int, stripe: int) -> None:
        super().__init__(f"stripe {stripe} has {held} of the {needed} blocks that it takes")
        self.needed = needed
        self.held = held
        self.stripe = stripe


@dataclass(frozen=True, slots=True)
class Recipe:
    """How pieces make a root.

    Attributes:
        k: Pieces that it takes.
        m: Pieces that there are.
        size: Bytes of the root's CAR.
        root: What they make.
        pieces: The root of each.
    """

    k: int
    m: int
    size: int
    root: Cid
    pieces: tuple[Cid, ...]

    def encode(self) -> bytes:
        """Its canonical bytes, a chunk of their own."""
        return canonical.encode(
            [_TAG, self.k, self.m, self.size, bytes(self.root), [bytes(one) for one in self.pieces]]
        )

    @property
    def cid(self) -> Cid:
        """The name of its chunk."""
        return cids.of_raw(self.encode())

    @property
    def stripes(self) -> int:
        """How many there are; each piece has as many leaves."""
        return -(-self.size // (self.k * BLOCK_BYTES))

    @classmethod
    def decode(cls, data: bytes) -> Recipe:
        """Read a recipe, a stranger's.

        Raises:
            ManifestError: Malformed.
        """
        try:
            value = canonical.decode(data, max_bytes=MAX_RECIPE_BYTES)
            match value:
                case [str(tag), int(k), int(m), int(size), bytes(root), list(pieces)] if (
                    tag == _TAG
                    and 1 <= k < m <= MAX_PIECES
                    and 0 < size <= MAX_SIZE
                    and len(pieces) == m
                    and all(type(one) is bytes for one in pieces)
                    and type(k) is type(m) is type(size) is int
                ):
                    return cls(
                        k, m, size, cids.from_bytes(root), tuple(map(cids.from_bytes, pieces))
                    )
        except (CanonicalError, CidError) as error:
            raise ManifestError(str(error)) from error
        message = "not a recipe"
        raise ManifestError(message)

    def block_bytes(self, stripe: int) -> int:
        """The length of each block of a stripe."""
        left = self.size - stripe * self.k * BLOCK_BYTES
        return min(BLOCK_BYTES, -(-left // self.k))


def encode_root(
    root: Cid, store: Blockstore, k: int = 10, m: int = 14, progress: Progress | None = None
) -> Recipe:
    """Cut everything below a root into pieces, and put them and their recipe into the store.

    Args:
        root: What is to be kept; all its chunks are held.
        store: Where they are, and where the pieces go; durable when this returns, and pinned by nobody.
        k: Pieces that it will take.
        m: Pieces that there will be.
        progress: Told of each chunk of the root.

    Raises:
        ChunkNotFoundError: A chunk of the root is not held.
        QuotaError: The pieces do not fit.
    """
    if not 1 <= k < m <= MAX_PIECES:
        message = f"{k} of {m} pieces cannot be made: at most {MAX_PIECES}, and more than it takes"
        raise ValueError(message)
    files = [_PieceFile() for _ in range(m)]
    encoder = _zfec().Encoder(k, m)
    size = 0

    def blocks() -> Iterator[tuple[Cid, bytes]]:
        nonlocal size
        for stripe in _cut(car.export([root], store, progress), k * BLOCK_BYTES):
            size += len(stripe)
            for file, block in zip(files, encoder.encode(_shares(stripe, k)), strict=True):
                yield from file.add(bytes(block))
        for file in files:
            yield from file.finish()

    store.put_many(blocks())
    recipe = Recipe(k, m, size, root, tuple(file.root for file in files))
    store.put_many([(recipe.cid, recipe.encode())])
    return recipe


def restore(recipe: Recipe, store: Blockstore, progress: Progress | None = None) -> Cid:
    """Make the root again from what is held of its pieces; every chunk is hashed before it is kept.

    Args:
        recipe: Which pieces.
        store: Where they are, and where the chunks go; durable when this returns, and pinned by nobody.
        progress: Told of each chunk of the root.

    Returns:
        The root, of which everything is held now.

    Raises:
        TooFewPiecesError: Too little is held.
        ManifestError, CorruptChunkError: The pieces are not of one root, whatever their recipe says.
    """
    leaves = [_leaves(piece, store, recipe.stripes) for piece in recipe.pieces]

    def content() -> Iterator[bytes]:
        left = recipe.size
        for stripe in range(recipe.stripes):
            for share in _stripe(recipe, stripe, leaves, store):
                yield share[:left]
                left -= min(left, len(share))

    found = car.load(_Source(content()), store, progress, recipe.size)
    missing = car.first_missing(recipe.root, store)
    if found.roots != (recipe.root,) or missing is not None:
        message = f"the pieces do not make {cids.text(recipe.root)}"
        raise ManifestError(message)
    return recipe.root


def rebuild_piece(recipe: Recipe, index: int, store: Blockstore) -> Cid:
    """Make one piece again from what is held of the others.

    Args:
        recipe: Which pieces.
        index: Of the piece that is to be made.
        store: Where the others are, and where it goes; durable when this returns, and pinned by nobody.

    Returns:
        Its root, as the recipe names it.

    Raises:
        TooFewPiecesError: Too little is held.
        ManifestError: The others do not make it: the recipe is wrong.
    """
    leaves = [_leaves(piece, store, recipe.stripes) for piece in recipe.pieces]
    encoder = _zfec().Encoder(recipe.k, recipe.m)
    file = _PieceFile()

    def blocks() -> Iterator[tuple[Cid, bytes]]:
        for stripe in range(recipe.stripes):
            shares = _stripe(recipe, stripe, leaves, store)
            yield from file.add(bytes(encoder.encode(tuple(shares), (index,))[0]))
        yield from file.finish()

    store.put_many(blocks())
    if file.root != recipe.pieces[index]:
        message = f"the other pieces do not make piece {index} of {cids.text(recipe.root)}"
        raise ManifestError(message)
    return file.root


def _stripe(
    recipe: Recipe, stripe: int, leaves: Sequence[Sequence[Cid]], store: Blockstore
) -> list[bytes]:
    """The k blocks of a stripe as they were before coding, from any k that are held."""
    numbers: list[int] = []
    blocks: list[bytes] = []
    for number, piece in enumerate(leaves):
        if len(blocks) == recipe.k:
            break
        if stripe >= len(piece):
            continue
        try:
            block = store.get(piece[stripe])
        except (ChunkNotFoundError, CorruptChunkError):
            continue
        if len(block) != recipe.block_bytes(stripe):
            message = f"piece {number} of {cids.text(recipe.root)} is not cut as its recipe says"
            raise ManifestError(message)
        numbers.append(number)
        blocks.append(block)
    if len(blocks) < recipe.k:
        raise TooFewPiecesError(recipe.k, len(blocks), stripe)
    if numbers == list(range(recipe.k)):
        return blocks
    decoded = _zfec().Decoder(recipe.k, recipe.m).decode(tuple(blocks), tuple(numbers))
    return [bytes(block) for block in decoded]


def _leaves(piece: Cid, store: Blockstore, stripes: int) -> list[Cid]:
    """The leaves of a piece in order; none where one of its nodes is not held.

    A piece is a file as we cut it, with fewer nodes than leaves but for its top: a stranger's few nodes could name each
    other without end.
    """
    found: list[Cid] = []
    stack = [piece]
    left = 2 * stripes + MAX_TOP_NODES
    try:
        while stack and left:
            left -= 1
            at = stack.pop()
            if cids.codec(at) == cids.RAW:
                found.append(at)
            else:
                stack += [link.cid for link in reversed(dag.links(at, store.get(at)))]
            if len(found) > stripes or len(stack) > stripes + FILE_LINKS:
                break
    except (ChunkNotFoundError, CorruptChunkError):
        return []
    if stack or len(found) != stripes:
        message = f"piece {cids.text(piece)} has not the {stripes:,} leaves that its recipe says"
        raise ManifestError(message)
    return found


class _PieceFile:
    """One piece as it grows; each call gives the chunks that are complete."""

    def __init__(self) -> None:
        self._levels: list[list[Built]] = [[]]

    @property
    def root(self) -> Cid:
        """Its root, once it is finished."""
        return self._levels[-1][0].cid

    def add(self, leaf: bytes) -> Iterator[tuple[Cid, bytes]]:
        cid = cids.of_raw(leaf)
        yield cid, leaf
        yield from self._push(0, Built(cid, len(leaf), len(leaf)))

    def finish(self) -> Iterator[tuple[Cid, bytes]]:
        level = 0
        while level + 1 < len(self._levels) or len(self._levels[level]) > 1:
            yield from self._close(level)
            level += 1

    def _push(self, level: int, node: Built) -> Iterator[tuple[Cid, bytes]]:
        """Append to a level; a full one becomes a node above when the next comes, as `storage.importer` has it."""
        if len(self._levels) == level:
            self._levels.append([])
        if len(self._levels[level]) == FILE_LINKS:
            yield from self._close(level)
        self._levels[level].append(node)

    def _close(self, level: int) -> Iterator[tuple[Cid, bytes]]:
        built, block = file_node(self._levels[level])
        self._levels[level] = []
        yield built.cid, block
        yield from self._push(level + 1, built)


class _Source:
    """Parts of bytes as a file to read from."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        self._parts = parts
        self._part = memoryview(b"")

    def read(self, size: int, /) -> bytes:
        while not self._part:
            part = next(self._parts, None)
            if part is None:
                return b""
            self._part = memoryview(part)
        taken, self._part = self._part[:size], self._part[size:]
        return bytes(taken)


def _cut(parts: Iterator[bytes], size: int) -> Iterator[bytes]:
    """The same bytes in equal parts; the last may be shorter."""
    held = bytearray()
    for part in parts:
        held += part
        while len(held) >= size:
            yield bytes(held[:size])
            del held[:size]
    if held:
        yield bytes(held)


def _shares(stripe: bytes, k: int) -> tuple[bytes, ...]:
    """A stripe as k blocks of one length, filled up with zeros."""
    length = -(-len(stripe) // k)
    filled = stripe.ljust(length * k, b"\0")
    return tuple(filled[at : at + length] for at in range(0, length * k, length))


def _zfec() -> Any:  # noqa: ANN401 - it has no stubs
    """The module, on first use; nothing else needs it.

    Raises:
        ErasureMissingError: It is not installed.
    """
    try:
        return importlib.import_module("zfec")
    except ImportError as error:
        raise ErasureMissingError from error

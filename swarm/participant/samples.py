"""The part of a dataset that a worker needs: the chunks that hold its samples, where that is much less than the whole.

Over bytes, sample `i` is the bytes from `i * context` on of all files joined in order of their paths, and one more than
`context` of them. So the folder's manifests and the draw of the round say which bytes are read, and only the chunks
around these are fetched. They are written to files of full length with holes in between, one for each file of the
dataset and in the same order: what reads samples from them does not know the difference.

Sizes of files of one chunk that is not here are as the dataset's author claims; a claim that a fetched chunk gives the
lie ends the work with an error, and one about a chunk that nobody reads moves no byte but this author's own.
"""

from __future__ import annotations

import os
import shutil
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

import trio

from storage.unixfs_nodes import LEAF_BYTES
from swarm.errors import SwarmError
from swarm.training.spec import BYTES, parse_spec
from swarm.training.text import CARD, EXTRACTORS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from storage.cid import Cid
    from swarm.ranges import Ranges, Reading
    from swarm.shelf import Lease

MIN_BYTES = 64 * 2**20
"""A smaller dataset is fetched whole: more nodes that have it serve it."""
WORTH = 2
"""The whole has to be so many times what the samples' chunks have."""
MAX_FILES = 100_000
"""A dataset of more files is fetched whole."""
MAX_SAMPLES = 2**20
"""A round of more samples is given the whole."""
READERS = 8
"""Ranges that are fetched at once."""


@dataclass(frozen=True, slots=True)
class Source:
    """One file of a dataset."""

    cid: Cid
    size: int


@dataclass(frozen=True, slots=True)
class Range:
    """Bytes of one file, by its place in the order of files."""

    file: int
    start: int
    end: int


def needed(sizes: Sequence[int], ids: Iterable[int], context: int) -> list[Range]:
    """The bytes that hold samples, in order and without overlap.

    Args:
        sizes: Of the files, in order.
        ids: The samples.
        context: Tokens that a model reads.
    """
    ends = list(accumulate(sizes))
    found: list[Range] = []
    for start, end in _joined(sorted({at * context for at in ids}), context + 1):
        at = bisect_right(ends, start)
        while start < end:
            before = ends[at] - sizes[at]
            stop = min(end, ends[at])
            if start < stop:
                found.append(Range(at, start - before, stop - before))
            start, at = stop, at + 1
    return found


def _joined(starts: list[int], length: int) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for start in starts:
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], start + length)
        else:
            joined.append((start, start + length))
    return joined


def chunk_bytes(sizes: Sequence[int], ranges: Iterable[Range]) -> int:
    """About how many bytes the chunks around ranges have."""
    chunks = {
        (one.file, at)
        for one in ranges
        for at in range(one.start // LEAF_BYTES, (one.end - 1) // LEAF_BYTES + 1)
    }
    return sum(min(LEAF_BYTES, sizes[file] - at * LEAF_BYTES) for file, at in chunks)


class Samples:
    """Gives the worker what it needs of a dataset.

    Args:
        ranges: Reads parts of content; None: every dataset is taken whole.
    """

    def __init__(self, ranges: Ranges | None) -> None:
        self._ranges = ranges

    async def take(
        self,
        root: Cid,
        spec: bytes,
        draw: Callable[[int], list[int]],
        lease: Lease,
        folder: Path,
    ) -> Path:
        """A folder that reads as the dataset wherever a drawn sample lies.

        Args:
            root: The dataset.
            spec: The task.
            draw: Gives the samples of so many.
            lease: Takes the whole where that is better, or is here already.
            folder: What is written; what was there goes.

        Raises:
            SwarmError: The dataset is not as it says.
            ExchangeError: A chunk cannot be fetched.
        """
        part = None
        if self._ranges is not None and not lease.has(root):
            part = await self._part(self._ranges.of(root), root, spec, draw)
        if part is None:
            return await lease.take(root)
        reading, sources, wanted = part
        await trio.to_thread.run_sync(_make, folder, [one.size for one in sources])
        await _fill_all(reading, sources, wanted, folder)
        return folder

    async def _part(
        self, reading: Reading, root: Cid, spec: bytes, draw: Callable[[int], list[int]]
    ) -> tuple[Reading, list[Source], list[Range]] | None:
        """What to fetch; None where the whole is better."""
        task = parse_spec(spec)
        if task.kind != "lm" or task.data.tokenizer != BYTES:
            return None
        if task.train.steps * task.train.batch > MAX_SAMPLES:
            return None
        sources = await _sources(reading, root)
        total = 0 if sources is None else sum(one.size for one in sources)
        if sources is None or total < MIN_BYTES:
            return None
        context = task.lm.context
        ids = await trio.to_thread.run_sync(draw, (total - 1) // context)
        sizes = [one.size for one in sources]
        wanted = needed(sizes, ids, context)
        is_worth_it = chunk_bytes(sizes, wanted) * WORTH <= total
        return (reading, sources, wanted) if is_worth_it else None


async def _sources(reading: Reading, root: Cid) -> list[Source] | None:
    """The files of a dataset in order of their paths, as `training.data` takes them; None where parts are no use."""
    top = await reading.look(root)
    if top.kind != "folder":
        return [Source(root, top.size)] if top.kind == "file" else None
    found: dict[bytes, Source] = {}
    folders = [("", root)]
    while folders:
        prefix, cid = folders.pop()
        for entry in await reading.listing(cid):
            path = f"{prefix}{entry.name}"
            if entry.name.startswith("."):
                continue
            if entry.kind == "folder":
                folders.append((f"{path}/", entry.cid))
            elif entry.kind == "file" and entry.name != CARD:
                if entry.name.lower().endswith(tuple(EXTRACTORS)):
                    return None
                found[path.encode(errors="surrogateescape")] = Source(entry.cid, entry.size)
            if len(found) + len(folders) > MAX_FILES:
                return None
    return [found[path] for path in sorted(found)]


def _make(folder: Path, sizes: Sequence[int]) -> None:
    """Files of those sizes, all holes; their names are in their order."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for at, size in enumerate(sizes):
        with _place(folder, at).open("wb") as file:
            file.truncate(size)


def _place(folder: Path, at: int) -> Path:
    return folder / f"{at:08d}"


async def _fill_all(
    reading: Reading, sources: Sequence[Source], wanted: Sequence[Range], folder: Path
) -> None:
    """Fetch ranges, some at once; the first fault ends it, and comes out as it is and not in a group."""
    left = iter(wanted)
    faults: list[Exception] = []
    async with trio.open_nursery() as nursery:

        async def fill() -> None:
            try:
                for one in left:
                    await _fill(reading, sources[one.file], one, _place(folder, one.file))
            except Exception as fault:  # noqa: BLE001 - raised below
                faults.append(fault)
                nursery.cancel_scope.cancel()

        for _ in range(READERS):
            nursery.start_soon(fill)
    if faults:
        raise faults[0]


async def _fill(reading: Reading, source: Source, one: Range, place: Path) -> None:
    if (await reading.look(source.cid)).size != source.size:
        message = "a file of the dataset has another size than its folder claims"
        raise SwarmError(message)
    at = one.start
    async for piece in reading.read(source.cid, one.start, one.end - one.start):
        await trio.to_thread.run_sync(_write, place, at, piece)
        at += len(piece)
    if at != one.end:
        message = f"a file of the dataset ends at {at:,} where {one.end:,} bytes are due"
        raise SwarmError(message)


def _write(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        os.pwrite(file.fileno(), data, at)

"""The part of a dataset that a worker needs: the chunks that hold its samples, where that is much less than the whole.

Over bytes, sample `i` is the bytes from `i * context` on of all files joined in order of their paths, and one more than
`context` of them. So the folder's manifests and the draw of the round say which bytes are read, and only the chunks
around these are fetched. They are written to files of full length with holes in between, one for each file of the
dataset and in the same order: what reads samples from them does not know the difference.

A classifier's arrays have items of one length, and its pictures a file each (`training.layout`): the same is done for
them, with the files' own names, since labels stand in these; a picture of no drawn sample is an empty file.
Tables, archives, tokenized text and the images of a gan, which looks at all of them, are taken whole.

Sizes of files of one chunk that is not here are as the dataset's author claims; a claim that a fetched chunk gives the
lie ends the work with an error, and one about a chunk that nobody reads moves no byte but this author's own.
"""

from __future__ import annotations

import os
import shutil
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import trio

from storage.unixfs_nodes import LEAF_BYTES
from swarm.errors import SwarmError
from swarm.training import layout
from swarm.training.images import PICTURES
from swarm.training.labelled import PARTIAL
from swarm.training.spec import BYTES, parse_spec
from swarm.training.text import CARD, EXTRACTORS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from storage.cid import Cid
    from swarm.ranges import Ranges, Reading
    from swarm.shelf import Lease
    from swarm.training.sizes import ClassifierModel

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
    path: str = ""  # below the dataset's folder


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
        task = parse_spec(spec)
        places = _places(folder, sources, named=task.kind == "classifier")
        await trio.to_thread.run_sync(_make, folder, sources, wanted, places)
        await _fill_all(reading, sources, wanted, places)
        return folder

    async def _part(
        self, reading: Reading, root: Cid, spec: bytes, draw: Callable[[int], list[int]]
    ) -> tuple[Reading, list[Source], list[Range]] | None:
        """What to fetch; None where the whole is better."""
        task = parse_spec(spec)
        is_bytes = task.kind == "lm" and task.data.tokenizer == BYTES
        if not is_bytes and task.kind != "classifier":
            return None
        if task.train.steps * task.train.batch > MAX_SAMPLES:
            return None
        sources = await _sources(reading, root)
        total = 0 if sources is None else sum(one.size for one in sources)
        if sources is None or total < MIN_BYTES:
            return None
        sizes = [one.size for one in sources]
        if is_bytes:
            context = task.lm.context
            ids = await trio.to_thread.run_sync(draw, (total - 1) // context)
            wanted: list[Range] | None = needed(sizes, ids, context)
        else:
            wanted = await _labelled(reading, sources, task.classifier, draw)
        if wanted is None:
            return None
        is_worth_it = chunk_bytes(sizes, wanted) * WORTH <= total
        return (reading, sources, wanted) if is_worth_it else None


async def _sources(reading: Reading, root: Cid) -> list[Source] | None:
    """The files of a dataset in order of their paths, as `training.data` takes them; None where parts are no use."""
    top = await reading.look(root)
    if top.kind != "folder":
        return [Source(root, top.size, "0")] if top.kind == "file" else None
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
                key = path.encode(errors="surrogateescape")
                found[key] = Source(entry.cid, entry.size, path)
            if len(found) + len(folders) > MAX_FILES:
                return None
    return [found[path] for path in sorted(found)]


async def _labelled(
    reading: Reading,
    sources: Sequence[Source],
    model: ClassifierModel,
    draw: Callable[[int], list[int]],
) -> list[Range] | None:
    """The bytes of a labelled dataset that hold drawn samples, and its labels; None where it has no layout."""
    paths = [PurePosixPath(one.path) for one in sources]
    places = layout.arrays(paths, rows=bool(model.features))
    if places is None:
        return None
    heads: dict[int, bytes] = {}
    for at in places:
        parts = [part async for part in reading.read(sources[at].cid, 0, layout.HEAD_BYTES)]
        heads[at] = b"".join(parts)
    sizes = [one.size for one in sources]
    found = layout.stretches(paths, sizes, heads)
    if not found:
        return None
    total = sum(one.count for one in found)
    ids = await trio.to_thread.run_sync(draw, total)
    wanted = [Range(at, 0, sizes[at]) for at in layout.whole(paths) if sizes[at]]
    wanted += [Range(at, 0, min(layout.HEAD_BYTES, sizes[at])) for at in places]
    return wanted + [Range(*one) for one in layout.needed(found, ids)]


def _places(folder: Path, sources: Sequence[Source], *, named: bool) -> list[Path]:
    """Where each file is written; by number where names say nothing, so that a million fit into one folder."""
    if named:
        return [folder / one.path for one in sources]
    return [folder / f"{at:08d}" for at in range(len(sources))]


def _make(
    folder: Path, sources: Sequence[Source], wanted: Sequence[Range], places: Sequence[Path]
) -> None:
    """Files of full length, all holes; a picture of which nothing is wanted is empty."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / PARTIAL).touch()
    some = {one.file for one in wanted}
    for at, (source, place) in enumerate(zip(sources, places, strict=True)):
        place.parent.mkdir(parents=True, exist_ok=True)
        is_empty = at not in some and place.name.lower().endswith(PICTURES)
        with place.open("wb") as file:
            file.truncate(0 if is_empty else source.size)


async def _fill_all(
    reading: Reading, sources: Sequence[Source], wanted: Sequence[Range], places: Sequence[Path]
) -> None:
    """Fetch ranges, some at once; the first fault ends it, and comes out as it is and not in a group."""
    left = iter(wanted)
    faults: list[Exception] = []
    async with trio.open_nursery() as nursery:

        async def fill() -> None:
            try:
                for one in left:
                    await _fill(reading, sources[one.file], one, places[one.file])
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

"""The part of a dataset that a worker needs: the chunks that hold its samples, where that is much less than the whole.

`training.layout` says which bytes of which files hold a sample, from the folder's manifests, the beginnings of arrays
and the footers of tables, and only the chunks around the drawn ones are fetched. They are written to files of full
length with holes in between, one for each file of the dataset and in the same order: what reads samples from them does
not know the difference. Text is numbered files, so that a million fit into one folder; a classifier's files have their
own names, since labels stand in these, and a picture of no drawn sample is an empty file.

Archives, what is gzipped, tokenized text, and tables whose footers do not say enough are taken whole; so are the images
of a gan, of which every peer looks at more than it has drawn.

Sizes of files of one chunk that is not here are as the dataset's author claims, and counts of a table as its footer
does; a claim that fetched bytes give the lie ends the work with an error, and one about a chunk that nobody reads moves
no byte but this author's own.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, TypeVar

import trio

from storage.unixfs_nodes import LEAF_BYTES
from swarm.errors import SwarmError
from swarm.training import footers, layout
from swarm.training.errors import DataError
from swarm.training.images import PICTURES
from swarm.training.layout import Range
from swarm.training.rowgroups import PARTIAL
from swarm.training.spec import BYTES, parse_spec
from swarm.training.text import CARD, EXTRACTORS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence
    from pathlib import Path

    from storage.cid import Cid
    from storage.unixfs import Entry
    from swarm.ranges import Ranges, Reading
    from swarm.shelf import Lease
    from swarm.training.footers import Group
    from swarm.training.layout import Layout
    from swarm.training.spec import TaskSpec

_T = TypeVar("_T")

MIN_BYTES = 64 * 2**20
"""A smaller dataset is fetched whole: more nodes that have it serve it."""
WORTH = 2
"""The whole has to be so many times what the samples' chunks have."""
MAX_FILES = 100_000
"""A dataset of more files and folders is fetched whole: a few manifests can name one folder without end."""
MAX_PATHS = 2**25
"""And one of longer paths, in characters of all."""
MAX_SAMPLES = 2**20
"""A round of more samples is given the whole."""
MAX_TABLES = 4_096
"""A dataset of more Parquet files is fetched whole."""
MAX_GROUPS = 2**16
"""And one of more row groups."""
MAX_FOOTERS_BYTES = 2**25
"""And one of longer footers in all."""
READERS = 8
"""Ranges that are fetched at once."""


@dataclass(frozen=True, slots=True)
class Source:
    """One file of a dataset."""

    cid: Cid
    size: int
    path: str = ""  # below the dataset's folder


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
        dataset = folder / "data"
        places = _places(dataset, sources, named=task.kind == "classifier")
        await trio.to_thread.run_sync(_make, folder, sources, wanted, places)
        await _fill_all(reading, sources, wanted, places)
        return dataset

    async def _part(
        self, reading: Reading, root: Cid, spec: bytes, draw: Callable[[int], list[int]]
    ) -> tuple[Reading, list[Source], list[Range]] | None:
        """What to fetch; None where the whole is better."""
        task = parse_spec(spec)
        is_text = task.kind == "lm" and task.data.tokenizer == BYTES
        if not is_text and task.kind != "classifier":
            return None
        if task.train.steps * task.train.batch > MAX_SAMPLES:
            return None
        sources = await _sources(reading, root)
        sizes = [one.size for one in sources or ()]
        if sources is None or sum(sizes) < MIN_BYTES:
            return None
        plan = _of_text if is_text else _labelled
        found = await plan(reading, sources, task)
        if found is None or found.total < 1:
            return None
        ids = await trio.to_thread.run_sync(draw, found.total)
        wanted = await trio.to_thread.run_sync(found.wanted, ids)
        is_worth_it = chunk_bytes(sizes, wanted) * WORTH <= sum(sizes)
        return (reading, sources, wanted) if is_worth_it else None


async def _sources(reading: Reading, root: Cid) -> list[Source] | None:
    """The files of a dataset in order of their paths, as `training.data` takes them; None where parts are no use."""
    top = await reading.look(root)
    if top.kind != "folder":
        return [Source(root, top.size, "0")] if top.kind == "file" else None
    found: dict[bytes, Source] = {}
    listings: dict[Cid, list[Entry]] = {}  # what stands under several names is read once
    folders = [("", root)]
    entries = length = 0
    while folders:
        prefix, cid = folders.pop()
        if cid not in listings:
            listings[cid] = await reading.listing(cid)
        for entry in listings[cid]:
            path = f"{prefix}{entry.name}"
            entries += 1
            length += len(path)
            if entries > MAX_FILES or length > MAX_PATHS:
                return None
            if entry.name.startswith("."):
                continue
            if entry.kind == "folder":
                folders.append((f"{path}/", entry.cid))
            elif entry.kind == "file" and entry.name != CARD:
                key = path.encode(errors="surrogateescape")
                found[key] = Source(entry.cid, entry.size, path)
    return [found[path] for path in sorted(found)]


@dataclass(frozen=True, slots=True)
class Plan:
    """Where a dataset's samples are.

    Attributes:
        found: Its items in order: bytes of text, or samples.
        always: Bytes that are fetched whatever is drawn.
        step: A sample begins at every so many-th item.
        length: Items of a sample.
    """

    found: Layout
    always: list[Range]
    step: int = 1
    length: int = 1

    @property
    def total(self) -> int:
        """How many samples there are."""
        return max(0, layout.total(self.found) - self.length + self.step) // self.step

    def wanted(self, ids: Iterable[int]) -> list[Range]:
        """The bytes to fetch for samples."""
        items = layout.windows(ids, self.step, self.length)
        return layout.merged([*self.always, *layout.needed(self.found, items)])


async def _of_text(reading: Reading, sources: Sequence[Source], task: TaskSpec) -> Plan | None:
    """Where the bytes of text are; None where a file does not say how many it has."""
    names = [one.path.lower() for one in sources]
    if any(one.endswith(tuple(EXTRACTORS)) and not one.endswith(layout.TABLE) for one in names):
        return None
    tables = await _tables(reading, sources, [(task.data.column, "data.column")])
    if tables is None:
        return None
    groups, always = tables
    found = layout.text([one.size for one in sources], groups)
    context = task.lm.context
    return None if found is None else Plan(found, always, context, context + 1)


async def _labelled(reading: Reading, sources: Sequence[Source], task: TaskSpec) -> Plan | None:
    """Where labelled samples are; None where the dataset has no layout."""
    paths = [PurePosixPath(one.path) for one in sources]
    arrays = layout.arrays(paths, rows=bool(task.classifier.features))
    if arrays is None:
        return None
    columns = [(task.data.column, "data.column"), (task.data.label, "data.label")]
    tables = await _tables(reading, sources, columns)
    if tables is None:
        return None
    groups, always = tables
    heads: dict[int, bytes] = {}

    async def head(at: int) -> None:
        heads[at] = await _read(reading, sources[at], 0, layout.HEAD_BYTES)

    await _all(head, arrays)
    sizes = [one.size for one in sources]
    found = layout.labelled(paths, sizes, heads, groups)
    always += [Range(at, 0, sizes[at]) for at in layout.whole(paths)]
    always += [Range(at, 0, min(layout.HEAD_BYTES, sizes[at])) for at in arrays]
    return Plan(found, always) if found else None


async def _tables(
    reading: Reading, sources: Sequence[Source], columns: Sequence[tuple[str, str]]
) -> tuple[dict[int, list[Group]], list[Range]] | None:
    """The row groups of each table, by its place, and where the footers are; None where there are too many.

    Raises:
        SwarmError: A footer is malformed, or does not fit its file.
    """
    places = layout.tables([PurePosixPath(one.path) for one in sources])
    if len(places) > MAX_TABLES:
        return None
    groups: dict[int, list[Group]] = {}
    always: list[Range] = []

    async def footer(at: int) -> None:
        if _too_much(groups, always):
            return
        one = sources[at]
        name = PurePosixPath(one.path).name
        await _check_size(reading, one)
        tail = await _read(reading, one, max(0, one.size - footers.TAIL_BYTES), one.size)
        try:
            length = footers.length(tail, one.size, name)
            if length > len(tail):
                tail = await _read(reading, one, one.size - length, length)
            always.append(Range(at, one.size - length, one.size))
            groups[at] = await trio.to_thread.run_sync(
                footers.groups, tail[-length:], one.size, name, columns
            )
        except DataError as error:
            raise SwarmError(str(error)) from error

    await _all(footer, places)
    return None if _too_much(groups, always) else (groups, always)


def _too_much(groups: dict[int, list[Group]], footers_at: Sequence[Range]) -> bool:
    return (
        sum(len(one) for one in groups.values()) > MAX_GROUPS
        or sum(one.end - one.start for one in footers_at) > MAX_FOOTERS_BYTES
    )


def _places(folder: Path, sources: Sequence[Source], *, named: bool) -> list[Path]:
    """Where each file is written; by number where names say nothing but that it is a table."""
    if named:
        return [folder / one.path for one in sources]
    endings = [layout.TABLE * one.path.lower().endswith(layout.TABLE) for one in sources]
    return [folder / f"{at:08d}{ending}" for at, ending in enumerate(endings)]


def _make(
    folder: Path, sources: Sequence[Source], wanted: Sequence[Range], places: Sequence[Path]
) -> None:
    """Files of full length, all holes, and beside them that they are; a picture of which nothing is wanted is empty."""
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
    async def fill(one: Range) -> None:
        await _check_size(reading, sources[one.file])
        at = one.start
        async for piece in reading.read(sources[one.file].cid, at, one.end - at):
            await trio.to_thread.run_sync(_write, places[one.file], at, piece)
            at += len(piece)
        _check_end(at, one.end)

    await _all(fill, wanted)


async def _read(reading: Reading, source: Source, start: int, length: int) -> bytes:
    """Bytes of a file, to its end at most."""
    parts = [part async for part in reading.read(source.cid, start, length)]
    found = b"".join(parts)
    _check_end(start + len(found), min(start + length, source.size))
    return found


async def _check_size(reading: Reading, source: Source) -> None:
    if (await reading.look(source.cid)).size != source.size:
        message = "a file of the dataset has another size than its folder claims"
        raise SwarmError(message)


def _check_end(found: int, due: int) -> None:
    if found != due:
        message = f"a file of the dataset ends at {found:,} where {due:,} bytes are due"
        raise SwarmError(message)


async def _all(work: Callable[[_T], Awaitable[None]], items: Iterable[_T]) -> None:
    """Work on items, some at once; the first fault ends it, and comes out as it is and not in a group."""
    left = iter(items)
    faults: list[Exception] = []
    async with trio.open_nursery() as nursery:

        async def take() -> None:
            try:
                for one in left:
                    await work(one)
            except Exception as fault:  # noqa: BLE001 - raised below
                faults.append(fault)
                nursery.cancel_scope.cancel()

        for _ in range(READERS):
            nursery.start_soon(take)
    if faults:
        raise faults[0]


def _write(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        os.pwrite(file.fileno(), data, at)

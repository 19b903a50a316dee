"""Where in its files a dataset has each sample, so that a worker can be given the bytes of its own samples alone.

Of text over bytes each byte stands where it stands; arrays have items of one length, and pictures a file each. Of
Parquet the footer says which rows, or how many bytes of text, each row group has, and a row group is taken or left.
What takes reading to count, archives and what is gzipped, has no layout, and is read whole.
Pure: from names, sizes, the first bytes of arrays and the footers of tables.
"""

from __future__ import annotations

import io
import math
from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Final, TypeAlias

from numpy.lib import format as npy

from swarm.training.images import HEADER_FAULTS, PICTURES
from swarm.training.labelled import is_array, is_labels

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import PurePath

    from swarm.training.footers import Group

HEAD_BYTES: Final = 4096
"""Of an array's beginning, where its shape stands."""
UNCOUNTED: Final = (".tar", ".gz")
TABLE: Final = ".parquet"


@dataclass(frozen=True, slots=True)
class Range:
    """Bytes of one file, by its place among the dataset's files."""

    file: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Stretch:
    """Items of one file, one after the other; they follow those of the stretch before.

    Attributes:
        file: Its place among the dataset's files.
        count: How many.
        start: The first one's first byte.
        each: Bytes of one.
    """

    file: int
    count: int
    start: int
    each: int


@dataclass(frozen=True, slots=True)
class Block:
    """Items of one file that can only be read together.

    Attributes:
        count: How many.
        ranges: The bytes that they take.
    """

    count: int
    ranges: tuple[Range, ...]


Layout: TypeAlias = "Sequence[Stretch | Block]"


def tables(paths: Sequence[PurePath]) -> list[int]:
    """Places of the files of which the footer says where samples are."""
    return [at for at, path in enumerate(paths) if path.name.lower().endswith(TABLE)]


def arrays(paths: Sequence[PurePath], *, rows: bool) -> list[int] | None:
    """Places of the files of which the beginning says where samples are; None where the dataset has no layout.

    Args:
        paths: The dataset's files below its folder, in order.
        rows: Whether samples are rows of numbers, and not images.
    """
    if any(path.name.lower().endswith(UNCOUNTED) for path in paths):
        return None
    if rows and any(path.name.lower().endswith(PICTURES) for path in paths):
        return None
    return [at for at, path in enumerate(paths) if is_array(path) and not is_labels(path)]


def whole(paths: Sequence[PurePath]) -> list[int]:
    """Places of the files that every worker needs: those of labels."""
    return [at for at, path in enumerate(paths) if is_labels(path)]


def labelled(
    paths: Sequence[PurePath],
    sizes: Sequence[int],
    heads: Mapping[int, bytes],
    groups: Mapping[int, Sequence[Group]],
) -> Layout | None:
    """The samples of a dataset in the order in which `labelled` numbers them; None where that cannot be told.

    Args:
        paths: Its files, in order.
        sizes: Of them, in bytes.
        heads: The first bytes of each array, by its place.
        groups: The row groups of each table, by its place.
    """
    beside: dict[PurePath, list[int]] = defaultdict(list)
    for at, path in enumerate(paths):
        beside[path.parent].append(at)
    found: list[Stretch | Block] = []
    for at in (one for places in beside.values() for one in places):
        if at in heads:
            made = _array(at, paths[at].name.lower(), sizes[at], heads[at])
            if made is None:
                return None
            found.append(made)
        elif at in groups:
            counts = [one.samples for one in groups[at]]
            if not _add(found, at, groups[at], counts):
                return None
        elif paths[at].name.lower().endswith(PICTURES):
            found.append(Stretch(at, 1, 0, sizes[at]))
    return found


def text(sizes: Sequence[int], groups: Mapping[int, Sequence[Group]]) -> Layout | None:
    """The bytes of a dataset of text in order; None where a table does not say how many it has.

    Args:
        sizes: Of the files, in order.
        groups: The row groups of each table, by its place.
    """
    found: list[Stretch | Block] = []
    for at, size in enumerate(sizes):
        if at not in groups:
            found.append(Stretch(at, size, 0, 1))
        elif not _add(found, at, groups[at], [one.text_bytes for one in groups[at]]):
            return None
    return found


def _add(
    found: list[Stretch | Block],
    file: int,
    groups: Sequence[Group],
    counts: Sequence[int | None],
) -> bool:
    """Whether each group says how many items it has."""
    for group, count in zip(groups, counts, strict=True):
        if count is None:
            return False
        found.append(Block(count, tuple(Range(file, one.start, one.end) for one in group.parts)))
    return True


def total(found: Layout) -> int:
    """How many items there are."""
    return sum(one.count for one in found)


def windows(ids: Iterable[int], step: int, length: int) -> list[tuple[int, int]]:
    """The items of samples of so many items that begin at every `step`-th, in order and without overlap."""
    joined: list[tuple[int, int]] = []
    for start in sorted({at * step for at in ids}):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], start + length)
        else:
            joined.append((start, start + length))
    return joined


def needed(found: Layout, items: Iterable[tuple[int, int]]) -> list[Range]:
    """The bytes that hold items, each given as (first, end); in order and without overlap."""
    ends = list(accumulate(one.count for one in found))
    ranges: set[Range] = set()
    for start, end in items:
        first, at = start, bisect_right(ends, start)
        while first < end and at < len(found):
            one, stop = found[at], min(end, ends[at])
            if isinstance(one, Block):
                ranges.update(one.ranges if first < stop else ())
            else:
                before = ends[at] - one.count
                begin = one.start + (first - before) * one.each
                ranges.add(Range(one.file, begin, begin + (stop - first) * one.each))
            first, at = stop, at + 1
    return merged(ranges)


def merged(ranges: Iterable[Range]) -> list[Range]:
    """The same bytes in order, each once."""
    made: list[Range] = []
    for one in sorted(ranges, key=lambda one: (one.file, one.start)):
        if made and made[-1].file == one.file and one.start <= made[-1].end:
            made[-1] = Range(one.file, made[-1].start, max(made[-1].end, one.end))
        elif one.start < one.end:
            made.append(one)
    return made


def _array(at: int, name: str, size: int, head: bytes) -> Stretch | None:
    """What an array's beginning says, if it is true of the file's size."""
    shape, item, start = _npy(head) if name.endswith(".npy") else _idx(head)
    if len(shape) < 2 or start + item * math.prod(shape) != size:
        return None
    return Stretch(at, shape[0], start, item * math.prod(shape[1:]))


def _npy(head: bytes) -> tuple[tuple[int, ...], int, int]:
    file = io.BytesIO(head)
    try:
        version = npy.read_magic(file)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, is_fortran, kind = read(file)
    except HEADER_FAULTS:
        return (), 0, 0
    if is_fortran or kind.hasobject or min(shape, default=0) < 0:
        return (), 0, 0
    return tuple(shape), kind.itemsize, file.tell()


def _idx(head: bytes) -> tuple[tuple[int, ...], int, int]:
    if len(head) < 16 or head[:3] != b"\x00\x00\x08" or head[3] not in (3, 4):
        return (), 0, 0
    start = 4 + 4 * head[3]
    shape = tuple(int.from_bytes(head[one : one + 4], "big") for one in range(4, start, 4))
    return shape, 1, start

"""Where in its files a labelled dataset has each sample: arrays of items of one length, and a file for each picture.

So that a worker can be given the bytes of its own samples alone. What takes reading to count, tables and archives, has
no layout, and is read whole. Pure: from names, sizes and the first bytes of arrays.
"""

from __future__ import annotations

import io
import math
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from numpy.lib import format as npy

from swarm.training.images import PICTURES
from swarm.training.labelled import is_array, is_labels

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import PurePath

HEAD_BYTES: Final = 4096
"""Of an array's beginning, where its shape stands."""
UNCOUNTED: Final = (".tar", ".parquet", ".gz")


@dataclass(frozen=True, slots=True)
class Stretch:
    """The samples of one file, which follow those of the file before.

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


def stretches(
    paths: Sequence[PurePath], sizes: Sequence[int], heads: Mapping[int, bytes]
) -> list[Stretch] | None:
    """The samples of a dataset in the order in which `labelled` numbers them; None where that cannot be told.

    Args:
        paths: Its files, in order.
        sizes: Of them, in bytes.
        heads: The first bytes of each array, by its place.
    """
    beside: dict[PurePath, list[int]] = defaultdict(list)
    for at, path in enumerate(paths):
        beside[path.parent].append(at)
    found = []
    for at in (one for places in beside.values() for one in places):
        if at in heads:
            made = _array(at, paths[at].name.lower(), sizes[at], heads[at])
            if made is None:
                return None
            found.append(made)
        elif paths[at].name.lower().endswith(PICTURES):
            found.append(Stretch(at, 1, 0, sizes[at]))
    return found


def needed(found: Sequence[Stretch], ids: Iterable[int]) -> list[tuple[int, int, int]]:
    """The bytes that hold samples, in order and without overlap: (file, first, end) each."""
    wanted = sorted(set(ids))
    ranges: list[tuple[int, int, int]] = []
    before = at = 0
    for one in found:
        while at < len(wanted) and wanted[at] < before + one.count:
            first = one.start + (wanted[at] - before) * one.each
            if ranges and ranges[-1][0] == one.file and ranges[-1][2] == first:
                ranges[-1] = (one.file, ranges[-1][1], first + one.each)
            elif one.each:
                ranges.append((one.file, first, first + one.each))
            at += 1
        before += one.count
    return ranges


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
    except (ValueError, EOFError, SyntaxError, TypeError):
        return (), 0, 0
    if is_fortran or kind.hasobject:
        return (), 0, 0
    return tuple(shape), kind.itemsize, file.tell()


def _idx(head: bytes) -> tuple[tuple[int, ...], int, int]:
    if len(head) < 16 or head[:3] != b"\x00\x00\x08" or head[3] not in (3, 4):
        return (), 0, 0
    start = 4 + 4 * head[3]
    shape = tuple(int.from_bytes(head[one : one + 4], "big") for one in range(4, start, 4))
    return shape, 1, start

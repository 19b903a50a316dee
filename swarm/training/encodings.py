"""Encodings: what the frozen part of a base says of each token, small enough to be kept and sent.

A vector of W values is kept as int8 levels with one scale, and the greatest hundredth of its values by themselves:

    places, values    the ceil(W / 100) values of the greatest magnitude, as they are
    scale             the greatest magnitude of the others, / 127
    levels            round(value / scale), 0 at the places

A few dimensions of a decoder's residual stream are a hundred times the others, and would take all levels for themselves.

A sample is one record, a row of a structured array; its tokens stand in it:

    tokens u32[T + 1] || levels i8[T, W] || scales f32[T] || places u16[T, E] || values f32[T, E]

Each sample is encoded by itself, so that its record does not depend on its neighbours.
Published, an encoded dataset is a folder of `encodings.json` and files of records; whoever trains or scores encodes one
in a hundred again (`check`) before it believes the rest.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from swarm.training import sizes
from swarm.training.assignment import Generator
from swarm.training.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from swarm.training.data import TextData
    from swarm.training.drawers import Drawer
    from swarm.training.sizes import FinetuneModel
    from swarm.training.tensors import Array

FORMAT: Final = "swarm-encodings-1"
MANIFEST: Final = "encodings.json"
MAX_MANIFEST_BYTES: Final = 4096
LEVELS: Final = 127
PART_BYTES: Final = 2**26
"""About the size of one file of records."""
MAX_PARTS: Final = 2**20
CHECKED_SHARE: Final = 100
"""One record in so many is encoded again."""
MAX_CHECKED: Final = 32
"""Records that one check encodes again at most."""
MAX_OFF: Final = 0.002
"""Share of values that may be off by more than a level: other machines round otherwise."""


def record(width: int, context: int) -> np.dtype[Any]:
    """The type of one sample's record.

    Args:
        width: Of the encoded vectors.
        context: Tokens of a sample, less the last.
    """
    apart = sizes.apart(width)
    return np.dtype(
        [
            ("tokens", "<u4", (context + 1,)),
            ("levels", "i1", (context, width)),
            ("scales", "<f4", (context,)),
            ("places", "<u2", (context, apart)),
            ("values", "<f4", (context, apart)),
        ]
    )


def encode(states: Array, into: Array) -> None:
    """Write vectors into a record.

    Args:
        states: Shape (T, W), float32.
        into: The record.

    Raises:
        DataError: A value is not finite.
    """
    if not np.isfinite(states).all():
        message = "the base's frozen blocks give values that are not finite"
        raise DataError(message)
    apart = into["places"].shape[-1]
    width = states.shape[1]
    places = np.sort(np.argpartition(np.abs(states), width - apart, axis=1)[:, width - apart :])
    rest = states.copy()
    np.put_along_axis(rest, places, 0.0, axis=1)
    scales = np.abs(rest).max(axis=1) / np.float32(LEVELS)
    safe = np.where(scales > 0, scales, np.float32(1))
    into["levels"] = np.rint(rest / safe[:, None])
    into["scales"] = scales
    into["places"] = places
    into["values"] = np.take_along_axis(states, places, axis=1)


def decode(records: Array) -> Array:
    """The vectors of records, shape (N, T, W), float32."""
    states: Array = records["levels"].astype(np.float32) * records["scales"][..., None]
    places = records["places"].astype(np.int64)
    np.put_along_axis(states, places, records["values"], axis=2)
    return states


class EncodedText:
    """A text dataset as encodings, made where they are asked for and kept on the disk.

    Args:
        text: The dataset.
        sizes: Of the base.
        front: Its frozen part: tokens (T,) to vectors (T, W), float32.
        drawer: Keeps records; None: each is made every time.
        alive: Called after each record that is made, so that the job can be given up.
    """

    def __init__(
        self,
        text: TextData,
        sizes: FinetuneModel,
        front: Callable[[Array], Array],
        drawer: Drawer | None,
        alive: Callable[[], None],
    ) -> None:
        self.paths = text.paths
        self.total = text.total
        self.bytes_per_token = text.bytes_per_token
        self.made = 0
        """Records that were not in the drawer."""
        self._text = text
        self._front = front
        self._drawer = drawer
        self._alive = alive
        self._type = record(sizes.width, sizes.context)

    def samples(self, ids: Sequence[int]) -> Array:
        """The records of samples, shape (len(ids),)."""
        records = np.zeros(len(ids), self._type)
        records["tokens"] = self._text.samples(ids)
        for at, index in enumerate(ids):
            kept = None if self._drawer is None else self._drawer.get(index)
            if kept is not None and np.array_equal(kept["tokens"], records[at]["tokens"]):
                records[at] = kept
                continue
            encode(self._front(records[at]["tokens"][:-1]), records[at])
            self.made += 1
            if self._drawer is not None:
                self._drawer.put(index, records[at])
            self._alive()
        return records


class PublishedEncodings:
    """A folder of records that somebody else made; see `check`.

    Args:
        folder: The dataset.
        sizes: Of the task's base.

    Raises:
        DataError: It is no such folder, or of another base.
    """

    def __init__(self, folder: Path, sizes: FinetuneModel) -> None:
        about = _manifest(folder)
        wanted = _about(sizes)
        if any(about.get(key) != value for key, value in wanted.items()):
            message = f"{folder.name} holds encodings of another base than the task's"
            raise DataError(message)
        self.bytes_per_token = float(about["bytes_per_token"])
        self._name = folder.name
        self._sizes = sizes
        self._type = record(sizes.width, sizes.context)
        self._parts: list[Array] = []
        left = about["samples"]
        for path in sorted(folder.glob("*.records")):
            size = path.stat().st_size
            if size % self._type.itemsize or not size or len(self._parts) == MAX_PARTS:
                message = f"{path.name} does not hold whole records"
                raise DataError(message)
            self._parts.append(np.memmap(path, self._type, mode="r"))
            left -= len(self._parts[-1])
        if left or not self._parts:
            message = f"{folder.name} holds another number of records than it says"
            raise DataError(message)
        self._ends = np.cumsum([len(part) for part in self._parts])
        self.total = int(self._ends[-1])
        """How many samples there are."""

    def samples(self, ids: Sequence[int]) -> Array:
        """The records of samples, shape (len(ids),).

        Raises:
            DataError: One is malformed.
        """
        records = np.zeros(len(ids), self._type)
        for at, index in enumerate(ids):
            part = int(np.searchsorted(self._ends, index, side="right"))
            records[at] = self._parts[part][index - int(self._ends[part])]
        if (
            not (np.isfinite(records["scales"]).all() and np.isfinite(records["values"]).all())
            or records["places"].max(initial=0) >= self._sizes.width
            or records["tokens"].max(initial=0) >= self._sizes.vocabulary
        ):
            message = f"{self._name} holds a record that is malformed"
            raise DataError(message)
        return records


def publish(
    text: EncodedText,
    sizes: FinetuneModel,
    out: Path,
    report: Callable[[int, int, float], None],
) -> int:
    """Write a dataset's encodings as a folder to be published.

    Args:
        text: The dataset.
        sizes: Of the base.
        out: Made if need be.
        report: Called after each file with (samples done, all, 0).

    Returns:
        How many samples there are.
    """
    out.mkdir(parents=True, exist_ok=True)
    step = max(1, PART_BYTES // record(sizes.width, sizes.context).itemsize)
    for part, at in enumerate(range(0, text.total, step)):
        end = min(at + step, text.total)
        text.samples(range(at, end)).tofile(out / f"{part:06d}.records")
        report(end, text.total, 0.0)
    about = {**_about(sizes), "samples": text.total, "bytes_per_token": text.bytes_per_token}
    (out / MANIFEST).write_text(json.dumps(about, sort_keys=True, indent=2) + "\n")
    return text.total


def is_published(folder: Path) -> bool:
    """Whether a dataset's folder holds encodings."""
    return (folder / MANIFEST).is_file()


def check(
    published: PublishedEncodings,
    front: Callable[[Array], Array],
    seed: Sequence[bytes | str | int],
    field: str,
    alive: Callable[[], None],
) -> int:
    """Encode one record in a hundred again, at most `MAX_CHECKED`.

    Args:
        published: The records.
        front: The base's frozen part.
        seed: Draws which; nobody knew it when the records were made.
        field: Of the task, which names them.
        alive: Called after each record.

    Returns:
        How many were checked.

    Raises:
        DataError: A record is not the encoding of its tokens.
    """
    count = min(MAX_CHECKED, -(-published.total // CHECKED_SHARE))
    for index in Generator("encodings", field, *seed).distinct(count, published.total):
        found = published.samples([index])
        states = front(found[0]["tokens"][:-1])
        off = off_share(found[0], states)
        if off > MAX_OFF:
            message = f"the record of sample {index:,} is not the encoding of its tokens: {off:.1%} of its values are off"
            raise DataError(message)
        alive()
    return count


def off_share(found: Array, states: Array) -> float:
    """The share of a record's values that are off by more than a level.

    A level is what an honest record of these vectors has, whatever this one claims.

    Args:
        found: The record.
        states: Its vectors, made here; shape (T, W), float32.
    """
    due = np.zeros(1, found.dtype)
    encode(states, due[0])
    gap = np.abs(decode(found[None])[0] - states)
    # What is kept apart is exact but for the machine: a millionth of the greatest value is noise too.
    noise = np.abs(states).max(axis=1) * 1e-6
    allowed = np.maximum(due["scales"][0], noise)
    return float((gap > allowed[:, None]).mean())


def _about(sizes: FinetuneModel) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "base": sizes.base,
        "trained_blocks": sizes.trained_blocks,
        "context": sizes.context,
        "width": sizes.width,
    }


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            message = f"{MANIFEST} is longer than {MAX_MANIFEST_BYTES:,} bytes"
            raise DataError(message)
        about = json.loads(path.read_bytes())
    except OSError as error:
        message = f"{folder.name} holds no {MANIFEST}"
        raise DataError(message) from error
    except (ValueError, RecursionError) as error:
        message = f"{MANIFEST} is not JSON: {error}"
        raise DataError(message) from error
    if (
        not isinstance(about, dict)
        or type(about.get("samples")) is not int
        or type(about.get("bytes_per_token")) not in (int, float)
        or about["samples"] < 1
    ):
        message = f"{MANIFEST} does not say how many samples there are"
        raise DataError(message)
    return about

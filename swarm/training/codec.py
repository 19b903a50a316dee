"""The update codec: a sparse, one-bit difference from the agreed checkpoint, in one safetensors file.

`docs/protocols/update.md` gives the bytes. In short: the tensors form *groups* (each tensor of two or more
dimensions is one, all others together are the last), each group is cut into flat chunks of 4096, and of
each chunk the `k` values of the greatest magnitude are kept as a position and a sign; their mean magnitude
is the group's level. Where a task says so, a round speaks of a *part* of each group, every `parts`-th value, which
is the same for all workers: a position then costs fewer bits, and more workers name the same weights.
Numpy only: nothing here depends on torch or on the machine.

Source: Wang et al., "CocktailSGD" (2023) and Sarfi et al., "SparseLoCo" (2025) for top-k of chunks with
error feedback; Rice coding of gaps as in Golomb (1966), with quotients and remainders in streams of
their own so that both sides are vectorised.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np

from storage import cid
from swarm.training import tensors
from swarm.training.errors import (
    MALFORMED,
    NOT_FINITE,
    NOT_FOUND,
    WRONG_BASE,
    WRONG_SHAPES,
    TensorFileError,
    UpdateError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from swarm.training.spec import TaskSpec
    from swarm.training.tensors import Array

FORMAT: Final = "swarm-update-1"
CHUNK: Final = 4096
MAX_LEVEL: Final = 1024.0
"""A greater level would move a weight further than any weight may be (`merge.MAX_WEIGHT`)."""
MAX_VALUE: Final = 2.0**20
"""The greatest magnitude of a weight in a full update."""
RECORDED_FORMAT: Final = "swarm-update-2"
"""The same with the three keys of a record."""
PARTED_FORMAT: Final = "swarm-update-3"
"""Either of them of one part of the groups; a key more says which."""
WHOLE: Final = "0/1"
"""The part of the other two."""
KEYS: Final = frozenset({"format", "kind", "k", "base", "task", "round", "peer", "data", "samples"})
RECORD_KEYS: Final = frozenset({"transcript", "record", "fingerprint"})
PART_KEYS: Final = frozenset({"part"})

_KEYS_OF: Final = {
    FORMAT: (KEYS,),
    RECORDED_FORMAT: (KEYS | RECORD_KEYS,),
    PARTED_FORMAT: (KEYS | PART_KEYS, KEYS | PART_KEYS | RECORD_KEYS),
}
_PEER = re.compile(r"[1-9A-HJ-NP-Za-km-z]{1,64}")
_HEADER_SLACK: Final = 64 * 2**10


@dataclass(frozen=True, slots=True)
class Group:
    """Tensors that are cut into chunks together and share a level."""

    names: tuple[str, ...]
    size: int  # values
    first: int = 0  # of those that the round speaks of
    step: int = 1  # from one of them to the next

    @property
    def said(self) -> int:
        """How many values the round speaks of."""
        return len(range(self.first, self.size, self.step))

    def part(self, flat: Array) -> Array:
        """Those values of the whole group's, as a view; positions count in it."""
        return flat[self.first :: self.step]


@dataclass(frozen=True)
class Layout:
    """Where each value of a checkpoint stands in an update.

    Args:
        shapes: Shape by name of the base checkpoint's tensors.
        k: Values kept of each full chunk.
        parts: How many rounds speak of all values, each of every `parts`-th.
        part: From 0: the first of them. A group of fewer values than parts is spoken of whole.
    """

    shapes: Mapping[str, tuple[int, ...]]
    k: int
    parts: int = 1
    part: int = 0

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """Matrices in order of name, then all vectors as one group."""
        matrices = [(name,) for name in sorted(self.shapes) if len(self.shapes[name]) >= 2]
        vectors = tuple(name for name in sorted(self.shapes) if len(self.shapes[name]) < 2)
        sized = [
            (names, sum(math.prod(self.shapes[name]) for name in names))
            for names in (*matrices, vectors)
        ]
        return tuple(
            Group(names, size, self.part, self.parts) if size >= self.parts else Group(names, size)
            for names, size in sized
            if size
        )

    @cached_property
    def chunk_sizes(self) -> list[Array]:
        """For each group, shape (chunks,): how many values each chunk has."""
        return [
            np.minimum(CHUNK, group.said - np.arange(0, group.said, CHUNK)) for group in self.groups
        ]

    @cached_property
    def picks(self) -> list[Array]:
        """For each group, shape (chunks,): how many values are kept of each chunk."""
        return [-(-self.k * sizes // CHUNK) for sizes in self.chunk_sizes]

    @cached_property
    def total(self) -> int:
        """Values kept in all."""
        return sum(int(picks.sum()) for picks in self.picks)

    @property
    def said(self) -> str:
        """The part, as an update names it."""
        return f"{self.part}/{self.parts}"

    @property
    def rice(self) -> int:
        """Bits of each remainder: floor(log2(ln 2 times the mean gap))."""
        return max(0, (2839 // self.k).bit_length() - 1)

    @cached_property
    def max_bytes(self) -> int:
        """No update of this layout is longer."""
        chunks = sum(len(sizes) for sizes in self.chunk_sizes)
        quotients = self.total + chunks * (CHUNK >> self.rice)
        return (
            (quotients + self.total * (self.rice + 1)) // 8 + 4 * len(self.groups) + _HEADER_SLACK
        )


def layout(spec: TaskSpec, shapes: Mapping[str, tuple[int, ...]], round_: int) -> Layout:
    """Of the updates of a task's round, from 1; whole tensors are not parted."""
    parts = 1 if spec.kind == "gan" else spec.update.parts
    return Layout(shapes, spec.update.top_k, parts, (round_ - 1) % parts)


@dataclass(frozen=True, slots=True)
class Sparse:
    """What is kept of one group."""

    positions: Array  # (picks,) int64, flat in the group's part, strictly increasing
    negative: Array  # (picks,) bool
    level: float  # a float32's value, finite, 0 to MAX_LEVEL


@dataclass(frozen=True, slots=True)
class Record:
    """Where what is needed to run a round again stands; see `transcript`."""

    transcript: bytes  # its root, 32
    record: str  # CID of its bytes
    fingerprint: bytes  # 32


@dataclass(frozen=True, slots=True)
class About:
    """Who made an update, from what, for which round."""

    kind: str
    k: int
    base: str  # CID of the checkpoint it is a difference from
    task: bytes  # 32
    round: int
    peer: str
    data: bytes  # SHA-256 of the samples used, in order
    samples: int
    record: Record | None = None
    part: str = WHOLE

    def metadata(self) -> dict[str, str]:
        """The file's metadata."""
        more, parted = {}, {}
        if self.record is not None:
            more = {
                "transcript": self.record.transcript.hex(),
                "record": self.record.record,
                "fingerprint": self.record.fingerprint.hex(),
            }
        if self.part != WHOLE:
            parted = {"part": self.part}
        unparted = RECORDED_FORMAT if more else FORMAT
        return (
            more
            | parted
            | {
                "format": PARTED_FORMAT if parted else unparted,
                "kind": self.kind,
                "k": str(self.k),
                "base": self.base,
                "task": self.task.hex(),
                "round": str(self.round),
                "peer": self.peer,
                "data": self.data.hex(),
                "samples": str(self.samples),
            }
        )


@dataclass(frozen=True, slots=True)
class Update:
    """A checked update: sparse groups (lm) or whole tensors (gan)."""

    about: About
    groups: list[Sparse]
    tensors: dict[str, Array]


@dataclass(frozen=True, slots=True)
class Expected:
    """What an update must be to count in a round."""

    kind: str
    layout: Layout
    base: str
    task: bytes
    round: int
    peer: str | None = None

    @property
    def is_first_turn(self) -> bool:
        """Whether nobody has spoken of this part of the weights before, in a task of several."""
        return 1 < self.layout.parts >= self.round


def gather(values: Mapping[str, Array], layout: Layout) -> list[Array]:
    """Tensors to groups: flat float32 arrays."""
    return [
        np.concatenate([np.asarray(values[name], np.float32).reshape(-1) for name in group.names])
        for group in layout.groups
    ]


def scatter(groups: Sequence[Array], layout: Layout) -> dict[str, Array]:
    """Groups to tensors by name; the inverse of `gather`."""
    values = {}
    for group, flat in zip(layout.groups, groups, strict=True):
        at = 0
        for name in group.names:
            size = math.prod(layout.shapes[name])
            values[name] = flat[at : at + size].reshape(layout.shapes[name])
            at += size
    return values


def compress(groups: Sequence[Array], layout: Layout) -> list[Sparse]:
    """Keep the greatest values of each chunk.

    Args:
        groups: As `gather` gives them; finite.
        layout: The base's layout.
    """
    return [
        _compress(group.part(flat), picks)
        for group, flat, picks in zip(layout.groups, groups, layout.picks, strict=True)
    ]


def _compress(flat: Array, picks: Array) -> Sparse:
    whole = len(flat) // CHUNK
    magnitude = np.abs(flat)
    parts = []
    if whole:
        k = int(picks[0])
        rows = magnitude[: whole * CHUNK].reshape(whole, CHUNK)
        top = np.argpartition(rows, CHUNK - k, axis=1)[:, CHUNK - k :]
        top.sort(axis=1)
        parts.append((top + np.arange(whole)[:, None] * CHUNK).reshape(-1))
    if whole < len(picks):
        rest = magnitude[whole * CHUNK :]
        k = int(picks[-1])
        parts.append(np.sort(np.argpartition(rest, len(rest) - k)[len(rest) - k :]) + whole * CHUNK)
    positions = np.concatenate(parts).astype(np.int64)
    level = float(np.float32(magnitude[positions].mean(dtype=np.float64)))
    return Sparse(positions, np.signbit(flat[positions]), min(level, MAX_LEVEL))


def subtract(groups: Sequence[Array], sparse: Sequence[Sparse], layout: Layout) -> None:
    """Take what an update says away from the groups, in place: the error that is fed back."""
    for group, flat, item in zip(layout.groups, groups, sparse, strict=True):
        level = np.float32(item.level)
        group.part(flat)[item.positions] -= np.where(item.negative, -level, level)


def pack(sparse: Sequence[Sparse], layout: Layout, about: About) -> bytes:
    """The update file's bytes."""
    gaps = []
    for item, picks in zip(sparse, layout.picks, strict=True):
        offsets = item.positions % CHUNK
        steps = np.diff(offsets, prepend=-1) - 1
        firsts = np.cumsum(picks) - picks
        steps[firsts] = offsets[firsts]
        gaps.append(steps)
    gap = np.concatenate(gaps)
    rice = layout.rice
    ends = np.cumsum((gap >> rice) + 1) - 1
    quotients = np.zeros(int(ends[-1]) + 1, np.uint8)
    quotients[ends] = 1
    shifts = np.arange(rice - 1, -1, -1)
    remainders = ((gap[:, None] >> shifts) & 1).astype(np.uint8)
    return tensors.encode(
        {
            "levels": np.array([item.level for item in sparse], np.float32),
            "quotients": np.packbits(quotients),
            "remainders": np.packbits(remainders.reshape(-1)),
            "signs": np.packbits(np.concatenate([item.negative for item in sparse])),
        },
        about.metadata(),
    )


def pack_full(values: Mapping[str, Array], about: About) -> bytes:
    """The update file of a task of kind gan: whole tensors."""
    return tensors.encode(
        {name: np.asarray(item, np.float32) for name, item in values.items()}, about.metadata()
    )


def read(path: Path | None, expected: Expected) -> Update:
    """Read an update file; None stands for one that could not be fetched.

    Raises:
        UpdateError: It does not count; `code` says why.
    """
    if path is None:
        raise UpdateError(NOT_FOUND, "the update was not found")
    try:
        size = path.stat().st_size
        if size > _max_bytes(expected):
            raise UpdateError(MALFORMED, f"the update has {size:,} bytes, too many for its model")
        data = path.read_bytes()
    except OSError as error:
        raise UpdateError(NOT_FOUND, f"the update cannot be read: {error.strerror}") from error
    return unpack(data, expected)


def unpack(data: bytes, expected: Expected) -> Update:
    """Check an update file against what its round expects.

    Args:
        data: The file.
        expected: The round's base, task, number and layout.

    Raises:
        UpdateError: It does not count; `code` says why.
    """
    try:
        file = tensors.decode(data, max_bytes=_max_bytes(expected))
    except TensorFileError as error:
        raise UpdateError(MALFORMED, f"the update {error}") from error
    about = _about(file.metadata)
    _check_about(about, expected)
    if expected.kind == "gan":
        return Update(about, [], _full(file.tensors, expected.layout))
    return Update(about, _sparse(file.tensors, expected.layout), {})


def _max_bytes(expected: Expected) -> int:
    if expected.kind == "gan":
        values = sum(math.prod(shape) for shape in expected.layout.shapes.values())
        return 4 * values + tensors.MAX_HEADER_BYTES
    return expected.layout.max_bytes


def _about(metadata: dict[str, str]) -> About:
    try:
        if metadata.keys() not in _KEYS_OF.get(metadata.get("format", ""), ()):
            raise UpdateError(MALFORMED, "the update's metadata are not those of its format")
        about = About(
            kind=metadata["kind"],
            k=int(metadata["k"]),
            base=metadata["base"],
            task=bytes.fromhex(metadata["task"]),
            round=int(metadata["round"]),
            peer=metadata["peer"],
            data=bytes.fromhex(metadata["data"]),
            samples=int(metadata["samples"]),
            record=_record(metadata) if "record" in metadata else None,
            part=metadata.get("part", WHOLE),
        )
    except ValueError as error:
        if isinstance(error, UpdateError):
            raise
        raise UpdateError(MALFORMED, f"the update's metadata are malformed: {error}") from error
    if about.metadata() != metadata or len(about.data) != 32 or not _PEER.fullmatch(about.peer):
        raise UpdateError(MALFORMED, "the update's metadata are not in their one spelling")
    return about


def _record(metadata: dict[str, str]) -> Record:
    record = Record(
        transcript=bytes.fromhex(metadata["transcript"]),
        record=cid.text(cid.parse(metadata["record"])),
        fingerprint=bytes.fromhex(metadata["fingerprint"]),
    )
    if len(record.transcript) != 32 or len(record.fingerprint) != 32:
        message = "a hash of its record has another length"
        raise ValueError(message)
    return record


def _check_about(about: About, expected: Expected) -> None:
    if (about.base, about.task, about.round) != (expected.base, expected.task, expected.round):
        raise UpdateError(
            WRONG_BASE, f"the update is for round {about.round} from base {about.base[:80]}"
        )
    if expected.peer is not None and about.peer != expected.peer:
        raise UpdateError(WRONG_BASE, f"the update was made by {about.peer}")
    found = (about.kind, about.k, about.part)
    if found != (expected.kind, expected.layout.k, expected.layout.said):
        raise UpdateError(WRONG_SHAPES, "the update is of another kind, k or part than the round's")


def _full(values: dict[str, Array], layout: Layout) -> dict[str, Array]:
    found = {name: (item.shape, item.dtype) for name, item in values.items()}
    if found != {name: (shape, np.dtype("<f4")) for name, shape in layout.shapes.items()}:
        raise UpdateError(WRONG_SHAPES, "the update's tensors are not those of its base")
    for name, item in values.items():
        if not np.isfinite(item).all():
            raise UpdateError(NOT_FINITE, f"tensor {name} holds a value that is not finite")
        if item.size and np.abs(item).max() > MAX_VALUE:
            raise UpdateError(MALFORMED, f"tensor {name} holds a value above {MAX_VALUE:,.0f}")
    return values


def _sparse(values: dict[str, Array], layout: Layout) -> list[Sparse]:
    total, rice = layout.total, layout.rice
    shapes = {
        "levels": (np.dtype("<f4"), len(layout.groups)),
        "remainders": (np.dtype("u1"), -(-total * rice // 8)),
        "signs": (np.dtype("u1"), -(-total // 8)),
    }
    if values.keys() != {*shapes, "quotients"} or any(
        (values[name].dtype, values[name].shape) != (dtype, (size,))
        for name, (dtype, size) in shapes.items()
    ):
        raise UpdateError(WRONG_SHAPES, "the update's tensors are not those of its base")
    if values["quotients"].dtype != np.uint8 or values["quotients"].ndim != 1:
        raise UpdateError(WRONG_SHAPES, "the update's quotients are not a row of bytes")
    levels = values["levels"]
    if not np.isfinite(levels).all():
        raise UpdateError(NOT_FINITE, "a level is not finite")
    if np.signbit(levels).any() or levels.max() > MAX_LEVEL:
        raise UpdateError(MALFORMED, f"a level is not from 0 to {MAX_LEVEL:g}")
    positions = _positions(values, layout)
    negative = _bits(values["signs"], total).astype(bool)
    groups = []
    at = 0
    for level, picks in zip(levels, layout.picks, strict=True):
        end = at + int(picks.sum())
        groups.append(Sparse(positions[at:end], negative[at:end], float(level)))
        at = end
    return groups


def _positions(values: dict[str, Array], layout: Layout) -> Array:
    total, rice = layout.total, layout.rice
    ends = np.flatnonzero(np.unpackbits(values["quotients"]))
    if len(ends) != total or len(values["quotients"]) != int(ends[-1]) // 8 + 1:
        raise UpdateError(
            MALFORMED, f"the update holds {len(ends):,} positions where {total:,} are due"
        )
    gaps = (np.diff(ends, prepend=-1) - 1).astype(np.int64) << rice
    if rice:
        bits = _bits(values["remainders"], total * rice).reshape(total, rice).astype(np.int64)
        gaps += bits @ (1 << np.arange(rice - 1, -1, -1, dtype=np.int64))
    picks = np.concatenate(layout.picks)
    sizes = np.concatenate(layout.chunk_sizes)
    starts = np.concatenate([np.arange(len(item)) * CHUNK for item in layout.picks])
    walked = np.cumsum(gaps + 1)
    before = np.concatenate([[0], walked[np.cumsum(picks)[:-1] - 1]])
    offsets = walked - np.repeat(before, picks) - 1
    if (offsets >= np.repeat(sizes, picks)).any():
        raise UpdateError(MALFORMED, "a position lies outside its chunk")
    positions: Array = offsets + np.repeat(starts, picks)
    return positions


def _bits(packed: Array, count: int) -> Array:
    bits = np.unpackbits(packed)
    if bits[count:].any():
        raise UpdateError(MALFORMED, "the bits after the last value are not zero")
    return bits[:count]

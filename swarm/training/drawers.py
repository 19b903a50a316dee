"""Records kept on the disk between jobs and restarts: encodings, which cost more to make than to read.

A drawer is a file of slots, one for each sample of a dataset, with holes where nothing was put:

    slot = blake2b-64 of the record || record

A slot that is a hole, torn or damaged fails its check and is made again.
Drawers together take no more disk than their limit: those that were not used for longest go first, and one that is
alone and full takes no more.
A disk that is full or fails, and a drawer that another one's room was made of, cost a record, and never the job.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from swarm.training.tensors import Array

DEFAULT_BYTES: Final = 4 * 2**30
CHECK_BYTES: Final = 8
EDGE_BYTES: Final = 2 * 4096
"""Of disk that a slot takes at most beside its bytes: the file system gives whole blocks."""
ENDING: Final = ".encodings"
ROOM_EVERY: Final = 64
"""Records that are put between two looks at how much disk is taken."""


class Drawers:
    """A folder of drawers.

    Args:
        folder: Made if need be; None: nothing is kept.
        limit: Bytes of disk that they may take together.
    """

    def __init__(self, folder: Path | None = None, limit: int = DEFAULT_BYTES) -> None:
        self._folder = folder
        self.limit = limit

    def open(self, key: str, record: np.dtype[Any]) -> Drawer | None:
        """The drawer of a key: 64 hex digits that say what its records are a function of."""
        if self._folder is None:
            return None
        path = self._folder / (key + ENDING)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            path.touch()
        except OSError:
            return None
        return Drawer(path, record, self._has_room)

    @property
    def used(self) -> int:
        """Bytes of disk that all drawers take."""
        return sum(_taken(path) for path in self._paths())

    def _paths(self) -> list[Path]:
        folder = self._folder
        if folder is None:
            return []
        return sorted(folder.glob("*" + ENDING), key=_used_at)

    def _has_room(self, mine: Path, more: int) -> bool:
        """Whether a drawer may take so many bytes more, after older ones have gone."""
        left = self.limit - self.used - more
        for path in self._paths():
            if left >= 0:
                break
            if path != mine:
                left += _taken(path)
                path.unlink(missing_ok=True)
        return left >= 0


class Drawer:
    """One file of slots."""

    def __init__(self, path: Path, record: np.dtype[Any], has_room: Any) -> None:  # noqa: ANN401 - a method of the folder
        self._path = path
        self._type = record
        self._slot = CHECK_BYTES + record.itemsize
        self._has_room = has_room
        self._until_look = 0
        self._is_open = True

    def get(self, index: int) -> Array | None:
        """The record of a sample; None if there is none."""
        try:
            with self._path.open("rb") as file:
                data = os.pread(file.fileno(), self._slot, index * self._slot)
        except OSError:
            return None
        if len(data) != self._slot or _check(data[CHECK_BYTES:]) != data[:CHECK_BYTES]:
            return None
        found: Array = np.frombuffer(data, self._type, offset=CHECK_BYTES)[0]
        return found

    def put(self, index: int, record: Array) -> None:
        """Keep a record, if there is room and the disk takes it."""
        with suppress(OSError):
            self._put(index, record)

    def _put(self, index: int, record: Array) -> None:
        if not self._until_look:
            self._is_open = self._has_room(self._path, ROOM_EVERY * (self._slot + EDGE_BYTES))
            self._until_look = ROOM_EVERY
        self._until_look -= 1
        if self._is_open:
            data = record.tobytes()
            with self._path.open("r+b") as file:
                os.pwrite(file.fileno(), _check(data) + data, index * self._slot)


def _check(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=CHECK_BYTES).digest()


def _used_at(path: Path) -> int:
    """When a drawer was used last; the node looks while the worker removes some."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _taken(path: Path) -> int:
    try:
        return path.stat().st_blocks * 512
    except OSError:
        return 0

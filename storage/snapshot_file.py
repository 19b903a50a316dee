"""A state cut into ranges, in one file that is ready to be sent.

    file = range bytes, ... || index || offset of the index (u64, big endian)
    index = [1, height, root, [[first path, offset, length], ...]]

It is written beside its name and renamed when all of it is on the disk, so that a name means a whole file.
Whoever is given a range checks it against the root, so the file needs no checksums of its own.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from storage import canonical
from storage.errors import CanonicalError, LogError
from storage.files import Files
from storage.state_range import CUT_BYTES, MAX_RANGE_BYTES, cut

if TYPE_CHECKING:
    from pathlib import Path

    from storage.state_range import Readable

FORMAT: Final = 1
MAX_INDEX_BYTES: Final = 256 * 2**20
PART: Final = ".part"


def write(
    path: Path,
    view: Readable,
    height: int,
    *,
    cut_bytes: int = CUT_BYTES,
    files: Files | None = None,
) -> int:
    """Cut a committed state and write it; the file is there when it returns, or not at all.

    Returns:
        How many ranges it has.

    Raises:
        StorageError: The state cannot be read to its end.
        OSError: The file cannot be written.
    """
    files = files or Files()
    part = path.with_name(path.name + PART)
    part.unlink(missing_ok=True)
    try:
        count = _write(part, view, height, cut_bytes, files)
    except BaseException:
        with suppress(OSError):  # half a file would keep a full disk full
            files.unlink(part)
        raise
    files.rename(part, path)
    files.sync_folder(path.parent)
    return count


def _write(part: Path, view: Readable, height: int, cut_bytes: int, files: Files) -> int:
    descriptor = files.create(part)
    index: list[list[object]] = []
    at = 0
    try:
        for one in cut(view, cut_bytes=cut_bytes):
            data = one.encode()
            files.write_all(descriptor, [data], at)
            index.append([one.first, at, len(data)])
            at += len(data)
        tail = canonical.encode([FORMAT, height, view.root, index])
        files.write_all(descriptor, [tail, at.to_bytes(8, "big")], at)
        files.sync(descriptor)
    finally:
        files.close(descriptor)
    return len(index)


class SnapshotFile:
    """A written file, open for any number of threads."""

    def __init__(self, path: Path) -> None:
        """Open it.

        Raises:
            LogError: It is not a snapshot of this format.
            OSError: It cannot be read.
        """
        self.path = path
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self.height, self.root, index = self._read_index()
            self._firsts: list[bytes] = [one[0] for one in index]
            self._places: list[tuple[int, int]] = [(one[1], one[2]) for one in index]
        except (CanonicalError, ValueError, TypeError, IndexError) as error:
            os.close(self._descriptor)
            message = f"{path} is not a snapshot: {error}"
            raise LogError(message) from error

    def _read_index(self) -> tuple[int, bytes, list[list[Any]]]:
        size = os.fstat(self._descriptor).st_size
        start = int.from_bytes(os.pread(self._descriptor, 8, max(0, size - 8)), "big")
        length = size - 8 - start
        if not 0 < length <= MAX_INDEX_BYTES:
            message = "it has no index"
            raise ValueError(message)
        tail = os.pread(self._descriptor, length, start)
        version, height, root, index = canonical.decode(tail, max_bytes=MAX_INDEX_BYTES)
        if (type(height), type(root)) != (int, bytes) or any(
            (type(low), type(at), type(count)) != (bytes, int, int) or min(at, count) < 0
            for low, at, count in index
        ):
            message = "its index is malformed"
            raise ValueError(message)
        if version != FORMAT:
            message = f"format {version}, and this software reads {FORMAT}"
            raise ValueError(message)
        return height, root, index

    def __len__(self) -> int:
        return len(self._firsts)

    def at(self, path: bytes) -> int:
        """The place of the range that a path (32 bytes) falls into."""
        return max(0, bisect_right(self._firsts, path) - 1)

    def first(self, place: int) -> bytes:
        """The first path of a range."""
        return self._firsts[place]

    def range(self, place: int) -> bytes:
        """The bytes of a range."""
        at, length = self._places[place]
        return os.pread(self._descriptor, min(length, MAX_RANGE_BYTES), at)

    def close(self) -> None:
        """Close it; no thread may read from it any more."""
        os.close(self._descriptor)

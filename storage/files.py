"""What the store does to files, in one place, so that a test can put a disk there that fails, forgets or stops.

Only writes go through here: a read changes nothing that a crash could lose.
The databases beside the segments are SQLite's own business.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Final

from storage import direct
from storage.errors import FileSystemFullError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def check_free(folder: Path, needed: int) -> None:
    """See whether the file system of a folder has room for so many bytes.

    Raises:
        FileSystemFullError: It has not; it is named by where it is mounted.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise FileSystemFullError(needed, free, mount_of(folder))


def mount_of(folder: Path) -> Path:
    """Where the file system of a folder is mounted."""
    found = folder.resolve()
    while not found.is_mount():
        found = found.parent
    return found


class Files:
    """The disk as the system gives it; every method may raise OSError."""

    def create(self, path: Path) -> int:
        """Make a file that must not exist; its name is durable after `sync_folder`."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def open(self, path: Path) -> int:
        """Open a file for writing."""
        return os.open(path, os.O_WRONLY | os.O_CLOEXEC)

    def write(self, descriptor: int, buffers: Sequence[bytes | memoryview], offset: int) -> int:
        """Write at a place; returns how many bytes were taken, which may be fewer."""
        if sum(len(buffer) for buffer in buffers) >= direct.LEAST_BYTES:
            return direct.write(descriptor, buffers, offset)
        return os.pwritev(descriptor, buffers, offset)

    def sync(self, descriptor: int) -> None:
        """Make what was written to a file durable."""
        os.fdatasync(descriptor)

    def drop(self, descriptor: int, offset: int, length: int) -> None:
        """Give back the memory in which the system keeps a part of a file."""
        os.posix_fadvise(descriptor, offset, length, os.POSIX_FADV_DONTNEED)

    def truncate(self, path: Path, size: int) -> None:
        """Cut a file."""
        os.truncate(path, size)

    def rename(self, old: Path, new: Path) -> None:
        """Give a file another name, in place of what has that name."""
        old.replace(new)

    def unlink(self, path: Path) -> None:
        """Remove a file; a reader that has it open keeps it."""
        path.unlink()

    def sync_folder(self, folder: Path) -> None:
        """Make the names in a folder durable."""
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def close(self, descriptor: int) -> None:
        """Close a file; what was not synced may be lost."""
        os.close(descriptor)

    def space(self, folder: Path) -> tuple[int, int]:
        """(bytes of the file system, bytes of it that are free)."""
        found = os.statvfs(folder)
        return found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize

    def write_all(
        self, descriptor: int, buffers: Sequence[bytes | memoryview], offset: int
    ) -> None:
        """Write everything, however often the disk takes less than it was given."""
        rest = list(buffers)
        left = sum(len(buffer) for buffer in rest)
        while left:
            written = self.write(descriptor, rest, offset)
            left -= written
            offset += written
            while rest and written >= len(rest[0]):
                written -= len(rest.pop(0))
            if written:
                rest[0] = memoryview(rest[0])[written:]

    def replace(self, path: Path, content: bytes) -> None:
        """Put a file in place of another; a crash leaves the old one or the new one."""
        beside = path.with_name(path.name + ".new")
        beside.unlink(missing_ok=True)
        descriptor = self.create(beside)
        try:
            self.write_all(descriptor, [content], 0)
            self.sync(descriptor)
        finally:
            self.close(descriptor)
        self.rename(beside, path)
        self.sync_folder(path.parent)


DISK: Final = Files()

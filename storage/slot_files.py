"""The bytes of sealed slots as they lie on the disk; which of them count is told by the database beside them.

folder/000000.slots     slots 0 to 1,023, a megabyte each; the next file holds the next 1,024
folder/pending/*.slot   sealed slots that are to take the place of others
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from storage.errors import DiskFullError, StorageError
from storage.files import DISK, Files
from storage.sealing import SLOT_BYTES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

FILE_SLOTS: Final = 1024
_NUMBER: Final = re.compile("[0-9]{6,}")


class DamagedSlotError(StorageError):
    """The bytes of a sealed slot are not those that were committed; it can be sealed again."""

    def __init__(self, slot: int) -> None:
        super().__init__(f"slot {slot} is damaged on the disk")
        self.slot = slot


class SlotFiles:
    """Reads and writes whole slots; what is written is durable when the call returns.

    Args:
        folder: Where they live; made if it is not there.
        files: How they are written; a test puts a failing disk here.
    """

    def __init__(self, folder: Path, files: Files = DISK) -> None:
        self._folder = folder
        self._files = files
        self._pending = folder / "pending"
        self._pending.mkdir(parents=True, exist_ok=True)

    def read(self, slot: int) -> bytes:
        """A slot's sealed bytes.

        Raises:
            DamagedSlotError: The disk does not hold them.
            OSError: They could not be read for a reason that may pass.
        """
        with _whole_or_damaged(slot), self._path(slot).open("rb", buffering=0) as file:
            sealed = os.pread(file.fileno(), SLOT_BYTES, slot % FILE_SLOTS * SLOT_BYTES)
        if len(sealed) != SLOT_BYTES:
            raise DamagedSlotError(slot)
        return sealed

    def write(self, slot: int, sealed: bytes) -> None:
        """Put a slot into its place.

        Raises:
            DiskFullError: The disk is full.
        """
        self._write(self._path(slot), sealed, slot % FILE_SLOTS * SLOT_BYTES)

    def read_pending(self, slot: int, name: str) -> bytes:
        """The form of a slot that waits under a name.

        Raises:
            DamagedSlotError: The disk does not hold it.
            OSError: It could not be read for a reason that may pass.
        """
        with _whole_or_damaged(slot):
            sealed = (self._pending / name).read_bytes()
        if len(sealed) != SLOT_BYTES:
            raise DamagedSlotError(slot)
        return sealed

    def write_pending(self, name: str, sealed: bytes) -> None:
        """Keep a slot's next form under a name.

        Raises:
            DiskFullError: The disk is full.
        """
        self._write(self._pending / name, sealed, 0)

    def drop_pending(self, name: str) -> None:
        """Remove what waited under a name."""
        with suppress(FileNotFoundError):
            self._files.unlink(self._pending / name)

    def trim(self, slots: int, pending: Collection[str]) -> None:
        """Keep the first `slots` and what waits under these names; the rest was torn, or given back."""
        for path in self._pending.iterdir():
            if path.name not in pending and path.suffix == ".slot" and path.is_file():
                self._files.unlink(path)
        for path in self._folder.glob("*.slots"):
            if not _NUMBER.fullmatch(path.stem):
                continue  # a person's
            keep = (slots - int(path.stem) * FILE_SLOTS) * SLOT_BYTES
            if keep <= 0:
                self._files.unlink(path)
            elif path.stat().st_size > keep:
                self._files.truncate(path, keep)

    def _path(self, slot: int) -> Path:
        return self._folder / f"{slot // FILE_SLOTS:06d}.slots"

    def _write(self, path: Path, sealed: bytes, offset: int) -> None:
        files = self._files
        with full_disk(self._folder):
            is_new = not path.exists()
            descriptor = files.create(path) if is_new else files.open(path)
            try:
                files.write_all(descriptor, [sealed], offset)
                files.sync(descriptor)
            finally:
                files.close(descriptor)
            # At the first slot too: a write before this one may have failed when the file was made.
            if is_new or not offset:
                files.sync_folder(path.parent)


@contextmanager
def _whole_or_damaged(slot: int) -> Iterator[None]:
    """Tell a slot that the disk has lost from a moment in which it cannot be read."""
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.ENOENT, errno.EIO}:
            raise
        raise DamagedSlotError(slot) from error


@contextmanager
def full_disk(folder: Path) -> Iterator[None]:
    """Tell a full disk from other failures."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise DiskFullError(SLOT_BYTES, shutil.disk_usage(folder).free) from error
        raise

"""A second witness of the newest commit: its height and root, in a small file beside the database.

    file = slot || slot
    slot = height (u64, big endian) || root (32 bytes) || CRC-32 of both (u32, big endian)

LMDB keeps two heads and opens with the older one when the newer is damaged: a height earlier, whole in itself, and
without a word. The witness is written after each commit, into the slot that is not the newest, so that a write that is
torn leaves the one before. It may be one height behind after a crash; a database behind it has lost a commit.
"""

from __future__ import annotations

import os
import zlib
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from storage.files import DISK, Files

if TYPE_CHECKING:
    from pathlib import Path

_BODY: Final = 40
SLOT_BYTES: Final = _BODY + 4


class Commit(NamedTuple):
    """A state that was durable here."""

    height: int
    root: bytes


class Witness:
    """The file; one thread at a time.

    Args:
        path: Made if there is none.
        files: How it is written; a test puts a failing disk here.

    Raises:
        OSError: It cannot be made or read.
    """

    def __init__(self, path: Path, files: Files = DISK) -> None:
        if not path.exists():
            files.replace(path, bytes(2 * SLOT_BYTES))
        data = path.read_bytes()
        slots = [_unpack(data[at : at + SLOT_BYTES]) for at in (0, SLOT_BYTES)]
        known = [slot for slot in slots if slot is not None]
        self.newest: Commit | None = max(known, default=None)
        """What was noted last; None if nothing was, or the file is damaged."""
        self._next = 1 if self.newest is not None and slots[0] == self.newest else 0
        self._files = files
        self._descriptor = files.open(path)

    def note(self, commit: Commit) -> None:
        """Note a commit that is durable; one that cannot be written is only not witnessed."""
        body = commit.height.to_bytes(8, "big") + commit.root
        with suppress(OSError):
            slot = body + zlib.crc32(body).to_bytes(4, "big")
            self._files.write_all(self._descriptor, [slot], self._next * SLOT_BYTES)
            self._files.sync(self._descriptor)
            self._next = 1 - self._next
        self.newest = commit

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _unpack(slot: bytes) -> Commit | None:
    body = slot[:_BODY]
    if slot[_BODY:] != zlib.crc32(body).to_bytes(4, "big"):
        return None
    return Commit(int.from_bytes(body[:8], "big"), body[8:])

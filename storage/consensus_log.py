"""The log of what this validator has said: on disk before it is on the wire.

    file   = magic (16 bytes, the version in its last) || salt (8 random bytes) || record*
    record = storage.records, one an append: salt || (length (u32, big endian) || entry)*

An append is one record, so a crash leaves all of it or none. A record that is torn at the end is cut off: its append
never returned, so nothing was sent. A bad record with good ones after it is damage, and the log is refused: a validator
that forgets a vote may contradict it and lose its bond. The salt, which no peer knows, keeps bytes inside an entry
from passing as a record of ours.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, Self

from storage import records
from storage.errors import FormatError, LogError
from storage.files import DISK, Files

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path
    from types import TracebackType

VERSION: Final = 1
_MAGIC: Final = b"swarm-votes-log"
_SALT_BYTES: Final = 8
HEADER_BYTES: Final = len(_MAGIC) + 1 + _SALT_BYTES
REMEDY: Final = (
    "move it away and leave the ledger in place: the key then votes from the next epoch on; "
    "put no older copy there, since a vote that it has forgotten may be contradicted, which is slashed"
)
"""What to do about a log that cannot be used."""
MAX_APPEND_BYTES: Final = records.MAX_RECORD_BYTES - 2**10
"""Of the entries in one append together, with four bytes more for each."""


class ConsensusLog:
    """An append-only file of entries; one process has it open.

    `created` tells whether there was no file before: a validator without its log cannot know what it has signed.

    Args:
        path: The file; made, with its folder, if there is none.
        files: How it is written; a test puts a failing disk here.

    Raises:
        LogError: Damaged before its tail, of an unknown version, or not a consensus log.
    """

    def __init__(self, path: Path, files: Files = DISK) -> None:
        self._path = path
        self._files = files
        path.parent.mkdir(parents=True, exist_ok=True)
        self.created = not path.exists()
        if self.created:
            self._replace(())
        data = path.read_bytes()
        self._salt = self._read_header(data)
        self._entries: list[bytes] = []
        self._end = self._recover(data)
        self._descriptor = files.open(path)
        try:
            if self._end < len(data):
                files.truncate(path, self._end)
                files.sync(self._descriptor)
        except BaseException:
            files.close(self._descriptor)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def size_bytes(self) -> int:
        """Of the file."""
        return self._end

    def entries(self) -> list[bytes]:
        """The entries that the file held when it was opened, in order."""
        return list(self._entries)

    def append(self, entries: Sequence[bytes]) -> None:
        """Add entries, all or none; they are on the disk when this returns.

        Raises:
            OSError: The disk is full or fails. What was written is cut off again where that is possible, and
                written over by the next append; nothing may be sent before one returns.
        """
        if not entries:
            return
        if self._descriptor < 0:
            self._open()
        record = records.pack(self._pack(self._salt, entries))
        try:
            self._files.write_all(self._descriptor, [record], self._end)
            self._files.sync(self._descriptor)
        except OSError:
            self._files.truncate(self._path, self._end)
            raise
        self._end += len(record)

    def rotate(self, keep: Sequence[bytes]) -> None:
        """Put these entries in the place of all; a crash leaves the old file or the new one.

        Raises:
            OSError: The disk is full or fails, and either file may be there; the next append goes to the one that is.
        """
        self.close()
        self._replace(keep)
        self._open()

    def close(self) -> None:
        """Close the file; every append is on the disk already."""
        if self._descriptor >= 0:
            self._files.close(self._descriptor)
            self._descriptor = -1

    def _open(self) -> None:
        """Open what is there after a rewrite."""
        data = self._path.read_bytes()
        salt = self._read_header(data)
        if salt != self._salt:
            # No vote goes into a file that a crash may take back.
            self._files.sync_folder(self._path.parent)
            self._salt, self._end = salt, len(data)
        self._descriptor = self._files.open(self._path)

    @staticmethod
    def _pack(salt: bytes, entries: Iterable[bytes]) -> bytes:
        body = salt + b"".join(len(e).to_bytes(4, "big") + e for e in entries)
        if len(body) > MAX_APPEND_BYTES:
            message = f"an append of {len(body):,} bytes where {MAX_APPEND_BYTES:,} are allowed"
            raise ValueError(message)
        return body

    def _replace(self, keep: Sequence[bytes]) -> None:
        """Write a new file beside the old and rename it."""
        salt = os.urandom(_SALT_BYTES)
        content = _MAGIC + bytes((VERSION,)) + salt
        if keep:
            content += records.pack(self._pack(salt, keep))
        self._files.replace(self._path, content)

    def _read_header(self, data: bytes) -> bytes:
        if len(data) < HEADER_BYTES or not data.startswith(_MAGIC):
            message = f"{self._path} is not a consensus log; {REMEDY}"
            raise LogError(message)
        if data[len(_MAGIC)] != VERSION:
            what = f"the log of votes in {self._path}"
            raise FormatError(what, data[len(_MAGIC)], VERSION)
        return data[HEADER_BYTES - _SALT_BYTES : HEADER_BYTES]

    def _recover(self, data: bytes) -> int:
        """Read the good records; where they end.

        Raises:
            LogError: Good records follow a bad one.
        """
        end = HEADER_BYTES
        for at, body in records.scan(data, HEADER_BYTES):
            if bytes(body[:_SALT_BYTES]) != self._salt:
                break
            self._entries += _unpack(body[_SALT_BYTES:])
            end = at + len(body)
        found = data.find(self._salt, end + records.HEADER.size + 1)
        while found != -1:
            start = found - records.HEADER.size
            if next(records.scan(data, start), None) is not None:
                message = (
                    f"{self._path} is damaged at byte {end:,} with good records after it; {REMEDY}"
                )
                raise LogError(message)
            found = data.find(self._salt, found + 1)
        return end


def _unpack(body: memoryview) -> list[bytes]:
    entries = []
    at = 0
    while at + 4 <= len(body):
        length = int.from_bytes(body[at : at + 4], "big")
        entries.append(bytes(body[at + 4 : at + 4 + length]))
        at += 4 + length
    return entries

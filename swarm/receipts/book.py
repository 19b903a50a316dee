"""The receipts of a node on disk: one signed JSON object a line, the newest kept and the others let go."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, Final

from storage.files import DISK
from swarm.receipts.receipt import MAX_BYTES, encode, is_whole

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    Json = dict[str, Any]

FILE: Final = "receipts.jsonl"
MAX_KEPT: Final = 4_096
SLACK: Final = 512
"""More than are kept stand in the file before it is written anew."""
MAX_FILE_BYTES: Final = (MAX_KEPT + SLACK) * MAX_BYTES


class Book:
    """The file of receipts; blocking, for one thread at a time.

    Args:
        path: The file; made with the first receipt.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._count: int | None = None

    def read(self) -> list[Json]:
        """What is kept, the oldest first; a torn last line, and one that is no receipt, are left out."""
        try:
            with self._path.open("rb") as file:
                lines = file.read(MAX_FILE_BYTES).split(b"\n")
        except FileNotFoundError:
            return []
        found: list[Json] = []
        for line in lines[:-1]:
            try:
                one = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if is_whole(one):
                found.append(one)
        return found[-MAX_KEPT:]

    def add(self, receipts: Sequence[Json]) -> None:
        """Write receipts behind the others, durable when it returns."""
        lines = [encode(one) for one in receipts]
        if self._count is None:
            self._mend()
        assert self._count is not None  # noqa: S101 - `_mend` counts
        if self._count + len(lines) > MAX_KEPT + SLACK:
            kept = [encode(one) for one in self.read()]
            lines = [*kept, *lines][-MAX_KEPT:]
            DISK.replace(self._path, b"".join(lines))
            self._count = len(lines)
            return
        count = self._count + len(lines)
        self._count = None  # where writing fails, a line may be torn
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "ab") as file:
            file.write(b"".join(lines))
            file.flush()
            os.fdatasync(file.fileno())
        self._count = count

    def _mend(self) -> None:
        """Count the lines, and cut a torn one off: what is written behind it would be lost with it."""
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            data = b""
        whole = data.rfind(b"\n") + 1
        if whole != len(data):
            os.truncate(self._path, whole)
        self._count = data.count(b"\n")

"""What a node found when it ran work again, on disk before it is sealed: a restart opens what it sealed."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from storage import canonical
from storage.errors import CanonicalError
from storage.files import DISK
from swarm.ledger.replaying import Finding, Found

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

_VERSION: Final = 1
_MAX_BYTES: Final = 2**20

Key: TypeAlias = tuple[bytes, int, bytes]
"""Task, round and worker."""


@dataclass(frozen=True, slots=True)
class Said:
    """What was found, and the salt of its seal."""

    found: Found
    salt: bytes


class Findings:
    """Those that this node may still have to open, replaced whole and durably at each change; for threads.

    What could not be written is not remembered either: a seal that a restart cannot open costs forty wages.

    Args:
        path: Of the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        try:
            self._said = _decode(path.read_bytes())
        except (OSError, CanonicalError, ValueError, TypeError, IndexError):
            self._said = {}

    def get(self, key: Key) -> Said | None:
        """What was found in a submission."""
        return self._said.get(key)

    def known(self) -> list[Key]:
        """Of which submissions there is one."""
        return list(self._said)

    def put(self, key: Key, said: Said) -> None:
        """Remember; durable when it returns."""
        with self._lock:
            self._replace({**self._said, key: said})

    def keep(self, keys: Collection[Key]) -> None:
        """Forget all others."""
        with self._lock:
            left = {key: said for key, said in self._said.items() if key in keys}
            if len(left) != len(self._said):
                self._replace(left)

    def _replace(self, said: dict[Key, Said]) -> None:
        rows = [
            [*key, int(one.found.finding), one.found.distance, list(one.found.proof), one.salt]
            for key, one in said.items()
        ]
        self._path.parent.mkdir(parents=True, exist_ok=True)
        DISK.replace(self._path, canonical.encode([_VERSION, rows]))
        self._said = said


def _decode(data: bytes) -> dict[Key, Said]:
    version, rows = canonical.decode(data, max_bytes=_MAX_BYTES)
    if version != _VERSION:
        message = f"findings of version {version}"
        raise ValueError(message)
    return dict(_said(row) for row in rows)


def _said(row: list[Any]) -> tuple[Key, Said]:
    task, number, worker, finding, distance, proof, salt = row
    return (task, number, worker), Said(Found(Finding(finding), distance, tuple(proof)), salt)

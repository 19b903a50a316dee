"""What a keeper remembers across restarts: what is lent, what audits paid it, and what the last one found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from storage import canonical
from storage.errors import CanonicalError

if TYPE_CHECKING:
    from pathlib import Path

_VERSION: Final = 1
_MAX_BYTES: Final = 2**16


@dataclass(frozen=True, slots=True)
class Memory:
    """The history of one keeper.

    Attributes:
        earned: Units that audits paid while this node watched.
        audit: The last audit that was counted.
        reason: How it ended, in words.
    """

    earned: int = 0
    audit: int = 0
    reason: str = ""


class MemoryFile:
    """One memory, replaced whole at each change; nothing depends on it but what people are told."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> Memory:
        """What was saved, or a blank one."""
        try:
            value = canonical.decode(self._path.read_bytes(), max_bytes=_MAX_BYTES)
            version, earned, audit, reason = value
        except (OSError, CanonicalError, ValueError, TypeError):
            return Memory()
        return Memory(earned, audit, reason) if version == _VERSION else Memory()

    def save(self, memory: Memory) -> None:
        """Replace it."""
        _replace(self._path, [_VERSION, memory.earned, memory.audit, memory.reason])


class Lent:
    """How much one data folder lends: what its node was started with, or what its owner said since.

    A node for one command takes the same number, so that it has the room that the folder's own node has.

    Args:
        path: Where it is remembered.
        started_with: Bytes that the node was told when it was started.
        is_temporary: Whether it runs for one command.

    Attributes:
        now: Bytes.
    """

    def __init__(self, path: Path, started_with: int, *, is_temporary: bool) -> None:
        self._path = path
        self._started_with = started_with
        remembered = self._load()
        self.now = started_with
        if remembered is not None and (is_temporary or remembered[0] == started_with):
            self._started_with, self.now = remembered
        elif not is_temporary:
            self.change(started_with)

    def change(self, lent: int) -> None:
        """Lend another number, until the node is started with another one."""
        self.now = lent
        _replace(self._path, [_VERSION, self._started_with, lent])

    def _load(self) -> tuple[int, int] | None:
        try:
            value = canonical.decode(self._path.read_bytes(), max_bytes=_MAX_BYTES)
            version, started_with, lent = value
        except (OSError, CanonicalError, ValueError, TypeError):
            return None
        is_known = version == _VERSION and isinstance(started_with, int) and isinstance(lent, int)
        return (started_with, max(0, lent)) if is_known else None


def _replace(path: Path, fields: list[object]) -> None:
    temporary = path.with_suffix(".part")
    temporary.write_bytes(canonical.encode(fields))
    temporary.replace(path)

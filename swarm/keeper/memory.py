"""What a keeper remembers across restarts: what audits paid it, and what the last one found."""

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
        fields = [_VERSION, memory.earned, memory.audit, memory.reason]
        temporary = self._path.with_suffix(".part")
        temporary.write_bytes(canonical.encode(fields))
        temporary.replace(self._path)

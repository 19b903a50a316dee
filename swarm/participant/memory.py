"""What a node did in a round, on disk before it is said: a restart opens what it committed to."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from storage import canonical, cid
from storage.errors import CanonicalError, CidError

if TYPE_CHECKING:
    from pathlib import Path

    from storage.cid import Cid

_VERSION = 1
_MAX_BYTES = 2**20
SALT_BYTES = 32


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores that this node made, and the salt of its commitment.

    Attributes:
        base_loss: Of the agreed checkpoint, nats x 10^5.
        values: One a submission, in the ledger's order.
        salt: 32 random bytes.
    """

    base_loss: int
    values: tuple[int, ...]
    salt: bytes


@dataclass(frozen=True, slots=True)
class Merged:
    """The checkpoint that this node derived, and its loss in nats x 10^5."""

    root: Cid
    loss: int


@dataclass(frozen=True, slots=True)
class RoundMemory:
    """One attempt at one round of one task; `fetched` is not kept across a restart."""

    task: bytes
    round: int
    attempt: int
    salt: bytes = b""
    update: Cid | None = None
    scores: Scores | None = None
    merged: Merged | None = None
    fetched: frozenset[Cid] = field(default_factory=frozenset)

    @property
    def key(self) -> tuple[bytes, int, int]:
        """Task, round and attempt."""
        return (self.task, self.round, self.attempt)

    def encode(self) -> bytes:
        """Canonical bytes."""
        scores, merged = self.scores, self.merged
        return canonical.encode(
            [
                _VERSION,
                self.task,
                self.round,
                self.attempt,
                self.salt,
                self.update,
                None if scores is None else [scores.base_loss, list(scores.values), scores.salt],
                None if merged is None else [merged.root, merged.loss],
            ]
        )

    @classmethod
    def decode(cls, data: bytes) -> RoundMemory:
        """Read canonical bytes.

        Raises:
            ValueError: Not a memory of this version.
        """
        version, task, round_, attempt, salt, update, scores, merged = canonical.decode(
            data, max_bytes=_MAX_BYTES
        )
        if version != _VERSION:
            message = f"a round's memory of version {version}"
            raise ValueError(message)
        return cls(
            task,
            round_,
            attempt,
            salt,
            None if update is None else cid.from_bytes(update),
            None if scores is None else Scores(scores[0], tuple(scores[1]), scores[2]),
            None if merged is None else Merged(cid.from_bytes(merged[0]), merged[1]),
        )


class MemoryFile:
    """The newest round of one task, replaced whole and durably at each change."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self, task: bytes, round_: int, attempt: int) -> RoundMemory:
        """What was done in that round, or a blank one when the file tells of another or of none.

        The update of an earlier attempt is kept: its commitment may be on its way and stand in this attempt.

        Raises:
            OSError: There is a file, and it cannot be read now: what it holds may still have to be opened.
        """
        blank = RoundMemory(task, round_, attempt)
        try:
            memory = RoundMemory.decode(self._path.read_bytes())
        except (
            FileNotFoundError,
            IsADirectoryError,
            CanonicalError,
            CidError,
            ValueError,
            TypeError,
            IndexError,
        ):
            return blank
        if memory.key == blank.key:
            return memory
        if (memory.task, memory.round) == (task, round_) and memory.attempt < attempt:
            return replace(blank, salt=memory.salt, update=memory.update)
        return blank

    def save(self, memory: RoundMemory) -> None:
        """Durable when it returns."""
        temporary = self._path.with_suffix(".part")
        with temporary.open("wb") as file:
            file.write(replace(memory, fetched=frozenset()).encode())
            file.flush()
            os.fdatasync(file.fileno())
        temporary.replace(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

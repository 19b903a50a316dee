"""Records of what is published: names, their versions, and datasets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from storage import canonical
from storage.cid import Cid
from swarm.ledger.errors import LedgerError

NO_CID = Cid(b"")
CID_CHARACTERS = 46
"""No CID is shorter, in whatever base it is written."""
READS_AS_CID = f"a name of {CID_CHARACTERS} characters or more has a -, else it reads as a CID"


def reads_as_cid(name: str) -> bool:
    """Whether a name could be taken for a CID: it is as long as one, and has no hyphen.

    No base that can be all in lower case has a hyphen. Of the text alone, so that every node says the same whichever bases
    its libraries know.
    """
    return len(name) >= CID_CHARACTERS and "-" not in name


@dataclass(frozen=True, slots=True)
class NameEntry:
    """A name's latest version."""

    name: str
    owner: bytes
    root: Cid
    version: int
    previous: Cid  # empty for version 0
    height: int
    task: bytes = b""  # the open task that alone may write it

    def pack(self) -> list[Any]:
        """Fields for the encoding."""
        return [
            self.name,
            self.owner,
            self.root,
            self.version,
            self.previous,
            self.height,
            self.task,
        ]

    @classmethod
    def decode(cls, data: bytes) -> NameEntry:
        """The record from the bytes under `name_key(name)`, as a proof carries them."""
        return cls(*_fields(data, 7))


@dataclass(frozen=True, slots=True)
class NameVersion:
    """One version of a name, kept for ever."""

    name: str
    version: int
    root: Cid
    previous: Cid
    height: int
    task: bytes = b""  # the task and round that made it, if one did
    round: int = 0

    def pack(self) -> list[Any]:
        """Fields for the encoding."""
        return [
            self.name,
            self.version,
            self.root,
            self.previous,
            self.height,
            self.task,
            self.round,
        ]

    @classmethod
    def decode(cls, data: bytes) -> NameVersion:
        """The record from the bytes under `name_key(name, version)`."""
        return cls(*_fields(data, 7))


@dataclass(frozen=True, slots=True)
class Dataset:
    """A published dataset."""

    root: Cid
    publisher: bytes
    size: int
    chunks: int
    licence: str
    height: int

    def pack(self) -> list[Any]:
        """Fields for the encoding."""
        return [self.root, self.publisher, self.size, self.chunks, self.licence, self.height]


def _fields(data: bytes, count: int) -> list[Any]:
    value = canonical.decode(data, max_bytes=4096)
    if type(value) is not list or len(value) != count:
        message = f"not a record of {count} fields"
        raise LedgerError(message)
    return value

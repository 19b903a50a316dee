"""The messages of `/swarm/retrieval/1.0.0` and their bytes, without the length of the frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

from protocols.retrieval.errors import Reason
from protocols.transport import RemoteProtocolError
from storage.chunks import MAX_CHUNK_BYTES
from storage.cid import CID_BYTES, Cid, from_bytes
from storage.errors import CidError
from storage.sampling import SEED_BYTES

PROTOCOL: Final = "/swarm/retrieval/1.0.0"
HELD, FETCH, BLOCK, SOURCES, FAILED = 1, 2, 3, 4, 5
QUESTION_BYTES: Final = 1 + CID_BYTES + SEED_BYTES
MAX_ANSWER_BYTES: Final = 1 + MAX_CHUNK_BYTES
MAX_SOURCES: Final = 2**16 - 1


@dataclass(frozen=True, slots=True)
class Question:
    """Show the way from a root to the chunk that a seed draws.

    Attributes:
        root: Of the content.
        seed: 32 bytes, drawn for this question.
        fetches: Whether the answerer is to fetch what it lacks.
    """

    root: Cid
    seed: bytes
    fetches: bool

    def encode(self) -> bytes:
        """The frame's body."""
        return bytes((FETCH if self.fetches else HELD,)) + self.root + self.seed

    @classmethod
    def decode(cls, body: bytes) -> Question:
        """Read a frame's body.

        Raises:
            RemoteProtocolError: It is no question.
        """
        if len(body) != QUESTION_BYTES or body[0] not in (HELD, FETCH):
            message = f"a question of {len(body)} bytes where {QUESTION_BYTES} are due"
            raise RemoteProtocolError(message)
        try:
            root = from_bytes(body[1 : 1 + CID_BYTES])
        except CidError as error:
            raise RemoteProtocolError(str(error)) from error
        return cls(root, body[1 + CID_BYTES :], body[0] == FETCH)


@dataclass(frozen=True, slots=True)
class Block:
    """The next block of the way."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Sources:
    """How many providers the answerer found."""

    count: int


@dataclass(frozen=True, slots=True)
class Failed:
    """The way ends here."""

    reason: Reason


Answer: TypeAlias = Block | Sources | Failed


def encode(answer: Answer) -> bytes:
    """The frame's body."""
    match answer:
        case Block(data):
            return bytes((BLOCK,)) + data
        case Sources(count):
            return bytes((SOURCES,)) + min(count, MAX_SOURCES).to_bytes(2, "big")
        case Failed(reason):
            return bytes((FAILED, reason))


def decode(body: bytes) -> Answer:
    """Read a frame's body.

    Raises:
        RemoteProtocolError: It is no answer.
    """
    kind = body[0] if body else 0
    if kind == BLOCK and len(body) <= MAX_ANSWER_BYTES:
        return Block(body[1:])
    if kind == SOURCES and len(body) == 3:
        return Sources(int.from_bytes(body[1:], "big"))
    if kind == FAILED and len(body) == 2 and 1 <= body[1] <= Reason.MALFORMED:
        return Failed(Reason(body[1]))
    message = f"an answer of kind {kind} and {len(body):,} bytes"
    raise RemoteProtocolError(message)

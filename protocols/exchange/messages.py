"""The messages of `/swarm/exchange/1.0.0` and their bytes.

A frame is u32 big endian (the length of what follows), u8 kind, body.
The body of a BLOCK is a CID and the chunk; that of every other kind is CIDs of 36 bytes, one after another.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, TypeAlias

from protocols.transport import RemoteProtocolError
from storage import cid as cids
from storage.chunks import MAX_CHUNK_BYTES
from storage.errors import CidError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from storage.cid import Cid

PROTOCOL = "/swarm/exchange/1.0.0"
MAX_CIDS = 1_024
"""CIDs in one message."""
_HEAD_BYTES = 5
_SMALL_BYTES = 2**12
_JOINED_BYTES = 2**16
"""Reads below the first bound are joined up to the second, so that a trickle of single bytes costs no memory."""
MAX_LIST_BYTES = 1 + MAX_CIDS * cids.CID_BYTES
"""The longest frame that is not a BLOCK, its length prefix left out."""
MAX_BLOCK_BYTES = 1 + cids.CID_BYTES + MAX_CHUNK_BYTES
"""The longest frame, its length prefix left out."""


@dataclass(frozen=True, slots=True)
class Want:
    """Send these chunks; each is answered by one BLOCK or one DONT_HAVE, in any order."""

    KIND: ClassVar[int] = 1
    cids: tuple[Cid, ...]


@dataclass(frozen=True, slots=True)
class Cancel:
    """These are no longer wanted; those not under way yet are answered by DONT_HAVE."""

    KIND: ClassVar[int] = 2
    cids: tuple[Cid, ...]


@dataclass(frozen=True, slots=True)
class Query:
    """Which of these are held? Answered by one HAVE; queries are answered in order."""

    KIND: ClassVar[int] = 3
    cids: tuple[Cid, ...]


@dataclass(frozen=True, slots=True)
class Block:
    """A chunk that was wanted."""

    KIND: ClassVar[int] = 4
    cid: Cid
    data: bytes


@dataclass(frozen=True, slots=True)
class DontHave:
    """These are wanted and will not come."""

    KIND: ClassVar[int] = 5
    cids: tuple[Cid, ...]


@dataclass(frozen=True, slots=True)
class Have:
    """Those of the oldest unanswered QUERY that are held; perhaps none."""

    KIND: ClassVar[int] = 6
    cids: tuple[Cid, ...]


Request: TypeAlias = Want | Cancel | Query
Answer: TypeAlias = Block | DontHave | Have
Message: TypeAlias = Request | Answer

_Lists: TypeAlias = type[Want] | type[Cancel] | type[Query] | type[DontHave] | type[Have]
REQUESTS: dict[int, _Lists] = {kind.KIND: kind for kind in (Want, Cancel, Query)}
ANSWERS: dict[int, _Lists] = {kind.KIND: kind for kind in (DontHave, Have)}


def encode(message: Message) -> bytes:
    """One frame, its length prefix included."""
    if isinstance(message, Block):
        return block_head(message.cid, len(message.data)) + message.data
    body = b"".join(message.cids)
    return (1 + len(body)).to_bytes(4, "big") + bytes((message.KIND,)) + body


def encode_all(kind: _Lists, wanted: Iterable[Cid]) -> bytes:
    """As many frames of one kind as the CIDs need; none for none."""
    rest = tuple(wanted)
    return b"".join(
        encode(kind(rest[start : start + MAX_CIDS])) for start in range(0, len(rest), MAX_CIDS)
    )


def block_head(cid: Cid, length: int) -> bytes:
    """What stands before the chunk in the frame of a BLOCK."""
    return (1 + len(cid) + length).to_bytes(4, "big") + b"\x04" + cid


class Decoder:
    """Cuts messages from the bytes of a stream; knows no I/O.

    A length is refused before anything is kept for it, and a chunk is copied once.

    Args:
        lists: The kinds made of CIDs that may come: `REQUESTS` or `ANSWERS`.
        blocks: Whether BLOCK may come.
    """

    def __init__(self, lists: dict[int, _Lists], *, blocks: bool) -> None:
        self._lists = lists
        self._blocks = blocks
        self._parts: deque[memoryview] = deque()
        self._held = 0
        self._kind = 0
        self._body = -1
        self._cid: Cid | None = None

    @property
    def is_between(self) -> bool:
        """Whether no frame has begun: the only place where a stream may end."""
        return self._body < 0 and not self._held

    def feed(self, data: bytes) -> list[Message]:
        """Take bytes, give the messages that they complete.

        Raises:
            RemoteProtocolError: They are not what the protocol allows; nothing more may be fed.
        """
        if len(data) < _SMALL_BYTES and self._parts and len(self._parts[-1]) < _JOINED_BYTES:
            self._parts[-1] = memoryview(b"".join((self._parts[-1], data)))
        elif data:
            self._parts.append(memoryview(data))
        self._held += len(data)
        found: list[Message] = []
        while (message := self._next()) is not None:
            found.append(message)
        return found

    def _next(self) -> Message | None:
        if self._body < 0 and not self._read_head():
            return None
        if self._kind != Block.KIND:
            if self._held < self._body:
                return None
            body = self._take(self._body)
            self._body = -1
            return self._lists[self._kind](_cids(body))
        if self._cid is None:
            if self._held < cids.CID_BYTES:
                return None
            self._cid = _cid(self._take(cids.CID_BYTES))
            self._body -= cids.CID_BYTES
        if self._held < self._body:
            return None
        message = Block(self._cid, self._take(self._body))
        self._body = -1
        self._cid = None
        return message

    def _read_head(self) -> bool:
        if self._held < _HEAD_BYTES:
            return False
        head = self._take(_HEAD_BYTES)
        body, kind = int.from_bytes(head[:4], "big") - 1, head[4]
        if kind == Block.KIND and self._blocks:
            if not cids.CID_BYTES <= body < MAX_BLOCK_BYTES:
                message = f"a block in a frame of {body + 1:,} bytes"
                raise RemoteProtocolError(message)
        elif kind in self._lists:
            least = 0 if kind == Have.KIND else cids.CID_BYTES
            if not least <= body < MAX_LIST_BYTES or body % cids.CID_BYTES:
                message = f"a list of CIDs in a frame of {body + 1:,} bytes"
                raise RemoteProtocolError(message)
        else:
            message = f"a message of kind {kind} where none is allowed"
            raise RemoteProtocolError(message)
        self._kind, self._body = kind, body
        return True

    def _take(self, count: int) -> bytes:
        taken: list[memoryview] = []
        missing = count
        while missing:
            part = self._parts[0]
            if len(part) <= missing:
                taken.append(self._parts.popleft())
                missing -= len(part)
            else:
                taken.append(part[:missing])
                self._parts[0] = part[missing:]
                missing = 0
        self._held -= count
        return b"".join(taken)


def _cid(data: bytes) -> Cid:
    try:
        return cids.from_bytes(data)
    except CidError as error:
        raise RemoteProtocolError(str(error)) from error


def _cids(body: bytes) -> tuple[Cid, ...]:
    step = cids.CID_BYTES
    return tuple(_cid(body[start : start + step]) for start in range(0, len(body), step))

"""Requests and answers of sync and their bytes; the package's text lists them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from protocols.sync.errors import SyncMessageError
from storage import canonical
from storage.errors import CanonicalError

MAX_REQUEST_BYTES: Final = 512
MAX_GENESIS_BYTES: Final = 4 * 2**20
MAX_KEY_BYTES: Final = 256
MAX_PROOF_BYTES: Final = 64 * 2**10
MAX_BLOCKS: Final = 512
MAX_FRAME_BYTES: Final = MAX_GENESIS_BYTES + 16
"""Also above any block with its finalization."""
MAX_HEIGHT: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class AskGenesis:
    """The network's first bytes."""

    def encode(self) -> bytes:
        """Its canonical bytes."""
        return canonical.encode([1])


@dataclass(frozen=True, slots=True)
class AskTip:
    """How far the peer is."""

    def encode(self) -> bytes:
        """Its canonical bytes."""
        return canonical.encode([2])


@dataclass(frozen=True, slots=True)
class AskBlocks:
    """Final blocks from a height on."""

    from_height: int
    count: int

    def encode(self) -> bytes:
        """Its canonical bytes."""
        return canonical.encode([3, self.from_height, self.count])


@dataclass(frozen=True, slots=True)
class AskProof:
    """A value of the state with its proof."""

    key: bytes

    def encode(self) -> bytes:
        """Its canonical bytes."""
        return canonical.encode([4, self.key])


Request: TypeAlias = AskGenesis | AskTip | AskBlocks | AskProof


@dataclass(frozen=True, slots=True)
class Proof:
    """What shows a value of the state to one who has only the validators: nothing of it is checked yet.

    `proof` shows `value` (None: no such key) under the state root in `header`, which `finalization` certifies.
    """

    header: bytes
    finalization: bytes
    value: bytes | None
    proof: bytes

    def encode(self) -> bytes:
        """Its canonical bytes."""
        return canonical.encode([self.header, self.finalization, self.value, self.proof])

    @classmethod
    def decode(cls, data: bytes) -> Proof | None:
        """Read a proof; None where the peer has none.

        Raises:
            SyncMessageError: Malformed.
        """
        value = array(data, MAX_PROOF_BYTES)
        if not value:
            return None
        if len(value) != 4 or any(type(value[at]) is not bytes for at in (0, 1, 3)):
            raise _malformed()
        if value[2] is not None and type(value[2]) is not bytes:
            raise _malformed()
        return cls(*value)


def decode_request(data: bytes) -> Request:
    """Read a request.

    Raises:
        SyncMessageError: Malformed; no other error, whatever the bytes.
    """
    match array(data, MAX_REQUEST_BYTES):
        case [1]:
            return AskGenesis()
        case [2]:
            return AskTip()
        case [3, int(height), int(count)] if 0 <= height <= MAX_HEIGHT and count >= 1:
            return AskBlocks(height, min(count, MAX_BLOCKS))
        case [4, bytes(key)] if len(key) <= MAX_KEY_BYTES:
            return AskProof(key)
    raise _malformed()


def encode_genesis(genesis: bytes) -> bytes:
    """The answer to `AskGenesis`."""
    return canonical.encode([genesis])


def decode_genesis(data: bytes) -> bytes:
    """Read the answer to `AskGenesis`.

    Raises:
        SyncMessageError: Malformed.
    """
    match array(data, MAX_FRAME_BYTES):
        case [bytes(genesis)] if len(genesis) <= MAX_GENESIS_BYTES:
            return genesis
    raise _malformed()


def encode_tip(height: int) -> bytes:
    """The answer to `AskTip`."""
    return canonical.encode([height])


def decode_tip(data: bytes) -> int:
    """Read the answer to `AskTip`.

    Raises:
        SyncMessageError: Malformed.
    """
    match array(data, MAX_REQUEST_BYTES):
        case [int(height)] if 0 <= height <= MAX_HEIGHT:
            return height
    raise _malformed()


def encode_pair(block: bytes, finalization: bytes) -> bytes:
    """One frame of the answer to `AskBlocks`."""
    return canonical.encode([block, finalization])


def decode_pair(data: bytes) -> tuple[bytes, bytes]:
    """Read one frame of the answer to `AskBlocks`.

    Raises:
        SyncMessageError: Malformed.
    """
    match array(data, MAX_FRAME_BYTES):
        case [bytes(block), bytes(finalization)]:
            return block, finalization
    raise _malformed()


def decode_gossip(data: bytes) -> tuple[int, bytes, bytes]:
    """Read a final block from the topic of blocks: height, block, finalization.

    Raises:
        SyncMessageError: Malformed.
    """
    match array(data, MAX_FRAME_BYTES):
        case [int(height), bytes(block), bytes(finalization)] if 0 <= height <= MAX_HEIGHT:
            return height, block, finalization
    raise _malformed()


def array(data: bytes, max_bytes: int) -> list[Any]:
    """Decode canonical bytes that are an array.

    Raises:
        SyncMessageError: They are something else, too long, or hold a truth value.
    """
    try:
        value = canonical.decode(data, max_bytes=max_bytes)
    except CanonicalError as error:
        raise SyncMessageError(str(error)) from error
    if type(value) is not list or any(type(item) is bool for item in value):
        raise _malformed()
    return value


def _malformed() -> SyncMessageError:
    message = "a malformed sync message"
    return SyncMessageError(message)

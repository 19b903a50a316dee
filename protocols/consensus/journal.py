"""Entries of the consensus log: what a core must find again after a crash.

[1, vote]          a vote of ours
[2, certificate]   that we hold
[3, block]         that we voted for or that a certificate names
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from protocols.consensus.blocks import MAX_BLOCK_BYTES, Block, decode, fields, number
from protocols.consensus.errors import MessageError
from protocols.consensus.votes import Certificate, Vote
from storage import canonical
from storage.errors import LogError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Entry: TypeAlias = Vote | Certificate | Block
_MAX_ENTRY_BYTES = MAX_BLOCK_BYTES + 64


def encode_entry(entry: Entry) -> bytes:
    """The bytes of one entry."""
    match entry:
        case Vote():
            return canonical.encode([1, entry.to_value()])
        case Certificate():
            return canonical.encode([2, entry.to_value()])
        case Block():
            return canonical.encode([3, entry.encode()])


def encode_first_epoch(epoch: int) -> bytes:
    """The entry that keeps a key from voting before an epoch."""
    return canonical.encode([4, epoch])


def first_epoch(entries: Iterable[bytes]) -> int:
    """The first epoch in which this log lets its key vote.

    Raises:
        LogError: As `decode_entries`.
    """
    return max((found for found in map(_read, entries) if isinstance(found, int)), default=0)


def decode_entries(entries: Iterable[bytes]) -> Iterator[Entry]:
    """Read a log.

    Raises:
        LogError: An entry that this version did not write; the log's own checksums were good.
    """
    for data in entries:
        entry = _read(data)
        if not isinstance(entry, int):
            yield entry


def _read(data: bytes) -> Entry | int:
    try:
        kind, body = fields(decode(data, _MAX_ENTRY_BYTES), 2)
        if kind == 1:
            return Vote.from_value(body)
        if kind == 2:
            return Certificate.from_value(body)
        if kind == 3 and type(body) is bytes:
            return Block.decode(body)
        if kind == 4:
            return number(body)
        why = f"an unknown kind {kind!r}"
    except MessageError as error:
        why = str(error)
    message = (
        f"the consensus log holds an entry that cannot be read ({why}); restore it from a copy, "
        "or do not validate with this key before the next epoch"
    )
    raise LogError(message)

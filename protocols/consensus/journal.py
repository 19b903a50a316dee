"""Entries of the consensus log: what a core must find again after a crash.

    [1, vote]          a vote of ours
    [2, certificate]   that we hold
    [3, block]         that we voted for or that a certificate names
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from protocols.consensus.blocks import MAX_BLOCK_BYTES, Block, decode, fields
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


def decode_entries(entries: Iterable[bytes]) -> Iterator[Entry]:
    """Read a log.

    Raises:
        LogError: An entry that this version did not write; the log's own checksums were good.
    """
    for data in entries:
        try:
            number, body = fields(decode(data, _MAX_ENTRY_BYTES), 2)
            if number == 1:
                yield Vote.from_value(body)
            elif number == 2:
                yield Certificate.from_value(body)
            elif number == 3 and type(body) is bytes:
                yield Block.decode(body)
            else:
                message = f"an entry of an unknown kind {number!r}"
                raise MessageError(message)
        except MessageError as error:
            message = (
                f"the consensus log holds an entry that cannot be read ({error}); restore it from a copy, "
                "or do not validate with this key before the next epoch"
            )
            raise LogError(message) from error

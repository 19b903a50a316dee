"""Entries of the consensus log: what a core must find again after a crash.

[1, vote]          a vote of ours
[2, certificate]   that we hold
[3, block]         that we voted for or that a certificate names
[4, epoch]         before which this key does not vote
[5, epoch]         from which on this log is whole: every vote of this key since then stands in it

A log that begins after the chain cannot tell what its key signed before, so its key waits for the next epoch (`[4]`).
Once the node has seen a block become final that was made just now, the log was there before any later epoch began
(`[5]`): a node that falls behind for whole epochs and comes back may then vote in the epoch that runs, for what it could
contradict would stand here. `next_safe_epoch` is the rule of both.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, TypeAlias

from protocols.consensus.blocks import MAX_BLOCK_BYTES, Block, decode, epoch_of, fields, number
from protocols.consensus.errors import MessageError
from protocols.consensus.votes import Certificate, Kind, Vote
from storage import canonical
from storage.consensus_log import REMEDY
from storage.errors import LogError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

Entry: TypeAlias = Vote | Certificate | Block
_MAX_ENTRY_BYTES = MAX_BLOCK_BYTES + 64

_FIRST: Final = 4
_WHOLE: Final = 5
_CERTIFICATE_HEAD: Final = b"\x82\x02"
_FIRST_HEAD: Final = b"\x82\x04"
"""How the bytes of such an entry begin: an array of two, and its kind."""
MAX_SKIPPED: Final = 8192
"""Nullifications that are held for a rewritten log; at 16 s a view, as long as none brings a block, a day and a half."""
END_PART: Final = 8
"""In the last eighth of an epoch others may be in the next one already."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What a log says about the epochs in which its key may vote."""

    first_epoch: int = 0
    """The first in which the key votes."""
    whole_from: int | None = None
    """The first of which the log holds every vote of the key; None if that is not known."""

    def encode(self) -> list[bytes]:
        """The entries that say so."""
        entries = [canonical.encode([_FIRST, self.first_epoch])] if self.first_epoch else []
        if self.whole_from is not None:
            entries.append(canonical.encode([_WHOLE, self.whole_from]))
        return entries


FROM_GENESIS: Final = Standing()
"""Of a log that began with the chain."""


def next_safe_epoch(height: int, epoch_length: int) -> int:
    """The first epoch in which nobody can have voted yet when a block of this height is the newest final one."""
    return epoch_of(height + 1 + epoch_length // END_PART, epoch_length) + 1


def standing(entries: Iterable[bytes]) -> Standing:
    """What a log says; a key that has been in an epoch does not vote in an earlier one either.

    Votes of epochs that are over are forgotten when a log is rewritten, and a ledger may be restored that is older.

    Raises:
        LogError: As `decode_entries`.
    """
    first, whole = 0, None
    for data in entries:
        entry = _read(data)
        if isinstance(entry, _Epoch) and entry.kind == _WHOLE:
            whole = entry.epoch if whole is None else min(whole, entry.epoch)
        else:
            first = max(first, entry.epoch)
    return Standing(first, whole)


def standing_at(entries: Sequence[bytes], height: int, epoch_length: int) -> Standing:
    """What a log says to a node that starts with a final block of this height.

    A log without an entry tells nothing of what its key signed before. One that is not known to be whole, and was not
    there in the epoch before the one that runs, tells nothing of that: sync brought what is between.

    Raises:
        LogError: As `decode_entries`.
    """
    stands, epoch = standing(entries), epoch_of(height + 1, epoch_length)
    is_whole = stands.whole_from is not None and stands.whole_from <= epoch
    newest = max((entry.epoch for entry in decode_entries(entries)), default=-1)
    was_there = epoch <= max(noted_first(entries), newest + 1)
    if height == 0 or (entries and (is_whole or was_there)):
        return stands
    first = max(stands.first_epoch, next_safe_epoch(height, epoch_length))
    return replace(stands, first_epoch=first)


def noted_first(entries: Iterable[bytes]) -> int:
    """The first epoch in which the key votes as entries of this program note it; 0 where none does."""
    noted = (_read(data) for data in entries if data.startswith(_FIRST_HEAD))
    return max((entry.epoch for entry in noted), default=0)


@dataclass(frozen=True, slots=True)
class _Epoch:
    kind: int
    epoch: int


def encode_entry(entry: Entry) -> bytes:
    """The bytes of one entry."""
    match entry:
        case Vote():
            return canonical.encode([1, entry.to_value()])
        case Certificate():
            return canonical.encode([2, entry.to_value()])
        case Block():
            return canonical.encode([3, entry.encode()])


class Skipped:
    """Nullifications that stand in the log, for the one that takes its place while no block becomes final.

    A core forgets those of views long past but for their numbers. After a restart it would not know the numbers either,
    and where every validator forgets that a view came to nothing, nobody can build across it.
    """

    def __init__(self) -> None:
        self._held: dict[tuple[int, int], bytes] = {}
        self._lost = (-1, 0)

    def note(self, entries: Iterable[bytes]) -> None:
        """Entries were written, or found in the log."""
        for data in entries:
            entry = _read(data) if data.startswith(_CERTIFICATE_HEAD) else None
            if isinstance(entry, Certificate) and entry.kind is Kind.NULLIFY:
                at = (entry.epoch, entry.view)
                if len(self._held) < MAX_SKIPPED:
                    self._held[at] = data
                elif at not in self._held:
                    self._lost = max(self._lost, at)

    def after(self, epoch: int, view: int) -> list[bytes] | None:
        """Those of an epoch's later views, older ones are forgotten; None where some are not held, so that the log must stay."""
        self._held = {at: data for at, data in self._held.items() if at > (epoch, view)}
        if self._lost > (epoch, view):
            return None
        return [data for at, data in sorted(self._held.items()) if at[0] == epoch]


def since(entries: Iterable[bytes], epoch: int) -> tuple[bytes, ...]:
    """The votes, certificates and blocks of an epoch and later ones.

    Raises:
        LogError: As `decode_entries`.
    """
    return tuple(
        data
        for data in entries
        if not isinstance(entry := _read(data), _Epoch) and entry.epoch >= epoch
    )


def decode_entries(entries: Iterable[bytes]) -> Iterator[Entry]:
    """Read a log.

    Raises:
        LogError: An entry that this version did not write; the log's own checksums were good.
    """
    for data in entries:
        entry = _read(data)
        if not isinstance(entry, _Epoch):
            yield entry


def _read(data: bytes) -> Entry | _Epoch:
    try:
        kind, body = fields(decode(data, _MAX_ENTRY_BYTES), 2)
        if kind == 1:
            return Vote.from_value(body)
        if kind == 2:
            return Certificate.from_value(body)
        if kind == 3 and type(body) is bytes:
            return Block.decode(body)
        if kind in (_FIRST, _WHOLE):
            return _Epoch(kind, number(body))
        why = f"an unknown kind {kind!r}"
    except MessageError as error:
        why = str(error)
    message = f"the consensus log holds an entry that cannot be read ({why}); {REMEDY}"
    raise LogError(message)

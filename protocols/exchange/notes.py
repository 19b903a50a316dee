"""How a fetch stands, in words: from whom it comes and how fast, or why nothing comes. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

from protocols.exchange.core import SILENCE_SECONDS
from storage.sizes import counted, format_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from protocols.exchange.core import Sender
    from protocols.transport import PeerId

MAX_NOTE_CHARACTERS = 200
"""Of a note, whatever peers do."""
MAX_NAMED = 3
"""Peers that a note names; of more it tells how many."""
NAME_CHARACTERS = 4
"""Of the end of a peer id, where two differ."""
QUIET_SECONDS = 3.0
"""A sender of whom no byte came for this long is told of as one that sends nothing."""

LOOKING = "looking for peers that have it"


@dataclass(frozen=True, slots=True)
class Standing:
    """What a fetch knows of itself.

    Attributes:
        senders: Who was asked for chunks that have not come.
        missing: Chunks that are known to be wanted and have not come.
        is_checking: Whether chunks that came are not checked and written yet.
        liars: Peers that are not asked, since they sent wrong bytes.
        dialling: Peers that are being connected to.
        unreachable: Peers that could not be.
        answers: Peers of whom anything is known.
        has_looked: Whether a search came to its end.
        again: Seconds until the next search; None while one runs.
    """

    senders: Sequence[Sender] = ()
    missing: int = 0
    is_checking: bool = False
    liars: int = 0
    dialling: int = 0
    unreachable: int = 0
    answers: int = 0
    has_looked: bool = False
    again: float | None = None


def note(standing: Standing) -> str:
    """From whom it comes, or why nothing comes; one line of at most `MAX_NOTE_CHARACTERS`."""
    talking = [one for one in standing.senders if one.silent < QUIET_SECONDS]
    quiet = [one for one in standing.senders if one.silent >= QUIET_SECONDS]
    rates = sorted(((one.rate, one.peer) for one in talking if one.rate is not None), reverse=True)
    parts: list[str] = []
    if rates:
        named = [f"{_name(peer)} {format_size(int(rate))}/s" for rate, peer in rates]
        parts.append(f"from {counted(len(rates), 'peer')}: {_listed(named)}")
    if quiet:
        verb = "has" if len(quiet) == 1 else "have"
        seconds = int(min(one.silent for one in quiet))
        named = [_name(one.peer) for one in quiet]
        parts.append(f"{_listed(named)} {verb} sent nothing for {seconds} s")
    if not rates and talking:
        parts.append(f"asking {_listed([_name(one.peer) for one in talking])}")
    elif not rates and quiet:
        parts.append(
            f"connecting to {counted(standing.dialling, 'peer')}"
            if standing.dialling
            else f"others are looked for after {SILENCE_SECONDS:.0f} s"
        )
    return "; ".join(parts) or _why_nobody_is_asked(standing)


def waiting_for_a_turn(fetches: int) -> str:
    """Of a fetch that has not begun, since so many others run."""
    return f"waiting until one of {fetches} other fetches ends"


def _why_nobody_is_asked(standing: Standing) -> str:
    if standing.is_checking:
        return "checking and writing what came"
    if not standing.missing:
        return "reading what is here already"
    if standing.dialling:
        return f"connecting to {counted(standing.dialling, 'peer')}"
    if not standing.has_looked:
        return LOOKING
    why: list[str] = []
    if standing.liars:
        why.append(f"{counted(standing.liars, 'peer')} sent wrong bytes")
    if standing.unreachable:
        why.append(f"{counted(standing.unreachable, 'peer')} cannot be reached")
    if standing.answers > standing.liars + standing.unreachable:
        count = standing.missing
        why.append(
            f"nobody has the {'missing chunk' if count == 1 else f'{count:,} missing chunks'}"
        )
    when = "now" if standing.again is None else f"in {max(1, ceil(standing.again))} s"
    return f"{', '.join(why) or 'there is nobody to ask'}; looking again {when}"


def _listed(named: Sequence[str]) -> str:
    more = len(named) - MAX_NAMED
    return ", ".join(named[:MAX_NAMED]) + (f" and {more:,} more" if more > 0 else "")


def _name(peer: PeerId) -> str:
    return f"…{peer[-NAME_CHARACTERS:]}"

"""What goes into the core and what comes out of it.

Effects are carried out in the order given, each before the next: a vote is on disk before it is on the wire.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from protocols.consensus.messages import Block, Certificate, Message


class Now(NamedTuple):
    """The time of an event, in milliseconds.

    `tick_ms` is for deadlines and never goes back; `utc_ms` is the wall clock, for timestamps of blocks.
    """

    tick_ms: int
    utc_ms: int


@dataclass(frozen=True, slots=True)
class Start:
    """The first event: the entries that the log holds, of any epoch."""

    entries: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Received:
    """A message from a peer; the public key is the one that its connection proved."""

    peer: bytes
    message: Message


@dataclass(frozen=True, slots=True)
class Prepared:
    """The answer to `Prepare`."""

    view: int
    block: Block


@dataclass(frozen=True, slots=True)
class Processed:
    """The answer to `Process`."""

    block_id: bytes
    valid: bool


@dataclass(frozen=True, slots=True)
class Advanced:
    """The application finalized a block that it got from elsewhere (sync); the certificate was verified."""

    block: Block
    finalization: Certificate


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed; due at the deadline of the last `SetTimer`."""


Event: TypeAlias = Start | Received | Prepared | Processed | Advanced | Tick


@dataclass(frozen=True, slots=True)
class Persist:
    """Append to the log, durable before the next effect."""

    entries: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Broadcast:
    """Send to every other validator of the epoch."""

    message: Message


@dataclass(frozen=True, slots=True)
class SendTo:
    """Send to one validator."""

    peer: bytes
    message: Message


@dataclass(frozen=True, slots=True)
class Prepare:
    """Ask the application for a child of a processed block; answered by `Prepared`."""

    parent: Block
    epoch: int
    view: int


@dataclass(frozen=True, slots=True)
class Process:
    """Ask the application to execute a block; answered by `Processed`."""

    block: Block


@dataclass(frozen=True, slots=True)
class Commit:
    """The block is final: tell the application; heights come in order, one by one."""

    block: Block
    finalization: Certificate


@dataclass(frozen=True, slots=True)
class SetTimer:
    """Send a `Tick` at this `tick_ms`; replaces the timer before it."""

    tick_ms: int


@dataclass(frozen=True, slots=True)
class Accuse:
    """Two votes that no honest validator casts; for the ledger."""

    accused: bytes
    evidence: bytes


@dataclass(frozen=True, slots=True)
class Doubled:
    """A vote of this node's own key that its log does not hold: the key is used elsewhere too, or the log is an old copy."""

    epoch: int
    view: int


@dataclass(frozen=True, slots=True)
class Blame:
    """A peer sent what no honest one sends; the shell drops its stream."""

    peer: bytes
    why: str


@dataclass(frozen=True, slots=True)
class Behind:
    """Others are ahead by more than messages can mend: sync."""

    epoch: int


@dataclass(frozen=True, slots=True)
class Halt:
    """Agreement and this node's ledger differ; it stops."""

    why: str


Effect: TypeAlias = (
    Persist
    | Broadcast
    | SendTo
    | Prepare
    | Process
    | Commit
    | SetTimer
    | Accuse
    | Doubled
    | Blame
    | Behind
    | Halt
)

"""The rules of the handshake: who counts as a member, and when a peer is too loud or too quiet."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, TypeAlias

from protocols.handshake import messages
from protocols.handshake.errors import HandshakeError

if TYPE_CHECKING:
    from protocols.handshake.messages import Hello

REFRESH_S = 5.0
"""The opener says hello this often."""
ANSWER_S = 10.0
"""The opener waits this long for an answer."""
SILENCE_S = 20.0
"""The answerer waits this long for the next hello."""
RATE_WINDOW_S = 5.0
MAX_HELLOS = 20
"""Hellos in each `RATE_WINDOW_S`; more is a flood."""


class Standing(Enum):
    """What a peer is to this node."""

    MEMBER = "member"
    """Of the same network."""
    ASKING = "asking"
    """One of the two does not know a genesis yet."""
    STRANGER = "stranger"
    """Of another network."""


def standing(mine: bytes, theirs: bytes) -> Standing:
    """What a peer with chain id `theirs` is to a node with chain id `mine`."""
    if not mine or not theirs:
        return Standing.ASKING
    return Standing.MEMBER if mine == theirs else Standing.STRANGER


@dataclass(frozen=True, slots=True)
class Heard:
    """The peer has said this of itself; it replaces what it said before."""

    hello: Hello


@dataclass(frozen=True, slots=True)
class Say:
    """Send a Hello with this node's present state."""


Effect: TypeAlias = Heard | Say


class Exchange:
    """The handshake on one connection.

    Args:
        opener: This side dialled, so it speaks first and keeps the clock.
    """

    def __init__(self, *, opener: bool) -> None:
        self.opener = opener
        self._heard_at: deque[float] = deque(maxlen=MAX_HELLOS)

    @property
    def patience_s(self) -> float:
        """Seconds to wait for the peer's next Hello before the link counts as dead."""
        return ANSWER_S if self.opener else SILENCE_S

    def handle(self, body: bytes, now: float) -> list[Effect]:
        """Take a frame from the peer.

        Raises:
            HandshakeError: Not a Hello, or the peer floods.
        """
        if len(self._heard_at) == MAX_HELLOS and now - self._heard_at[0] < RATE_WINDOW_S:
            message = f"more than {MAX_HELLOS} hellos in {RATE_WINDOW_S:g} s"
            raise HandshakeError(message)
        self._heard_at.append(now)
        heard = Heard(messages.decode(body))
        return [heard] if self.opener else [heard, Say()]

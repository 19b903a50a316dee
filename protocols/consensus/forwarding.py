"""Who is told of a certificate: those who do not show, in half of D, that they are past its view. Pure.

Everybody hears everybody's votes, so most make the certificate themselves. Who lags is one that votes were kept from, or
that does not vote; in a calm network nobody is sent one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocols.consensus.messages import Cast, Certify, Kind, Proposal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from protocols.consensus.messages import Message


class Forwarding:
    """What others show of where they are, and the views whose certificates they may lack; one epoch.

    Args:
        others: The other validators, by key.
        delta_ms: D.
    """

    def __init__(self, others: Sequence[bytes], delta_ms: int) -> None:
        self._reached = dict.fromkeys(others, 0)
        self._wait_ms = delta_ms // 2
        self._owed: dict[int, int] = {}

    def hear(self, peer: bytes, message: Message) -> None:
        """Note the view that a message shows its sender to be in; one that lies about it is not helped."""
        match message:
            case Cast(vote) if vote.voter == peer:
                view = vote.view + (vote.kind is Kind.FINALIZE)
            case Certify(certificate):
                view = certificate.view + 1
            case Proposal():
                view = message.view
            case _:
                return
        if view > self._reached.get(peer, view):
            self._reached[peer] = view

    def owe(self, number: int, tick: int) -> None:
        """A view has a new certificate."""
        self._owed.setdefault(number, tick + self._wait_ms)

    def due(self) -> list[int]:
        """When somebody may have to be told."""
        return list(self._owed.values())

    def laggards(self, tick: int) -> list[tuple[int, list[bytes]]]:
        """The views whose time is over, each with those who are not past it."""
        over = sorted(number for number, at in self._owed.items() if tick >= at)
        for number in over:
            del self._owed[number]
        return [(one, [key for key, at in self._reached.items() if at <= one]) for one in over]

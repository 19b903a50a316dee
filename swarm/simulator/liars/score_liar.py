"""A validator that scores without looking."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swarm.simulator.liars.behaviour import Behaviour

if TYPE_CHECKING:
    from swarm.ledger.state import RoundState

FAR = 20_000
"""Off by so much: nats x 10^5, far above any tolerance."""


class ScoreLiar(Behaviour):
    """Agrees on blocks, and turns the scores upside down."""

    def scores(self, found: tuple[int, ...], round_: RoundState) -> tuple[int, ...]:
        """The worst is the best."""
        del round_
        return tuple(FAR - score for score in found)

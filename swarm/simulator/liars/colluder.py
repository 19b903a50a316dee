"""Validators that lie together: they back each other's double proposals, and one another's scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swarm.simulator.liars.equivocator import Equivocator

if TYPE_CHECKING:
    from swarm.ledger.state import RoundState

PRAISE = 50_000
"""What they add to the score of the submission that they favour: nats x 10^5."""


class Colluder(Equivocator):
    """As many as there are in the scenario; to each other they tell the truth.

    A double vote of one is a double vote of all, and all praise the same submission and damn the rest.
    """

    def scores(self, found: tuple[int, ...], round_: RoundState) -> tuple[int, ...]:
        """The first submission is the best there ever was, whatever it is."""
        del round_
        return tuple(PRAISE if at == 0 else -PRAISE for at in range(len(found)))

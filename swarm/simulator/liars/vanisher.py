"""A keeper that disappears once others rely on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swarm.simulator.liars.behaviour import Behaviour

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swarm.ledger.keeping import Duty


class Vanisher(Behaviour):
    """Takes the pieces of deals, shows one once, and is never heard of again."""

    role = "keeper"

    def vanishes(self, duties: Sequence[Duty]) -> bool:
        """When it has shown a piece."""
        return any(duty.shown for duty in duties)

"""A validator that does not report what it audited."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swarm.simulator.liars.behaviour import Behaviour

if TYPE_CHECKING:
    from swarm.simulator.examiners import Round
    from swarm.simulator.liars.behaviour import Found


class SilentAuditor(Behaviour):
    """Agrees on blocks, and says nothing of any keeper."""

    def finds(self, round_: Round) -> Found | None:
        """Nothing, whatever it found."""
        del round_
        return None

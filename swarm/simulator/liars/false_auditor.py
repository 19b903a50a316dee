"""A validator that turns its audits upside down."""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocols.audit.errors import Failure
from swarm.simulator.liars.behaviour import Behaviour

if TYPE_CHECKING:
    from swarm.simulator.examiners import Round
    from swarm.simulator.liars.behaviour import Found


class FalseAuditor(Behaviour):
    """Names every keeper that was in order, and every piece that was shown; who failed it lets pass."""

    def finds(self, round_: Round) -> Found | None:
        """The contrary."""
        named = sorted(round_.asked - round_.failed.keys())
        return dict.fromkeys(named, int(Failure.NO_PATH)), set(round_.due - round_.missing)

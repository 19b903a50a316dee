"""A worker that commits, waits until it has seen what the others made, and opens its commitment too late."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swarm.ledger.state import Phase
from swarm.participant.core import Reveal
from swarm.simulator.liars.behaviour import Behaviour

if TYPE_CHECKING:
    from swarm.ledger.state import RoundState
    from swarm.participant.core import Send
    from swarm.participant.memory import RoundMemory


class LateRevealer(Behaviour):
    """Holds the round up until the deadline of its reveals, and earns nothing."""

    role = "worker"

    def says(self, step: Send, round_: RoundState) -> Send | None:
        """All but its reveal."""
        del round_
        return None if isinstance(step, Reveal) else step

    def volunteers(self, round_: RoundState, memory: RoundMemory, account: bytes) -> Send | None:
        """The reveal, once scoring has begun."""
        late = round_.phase > Phase.REVEAL and account not in round_.reveals
        if late and account in round_.commits and memory.update is not None:
            return Reveal(memory.update, memory.salt)
        return None

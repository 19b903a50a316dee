"""What every node has: an honest one, which each kind of liar changes in a place or two."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from protocols.consensus.messages import Message
    from swarm.ledger.keeping import Duty
    from swarm.ledger.state import RoundState
    from swarm.participant.core import Send
    from swarm.participant.memory import RoundMemory
    from swarm.simulator.chance import Chance
    from swarm.simulator.examiners import Name, Round
    from swarm.simulator.node import Node

    Found = tuple[dict[bytes, int], set[Name]]


class Behaviour:
    """Honest.

    Args:
        group: The places of all liars of this entry of the scenario, this one among them.
        strength: In parts in a million; what it means is the kind's own.
        chance: A stream of this node's own.
    """

    role: ClassVar[str] = "validator"
    """Among whom this kind is found: validator, worker or keeper."""
    contradicts: ClassVar[bool] = False
    """Whether it signs what no honest validator signs, so that it may be accused."""
    doubles: ClassVar[bool] = False
    """Whether two nodes run with its key."""
    honest: ClassVar[bool] = False
    """Set for nobody but who does all that the protocol says."""
    seals_on_demand: ClassVar[bool] = False
    """Whether a keeper makes what is drawn when it is drawn."""

    def __init__(self, group: Sequence[int], strength: int, chance: Chance) -> None:
        self.group = frozenset(group)
        self.strength = strength
        self.chance = chance

    def outgoing(self, node: Node, place: int, message: Message) -> Iterable[tuple[int, Message]]:
        """What is sent to a place instead of a message: `(milliseconds later, message)` each."""
        del node, place
        return ((0, message),)

    def meets(self, node: Node, other: Node) -> bool:
        """Whether this node and another hear each other at all."""
        del node, other
        return True

    def serves(self) -> bool:
        """Whether it gives final blocks to who lags."""
        return True

    def says(self, step: Send, round_: RoundState) -> Send | None:
        """The transaction that is sent in a round instead of one; None for none."""
        del round_
        return step

    def volunteers(self, round_: RoundState, memory: RoundMemory, account: bytes) -> Send | None:
        """A transaction that the round does not ask for."""
        del round_, memory, account
        return None

    def scores(self, found: tuple[int, ...], round_: RoundState) -> tuple[int, ...]:
        """The scores that a validator says it found."""
        del round_
        return found

    def loses(self, slots: int) -> frozenset[int]:
        """Which of its slots a keeper has lost, once all are sealed."""
        del slots
        return frozenset()

    def vanishes(self, duties: Sequence[Duty]) -> bool:
        """Whether a keeper disappears now, for ever."""
        del duties
        return False

    def finds(self, round_: Round) -> Found | None:
        """What an auditor says that it found: keepers that failed and pieces that are missing; None for no word."""
        return round_.failed, round_.missing


class Honest(Behaviour):
    """Does as the protocol says."""

    honest = True

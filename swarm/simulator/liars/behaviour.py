"""What every node has: an honest one, which each kind of liar changes in a place or two."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from protocols.consensus.messages import Message
    from swarm.ledger.state import RoundState
    from swarm.participant.core import Send
    from swarm.participant.memory import RoundMemory
    from swarm.simulator.chance import Chance
    from swarm.simulator.node import Node


class Behaviour:
    """Honest.

    Args:
        group: The places of all liars of this entry of the scenario, this one among them.
        strength: In parts in a million; what it means is the kind's own.
        chance: A stream of this node's own.
    """

    works: ClassVar[bool] = False
    """Whether this kind is found among the workers; all others are validators."""
    contradicts: ClassVar[bool] = False
    """Whether it signs what no honest validator signs, so that it may be accused."""
    doubles: ClassVar[bool] = False
    """Whether two nodes run with its key."""
    honest: ClassVar[bool] = False
    """Set for nobody but who does all that the protocol says."""

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


class Honest(Behaviour):
    """Does as the protocol says."""

    honest = True

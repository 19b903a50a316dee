"""A leader that proposes two blocks in a view, each to a part of the others, and votes for both."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from protocols.consensus.messages import Cast, Kind, Proposal, Vote
from swarm.simulator.liars.behaviour import Behaviour

if TYPE_CHECKING:
    from collections.abc import Iterable

    from protocols.consensus.messages import Block, Message
    from swarm.simulator.node import Node


class Equivocator(Behaviour):
    """Both blocks are valid: whoever sees one alone has nothing to say against it."""

    contradicts = True

    def outgoing(self, node: Node, place: int, message: Message) -> Iterable[tuple[int, Message]]:
        """The message; to a half, a third or a quarter of the others what it would be of the second block."""
        vote = message.vote if isinstance(message, (Cast, Proposal)) else None
        if vote is None or place in self.group or place % (2 + vote.view % 3) != 1:
            return ((0, message),)
        if isinstance(message, Proposal) and message.block.leader == node.signer.public_key:
            second = self._second(node, message.block)
            if second is not None:
                changed = replace(message, block=second, vote=self._vote(node, vote, second))
                return ((0, changed),)
        if isinstance(message, Cast) and vote.kind is not Kind.NULLIFY:
            other = node.world.twins_of_blocks.get(vote.block_id)
            if other is not None:
                return ((0, Cast(self._vote(node, vote, other))),)
        return ((0, message),)

    def _second(self, node: Node, block: Block) -> Block | None:
        known = node.world.twins_of_blocks.get(block.id)
        if known is None:
            parent = node.parent_of(block)
            if parent is None:
                return None
            known = node.application.prepare(
                parent, block.epoch, block.view, block.timestamp_ms + 1
            )
            node.world.twins_of_blocks[block.id] = known
        return known

    @staticmethod
    def _vote(node: Node, vote: Vote, block: Block) -> Vote:
        chain = node.application.chain_id
        return Vote.sign(node.signer, chain, vote.kind, vote.epoch, vote.view, block.id)

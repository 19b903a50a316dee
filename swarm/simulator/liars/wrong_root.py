"""A leader whose blocks claim another state than their transactions give."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from protocols.consensus.messages import Block, Cast, Kind, Proposal, Vote
from swarm.simulator.liars.behaviour import Behaviour

if TYPE_CHECKING:
    from collections.abc import Iterable

    from protocols.consensus.messages import Message
    from swarm.simulator.node import Node


class WrongRoot(Behaviour):
    """Everybody gets the same wrong block, so there is nothing to accuse it of: it loses its views and what they earn."""

    def outgoing(self, node: Node, place: int, message: Message) -> Iterable[tuple[int, Message]]:
        """Its own proposals with the last bit of the root turned."""
        del place
        if isinstance(message, Cast) and message.vote.kind is Kind.NOTARIZE:
            vote = message.vote
            leads = node.application.leader(vote.epoch, vote.view) == node.signer.public_key
            return () if leads else ((0, message),)  # for the block that it never showed
        if not isinstance(message, Proposal) or message.block.leader != node.signer.public_key:
            return ((0, message),)
        root = message.block.state_root
        block = _with_root(message.block, root[:-1] + bytes((root[-1] ^ 1,)))
        vote = message.vote
        signed = Vote.sign(node.signer, block.chain_id, vote.kind, vote.epoch, vote.view, block.id)
        return ((0, replace(message, block=block, vote=signed)),)


def _with_root(block: Block, root: bytes) -> Block:
    return Block(
        block.chain_id,
        block.epoch,
        block.view,
        block.height,
        block.parent,
        block.timestamp_ms,
        block.leader,
        root,
        block.payload,
    )

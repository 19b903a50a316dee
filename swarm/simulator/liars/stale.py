"""A leader that builds on an old block, as if what followed were nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocols.consensus.messages import Proposal, Vote
from swarm.ledger.errors import LedgerError
from swarm.simulator.liars.behaviour import Behaviour

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from protocols.consensus.messages import Block, Certificate, Message
    from swarm.simulator.chance import Chance
    from swarm.simulator.node import Node


class Stale(Behaviour):
    """Its proposals carry a good certificate of an older block: on any certified block but the newest."""

    contradicts = True

    def __init__(self, group: Sequence[int], strength: int, chance: Chance) -> None:
        super().__init__(group, strength, chance)
        self._made: tuple[int, int, Proposal] | None = None

    def outgoing(self, node: Node, place: int, message: Message) -> Iterable[tuple[int, Message]]:
        """Its own proposals, on an older parent; the same one to everybody."""
        del place
        if not isinstance(message, Proposal):
            return ((0, message),)
        if self._made is None or self._made[:2] != (message.epoch, message.view):
            self._made = (message.epoch, message.view, self._older(node, message))
        return ((0, self._made[2]),)

    def _older(self, node: Node, proposal: Proposal) -> Proposal:
        replica = node.replica
        if replica is None:
            return proposal
        core = replica.core
        found: list[tuple[Certificate, Block]] = []
        for number in sorted(core.views):
            view = core.views[number]
            certificate = view.finalization or view.notarization
            if certificate is not None and number < proposal.view:
                block = core.tree.find(certificate.block_id)
                if block is not None and block.height < core.last_height:
                    found.append((certificate, block))
        found = [(one, block) for one, block in found if block.id != proposal.block.parent]
        if not found:
            return proposal
        certificate, parent = self.chance.pick(found)
        try:
            block = node.application.prepare(
                parent, core.epoch, proposal.view, parent.timestamp_ms + 1
            )
        except LedgerError:  # the state of so old a block is gone
            return proposal
        vote = Vote.sign(
            node.signer,
            core.chain_id,
            proposal.vote.kind,
            core.epoch,
            proposal.view,
            block.id,
        )
        return Proposal(proposal.view, block, certificate, proposal.nullifications, vote)

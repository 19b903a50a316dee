"""What a keeper tells its owner of an audit, beside what the ledger paid."""

from __future__ import annotations

import pytest
import trio

from protocols.memory import open_memory_network
from swarm.keeper.answering import Answering
from swarm.ledger.draws import auditors_of
from tests.ledger.lending import Lending


class Nothing:
    """A prover that is not asked."""

    audited = None


@pytest.mark.parametrize("naming", [1, 2, 3])
async def test_a_piece_that_was_not_shown_is_not_told_as_paid(tmp_path, naming):
    """Nine validators report, and three of them at most audit the keeper."""
    world = Lending("kim", validators=9)
    kim = world.people["kim"]
    world.audit(kim)
    deal = world.deal(world.people["alice"], "a", "b", size=5)
    before = world.account(kim).earned
    async with open_memory_network() as network:
        transport = network.join(kim.peer_id)
        answering = Answering(
            kim.public_key, Nothing(), None, transport, tmp_path, trio.CapacityLimiter(1)
        )

        def look():
            answering.look(world.view, world.keeper(kim), world.view.audit())

        look()
        told = answering.memory.earned
        world.answers(kim)
        audit = world.view.audit()
        members = world.view.validators(audit.epoch)
        drawn = list(auditors_of(audit.seed2, kim.public_key, members, 3))[:naming]
        others = [one for one in world.validators if one.public_key not in drawn]
        block = world.block

        def watched(*inside):
            receipts = block(*inside)
            look()
            return receipts

        world.block = watched
        named = [one for one in world.validators if one.public_key in drawn]
        report = [(one, world.reports_of(one, missing=[(kim, deal, 0)])) for one in named]
        report += [(one, world.reports_of(one)) for one in others]
        world.ok(*report)
        world.reports(by=[])
    assert answering.memory.earned - told == world.account(kim).earned - before

"""What one validator says of keepers that it audited: who was silent, and who was only not heard."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from protocols.audit.draw import held_seed
from protocols.audit.errors import Failure
from protocols.audit.service import ASKS_PER_AUDIT, AT_ONCE, PROTOCOL, Auditor, AuditService
from protocols.memory import open_memory_network
from protocols.signing import Signer
from storage.errors import StorageError
from swarm.heights import Heights
from swarm.keeper.auditing import Auditing, _Round
from swarm.ledger.draws import audited_by
from tests.ledger.lending import Lending
from tests.protocols.audit.keepers import DEAL, LEAVES, SEALING, SEED, SEED2, SIGNER, make_keeper

WINDOW_S = 12.5
"""Five of the default eight blocks in which reports are taken."""


@pytest.fixture
def keeper(tmp_path):
    made = make_keeper(tmp_path)
    yield made
    made.slots.close()


@dataclass
class Audit:
    """A validator's audit of an honest keeper and of others, each with a duty."""

    auditor: Auditor
    round_: _Round
    others: set[bytes]


@asynccontextmanager
async def audit_of(keeper, handler, pause_s):
    """The others do as the handler does, and were asked first; then the honest keeper is asked, until the block ends."""
    async with open_memory_network() as network:
        asking = network.join(Signer(b"a" * 32).peer_id)
        keeper.auditors.add(asking.me)
        AuditService(network.join(SIGNER.peer_id), keeper)
        others = [Signer(bytes([at + 1]) * 32) for at in range(AT_ONCE)]
        for one in others:
            network.join(one.peer_id).handle(PROTOCOL, handler)
        answers = {one.public_key: bytes(32) for one in others}
        answers[SIGNER.public_key] = keeper.answer
        audit = SimpleNamespace(number=7, seed=SEED, seed2=SEED2, answers=answers)
        made = Audit(Auditor(asking, SEALING, pause_s), None, {one.public_key for one in others})
        made.round_ = _Round(made.auditor, audit, LEAVES)
        duty = SimpleNamespace(deal=DEAL, piece=0, root=keeper.root)
        async with trio.open_nursery() as nursery:
            for key in made.others:
                kept = replace(keeper.commitment, keeper=key)
                nursery.start_soon(made.round_.audit, kept, [duty])
            await wait_all_tasks_blocked()
            nursery.start_soon(made.round_.audit, keeper.commitment, [duty])
            await wait_all_tasks_blocked()
            with trio.fail_after(WINDOW_S):
                yield made
            nursery.cancel_scope.cancel()
        made.round_.end()


async def say_nothing(_stream):
    await trio.sleep_forever()


async def begin_to_answer(stream):
    await stream.send_all(b"\0")
    await trio.sleep_forever()


@pytest.mark.parametrize("handler", [say_nothing, begin_to_answer])
async def test_those_that_do_not_answer_are_named_and_the_honest_keeper_beside_them_is_not(
    keeper, handler
):
    async with audit_of(keeper, handler, 0.05) as made:
        while made.round_.failed.keys() != made.others or len(made.round_.missing) > AT_ONCE:
            await wait_all_tasks_blocked(0.01)
    assert made.round_.failed == dict.fromkeys(made.others, Failure.SILENT)
    assert {key for key, _, _ in made.round_.missing} == made.others


async def test_a_keeper_whose_answer_waited_for_the_auditor_is_not_named(keeper):
    async with audit_of(keeper, begin_to_answer, 2 * WINDOW_S) as made:
        while SIGNER.public_key not in made.auditor.unheard:
            await wait_all_tasks_blocked(0.01)
        assert SIGNER.public_key in made.round_.failed
    assert made.round_.failed == dict.fromkeys(made.others, Failure.SILENT)
    assert {key for key, _, _ in made.round_.missing} == made.others


def test_a_keeper_that_lied_is_named_although_another_answer_of_it_waited():
    auditor = SimpleNamespace(unheard={SIGNER.public_key}, untried=set())
    audit = SimpleNamespace(number=7, seed=SEED, seed2=SEED2, answers={})
    round_ = _Round(auditor, audit, LEAVES)
    round_.failed = {SIGNER.public_key: int(Failure.OTHER_CONTENT)}
    round_.end()
    assert round_.failed == {SIGNER.public_key: Failure.OTHER_CONTENT}


async def audit_of_many(keeper, pieces, is_over):
    """What is said of one keeper with many pieces, when the block ends as soon as `is_over` says so, or all is asked."""
    async with open_memory_network() as network:
        asking = network.join(Signer(b"a" * 32).peer_id)
        keeper.auditors.add(asking.me)
        keeper.duties = pieces
        AuditService(network.join(SIGNER.peer_id), keeper)
        answers = {SIGNER.public_key: keeper.answer}
        audit = SimpleNamespace(number=7, seed=SEED, seed2=SEED2, answers=answers)
        round_ = _Round(Auditor(asking, SEALING), audit, LEAVES)
        duties = [SimpleNamespace(deal=DEAL, piece=at, root=keeper.root) for at in range(pieces)]

        async def ask(scope):
            await round_.audit(keeper.commitment, duties)
            scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, nursery.cancel_scope)
            with trio.fail_after(60):
                while not is_over():
                    await wait_all_tasks_blocked(0.001)
            nursery.cancel_scope.cancel()
        round_.end()
        return round_


async def test_a_keeper_of_more_pieces_than_there_is_time_for_is_not_named(keeper):
    round_ = await audit_of_many(keeper, 60, lambda: keeper.asked.count("held") > 9)
    assert keeper.asked.count("held") < 60
    assert keeper.asked.index("held") > keeper.asked.index("slot")  # which come first
    assert (round_.failed, round_.missing) == ({}, set())


async def test_a_piece_that_the_auditor_did_not_come_to_is_not_missing(keeper):
    async with open_memory_network() as network:
        asking = network.join(Signer(b"a" * 32).peer_id)
        keeper.auditors.add(asking.me)
        keeper.duties = 20
        AuditService(network.join(SIGNER.peer_id), keeper)
        answers = {SIGNER.public_key: keeper.answer}
        audit = SimpleNamespace(number=7, seed=SEED, seed2=SEED2, answers=answers)
        auditor = Auditor(asking, SEALING)
        round_ = _Round(auditor, audit, LEAVES)
        duties = [SimpleNamespace(deal=DEAL, piece=at, root=keeper.root) for at in range(20)]
        begun = 0
        async with trio.open_nursery() as nursery:
            whole = round_._piece

            async def until_the_third(name, duty):
                nonlocal begun
                begun += 1
                if begun == 3:
                    nursery.cancel_scope.cancel()
                await whole(name, duty)

            round_._piece = until_the_third
            nursery.start_soon(round_.audit, keeper.commitment, duties)
        round_.end()
    assert begun < 20
    assert (round_.failed, round_.missing) == ({}, set())


async def test_who_owes_an_answer_is_named_for_all_that_could_not_be_asked(keeper):
    whole = keeper.held

    def lost(audit, deal, piece):
        whole(audit, deal, piece)
        message = "gone"
        raise StorageError(message)

    keeper.held = lost
    round_ = await audit_of_many(keeper, 20, lambda: keeper.asked.count("held") > 1)
    assert round_.failed == {}
    assert round_.missing == {(SIGNER.public_key, DEAL, at) for at in range(20)}


async def test_pieces_are_asked_for_in_an_order_that_no_keeper_knows_before_and_all_auditors_share(
    keeper,
):
    drawn = sorted(range(12), key=lambda at: held_seed(SEED2, SIGNER.public_key, DEAL, at))
    assert drawn != sorted(drawn)
    whole, seen = keeper.held, []

    def noted(audit, deal, piece):
        seen.append(piece)
        return whole(audit, deal, piece)

    keeper.held = noted
    for _ in range(4):
        seen.clear()
        await audit_of_many(keeper, 12, lambda: False)
        assert seen == drawn


@pytest.mark.slow
async def test_who_keeps_many_pieces_may_be_asked_for_all_of_them(keeper):
    round_ = await audit_of_many(keeper, ASKS_PER_AUDIT + 20, lambda: False)
    assert keeper.asked.count("held") == ASKS_PER_AUDIT + 20
    assert (round_.failed, round_.missing) == ({}, set())


class Said:
    """A wallet that keeps what it was given."""

    def __init__(self):
        self.reports = []

    async def submit(self, report):
        self.reports.append(report)


async def reports_of(report_blocks, moves):
    """What an auditor says of two keepers that nobody reaches, by (seconds, blocks that become final at once)."""
    world = Lending("kim", "lee", audit_report_blocks=report_blocks)
    kim, lee = (one.public_key for one in world.keepers)
    world.answers(*world.keepers)
    audit, said, heights = world.view.audit(), Said(), Heights(world.height)
    members = world.view.validators(audit.epoch)
    own = next(
        one
        for one in world.validators
        if len(audited_by(one.public_key, audit.seed2, [kim, lee], members, 3)) == 2
    )
    async with open_memory_network() as network, trio.open_nursery() as nursery:
        auditor = Auditor(network.join(own.peer_id), SEALING)
        auditing = Auditing(own.public_key, lambda: world.view, heights, said, auditor)
        nursery.start_soon(auditing.run)
        for seconds, blocks in moves:
            await trio.sleep(seconds)
            world.blocks(blocks)
            heights.move(world.height)
        await trio.sleep(0.1)
        nursery.cancel_scope.cancel()
    return [{key for key, _ in one.failed} == {kim, lee} for one in said.reports]


@pytest.mark.parametrize("moves", [[(60, 6)], [(2.5, 1), (0.5, 5)], [(1, 7)]])
async def test_nobody_is_named_by_an_auditor_that_had_no_time_to_ask(autojump_clock, moves):
    assert await reports_of(8, moves) == []


async def test_who_is_silent_until_the_report_is_due_is_named(autojump_clock):
    assert await reports_of(8, [(2.5, 1)] * 4) == []
    assert await reports_of(8, [(2.5, 1)] * 5) == [True]


async def test_two_blocks_for_reports_are_time_enough_to_ask(autojump_clock):
    assert await reports_of(2, [(2.5, 1)]) == [True]
    assert await reports_of(2, [(0.5, 1)]) == []

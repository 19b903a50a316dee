from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import trio
from trio.testing import MockClock

from protocols.audit.draw import draw_slots
from protocols.audit.errors import AuditFailedError, Failure
from protocols.audit.messages import AskLeaves, LeafAnswer, encode_count
from protocols.audit.service import (
    ASKS_PER_AUDIT,
    AT_ONCE,
    MAX_PAUSE_S,
    PAUSE_S,
    PROTOCOL,
    STREAMS,
    STREAMS_PER_PEER,
    Auditor,
    AuditService,
)
from protocols.framing import FrameReader, frame
from protocols.memory import open_memory_network
from protocols.signing import Signer
from protocols.transport import StreamError
from storage.errors import StorageError
from tests.protocols.audit.keepers import (
    DEAL,
    LEAVES,
    SEALING,
    SEED,
    SEED2,
    SIGNER,
    make_keeper,
)


@pytest.fixture
def keeper(tmp_path):
    made = make_keeper(tmp_path)
    yield made
    made.slots.close()


@pytest.fixture
def patient_clock():
    """Virtual time that jumps only when no thread is at work either."""
    return MockClock(autojump_threshold=0.02)


@asynccontextmanager
async def audit_of(keeper, *, serve=True):
    async with open_memory_network() as network:
        transport = network.join(SIGNER.peer_id)
        asking = network.join(Signer(b"a" * 32).peer_id)
        keeper.auditors.add(asking.me)
        if serve:
            AuditService(transport, keeper)
        yield Auditor(asking, SEALING), asking, transport


async def failure_of(asking):
    with pytest.raises(AuditFailedError) as caught:
        await asking
    return caught.value.failure


async def silent(asking, seconds):
    """Nothing is found of a keeper for so long; whoever asked has to say that it was silent."""
    with trio.move_on_after(seconds) as scope:
        await asking
    return scope.cancelled_caught


def leaves_of(auditor, keeper, answer=None):
    return auditor.ask_leaves(7, keeper.commitment, SEED, LEAVES, answer or keeper.answer)


def held_of(auditor, keeper):
    return auditor.ask_held(7, keeper.commitment.keeper, DEAL, 0, keeper.root, SEED2)


async def test_an_honest_keeper_passes_the_whole_audit(keeper):
    async with audit_of(keeper) as (auditor, _, _):
        await leaves_of(auditor, keeper)
        for slot in draw_slots(SEED2, keeper.commitment.keeper, keeper.commitment.slots):
            label = await auditor.ask_slot(7, keeper.commitment, slot)
            assert (label.cid is None) == (slot in {2, 4})
        await held_of(auditor, keeper)


async def test_who_is_no_auditor_is_shown_nothing(keeper, patient_clock):
    async with audit_of(keeper) as (auditor, _, _):
        keeper.auditors.clear()
        assert await silent(leaves_of(auditor, keeper), 60)
        assert await silent(auditor.ask_slot(7, keeper.commitment, 0), 60)
        assert keeper.asked == []


async def test_a_keeper_that_lost_a_slot_is_silent_on_it(keeper, tmp_path, patient_clock):
    async with audit_of(keeper) as (auditor, _, _):
        answer = keeper.answer
        (tmp_path / "slots" / "000000.slots").write_bytes(b"")
        assert await silent(leaves_of(auditor, keeper, answer), 40)
        assert len(keeper.asked) == 5  # after 0, 2, 6, 14 and 29 seconds


async def test_a_wrong_leaf_is_named_at_once(keeper):
    async with audit_of(keeper) as (auditor, _, _):
        answer, honest = keeper.answer, keeper.drawn
        keeper.drawn = lambda: [
            *honest()[:5],
            replace(honest()[5], leaf=bytes(4096)),
            *honest()[6:],
        ]
        assert await failure_of(leaves_of(auditor, keeper, answer)) is Failure.NO_PATH
        keeper.drawn = lambda: honest()[:-1]
        assert await failure_of(leaves_of(auditor, keeper, answer)) is Failure.OTHER_LEAVES
        assert len(keeper.asked) == 2


async def test_a_piece_that_is_not_held_is_missing(keeper, patient_clock):
    async with audit_of(keeper) as (auditor, _, _):
        keeper.held = lambda *_: [keeper.store.get(keeper.root)]
        assert await failure_of(held_of(auditor, keeper)) is Failure.NOT_HELD
        keeper.held = lambda *_: [b"other"]
        assert await failure_of(held_of(auditor, keeper)) is Failure.NOT_HELD

        def lost(*_):
            message = "gone"
            raise StorageError(message)

        keeper.held = lost
        assert await silent(held_of(auditor, keeper), 60)


async def test_a_keeper_that_returns_after_ten_minutes_in_which_no_block_was_made_passes(
    keeper, patient_clock
):
    drawn = keeper.drawn()
    keeper.drawn = lambda: drawn  # a moment's work, so that virtual time waits for it
    async with audit_of(keeper, serve=False) as (auditor, _, transport):
        async with trio.open_nursery() as nursery:

            async def return_late():
                await trio.sleep(600)
                AuditService(transport, keeper)

            nursery.start_soon(return_late)
            await leaves_of(auditor, keeper)
        assert 600 < trio.current_time() < 600 + 10 * MAX_PAUSE_S


async def test_silent_keepers_take_no_place_of_one_that_answers(keeper):
    gone = [Signer(bytes([at]) * 32).public_key for at in range(3 * AT_ONCE)]
    async with audit_of(keeper) as (auditor, _, _), trio.open_nursery() as nursery:
        for one in gone:
            kept = replace(keeper.commitment, keeper=one)
            nursery.start_soon(auditor.ask_slot, 7, kept, 0)
        await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(60):  # else for ever
            await leaves_of(auditor, keeper)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def others_asked(auditor, asking, keeper, handler, count):
    """So many other keepers, all asked for a slot, which answer as the handler does."""
    async with trio.open_nursery() as nursery:
        for at in range(count):
            one = Signer(bytes([at + 1]) * 32)
            asking._network.join(one.peer_id).handle(PROTOCOL, handler)
            kept = replace(keeper.commitment, keeper=one.public_key)
            nursery.start_soon(auditor.ask_slot, 7, kept, 0)
        await trio.testing.wait_all_tasks_blocked()
        yield
        nursery.cancel_scope.cancel()


async def say_nothing(_stream):
    await trio.sleep_forever()


async def begin_to_answer(stream):
    await stream.send_all(b"\0")
    await trio.sleep_forever()


async def test_keepers_that_accept_and_say_nothing_take_no_place_of_one_that_answers(keeper):
    async with (
        audit_of(keeper) as (auditor, asking, _),
        others_asked(auditor, asking, keeper, say_nothing, 2 * AT_ONCE),
    ):
        with trio.fail_after(5):  # else thirty seconds for each thing that is asked
            await leaves_of(auditor, keeper)
            await auditor.ask_slot(7, keeper.commitment, 0)


async def test_keepers_that_drip_give_their_places_up_to_one_that_answers(keeper):
    async with audit_of(keeper) as (_, asking, _):
        auditor = Auditor(asking, SEALING, 0.05)
        async with others_asked(auditor, asking, keeper, begin_to_answer, AT_ONCE):
            with trio.fail_after(5):  # else twenty seconds for each thing that is asked
                await leaves_of(auditor, keeper)
                await auditor.ask_slot(7, keeper.commitment, 0)


async def test_an_answer_that_nobody_waits_behind_may_be_slow(keeper, autojump_clock):
    async def drip(stream):
        await stream.send_all(frame(encode_count(LEAVES)))
        for leaf in drawn:
            await trio.sleep(2 * PAUSE_S)
            told = LeafAnswer(leaf.leaf, leaf.label, leaf.inner, leaf.path)
            await stream.send_all(frame(told.encode()))
        await stream.close()

    drawn = keeper.drawn()
    async with audit_of(keeper, serve=False) as (auditor, _, transport):
        transport.handle(PROTOCOL, drip)
        await leaves_of(auditor, keeper)


async def test_a_keeper_that_is_silent_on_one_thing_is_asked_for_the_next(keeper):
    def lost(*_):
        message = "gone"
        raise StorageError(message)

    async with audit_of(keeper) as (auditor, _, _), trio.open_nursery() as nursery:
        keeper.held = lost
        nursery.start_soon(held_of, auditor, keeper)
        await trio.testing.wait_all_tasks_blocked()
        await leaves_of(auditor, keeper)
        nursery.cancel_scope.cancel()


async def test_a_keeper_that_accepts_and_never_answers_is_asked_again(keeper, autojump_clock):
    async with audit_of(keeper, serve=False) as (auditor, _, transport):
        asked = []

        async def say_nothing(_stream):
            asked.append(trio.current_time())
            await trio.sleep_forever()

        transport.handle(PROTOCOL, say_nothing)
        assert await silent(auditor.ask_slot(7, keeper.commitment, 0), 400)
        assert len(asked) >= 8


async def test_a_keeper_that_drips_its_answer_is_silent(keeper, autojump_clock):
    async def drip(stream):
        await stream.send_all(frame(encode_count(LEAVES)))
        while True:
            await stream.send_all(b"\0")
            await trio.sleep(15)

    async with audit_of(keeper, serve=False) as (auditor, _, transport):
        transport.handle(PROTOCOL, drip)
        assert await silent(leaves_of(auditor, keeper, bytes(32)), 400)


async def test_a_malformed_answer_is_a_wrong_one(keeper):
    async def answer(stream):
        await stream.send_all(frame(b"rubbish"))
        await stream.close()

    async with audit_of(keeper, serve=False) as (auditor, _, transport):
        transport.handle(PROTOCOL, answer)
        assert await failure_of(leaves_of(auditor, keeper)) is Failure.OTHER_LEAVES
        assert await failure_of(auditor.ask_slot(7, keeper.commitment, 0)) is Failure.OTHER_CONTENT
        assert await failure_of(held_of(auditor, keeper)) is Failure.NOT_HELD


async def test_a_peer_has_so_many_streams_and_requests_and_no_more(keeper, patient_clock):
    async with audit_of(keeper) as (_, asking, _):
        idle = [await asking.open_stream(SIGNER.peer_id, PROTOCOL) for _ in range(STREAMS_PER_PEER)]
        await trio.testing.wait_all_tasks_blocked()
        one_more = await asking.open_stream(SIGNER.peer_id, PROTOCOL)
        with pytest.raises(StreamError):
            await one_more.receive_some()
        for stream in idle:
            await stream.reset()
        await trio.testing.wait_all_tasks_blocked()
        drawn = keeper.drawn()
        keeper.drawn = lambda: drawn
        for number in range(ASKS_PER_AUDIT + 1):
            stream = await asking.open_stream(SIGNER.peer_id, PROTOCOL)
            await stream.send_all(frame(AskLeaves(7).encode()))
            told = await FrameReader(stream, 100).read()
            assert (told == b"\x80") == (number == ASKS_PER_AUDIT)
            await stream.reset()


async def test_a_malformed_request_resets_the_stream(keeper):
    async with audit_of(keeper) as (_, asking, _):
        stream = await asking.open_stream(SIGNER.peer_id, PROTOCOL)
        await stream.send_all(frame(b"rubbish"))
        with pytest.raises(StreamError):
            await stream.receive_some()


async def test_who_only_opens_streams_keeps_no_auditor_out(keeper, patient_clock):
    async with audit_of(keeper) as (_, asking, transport):
        network = transport._network
        idle = []
        for number in range(STREAMS // STREAMS_PER_PEER):
            other = network.join(Signer(bytes([7, number]) * 16).peer_id)
            idle += [
                await other.open_stream(SIGNER.peer_id, PROTOCOL) for _ in range(STREAMS_PER_PEER)
            ]
        await trio.testing.wait_all_tasks_blocked()
        drawn = keeper.drawn()
        keeper.drawn = lambda: drawn
        stream = await asking.open_stream(SIGNER.peer_id, PROTOCOL)
        await stream.send_all(frame(AskLeaves(7).encode()))
        assert await FrameReader(stream, 2**20).read() is not None

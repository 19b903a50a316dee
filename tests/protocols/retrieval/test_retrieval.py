from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from protocols.framing import frame
from protocols.retrieval.core import FETCHES_A_MINUTE, STREAMS, STREAMS_PER_PEER, Fetches
from protocols.retrieval.errors import Reason, RetrievalError
from protocols.retrieval.messages import PROTOCOL, Block, Failed, Question, Sources, decode, encode
from protocols.retrieval.service import RetrievalService, Retriever
from protocols.transport import RemoteProtocolError, StreamError
from storage import cid as cids
from storage.memory import MemoryBlockstore
from storage.unixfs import add_path
from tests.protocols.exchange.conftest import open_neighbourhood

SEED = b"s" * 32


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(4):
        (tmp_path / "in" / f"{number}").write_bytes(bytes((number,)) * 2**18)
    return tmp_path / "in"


@pytest.fixture
def patient_clock():
    """Virtual time that jumps only when no thread is at work either."""
    return MockClock(autojump_threshold=0.02)


@asynccontextmanager
async def three(folder, *, announce=True):
    """A publisher, a stranger who can fetch, and one who asks."""
    async with open_neighbourhood() as there:
        publisher, stranger, asker = [await there.node() for _ in range(3)]
        for node in (publisher, stranger):

            async def fetch(cid, providers, node=node):
                await node.exchange.fetch(cid, providers, alone=True, patience=3)

            RetrievalService(node.transport, node.store, fetch)
        root = add_path(folder, publisher.store).root
        if announce:
            await publisher.transport.provide(root)
        yield publisher, stranger, Retriever(asker.transport, lambda: SEED), root, there


async def test_a_holder_shows_the_drawn_chunk(folder):
    async with three(folder) as (publisher, _, retriever, root, _):
        shown = await retriever.ask(publisher.peer, root, fetches=False)
        assert (shown.blocks, shown.sources) == (2, None)
        assert shown.bytes > 2**18


async def test_a_stranger_finds_it_by_its_cid_alone_and_fetches_only_the_way(folder):
    async with three(folder) as (_, stranger, retriever, root, _):
        shown = await retriever.ask(stranger.peer, root, fetches=True)
        assert (shown.blocks, shown.sources) == (2, 1)
        assert len(stranger.store.chunks) == 2


async def test_who_does_not_hold_it_says_so_and_fetches_nothing(folder):
    async with three(folder) as (_, stranger, retriever, root, _):
        with pytest.raises(RetrievalError, match="does not hold it"):
            await retriever.ask(stranger.peer, root, fetches=False)
        assert not stranger.store.chunks


async def test_what_nobody_announces_cannot_be_found(folder):
    async with three(folder, announce=False) as (_, stranger, retriever, root, _):
        with pytest.raises(RetrievalError) as told:
            await retriever.ask(stranger.peer, root, fetches=True)
        assert told.value.reason is Reason.NOT_ANNOUNCED


async def test_what_its_provider_has_lost_is_not_fetched(folder, patient_clock):
    async with three(folder) as (publisher, stranger, retriever, root, _):
        publisher.store.chunks.clear()
        with pytest.raises(RetrievalError) as told:
            await retriever.ask(stranger.peer, root, fetches=True)
        assert told.value.reason is Reason.NOT_FETCHED


async def test_a_peer_without_room_says_so(folder):
    async with three(folder) as (_, _, retriever, root, there):
        small = await there.node(limit=1000)

        async def fetch(cid, providers):
            await small.exchange.fetch(cid, providers, alone=True)

        RetrievalService(small.transport, small.store, fetch)
        with pytest.raises(RetrievalError) as told:
            await retriever.ask(small.peer, root, fetches=True)
        assert told.value.reason is Reason.NO_ROOM


async def test_wrong_bytes_and_answers_out_of_place_do_not_count(folder):
    async with three(folder) as (_, _, retriever, root, there):
        for answer in (Block(b"something else"), Sources(3)):
            liar = there.transport()

            async def lie(stream, answer=answer):
                await stream.send_all(frame(encode(answer)))
                await stream.close()

            liar.handle(PROTOCOL, lie)
            with pytest.raises(RetrievalError) as told:
                await retriever.ask(liar.me, root, fetches=False)
            assert told.value.reason is Reason.WRONG


async def test_a_silent_peer_is_given_up(folder, autojump_clock):
    async with three(folder) as (_, _, retriever, root, there):
        silent = there.transport()

        async def say_nothing(_stream):
            await trio.sleep_forever()

        silent.handle(PROTOCOL, say_nothing)
        with pytest.raises(RetrievalError) as told:
            await retriever.ask(silent.me, root, fetches=True)
        assert told.value.reason is Reason.SILENT


async def test_a_peer_that_does_not_know_the_question_cannot_be_reached(folder):
    async with three(folder) as (_, _, retriever, root, there):
        with pytest.raises(RetrievalError) as told:
            await retriever.ask(there.transport().me, root, fetches=True)
        assert told.value.reason is Reason.UNREACHABLE


async def test_who_asks_for_too_many_fetches_in_a_minute_is_told_to_wait(folder):
    async with three(folder) as (_, stranger, retriever, root, _):
        for _ in range(FETCHES_A_MINUTE):
            await retriever.ask(stranger.peer, root, fetches=True)
        with pytest.raises(RetrievalError) as told:
            await retriever.ask(stranger.peer, root, fetches=True)
        assert told.value.reason is Reason.BUSY
        await retriever.ask(stranger.peer, root, fetches=False)


async def test_who_asks_nothing_gives_way_and_who_asks_too_much_at_once_is_refused(
    folder, patient_clock
):
    async with three(folder) as (publisher, _, retriever, root, there):
        silent = []
        for _ in range(STREAMS // STREAMS_PER_PEER):
            stranger = there.transport()
            for _ in range(STREAMS_PER_PEER):
                silent.append(await stranger.open_stream(publisher.peer, PROTOCOL))
                await trio.sleep(0.01)
        more = await stranger.open_stream(publisher.peer, PROTOCOL)
        with pytest.raises(StreamError):
            await more.receive_some()
        began = trio.current_time()
        await retriever.ask(publisher.peer, root, fetches=False)
        assert trio.current_time() - began < 1


def test_fetches_come_back_with_time_and_with_the_end_of_a_fetch():
    fetches = Fetches()
    assert fetches.begin("a", 0.0)
    assert fetches.begin("b", 0.0)
    assert not fetches.begin("c", 0.0)
    fetches.end()
    assert fetches.begin("c", 0.0)
    for _ in range(2):
        fetches.end()
    for _ in range(FETCHES_A_MINUTE - 1):
        assert fetches.begin("a", 1.0)
        fetches.end()
    assert not fetches.begin("a", 59.0)
    assert fetches.begin("a", 61.0)


def test_the_bytes_are_those_of_the_document():
    root = cids.of_raw(b"x")
    assert Question(root, SEED, fetches=True).encode() == b"\x02" + root + SEED
    assert Question(root, SEED, fetches=False).encode() == b"\x01" + root + SEED
    assert encode(Block(b"data")) == b"\x03data"
    assert encode(Sources(258)) == b"\x04\x01\x02"
    assert encode(Failed(Reason.BUSY)) == b"\x05\x05"


@given(st.binary(max_size=80))
def test_a_strangers_bytes_are_read_or_refused(body):
    for read in (Question.decode, decode):
        try:
            found = read(body)
        except RemoteProtocolError:
            continue
        assert (found.encode() if isinstance(found, Question) else encode(found)) == body


def test_reasons_that_are_never_sent_are_refused():
    with pytest.raises(RemoteProtocolError):
        decode(bytes((5, Reason.SILENT)))
    assert all(reason.words for reason in Reason)


def test_an_empty_store_is_asked_beside(tmp_path):
    from storage.unixfs import hash_path

    (tmp_path / "file").write_bytes(b"a" * 2**20 + b"b" * 2**20 + b"a" * 2**20)
    store = MemoryBlockstore()
    before = hash_path(tmp_path / "file", beside=store)
    assert not store.chunks
    added = add_path(tmp_path / "file", store)
    assert (before.root, before.new_bytes) == (added.root, added.new_bytes)
    assert hash_path(tmp_path / "file", beside=store).new_bytes == 0

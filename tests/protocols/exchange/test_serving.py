"""How long a stream is served on which nothing is asked, and what a stranger's questions leave behind."""

from __future__ import annotations

import pytest
import trio

from protocols.exchange.messages import PROTOCOL, Block, Have, Query, Want, encode
from protocols.exchange.service import MAX_STREAMS
from protocols.exchange.serving import IDLE_SECONDS
from protocols.transport import StreamError
from storage.blockstore import SegmentBlockstore
from storage.cid import of_raw
from storage.memory import MemoryBlockstore
from tests.protocols.exchange.conftest import open_neighbourhood

DATA = b"a chunk"
CHUNK = of_raw(DATA)
BLOCK = encode(Block(CHUNK, DATA))
HAVE = encode(Have((CHUNK,)))
LARGE = bytes(2**20)
TURN = 0.01
"""Seconds in which everything that can go on has gone on."""


def stocked():
    store = MemoryBlockstore()
    store.put_many([(CHUNK, DATA), (of_raw(LARGE), LARGE)])
    return store


async def ask(stream):
    await stream.send_all(encode(Query((CHUNK,))))
    with trio.fail_after(60):
        return await stream.receive_some()


async def test_a_stream_that_asks_nothing_is_ended_after_five_minutes(threadless, autojump_clock):
    async with open_neighbourhood() as near:
        giver = await near.node(stocked())
        silent = await near.transport().open_stream(giver.peer, PROTOCOL)
        busy = await near.transport().open_stream(giver.peer, PROTOCOL)
        for _ in range(4):
            assert await ask(busy) == HAVE
            await trio.sleep(IDLE_SECONDS / 4 - 1)
        assert giver.exchange.stats().serving == 2
        await trio.sleep(5)
        assert giver.exchange.stats().serving == 1
        with pytest.raises(StreamError):
            await silent.receive_some()
        assert await ask(busy) == HAVE
        await trio.sleep(IDLE_SECONDS + 1)
        assert giver.exchange.stats().serving == 0
        assert giver.complaints == []


async def test_a_frame_that_never_ends_is_no_question(threadless, autojump_clock):
    async with open_neighbourhood() as near:
        giver = await near.node(stocked())
        stream = await near.transport().open_stream(giver.peer, PROTOCOL)
        for byte in encode(Query((CHUNK,)))[:10]:
            await stream.send_all(bytes((byte,)))
            await trio.sleep(IDLE_SECONDS / 10 + 1)
        with pytest.raises(StreamError):
            await stream.receive_some()
        assert giver.exchange.stats().serving == 0


async def test_a_newcomer_gets_the_place_of_the_longest_idle(threadless, autojump_clock):
    async with open_neighbourhood() as near:
        giver = await near.node(stocked())
        streams = []
        for _ in range(MAX_STREAMS):
            streams.append(await near.transport().open_stream(giver.peer, PROTOCOL))
            await trio.sleep(TURN)
        assert await ask(streams[0]) == HAVE
        newcomer = await near.transport().open_stream(giver.peer, PROTOCOL)
        assert await ask(newcomer) == HAVE
        assert giver.exchange.stats().serving == MAX_STREAMS
        with pytest.raises(StreamError):
            await ask(streams[1])
        for stream in (streams[0], *streams[2:]):
            assert await ask(stream) == HAVE


async def test_a_peer_that_is_owed_something_keeps_its_place(threadless, autojump_clock):
    async with open_neighbourhood() as near:
        giver = await near.node(stocked())
        streams = []
        for _ in range(MAX_STREAMS):
            stream = await near.transport().open_stream(giver.peer, PROTOCOL)
            await stream.send_all(encode(Want((of_raw(LARGE),))))  # and takes none of it
            streams.append(stream)
        await trio.sleep(TURN)
        newcomer = await near.transport().open_stream(giver.peer, PROTOCOL)
        with pytest.raises(StreamError):
            await ask(newcomer)
        assert giver.exchange.stats().serving == MAX_STREAMS
        assert await streams[0].receive_some()


async def test_a_fetch_after_the_stream_was_ended_opens_another(autojump_clock, threadless):
    async with open_neighbourhood() as near:
        giver, taker = await near.node(stocked()), await near.node()
        await taker.exchange.fetch(CHUNK, [giver.peer])
        giver.exchange._serving[taker.peer].give_up()
        await trio.sleep(TURN)
        assert giver.exchange.stats().serving == 0
        await taker.exchange.fetch(of_raw(LARGE), [giver.peer])
        assert taker.store.get(of_raw(LARGE)) == LARGE
        assert giver.exchange.stats().serving == 1


async def test_a_want_that_meets_the_end_of_its_stream_is_sent_on_another(
    autojump_clock, threadless
):
    async with open_neighbourhood(latency_s=0.05) as near:
        giver, taker = await near.node(stocked()), await near.node()
        await taker.exchange.fetch(CHUNK, [giver.peer])
        giver.exchange._serving[taker.peer].give_up()
        await taker.exchange.fetch(of_raw(LARGE), [giver.peer])
        assert taker.store.get(of_raw(LARGE)) == LARGE
        assert (giver.complaints, taker.complaints) == ([], [])


async def test_questions_of_peers_leave_nothing_behind_while_a_lease_is_open(tmp_path):
    store = SegmentBlockstore(tmp_path / "store", 10**8, keep_free=0)
    store.put_many([(CHUNK, DATA)])
    async with open_neighbourhood() as near:
        giver = await near.node(store)
        stream = await near.transport().open_stream(giver.peer, PROTOCOL)
        with store.lease("fetch"):
            asked = (CHUNK, *(of_raw(bytes((at,))) for at in range(100)))
            await stream.send_all(encode(Query(asked)))
            assert await stream.receive_some() == HAVE
            assert not store.leases.is_touched(asked[1])
            assert store.leases._filters == []
    store.close()

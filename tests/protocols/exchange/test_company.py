"""A fetch in bad company: what it costs that some providers are slow, silent, or lie, in virtual time."""

from __future__ import annotations

import threading

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from protocols.exchange import service, serving
from protocols.exchange.messages import PROTOCOL, Want, encode
from protocols.exchange.search import RELAYED_PATIENCE_SECONDS
from protocols.transport import StreamError
from storage.cid import of_raw
from storage.memory import MemoryBlockstore
from tests.protocols.exchange.conftest import copy_of, open_neighbourhood

GOOD_RATE = 4 * 2**20
SLOW_RATE = 2**15


class Throttled:
    """A stream whose writes take their time."""

    def __init__(self, stream, rate: float) -> None:
        self._stream = stream
        self._rate = rate
        self.peer = stream.peer
        self.receive_some = stream.receive_some
        self.close = stream.close
        self.reset = stream.reset

    async def send_all(self, data) -> None:
        for start in range(0, len(data), 2**14):
            part = data[start : start + 2**14]
            await trio.sleep(len(part) / self._rate)
            await self._stream.send_all(part)


class Lying(MemoryBlockstore):
    """A store that changes a byte of every chunk that it gives."""

    def get(self, cid):
        data = bytearray(self.chunks[cid])
        data[len(data) // 2] ^= 1
        return bytes(data)


async def _provider(near, store, rate):
    node = await near.node(store)
    serve = node.exchange._serve

    async def handle(stream) -> None:
        await serve(Throttled(stream, rate))

    node.transport.handle(PROTOCOL, handle, members_only=False)
    return node


async def _silent(near, _store):
    transport = near.transport()

    async def handle(stream) -> None:
        while await stream.receive_some():
            pass

    transport.handle(PROTOCOL, handle, members_only=False)
    return transport.me


async def _slow(near, store):
    return (await _provider(near, copy_of(store), SLOW_RATE)).peer


async def _lying(near, store, rate=GOOD_RATE):
    liar = Lying()
    liar.chunks.update(store.chunks)
    return (await _provider(near, liar, rate)).peer


async def _slow_and_lying(near, store):
    return await _lying(near, store, GOOD_RATE / 8)


async def _time(published, bad=(), latency_s=0.02):
    store, root = published
    async with open_neighbourhood(latency_s) as near:
        peers = [await make(near, store) for make in bad]
        good = await _provider(near, copy_of(store), GOOD_RATE)
        taker = await near.node()
        started = trio.current_time()
        await taker.exchange.fetch(root, [*peers, good.peer])
        took = trio.current_time() - started
        assert taker.store.chunks == store.chunks
        complaints = [peer for peer, _ in taker.complaints]
        return took, complaints, peers, good.peer


@pytest.mark.parametrize(
    "bad",
    [[_slow], [_silent], [_lying], [_slow_and_lying], [_slow, _silent, _lying, _slow_and_lying]],
    ids=["slow", "silent", "lying", "slow and lying", "all of them"],
)
async def test_with_bad_providers_a_fetch_takes_about_as_long_as_from_the_good_one_alone(
    published, threadless, autojump_clock, bad
):
    alone, _, _, _ = await _time(published)
    took, complaints, peers, _ = await _time(published, bad)
    assert took < 1.1 * alone + 0.5
    liars = [peer for peer, make in zip(peers, bad, strict=True) if make is _lying]
    assert set(liars) <= set(complaints) <= set(peers)


@pytest.mark.parametrize("is_known", [True, False], ids=["known", "seen once connected"])
async def test_a_provider_behind_a_relay_is_left_alone_while_a_direct_one_delivers(
    published, threadless, autojump_clock, is_known
):
    store, root = published
    async with open_neighbourhood(0.02) as near:
        relayed = await _provider(near, copy_of(store), GOOD_RATE)
        direct = await _provider(near, copy_of(store), GOOD_RATE / 8)
        taker = await near.node()
        connect = near.network.connect

        def connect_through_a_relay(transport, peer, protocol):
            if peer == relayed.peer:
                near.network.relayed.add(peer)
            return connect(transport, peer, protocol)

        if is_known:
            near.network.relayed.add(relayed.peer)
        near.network.connect = connect_through_a_relay
        fetched = await taker.exchange.fetch(root, [relayed.peer, direct.peer])
        assert fetched.from_peers == {direct.peer: fetched.bytes}
        assert fetched.seconds > RELAYED_PATIENCE_SECONDS


@pytest.mark.parametrize("bad", [_silent, _lying])
async def test_a_provider_behind_a_relay_is_asked_soon_when_direct_ones_do_not_deliver(
    published, threadless, autojump_clock, bad
):
    store, root = published
    async with open_neighbourhood(0.02) as near:
        relayed = await _provider(near, copy_of(store), GOOD_RATE)
        near.network.relayed.add(relayed.peer)
        taker = await near.node()
        with trio.fail_after(RELAYED_PATIENCE_SECONDS + 6):
            fetched = await taker.exchange.fetch(root, [await bad(near, store), relayed.peer])
        assert fetched.from_peers[relayed.peer] == fetched.bytes


async def test_a_provider_behind_a_relay_is_asked_at_once_where_there_is_no_other(
    published, threadless, autojump_clock
):
    store, root = published
    async with open_neighbourhood(0.02) as near:
        relayed = await _provider(near, copy_of(store), GOOD_RATE)
        near.network.relayed.add(relayed.peer)
        taker = await near.node()
        with trio.fail_after(13 * 2**20 / GOOD_RATE + 1):
            await taker.exchange.fetch(root, [relayed.peer])


async def test_what_was_stolen_and_comes_twice_is_nobodys_misbehaviour(
    published, threadless, autojump_clock
):
    store, root = published
    async with open_neighbourhood(0.02) as near:
        slow = await _provider(near, copy_of(store), GOOD_RATE / 8)
        fast = await _provider(near, copy_of(store), GOOD_RATE)
        taker = await near.node()
        fetched = await taker.exchange.fetch(root, [slow.peer, fast.peer])
        await trio.sleep(60)
        assert taker.complaints == slow.complaints == fast.complaints == []
        assert fetched.bytes == sum(map(len, store.chunks.values()))
        assert taker.exchange.stats().bytes_in < 1.4 * fetched.bytes
        assert (await taker.exchange.fetch(root)).bytes == 0


class Gated(MemoryBlockstore):
    """A disk that keeps the first write and then stands still until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()
        self.writes = 0

    def put_many(self, pairs, reservation=None, *, verify=False):
        self.writes += 1
        if self.writes > 1:
            self.go.wait()
        return super().put_many(pairs, reservation, verify=verify)


async def test_a_disk_that_stands_still_stops_the_asking(published, monkeypatch):
    monkeypatch.setattr(service, "BUFFER_BYTES", 3 * 2**20)
    store, root = published
    async with open_neighbourhood() as near:
        giver, taker = await near.node(store), await near.node(Gated())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(taker.exchange.fetch, root, [giver.peer])
            try:
                for _ in range(20):
                    await wait_all_tasks_blocked(0.005)
                assert taker.exchange.stats().bytes_in < 3 * 2**20 + 2**20 + 2**16
                assert taker.store.writes > 1
            finally:
                taker.store.go.set()
        assert taker.store.chunks == store.chunks


class Counted(MemoryBlockstore):
    """A store that counts what is read from it."""

    read = 0

    def get(self, cid):
        data = super().get(cid)
        self.read += len(data)
        return data


async def test_for_a_reader_that_stops_two_batches_are_read_and_after_a_minute_it_is_given_up(
    published, threadless, autojump_clock
):
    store, _ = published
    counted = Counted()
    counted.chunks.update(store.chunks)
    async with open_neighbourhood() as near:
        giver, stuck = await near.node(counted), near.transport()
        stream = await stuck.open_stream(giver.peer, PROTOCOL)
        await stream.send_all(encode(Want(tuple(store.chunks))))
        await trio.sleep(serving.SEND_SECONDS - 1)
        assert 0 < counted.read <= 2 * (serving.BATCH_BYTES + 2**20)
        assert giver.exchange.stats().serving == 1
        await trio.sleep(2)
        assert giver.exchange.stats().serving == 0
        with pytest.raises(StreamError):
            await stream.receive_some()


async def test_a_large_chunk_comes_over_a_line_of_eight_kilobytes_a_second(
    threadless, autojump_clock
):
    data = bytes(2**20)
    async with open_neighbourhood() as near:
        giver = await _provider(near, MemoryBlockstore(), 8_000)
        giver.store.put_many([(of_raw(data), data)])
        taker = await near.node()
        with trio.fail_after(180):
            await taker.exchange.fetch(of_raw(data), [giver.peer])
        assert taker.store.get(of_raw(data)) == data

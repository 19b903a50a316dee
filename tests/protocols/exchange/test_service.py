from __future__ import annotations

import random

import libipld
import pytest
import trio

from protocols.exchange.errors import (
    ContentNotFoundError,
    ContentTooLargeError,
    FetchStalledError,
)
from protocols.exchange.messages import PROTOCOL, Block, Query, Want, encode
from protocols.transport import StreamError
from storage import cid as cids
from storage import dag_pb
from storage.cid import of_dag_pb, of_raw
from storage.dag_pb import Link
from storage.errors import ManifestError, QuotaError
from storage.memory import MemoryBlockstore
from storage.unixfs import add_path
from tests.protocols.exchange.conftest import copy_of, open_neighbourhood


async def test_a_file_is_fetched_whole(published):
    store, root = published
    async with open_neighbourhood() as near:
        giver, taker = await near.node(store), await near.node()
        told = []
        fetched = await taker.exchange.fetch(root, progress=lambda *now: told.append(now))
        assert taker.store.chunks == store.chunks
        assert fetched.bytes == sum(map(len, store.chunks.values()))
        assert fetched.chunks == len(store.chunks)
        assert fetched.from_peers == {giver.peer: fetched.bytes}
        assert told[-1] == (fetched.bytes, fetched.bytes, "")
        assert taker.exchange.stats().bytes_in >= fetched.bytes
        assert giver.exchange.stats().peers[taker.peer].bytes_out >= fetched.bytes
        assert taker.store.usage().reserved == 0


async def test_a_folder_with_an_empty_file_a_repeated_and_a_large_one_is_fetched_whole(tmp_path):
    folder = tmp_path / "data"
    (folder / "inner").mkdir(parents=True)
    (folder / "empty").touch()
    (folder / "zeros").write_bytes(bytes(3 * 2**20))
    (folder / "inner" / "large").write_bytes(random.Random(1).randbytes(3 * 2**20))
    for index in range(300):
        (folder / "inner" / f"small{index}").write_text(f"sample {index}")
    store = MemoryBlockstore()
    root = add_path(folder, store).root
    async with open_neighbourhood() as near:
        await near.node(store)
        taker = await near.node()
        await taker.exchange.fetch(root)
        assert taker.store.chunks == store.chunks


async def test_three_providers_share_the_work(published):
    store, root = published
    async with open_neighbourhood(latency_s=0.001) as near:
        givers = [await near.node(copy_of(store)) for _ in range(3)]
        taker = await near.node()
        fetched = await taker.exchange.fetch(root)
        assert set(fetched.from_peers) == {giver.peer for giver in givers}


@pytest.mark.slow
async def test_a_provider_that_vanishes_is_made_up_for_by_the_others(published, patient_clock):
    store, root = published
    async with open_neighbourhood(latency_s=0.05) as near:
        givers = [await near.node(copy_of(store)) for _ in range(2)]
        taker = await near.node()

        def leave(done: int, _total: int, _note: str = "") -> None:
            if done > 3 * 2**20:
                near.network.leave(givers[0].peer)

        await taker.exchange.fetch(root, progress=leave)
        assert taker.store.chunks == store.chunks


@pytest.mark.slow
async def test_a_provider_that_falls_silent_is_made_up_for_by_the_others(published, patient_clock):
    store, root = published
    async with open_neighbourhood(latency_s=0.05) as near:
        givers = [await near.node(copy_of(store)) for _ in range(2)]
        taker = await near.node()

        def stall(done: int, _total: int, _note: str = "") -> None:
            if done > 3 * 2**20:
                near.network.stall(givers[0].peer, taker.peer)

        started = trio.current_time()
        await taker.exchange.fetch(root, progress=stall)
        assert taker.store.chunks == store.chunks
        assert trio.current_time() - started < 5


@pytest.mark.slow
async def test_a_provider_that_sends_a_wrong_byte_is_dropped_named_and_never_asked_again(
    published,
):
    store, root = published
    async with open_neighbourhood() as near:
        honest, liar, taker = (
            await near.node(copy_of(store)),
            await near.node(_Lying(store)),
            await near.node(),
        )
        fetched = await taker.exchange.fetch(root, [liar.peer, honest.peer])
        assert taker.store.chunks == store.chunks
        assert set(fetched.from_peers) == {honest.peer}
        assert [peer for peer, _ in taker.complaints] == [liar.peer]

        taker.store.chunks.clear()
        near.network.sever(taker.peer, honest.peer)
        with pytest.raises(ContentNotFoundError, match="wrong bytes before"):
            await taker.exchange.fetch(root, [liar.peer], patience=0.5)


async def test_two_providers_with_half_each_give_the_whole(published):
    store, root = published
    leaves = sorted(set(store.chunks) - {root})
    async with open_neighbourhood() as near:
        for part in (leaves[::2], leaves[1::2]):
            node = await near.node()
            node.store.chunks.update({cid: store.chunks[cid] for cid in [root, *part]})
        taker = await near.node()
        await taker.exchange.fetch(root)
        assert taker.store.chunks == store.chunks


async def test_what_is_held_is_not_fetched_again(published):
    store, root = published
    held = sorted(store.chunks)[:7]
    async with open_neighbourhood() as near:
        await near.node(store)
        taker = await near.node()
        taker.store.chunks.update({cid: store.chunks[cid] for cid in held})
        told = []
        fetched = await taker.exchange.fetch(root, progress=lambda *now: told.append(now))
        assert fetched.chunks == len(store.chunks) - 7
        assert told[-1][0] == told[-1][1] == sum(map(len, store.chunks.values()))
        assert (await taker.exchange.fetch(root)).chunks == 0


async def test_a_cancelled_fetch_leaves_what_it_verified_and_the_next_one_goes_on(published):
    store, root = published
    async with open_neighbourhood(latency_s=0.002) as near:
        await near.node(store)
        taker = await near.node()
        with trio.CancelScope() as scope:
            await taker.exchange.fetch(
                root, progress=lambda done, *_: done > 2**21 and scope.cancel()
            )
        assert scope.cancelled_caught
        held = dict(taker.store.chunks)
        assert held
        assert all(cids.matches(cid, data) for cid, data in held.items())
        assert taker.store.usage().reserved == 0
        fetched = await taker.exchange.fetch(root)
        assert fetched.chunks == len(store.chunks) - len(held)


async def test_several_fetches_at_once_share_a_stream(published, tmp_path):
    store, root = published
    other = tmp_path / "other"
    other.write_bytes(random.Random(9).randbytes(5 * 2**20))
    second = add_path(other, store).root
    async with open_neighbourhood() as near:
        giver, taker = await near.node(store), await near.node()
        async with trio.open_nursery() as nursery:
            for wanted in (root, second, root):
                nursery.start_soon(taker.exchange.fetch, wanted)
        assert taker.store.chunks == store.chunks
        assert giver.exchange.stats().serving == 1


@pytest.mark.slow
async def test_content_that_nobody_has_is_given_up_within_thirty_seconds(patient_clock):
    async with open_neighbourhood() as near:
        others = [await near.node() for _ in range(3)]
        silent = near.transport()
        silent.handle(PROTOCOL, _say_nothing, members_only=False)
        taker = await near.node()
        unknown = of_raw(b"nobody has this")
        started = trio.current_time()
        with pytest.raises(ContentNotFoundError) as caught:
            await taker.exchange.fetch(unknown)
        assert 10 < trio.current_time() - started < 30
        assert caught.value.cid == unknown
        for node in others:
            assert any(node.peer in line and "does not have" in line for line in caught.value.asked)
        assert any(silent.me in line and "no answer" in line for line in caught.value.asked)
        assert any("provider records name 0" in line for line in caught.value.asked)


@pytest.mark.slow
async def test_a_chunk_that_nobody_has_is_named(published, patient_clock):
    store, root = published
    lost = max(store.chunks, key=lambda cid: cid if cid != root else b"")
    del store.chunks[lost]
    async with open_neighbourhood() as near:
        await near.node(store)
        taker = await near.node()
        with pytest.raises(ContentNotFoundError) as caught:
            await taker.exchange.fetch(root)
        assert caught.value.cid == lost
        assert len(taker.store.chunks) == len(store.chunks)


@pytest.mark.slow
async def test_a_provider_that_gets_the_chunk_later_is_asked_again(published, patient_clock):
    store, root = published
    late = store.chunks.pop(root)
    async with open_neighbourhood() as near:
        giver, taker = await near.node(store), await near.node()

        async def get_it() -> None:
            await trio.sleep(8)
            giver.store.chunks[root] = late

        async with trio.open_nursery() as nursery:
            nursery.start_soon(get_it)
            with trio.fail_after(16):
                await taker.exchange.fetch(root, [giver.peer])
        assert taker.store.chunks == giver.store.chunks


@pytest.mark.slow
async def test_a_single_provider_that_falls_silent_ends_the_fetch(published, patient_clock):
    store, root = published
    async with open_neighbourhood(latency_s=0.05) as near:
        giver, taker = await near.node(store), await near.node()

        def stall(done: int, _total: int, _note: str = "") -> None:
            if done > 3 * 2**20:
                near.network.stall(giver.peer, taker.peer)

        with pytest.raises(FetchStalledError), trio.fail_after(60):
            await taker.exchange.fetch(root, progress=stall)
        near.network.heal()
        await taker.exchange.fetch(root)
        assert taker.store.chunks == store.chunks


async def test_what_does_not_fit_is_refused_before_a_byte_is_written(published):
    store, root = published
    async with open_neighbourhood() as near:
        await near.node(store)
        taker = await near.node(limit=10 * 2**20)
        with pytest.raises(QuotaError):
            await taker.exchange.fetch(root)
        assert not taker.store.chunks
        assert taker.store.usage().used == taker.store.usage().reserved == 0


async def test_a_file_of_repeated_chunks_needs_room_for_one(tmp_path):
    path = tmp_path / "zeros"
    path.write_bytes(bytes(20 * 2**20))
    store = MemoryBlockstore()
    root = add_path(path, store).root
    async with open_neighbourhood() as near:
        await near.node(store)
        taker = await near.node(limit=2 * 2**20)
        await taker.exchange.fetch(root)
        assert taker.store.chunks == store.chunks


async def test_content_above_the_callers_limit_is_refused(published):
    store, root = published
    async with open_neighbourhood() as near:
        await near.node(store)
        taker = await near.node()
        with pytest.raises(ContentTooLargeError):
            await taker.exchange.fetch(root, max_bytes=2**20)
        assert not taker.store.chunks


@pytest.mark.parametrize("size", [10, 2**20, 2**40, 2**63])
async def test_a_manifest_that_lies_about_sizes_is_refused(size):
    leaf = random.Random(3).randbytes(5_000)
    store = MemoryBlockstore()
    block = dag_pb.encode([Link(of_raw(leaf), "a", size)], b"\x08\x01")
    store.put_many([(of_raw(leaf), leaf), (of_dag_pb(block), block)])
    async with open_neighbourhood() as near:
        await near.node(store)
        taker = await near.node()
        with pytest.raises(ManifestError):
            await taker.exchange.fetch(of_dag_pb(block))
        assert of_raw(leaf) not in taker.store.chunks


async def test_a_peer_of_another_network_is_served(published):
    store, root = published
    async with open_neighbourhood() as near:
        giver = await near.node(store)
        stranger = await near.node(chain_id=b"x" * 32)
        await stranger.exchange.fetch(root, [giver.peer])
        assert stranger.store.chunks == store.chunks


@pytest.mark.parametrize(
    "bad",
    [
        b"\xff" * 64,
        (2**31).to_bytes(4, "big") + b"\x01",
        (1).to_bytes(4, "big") + b"\x01",
        (37).to_bytes(4, "big") + b"\x01" + bytes(36),
        encode(Block(of_raw(b"x"), b"x")),
        encode(Want((of_raw(b"x"), of_raw(b"x")))),
        b"".join(
            encode(Want(tuple(of_raw(b"%d" % n) for n in range(start, start + 1_000))))
            for start in (0, 1_000)
        ),
        encode(Query((of_raw(b"x"),))) * 18,
    ],
    ids=["noise", "huge", "empty", "no-cid", "answer", "twice", "too-many", "queries"],
)
async def test_a_stream_that_breaks_the_rules_is_reset_and_the_node_goes_on(published, bad):
    store, root = published
    async with open_neighbourhood() as near:
        giver = await near.node(store)
        rude = near.transport()
        stream = await rude.open_stream(giver.peer, PROTOCOL)
        await stream.send_all(bad)
        with pytest.raises(StreamError), trio.fail_after(5):
            await _drain(stream)
        assert [peer for peer, _ in giver.complaints] == [rude.me]
        taker = await near.node()
        await taker.exchange.fetch(root)
        assert taker.store.chunks == store.chunks


@pytest.mark.parametrize("bad", [b"\xff" * 64, encode(Block(of_raw(b"x"), b"x"))])
async def test_a_provider_that_breaks_the_rules_is_left_for_another(published, bad):
    store, root = published
    async with open_neighbourhood() as near:
        rude = near.transport()

        async def answer(stream) -> None:
            await stream.receive_some()
            await stream.send_all(bad)
            await trio.sleep_forever()

        rude.handle(PROTOCOL, answer, members_only=False)
        giver, taker = await near.node(store), await near.node()
        await taker.exchange.fetch(root, [rude.me, giver.peer])
        assert taker.store.chunks == store.chunks
        assert rude.me in [peer for peer, _ in taker.complaints]


async def test_a_reader_that_stops_holds_up_nobody_else(published):
    store, root = published
    async with open_neighbourhood() as near:
        giver = await near.node(store)
        stuck = near.transport()
        stream = await stuck.open_stream(giver.peer, PROTOCOL)
        await stream.send_all(encode(Want(tuple(store.chunks))))
        taker = await near.node()
        with trio.fail_after(10):
            await taker.exchange.fetch(root)
        assert taker.store.chunks == store.chunks


async def test_a_newer_stream_of_the_same_peer_replaces_the_older(published):
    store, root = published
    async with open_neighbourhood() as near:
        giver = await near.node(store)
        other = near.transport()
        first = await other.open_stream(giver.peer, PROTOCOL)
        await first.send_all(encode(Query((root,))))
        assert await first.receive_some()
        second = await other.open_stream(giver.peer, PROTOCOL)
        await second.send_all(encode(Query((root,))))
        assert await second.receive_some()
        assert await first.receive_some() == b""
        assert giver.exchange.stats().serving == 1


async def _say_nothing(_stream) -> None:
    await trio.sleep_forever()


async def _drain(stream) -> None:
    while await stream.receive_some():
        pass


class _Lying(MemoryBlockstore):
    """A store that changes a byte of every chunk that it gives."""

    def __init__(self, store: MemoryBlockstore) -> None:
        super().__init__()
        self.chunks.update(store.chunks)

    def get(self, cid):
        data = bytearray(self.chunks[cid])
        data[len(data) // 2] ^= 1
        return bytes(data)


def structured(cids_inside: list[bytes]) -> tuple[bytes, bytes]:
    """A DAG-CBOR block that names others, and its CID."""
    block = libipld.encode_dag_cbor({"parts": [bytes(cid) for cid in cids_inside]})
    return cids.of_dag_cbor(block), block


async def test_content_below_a_dag_cbor_block_is_fetched_whole(published):
    store, root = published
    inner = structured([root, of_raw(b"note")])
    outer = structured([inner[0], root])
    store.put_many([inner, outer, (of_raw(b"note"), b"note")])
    async with open_neighbourhood() as near:
        await near.node(store)
        taker = await near.node()
        fetched = await taker.exchange.fetch(outer[0])
        assert taker.store.chunks == store.chunks
        assert fetched.chunks == len(store.chunks)
        assert taker.store.usage().reserved == 0


async def test_content_of_unknown_size_is_refused_above_the_callers_limit_and_the_quota(published):
    store, root = published
    top = structured([root])
    store.put_many([top])
    async with open_neighbourhood() as near:
        await near.node(store)
        taker, small = await near.node(), await near.node(limit=2**20)
        with pytest.raises(ContentTooLargeError):
            await taker.exchange.fetch(top[0], max_bytes=2**20)
        with pytest.raises(QuotaError):
            await small.exchange.fetch(top[0])
        assert small.store.usage().used <= 2**20


async def test_a_block_alone_is_fetched_without_what_it_names(published):
    store, root = published
    async with open_neighbourhood() as near:
        await near.node(store)
        taker = await near.node()
        fetched = await taker.exchange.fetch(root, alone=True)
        assert fetched.chunks == 1
        assert list(taker.store.chunks) == [root]


async def test_a_malformed_block_alone_is_not_kept():
    """Held, it would keep every collection from removing anything once something names it."""
    store = MemoryBlockstore()
    bad = cids.of_dag_pb(b"\xff")
    store.put_many([(bad, b"\xff")])
    async with open_neighbourhood() as near:
        await near.node(store)
        taker = await near.node()
        with pytest.raises(ManifestError):
            await taker.exchange.fetch(bad, alone=True)
        assert taker.store.chunks == {}

"""Sync over memory streams: what is fetched is final, and who lies is dropped."""

from __future__ import annotations

import contextlib

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from protocols.answering import Answering
from protocols.consensus.finalizer import Finalizer
from protocols.consensus.messages import Block, Certificate, Kind, Vote, genesis_block
from protocols.framing import FrameReader, frame
from protocols.memory import open_memory_network
from protocols.signing import Signer
from protocols.sync.core import MAX_PEERS, MAX_REST_SECONDS, REST_SECONDS, PeerBook
from protocols.sync.errors import NothingProvenError, SyncMessageError, WrongGenesisError
from protocols.sync.messages import (
    AskBlocks,
    AskTip,
    decode_genesis,
    decode_pair,
    decode_request,
    decode_tip,
    encode_pair,
    encode_tip,
)
from protocols.sync.service import (
    PROTOCOL,
    STREAMS,
    STREAMS_PER_PEER,
    SyncService,
    fetch_genesis,
    fetch_proof,
    fetch_tip,
)
from protocols.transport import StreamError
from storage import canonical
from storage.errors import DiskFullError, LogError
from tests.protocols.consensus.toy import CHAIN, GENESIS, SIGNERS, START_UTC, ToyApplication

READER, SERVER, LIAR = "reader", "server", "liar"


def chain(length, *, direct=lambda height: True, signers=SIGNERS[:4], size=16, salt=b""):
    """Final blocks 1..length; where `direct` says no, the next direct block's certificate stands for it."""
    application = ToyApplication(SIGNERS[0], size=size)
    blocks, parent = [], genesis_block(CHAIN, START_UTC, bytes(32))
    for height in range(1, length + 1):
        epoch = (height - 1) // application.epoch_length
        block = application.prepare(parent, epoch, height, START_UTC + height)
        if salt:
            block = Block(*(getattr(block, n) for n in list(Block.__slots__)[:7]), bytes(32), salt)
        blocks.append(block)
        parent = block
    pairs, newest = [], None
    for block in reversed(blocks):
        if newest is None or direct(block.height):
            signatures = tuple(
                (
                    place,
                    Vote.sign(s, CHAIN, Kind.FINALIZE, block.epoch, block.view, block.id).signature,
                )
                for place, s in enumerate(signers[:3])
            )
            newest = Certificate(Kind.FINALIZE, block.epoch, block.view, block.id, signatures)
        pairs.append((block, newest))
    return pairs[::-1]


def serve(network, pairs, name=SERVER, chain_id=CHAIN):
    application = ToyApplication(SIGNERS[0])
    application.chain += pairs
    transport = network.join(name, chain_id)
    SyncService(transport, None, application, in_thread=False)
    return transport


class Reader:
    def __init__(self, network):
        self.application = ToyApplication(SIGNERS[5])
        self.finalizer = Finalizer(self.application, in_thread=False)
        self.lies = []
        self.sync = SyncService(
            network.join(READER, CHAIN),
            self.finalizer,
            self.application,
            on_lie=lambda peer, why: self.lies.append((peer, why)),
            in_thread=False,
        )

    async def reach(self, height, seconds=30):
        with trio.fail_after(seconds):
            while self.application.finalized_height() < height:  # noqa: ASYNC110 - a virtual clock
                await trio.sleep(0.1)


@pytest.fixture
async def network():
    async with open_memory_network(latency_s=0.01) as network:
        yield network


@pytest.fixture
async def nursery_():
    async with trio.open_nursery() as nursery:
        yield nursery
        nursery.cancel_scope.cancel()


async def test_a_node_that_is_behind_gets_every_block(autojump_clock, network, nursery_):
    pairs = chain(40)
    serve(network, pairs)
    reader = Reader(network)
    await nursery_.start(reader.sync.run)
    await reader.reach(40)
    assert reader.application.chain[1:] == pairs
    with trio.fail_after(20):
        await reader.sync.caught_up.wait()


async def test_blocks_that_were_final_as_ancestors_come_with_their_descendant(
    autojump_clock, network, nursery_
):
    pairs = chain(23, direct=lambda height: height % 5 == 0)
    serve(network, pairs)
    reader = Reader(network)
    await nursery_.start(reader.sync.run)
    await reader.reach(23)
    assert reader.application.chain[1:] == pairs


async def test_a_lone_node_counts_as_caught_up_after_a_few_seconds(
    autojump_clock, network, nursery_
):
    reader = Reader(network)
    await nursery_.start(reader.sync.run)
    await trio.sleep(3)
    assert not reader.sync.caught_up.is_set()
    with trio.fail_after(3):
        await reader.sync.caught_up.wait()


async def test_gossip_brings_the_next_block_at_once(autojump_clock, network, nursery_):
    pairs = chain(3)
    server = serve(network, [])
    reader = Reader(network)
    await nursery_.start(reader.sync.run)
    await trio.sleep(1)
    for height, (block, certificate) in enumerate(pairs, 1):
        data = canonical.encode([height, block.encode(), certificate.encode()])
        await server.publish(f"/swarm/{CHAIN.hex()}/blocks", data)
        await trio.sleep(0.1)
        assert reader.application.finalized_height() == height


STRANGERS = sorted((Signer(bytes([1, n]) * 16) for n in range(4)), key=lambda s: s.public_key)


@pytest.mark.parametrize(
    "lie",
    [
        chain(12, signers=STRANGERS),
        chain(12, direct=lambda height: False, signers=STRANGERS),
        [(block, chain(12)[0][1]) for block, _ in chain(12)][:1] + chain(12)[2:],
        [(chain(12)[4][0], chain(12)[4][1])] * 12,
    ],
    ids=["forged", "forged for a descendant", "a block left out", "the same block"],
)
async def test_a_liar_is_dropped_and_the_honest_peer_is_asked(
    autojump_clock, network, nursery_, lie
):
    liar = network.join(LIAR, CHAIN)

    async def answer(stream):
        request = decode_request(await FrameReader(stream, 512).read())
        if request == AskTip():
            await stream.send_all(frame(encode_tip(10**9)))
        else:
            for block, certificate in lie:
                await stream.send_all(frame(encode_pair(block.encode(), certificate.encode())))
        await stream.close()

    liar.handle(PROTOCOL, answer)
    serve(network, chain(10))
    reader = Reader(network)
    await nursery_.start(reader.sync.run)
    await reader.reach(10)
    assert reader.application.chain[1:] == chain(10)
    assert [peer for peer, _ in reader.lies] == [LIAR]


async def test_a_silent_peer_is_given_up_after_thirty_seconds(autojump_clock, network, nursery_):
    mute = network.join(LIAR, CHAIN)

    async def answer(stream):
        if decode_request(await FrameReader(stream, 512).read()) == AskTip():
            await stream.send_all(frame(encode_tip(10**9)))
            await stream.close()
        else:
            await trio.sleep_forever()

    mute.handle(PROTOCOL, answer)
    serve(network, chain(4))
    reader = Reader(network)
    await nursery_.start(reader.sync.run)
    await trio.sleep(29)
    assert reader.application.finalized_height() == 0
    await reader.reach(4, seconds=10)
    assert reader.lies == []


@pytest.mark.parametrize("count", [512, 1], ids=["drips", "drips and ends early"])
async def test_a_peer_that_drips_is_given_up_for_one_that_does_not(
    autojump_clock, network, nursery_, count
):
    pairs = chain(40)
    slow = network.join(LIAR, CHAIN)
    asked = []

    async def answer(stream):
        request = decode_request(await FrameReader(stream, 512).read())
        if request == AskTip():
            await stream.send_all(frame(encode_tip(10**9)))
        else:
            asked.append(request.from_height)
            for block, certificate in pairs[request.from_height - 1 :][:count]:
                await trio.sleep(29)
                await stream.send_all(frame(encode_pair(block.encode(), certificate.encode())))
        await stream.close()

    slow.handle(PROTOCOL, answer)
    reader = Reader(network)
    await nursery_.start(reader.sync.run)
    await trio.sleep(10)
    serve(network, pairs)
    await reader.reach(40, seconds=38)
    assert reader.application.chain[1:] == pairs
    assert (asked[0], reader.lies) == (1, [])


async def test_what_a_peer_gave_before_it_stopped_is_applied(autojump_clock, network, nursery_):
    slow = network.join(LIAR, CHAIN)

    async def answer(stream):
        request = decode_request(await FrameReader(stream, 512).read())
        if request == AskTip():
            await stream.send_all(frame(encode_tip(10**9)))
            await stream.close()
        else:
            for block, certificate in chain(3)[request.from_height - 1 :]:
                await stream.send_all(frame(encode_pair(block.encode(), certificate.encode())))
            await trio.sleep_forever()

    slow.handle(PROTOCOL, answer)
    reader = Reader(network)
    await nursery_.start(reader.sync.run)
    await reader.reach(3, seconds=35)
    assert reader.lies == []


async def test_blocks_without_a_finalization_are_not_looked_at_again_with_each_that_comes(
    autojump_clock, network, nursery_
):
    slow = network.join(LIAR, CHAIN)
    block, certificate = bytes(2**20), b"of no block"
    looked_at = []

    class Waiting:
        def height(self):
            return 0

        async def apply(self, pairs):
            looked_at.append(len(pairs))
            return 0

    async def answer(stream):
        request = decode_request(await FrameReader(stream, 512).read())
        if request == AskTip():
            await stream.send_all(frame(encode_tip(10**9)))
        else:
            for size in [len(block)] * 5 + [100] * 400:
                await stream.send_all(frame(encode_pair(block[:size], certificate)))
        await stream.close()

    slow.handle(PROTOCOL, answer)
    application = ToyApplication(SIGNERS[5])
    sync = SyncService(network.join(READER, CHAIN), Waiting(), application, in_thread=False)
    await nursery_.start(sync.run)
    await trio.sleep(8)
    assert looked_at[:2] == [4, 405], "when there is enough of them, and at the end"


async def test_a_long_answer_that_keeps_its_pace_is_heard_to_its_end(
    autojump_clock, network, nursery_
):
    pairs = chain(40, size=64 * 2**10)
    server = network.join(SERVER, CHAIN)
    asked = []

    async def answer(stream):
        request = decode_request(await FrameReader(stream, 512).read())
        if request == AskTip():
            await stream.send_all(frame(encode_tip(40)))
        else:
            asked.append(request.from_height)
            for block, certificate in pairs[request.from_height - 1 :]:
                await trio.sleep(1.5)
                await stream.send_all(frame(encode_pair(block.encode(), certificate.encode())))
        await stream.close()

    server.handle(PROTOCOL, answer)
    reader = Reader(network)
    await nursery_.start(reader.sync.run)
    await reader.reach(40, seconds=70)
    assert asked == [1]


async def test_one_peer_may_not_hold_many_streams(autojump_clock, network):
    serve(network, chain(1))
    me = network.join(READER, CHAIN)
    held = [await me.open_stream(SERVER, PROTOCOL) for _ in range(STREAMS_PER_PEER)]
    await trio.sleep(0.1)
    with pytest.raises(StreamError):
        await fetch_tip(me, SERVER)
    await trio.sleep(15)
    assert await fetch_tip(me, SERVER) == 1, "who asks nothing is let go after ten seconds"
    assert len(held) == STREAMS_PER_PEER


async def test_who_only_opens_streams_keeps_nobody_out(autojump_clock, network):
    serve(network, chain(1))
    idle = []
    for one in range(STREAMS // STREAMS_PER_PEER):
        stranger = network.join(f"stranger {one}", b"another network ....".ljust(32))
        idle += [await stranger.open_stream(SERVER, PROTOCOL) for _ in range(STREAMS_PER_PEER)]
    await trio.sleep(0.1)
    me = network.join(READER, CHAIN)
    with trio.fail_after(1):
        assert await fetch_tip(me, SERVER) == 1
        assert await fetch_tip(me, SERVER) == 1
    assert len(idle) == STREAMS


class Long:
    """A source of 512 blocks of 8 KiB, of which nobody asks what they say."""

    def blocks(self, height, limit):
        return [(Bytes(), Bytes(b""))] * limit if height <= 512 else []


class Bytes:
    def __init__(self, data=bytes(2**13)):
        self._data = data

    def encode(self):
        return self._data


async def taken(network, seconds, rate):
    """Frames that a peer gets that reads for so long, so many bytes a second."""
    SyncService(network.join(SERVER, CHAIN), None, Long(), in_thread=False)
    stream = await network.join(READER, CHAIN).open_stream(SERVER, PROTOCOL)
    await stream.send_all(frame(AskBlocks(1, 512).encode()))
    await stream.close()
    came = 0
    with trio.move_on_after(seconds):
        while data := await stream.receive_some(2**13):
            came += len(data)
            await trio.sleep(len(data) / rate)
    return came // 2**13


async def test_who_takes_a_block_every_half_minute_loses_its_place_in_minutes(
    autojump_clock, network
):
    began = trio.current_time()
    with pytest.raises(StreamError):
        await taken(network, 3600, rate=2**13 / 29)
    assert trio.current_time() - began < 120


async def test_a_slow_line_gets_all_that_it_asked_for(autojump_clock, network):
    assert await taken(network, 3600, rate=32_000) >= 512


async def test_a_peer_that_finds_every_place_taken_is_not_to_blame(autojump_clock):
    answering, asked = Answering(STREAMS, STREAMS_PER_PEER, 512, 10.0), trio.Event()

    async def answer(stream, data):
        await asked.wait()

    async with trio.open_nursery() as nursery:
        for one in range(STREAMS):
            nursery.start_soon(answering.serve, Asking(f"peer {one}"), answer)
        await trio.sleep(1)
        late = Asking("late")
        await answering.serve(late, answer)
        assert late.is_reset
        asked.set()


class Asking:
    """A stream on which a peer has asked."""

    def __init__(self, peer):
        self.peer = peer
        self.is_reset = False
        self._data = [frame(b"a request"), b""]

    async def receive_some(self, max_bytes):
        await trio.lowlevel.checkpoint()
        return self._data.pop(0)

    async def reset(self):
        await trio.lowlevel.checkpoint()
        self.is_reset = True

    async def close(self):
        await trio.lowlevel.checkpoint()


async def test_a_stranger_may_ask_for_genesis_and_checks_it(autojump_clock, network):
    serve(network, [])
    stranger = network.join(READER, b"another network ....".ljust(32))
    assert await fetch_genesis(stranger, SERVER, CHAIN) == GENESIS
    with pytest.raises(WrongGenesisError):
        await fetch_genesis(stranger, SERVER, b"x" * 32)


async def test_a_value_comes_with_its_header_and_finalization(autojump_clock, network):
    pairs = chain(2)
    serve(network, pairs)
    me = network.join(READER, CHAIN)
    proof = await fetch_proof(me, SERVER, b"known")
    assert (proof.value, proof.header) == (b"value", pairs[-1][0].header_bytes)
    assert Certificate.decode(proof.finalization) == pairs[-1][1]
    with pytest.raises(NothingProvenError):
        await fetch_proof(me, SERVER, b"unknown")


@pytest.mark.parametrize("garbage", [b"\xff" * 8, frame(b"\x00" * 9), frame(b"\x81\x09"), b"\x00"])
async def test_a_garbled_request_resets_the_stream_and_no_more(autojump_clock, network, garbage):
    serve(network, chain(1))
    me = network.join(READER, CHAIN)
    stream = await me.open_stream(SERVER, PROTOCOL)
    await stream.send_all(garbage)
    await stream.close()
    with pytest.raises(StreamError):
        await stream.receive_some()
    assert await fetch_tip(me, SERVER) == 1


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_refused(data):
    for decode in (decode_request, decode_genesis, decode_tip, decode_pair):
        with contextlib.suppress(SyncMessageError):
            decode(data)


def test_a_request_for_too_much_is_cut_down():
    assert decode_request(AskBlocks(1, 10**9).encode()).count == 512


def test_a_peer_that_failed_rests_unless_it_is_the_only_one():
    book = PeerBook()
    book.failed("a", 0.0)
    assert book.to_probe(["a", "b"], 1.0, 3, 0) == ["b"]
    assert book.to_probe(["a"], 1.0, 3, 0) == ["a"]
    assert book.to_probe(["a", "b"], REST_SECONDS, 3, 0) == ["a", "b"]


def test_a_peer_that_fails_again_and_again_rests_longer_until_it_gives_what_it_claims():
    book = PeerBook()
    rests = []
    for _ in range(12):
        book.failed("a", 0.0)
        rests.append(book.rested["a"])
    assert rests[:4] == [REST_SECONDS, 2 * REST_SECONDS, 4 * REST_SECONDS, MAX_REST_SECONDS]
    assert set(rests[4:]) == {MAX_REST_SECONDS}
    book.gave("a")
    book.failed("a", 0.0)
    assert book.rested["a"] == REST_SECONDS


def test_of_those_that_are_ahead_the_one_that_failed_least_is_asked():
    book = PeerBook()
    book.failed("high", 0.0)
    for peer, height in {"high": 2**40, "low": 5, "higher": 6}.items():
        book.told(peer, height)
    peers = ["high", "higher", "low"]
    assert book.best(peers, 0) == "higher"
    assert book.best(peers, 5) == "higher"
    assert book.best(peers, 6) == "high"
    book.gave("high")
    assert book.best(peers, 0) == "high"


def test_every_book_of_peers_has_a_bound():
    book = PeerBook()
    for at in range(MAX_PEERS + 10):
        book.told(f"told {at}", 1)
        book.failed(f"failed {at}", 0.0)
        book.caught(f"caught {at}")
    books = (book.tips, book.rested, book.failures, book.lied)
    assert [len(one) for one in books] == [MAX_PEERS] * 4
    assert f"caught {MAX_PEERS + 9}" in book.lied
    assert "caught 9" not in book.lied


def test_every_peer_gets_its_turn_and_a_liar_never_again():
    book = PeerBook()
    peers = [f"p{n}" for n in range(7)]
    book.caught("p3")
    asked = {peer for turn in range(4) for peer in book.to_probe(peers, 0.0, 3, turn)}
    assert asked == set(peers) - {"p3"}
    book.told("p3", 99)
    assert book.best(peers, 0) is None


async def test_who_hints_without_end_makes_nobody_ask_without_end(
    autojump_clock, network, nursery_
):
    server = network.join(SERVER, CHAIN)
    asked = []

    async def answer(stream):
        asked.append(trio.current_time())
        await FrameReader(stream, 512).read()
        await stream.send_all(frame(encode_tip(0)))
        await stream.close()

    server.handle(PROTOCOL, answer)
    reader = Reader(network)
    await nursery_.start(reader.sync.run)
    end = trio.current_time() + 3
    while trio.current_time() < end:
        reader.sync.wake()
        await trio.sleep(0.001)
    assert 1 < len(asked) <= 40


class Full:
    """A chain whose disk has no room."""

    def __init__(self, error):
        self.error = error

    def height(self):
        return 0

    async def apply(self, pairs):
        await trio.lowlevel.checkpoint()
        raise self.error


async def test_a_node_without_room_for_blocks_says_so_and_goes_on_when_it_has_some(
    autojump_clock, network, nursery_
):
    serve(network, chain(7))
    application, full = ToyApplication(SIGNERS[5]), Full(DiskFullError(1, 0))
    sync = SyncService(network.join(READER, CHAIN), full, application, in_thread=False)
    await nursery_.start(sync.run)
    await trio.sleep(30)
    assert sync.problem == f"no blocks are taken from peers: {DiskFullError(1, 0)}"
    assert not sync.caught_up.is_set()
    finalizer = Finalizer(application, in_thread=False)
    full.height, full.apply = finalizer.height, finalizer.apply
    await trio.sleep(30)
    assert application.finalized_height() == 7
    assert sync.problem is None
    assert sync.caught_up.is_set()


async def test_a_store_that_is_damaged_ends_the_node(autojump_clock, network):
    serve(network, chain(7))
    damaged = Full(LogError("the ledger's state is damaged"))
    sync = SyncService(
        network.join(READER, CHAIN), damaged, ToyApplication(SIGNERS[5]), in_thread=False
    )
    with pytest.RaisesGroup(LogError):
        await sync.run()

"""What libp2p 0.8.1 does by itself; each test shows a fault that `swarm.network` stands against.

A test that fails here after an upgrade says that the fault was mended, and that something of ours can go.
Its counterpart, what our own host does in that case, is in `test_survival.py` and `test_network.py`.
"""

from __future__ import annotations

import gc
import logging
from contextlib import asynccontextmanager, suppress

import pytest
import trio
import trio.testing
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.custom_types import TProtocol
from libp2p.io.exceptions import IncompleteReadError
from libp2p.io.utils import read_exactly
from libp2p.kad_dht.kad_dht import DHTMode, KadDHT
from libp2p.network.config import ConnectionConfig
from libp2p.network.stream.exceptions import StreamEOF, StreamReset
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo, info_from_p2p_addr
from libp2p.pubsub.gossipsub import GossipSub
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import Pubsub
from libp2p.records.validator import NamespacedValidator
from libp2p.stream_muxer.yamux import yamux
from libp2p.tools.anyio_service import background_trio_service
from multiaddr import Multiaddr

from storage import cid

pytestmark = [
    pytest.mark.slow,
    # libp2p leaves sockets and threads behind; that is one of the faults.
    pytest.mark.filterwarnings("ignore"),
]
MESHSUB = TProtocol("/meshsub/1.0.0")
TEST = TProtocol("/test/1.0.0")
ENDS_S = 60
"""In which a fault ends the process, however slow the machine is."""


async def rest(stream) -> None:
    await trio.sleep_forever()


@pytest.fixture(autouse=True)
def _quiet():
    logging.getLogger("libp2p").setLevel(logging.CRITICAL)
    yield
    logging.getLogger("libp2p").setLevel(logging.ERROR)
    # Its open sockets are to warn here and not in somebody else's test.
    gc.collect()


@asynccontextmanager
async def running(**kinds):
    listen = Multiaddr("/ip4/127.0.0.1/tcp/0")
    host = new_host(key_pair=create_new_key_pair(), listen_addrs=[listen], **kinds)
    async with host.run([listen]):
        try:
            yield host
        finally:
            with trio.move_on_after(1, shield=True):
                await host.close()


@asynccontextmanager
async def two_hosts(**kinds):
    async with running(**kinds) as one, running() as two:
        await two.connect(info_from_p2p_addr(one.get_addrs()[0]))
        yield one, two


def router(**kinds) -> GossipSub:
    return GossipSub(protocols=[MESHSUB], degree=3, degree_low=2, degree_high=4, **kinds)


@asynccontextmanager
async def gossiping(host, **kinds):
    gossip = router(**kinds)
    pubsub = Pubsub(host, gossip)
    async with background_trio_service(pubsub), background_trio_service(gossip):
        await pubsub.wait_until_ready()
        yield pubsub


@asynccontextmanager
async def gossiping_pair(**kinds):
    try:
        async with (
            running() as one,
            running() as two,
            gossiping(one, **kinds) as here,
            gossiping(two, **kinds) as there,
        ):
            await two.connect(info_from_p2p_addr(one.get_addrs()[0]))
            await here.subscribe("topic")
            await there.wait_for_subscription(one.get_id(), "topic")
            yield here, there
    except* RuntimeError as group:
        # Now and then its leaving tasks still start others; that is none of what these tests show.
        if group.split(lambda error: "Nursery is closed" in str(error))[1] is not None:
            raise


def what_ends_the_process(main) -> set[str]:
    """The exceptions that come out of the whole `trio.run`."""

    def names(error: BaseException) -> set[str]:
        if isinstance(error, BaseExceptionGroup):
            return set().union(*(names(each) for each in error.exceptions))
        return {type(error).__name__}

    try:
        trio.run(main)
    except BaseException as error:  # noqa: BLE001 - whatever comes out is the finding
        return names(error)
    return set()


def test_an_exception_of_a_stream_handler_ends_the_process():
    async def main() -> None:
        async with two_hosts() as (one, two):

            async def fail(stream):
                raise RuntimeError

            one.set_stream_handler(TEST, fail)
            await two.new_stream(one.get_id(), [TEST])
            await trio.sleep(ENDS_S)

    assert "RuntimeError" in what_ends_the_process(main)


def test_gossip_that_is_no_protobuf_ends_the_process():
    async def main() -> None:
        async with two_hosts() as (one, two), gossiping(one):
            stream = await two.new_stream(one.get_id(), [MESHSUB])
            await stream.write(b"\x05\xff\xff\xff\xff\xff")
            await trio.sleep(ENDS_S)

    assert "DecodeError" in what_ends_the_process(main)


def test_a_protocol_name_that_is_no_text_ends_the_process():
    async def main() -> None:
        async with two_hosts() as (one, two):
            stream = await two.get_network().new_stream(one.get_id())
            await stream.write(b"\x13/multistream/1.0.0\n\x03\xff\xfe\n")
            await trio.sleep(ENDS_S)

    assert "UnicodeDecodeError" in what_ends_the_process(main)


def test_an_exception_of_a_topic_validator_ends_the_process():
    async def main() -> None:
        async with gossiping_pair() as (here, there):

            def fail(peer, message):
                raise RuntimeError

            here.set_topic_validator("topic", fail, is_async_validator=False)
            await there.publish("topic", b"x")
            await trio.sleep(ENDS_S)

    assert "RuntimeError" in what_ends_the_process(main)


async def test_inbound_slots_are_never_given_back():
    config = ConnectionConfig(
        max_connections=3, min_connections=0, low_watermark=0, high_watermark=3
    )
    async with running(connection_config=config) as one:
        address = info_from_p2p_addr(one.get_addrs()[0])
        for _ in range(3):
            async with running() as other:
                await other.connect(PeerInfo(address.peer_id, address.addrs))
        with trio.fail_after(60):
            while one.get_connected_peers():  # noqa: ASYNC110 - libp2p offers no event
                await trio.sleep(0.05)
        async with running() as late:
            with pytest.raises(Exception), trio.fail_after(3):  # noqa: B017 - any refusal shows it
                await late.connect(PeerInfo(address.peer_id, address.addrs))


async def test_a_burst_of_sixty_messages_is_cut_to_a_few():
    async with gossiping_pair() as (here, there):
        heard = await here.subscribe("topic")
        for number in range(60):
            await there.publish("topic", b"%d" % number)
        with trio.fail_after(60):
            await heard.get()
        count = 1
        with trio.move_on_after(1):
            while True:
                await heard.get()
                count += 1
    assert count < 60


async def test_a_message_of_two_mebibytes_is_dropped_without_an_error():
    async with gossiping_pair() as (here, there):
        heard = await here.subscribe("topic")
        await there.publish("topic", bytes(2 * 2**20))
        with trio.move_on_after(0.5) as waiting:
            await heard.get()
    assert waiting.cancelled_caught


async def test_an_asynchronous_validator_lets_a_message_through_twice():
    async with running() as one, gossiping(one, spam_protection_enabled=False) as pubsub:
        heard = await pubsub.subscribe("topic")

        async def slow(peer, message) -> bool:
            await trio.sleep(0.05)
            return True

        pubsub.set_topic_validator("topic", slow, is_async_validator=True)
        pubsub.strict_signing = False
        other = ID.from_pubkey(create_new_key_pair().public_key)
        message = rpc_pb2.Message(
            data=b"x", topicIDs=["topic"], from_id=other.to_bytes(), seqno=b"1" * 8
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pubsub.push_msg, other, message)
            nursery.start_soon(pubsub.push_msg, other, message)
        with trio.fail_after(60):
            await heard.get()
            await heard.get()


def test_the_mesh_heals_every_two_minutes_and_scores_weigh_nothing():
    gossip = router()
    assert gossip.heartbeat_interval == 120
    assert gossip.scorer.params.p4_invalid_messages.weight == 0


async def test_connecting_leaves_the_routing_table_empty():
    async with two_hosts() as (_, two):
        dht = KadDHT(two, DHTMode.SERVER)
        await trio.sleep(0.3)
        assert dht.get_routing_table_size() == 0


async def test_a_provider_finds_itself_and_nobody_else():
    async with running() as one:
        dht = KadDHT(one, DHTMode.SERVER)
        root = cid.text(cid.of_raw(b"x"))
        await dht.provide(root)
        assert [found.peer_id for found in await dht.find_providers(root)] == [one.get_id()]


async def test_the_eleventh_announcement_in_ten_seconds_is_dropped():
    async with running() as one, running() as two:
        dht = KadDHT(one, DHTMode.SERVER)
        taken = [dht._check_provider_rate_limit(two.get_id()) for _ in range(11)]
    assert taken == [True] * 10 + [False]


async def test_every_network_shares_one_protocol_of_the_routing_table():
    async with running() as one:
        KadDHT(one, DHTMode.SERVER, protocol_prefix=TProtocol("/swarm"))
        assert "/ipfs/kad/1.0.0" in one.get_mux().get_protocols()


def test_names_that_nobody_registered_are_accepted():
    NamespacedValidator({}).validate("anything", b"value")


async def test_plaintext_and_secio_are_offered():
    async with running() as one:
        offered = one.get_network().upgrader.security_multistream.transports
    assert {"/plaintext/2.0.0", "/secio/1.0.0"} <= set(offered)


def test_a_full_frame_is_one_noise_message_and_a_bit():
    from libp2p.security.noise.io import MAX_PLAINTEXT_LENGTH

    assert yamux.MAX_MESSAGE_SIZE > MAX_PLAINTEXT_LENGTH


async def test_read_exactly_gives_up_after_a_hundred_reads():
    class Slices:
        async def read(self, n):
            return bytes(min(n, 65_519))

    with pytest.raises(IncompleteReadError):
        await read_exactly(Slices(), 8 * 2**20)


async def test_the_257th_stream_blocks_without_a_word():
    async with two_hosts() as (one, two):
        one.set_stream_handler(TEST, rest)
        (connection,) = two.get_network().get_connections(one.get_id())
        muxed = connection.muxed_conn
        while muxed.stream_backlog_semaphore.value:
            await muxed.open_stream()
        with trio.move_on_after(0.3) as waiting:
            await muxed.open_stream()
    assert waiting.cancelled_caught


def test_a_reader_that_rests_for_five_seconds_loses_its_stream():
    async def main() -> None:
        async with two_hosts() as (one, two):
            one.set_stream_handler(TEST, rest)
            stream = await two.new_stream(one.get_id(), [TEST])

            async def write() -> None:
                while True:
                    await stream.write(bytes(2**16))

            clock.rate = 10  # ten times as fast: five seconds of the muxer's clock
            with pytest.raises(StreamReset), trio.fail_after(600):
                await write()

    clock = trio.testing.MockClock(rate=1)
    trio.run(main, clock=clock)


async def test_a_reader_that_keeps_up_is_owed_sixteen_mebibytes():
    async with two_hosts() as (one, two):
        windows = []
        read_all = trio.Event()

        async def read(stream) -> None:
            with suppress(StreamEOF):
                while await stream.read(2**18):
                    windows.append(stream.muxed_stream.target_recv_window)
            read_all.set()

        one.set_stream_handler(TEST, read)
        stream = await two.new_stream(one.get_id(), [TEST])
        for _ in range(1_000):
            await stream.write(bytes(2**16))
        await stream.close()
        with trio.fail_after(120):
            await read_all.wait()
    assert max(windows) == 16 * 2**20


async def test_connecting_to_an_address_that_answers_waits_for_a_second_one():
    async with running() as one, running() as two:
        start = trio.current_time()
        await two.connect(info_from_p2p_addr(one.get_addrs()[0]))
        assert trio.current_time() - start >= 0.25  # at least: a busy machine cannot fail this


async def test_a_network_in_which_nothing_is_wrong_logs_warnings(caplog):
    caplog.set_level(logging.WARNING, logger="libp2p")
    async with two_hosts() as (one, two):
        tables = [KadDHT(one, DHTMode.SERVER), KadDHT(two, DHTMode.SERVER)]
        await tables[1].routing_table.add_peer(one.get_id())
        async with background_trio_service(tables[0]), background_trio_service(tables[1]):
            for number in range(5):
                await tables[1].find_providers(cid.text(cid.of_raw(bytes([number]))))
    assert len(caplog.records) >= 5


async def test_a_lost_connection_reads_as_a_clean_end():
    async with two_hosts() as (one, two):
        one.set_stream_handler(TEST, rest)
        stream = await two.new_stream(one.get_id(), [TEST])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.disconnect, two.get_id())
            with pytest.raises(StreamEOF), trio.fail_after(60):
                await stream.read(1)


async def test_listening_everywhere_announces_the_wildcard():
    listen = Multiaddr("/ip4/0.0.0.0/tcp/0")
    host = new_host(key_pair=create_new_key_pair(), listen_addrs=[listen])
    async with host.run([listen]):
        addresses = [str(address) for address in host.get_addrs()]
        await host.close()
    assert any("0.0.0.0" in address for address in addresses)  # noqa: S104


async def test_each_pubsub_leaves_a_thread_behind():
    import threading

    async with running() as one:
        before = threading.active_count()
        Pubsub(one, router())
        assert threading.active_count() == before + 1

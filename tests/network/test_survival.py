"""A node among liars, floods and garbage: each test is one abuse, and the node still serves its members after it.

Beside `test_libp2p_faults.py`, which shows what the same abuse does to libp2p's own host.
"""

from __future__ import annotations

import os
from contextlib import suppress

import pytest
import trio
from libp2p.kad_dht.pb.kademlia_pb2 import Message
from libp2p.peer.id import ID
from libp2p.pubsub.pb import rpc_pb2

from protocols.framing import FrameReader, frame
from protocols.handshake import Hello
from protocols.handshake.messages import PROTOCOL as HANDSHAKE
from protocols.handshake.messages import decode
from protocols.signing import Signer
from protocols.transport import RemoteProtocolError, StreamError
from swarm.network import addresses, host, multistream, serving, yamux
from swarm.network.muxer import Session
from swarm.network.secure import Keys
from swarm.network.wire import Wire, WireError
from swarm.network.yamux import HEADER

pytestmark = pytest.mark.slow
ECHO = "/test/echo/1.0.0"
CHAIN = b"c" * 32


async def echo(stream) -> None:
    while data := await stream.receive_some():
        await stream.send_all(data)


@pytest.fixture
def attack(nursery):
    """`await attack(address)`: a proven connection to a node that then does whatever the test likes."""

    async def begin(address: str, number: int = 66) -> Session:
        target = addresses.parse(address)
        wire = Wire(await trio.open_tcp_stream(target.host, target.port), is_initiator=True)
        secured = await Keys(Signer(number.to_bytes(32, "big"))).secure(wire, target.peer)

        def answer(stream) -> None:
            nursery.start_soon(_sink, stream)

        session = Session(secured.channel, secured.peer, opener=True, on_stream=answer)
        nursery.start_soon(session.run)
        return session

    return begin


async def _sink(stream) -> None:
    """Accept what the node opens, and read it."""
    with suppress(StreamError, RemoteProtocolError):
        await multistream.accept(stream, ["/meshsub/1.2.0", "/ipfs/kad/1.0.0"])
        while await stream.receive_some():
            pass


async def _open(session: Session, protocol: str):
    stream = session.open_stream()
    await multistream.propose(stream, [protocol])
    return stream


async def _greet(session: Session, chain: bytes = CHAIN) -> Hello:
    stream = await _open(session, HANDSHAKE)
    await stream.send_all(frame(Hello(chain, "liar", 1, 0).encode()))
    return decode(await FrameReader(stream, 4096).read())


async def rest(stream) -> None:
    await trio.sleep_forever()


async def _still_serves(one, two) -> None:
    stream = await two.open_stream(one.me, ECHO)
    await stream.send_all(b"alive")
    assert await stream.receive_some() == b"alive"
    await stream.close()


@pytest.fixture
async def served(pair):
    one, two = await pair()
    one.handle(ECHO, echo)
    return one, two


async def test_garbage_silence_and_half_a_handshake_on_the_port(served):
    one, two = served
    target = addresses.parse(one.addresses()[0])
    streams = []
    for garbage in (
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        os.urandom(70_000),
        b"\x13/multistream/1.0.0\n\x07/no",
    ):
        stream = await trio.open_tcp_stream(target.host, target.port)
        streams.append(stream)
        with suppress(trio.BrokenResourceError):
            await stream.send_all(garbage)
    await _still_serves(one, two)
    for stream in streams:
        await stream.aclose()


async def test_plaintext_and_other_muxers_are_not_offered(served):
    one, two = served
    target = addresses.parse(one.addresses()[0])
    wire = Wire(await trio.open_tcp_stream(target.host, target.port), is_initiator=True)
    with pytest.raises(multistream.NotSpokenError):
        await multistream.propose(wire, ["/plaintext/2.0.0", "/secio/1.0.0", "/tls/1.0.0"])
    wire.close_now()
    await _still_serves(one, two)


async def test_what_is_said_cannot_be_read_on_the_wire(served, monkeypatch):
    one, two = served
    link = two._host.links[one.me][0]
    written = bytearray()
    send_all = link.wire.send_all

    async def tap(data: bytes) -> None:
        written.extend(data)
        await send_all(data)

    monkeypatch.setattr(link.wire, "send_all", tap)
    stream = await two.open_stream(one.me, ECHO)
    await stream.send_all(b"a secret of some length")
    assert await stream.receive_some() == b"a secret of some length"
    assert len(written) > 23
    assert b"secret" not in written
    assert ECHO.encode() not in written


async def test_a_protocol_name_that_is_no_text_resets_a_stream_only(served, attack):
    one, two = served
    session = await attack(one.addresses()[0])
    stream = session.open_stream()
    await stream.send_all(b"\x13/multistream/1.0.0\n\x03\xff\xfe\n")
    assert await stream.receive_some()
    with pytest.raises(StreamError):
        await stream.receive_some()
    await _still_serves(one, two)


async def test_gossip_that_is_no_protobuf_costs_its_stream_only(served, attack, until):
    one, two = served
    session = await attack(one.addresses()[0])
    await _greet(session)
    for protocol in ("/meshsub/1.2.0", "/meshsub/1.0.0"):
        stream = await _open(session, protocol)
        await stream.send_all(b"\x05\xff\xff\xff\xff\xff")
        with pytest.raises(StreamError):
            await stream.receive_some()
    await until(lambda: one._host.faults["/meshsub/1.2.0"])
    await _still_serves(one, two)


async def test_gossip_of_a_forged_publisher_is_not_delivered(served, attack, until):
    one, two = served
    heard = one.subscribe("topic")
    session = await attack(one.addresses()[0])
    await _greet(session)
    stream = await _open(session, "/meshsub/1.2.0")
    forged = rpc_pb2.Message(
        data=b"lies", topicIDs=["topic"], from_id=ID.from_base58(two.me).to_bytes(), seqno=b"1" * 8
    )
    forged.signature = b"s" * 64
    await _send_rpc(stream, rpc_pb2.RPC(publish=[forged]))
    await until(lambda: two._gossip._pubsub.peer_topics.get("topic"))
    await two.publish("topic", b"truth")
    with trio.fail_after(60):
        assert await heard.receive() == (two.me, b"truth")


async def _send_rpc(stream, rpc) -> None:
    body = rpc.SerializeToString()
    await stream.send_all(multistream._varint(len(body)) + body)


async def test_a_flood_of_gossip_is_cut_to_its_rate_and_its_sender_refused_in_the_end(
    served, attack, until
):
    one, two = served
    one.subscribe("topic")
    session = await attack(one.addresses()[0])
    await _greet(session)
    await until(lambda: len(one.peers()) == 2)
    stream = await _open(session, "/meshsub/1.2.0")
    messages = [
        rpc_pb2.Message(
            data=b"x", topicIDs=["topic"], from_id=b"f", seqno=number.to_bytes(8, "big")
        )
        for number in range(500)
    ]
    with suppress(StreamError):
        for _ in range(40):
            await _send_rpc(stream, rpc_pb2.RPC(publish=messages))
    await until(lambda: one.peers() == [two.me])
    await _still_serves(one, two)


async def test_garbage_for_the_routing_table_costs_its_stream_only(served, attack):
    one, two = served
    session = await attack(one.addresses()[0])
    await _greet(session)
    stream = await _open(session, "/ipfs/kad/1.0.0")
    await stream.send_all(b"\x05\xff\xff\xff\xff\xff")
    with pytest.raises(StreamError):
        await stream.receive_some()
    await _still_serves(one, two)


async def test_values_of_any_name_are_refused_by_the_routing_table(served, attack):
    one, two = served
    session = await attack(one.addresses()[0])
    await _greet(session)
    for key in (b"plain", b"/unknown/key", b"/pk/key"):
        stream = await _open(session, "/ipfs/kad/1.0.0")
        put = Message(type=Message.PUT_VALUE, key=key)
        put.record.key, put.record.value = key, b"value"
        await _send_rpc(stream, put)
        with suppress(StreamError):
            await stream.receive_some()
    assert one._routing._dht.value_store.size() == 0
    await _still_serves(one, two)


async def test_a_stranger_cannot_reach_gossip_or_the_routing_table(served, attack):
    one, two = served
    session = await attack(one.addresses()[0])
    await _greet(session, b"d" * 32)
    for protocol in ("/meshsub/1.2.0", "/ipfs/kad/1.0.0"):
        with pytest.raises(multistream.NotSpokenError):
            await _open(session, protocol)
    assert one.peers() == [two.me]
    assert one._routing._table.size() == 1


@pytest.mark.parametrize(
    "body",
    [b"", b"\x80", os.urandom(64), frame(b"x" * 4097), frame(b"\x86\x01" + b"\xff" * 9)],
    ids=["nothing", "not a frame", "noise", "too long", "not canonical"],
)
async def test_a_hello_that_is_none_ends_its_connection_only(served, attack, body):
    one, two = served
    session = await attack(one.addresses()[0])
    stream = await _open(session, HANDSHAKE)
    await stream.send_all(body)
    await stream.close()
    with trio.fail_after(60):
        await session.closed.wait()
    await _still_serves(one, two)


async def test_a_connection_without_a_hello_is_closed(served, attack, monkeypatch):
    one, two = served
    monkeypatch.setattr(host, "GREET_S", 0.1)
    session = await attack(one.addresses()[0])
    with trio.fail_after(60):
        await session.closed.wait()
    await _still_serves(one, two)


async def test_a_flood_of_hellos_ends_its_connection(served, attack):
    one, two = served
    session = await attack(one.addresses()[0])
    stream = await _open(session, HANDSHAKE)
    with suppress(StreamError):
        for _ in range(200):
            await stream.send_all(frame(Hello(CHAIN, "liar", 1, 0).encode()))
    with trio.fail_after(60):
        await session.closed.wait()
    await _still_serves(one, two)


@pytest.mark.parametrize(
    "header",
    [
        HEADER.pack(7, yamux.DATA, 0, 1, 0),
        HEADER.pack(0, 9, 0, 1, 0),
        HEADER.pack(0, yamux.DATA, yamux.SYN, 2, 0),
        HEADER.pack(0, yamux.DATA, yamux.SYN, 0, 0),
        HEADER.pack(0, yamux.DATA, yamux.SYN, 1, 2**32 - 1),
    ],
    ids=["version", "kind", "wrong side", "stream nought", "4 GiB"],
)
async def test_frames_that_break_the_muxer_end_their_connection_only(served, attack, header):
    one, two = served
    session = await attack(one.addresses()[0])
    with suppress(WireError):
        for start in range(0, len(header), yamux.MAX_PLAINTEXT):
            await session._channel.send_messages([header[start : start + yamux.MAX_PLAINTEXT]])
    with trio.fail_after(60):
        await session.closed.wait()
    await _still_serves(one, two)


async def test_a_peer_that_writes_beyond_its_window_loses_its_connection(served, attack):
    one, two = served
    one.handle("/test/deaf/1.0.0", rest, members_only=False)
    session = await attack(one.addresses()[0])
    stream = await _open(session, "/test/deaf/1.0.0")
    stream.credited(2**20)
    with suppress(StreamError):
        await stream.send_all(bytes(2**19))
    with trio.fail_after(60):
        await session.closed.wait()
    await _still_serves(one, two)


async def test_a_stranger_that_opens_streams_without_end_holds_few(served, attack):
    one, two = served
    session = await attack(one.addresses()[0])
    with suppress(WireError):
        for number in range(1, 4000, 2):
            await session._channel.send_messages([HEADER.pack(0, 0, yamux.SYN, number, 0)])
    session._next = 4001
    last = session.open_stream()
    with suppress(StreamError), trio.fail_after(60):
        await multistream.propose(last, [ECHO])
    (link,) = one._host.links[Signer((66).to_bytes(32, "big")).peer_id]
    assert len(link.session.streams) <= serving.MAX_STRANGER_STREAMS
    await _still_serves(one, two)


async def test_a_peer_that_asks_for_pongs_and_reads_none_is_dropped(served):
    one, two = served
    target = addresses.parse(one.addresses()[0])
    wire = Wire(await trio.open_tcp_stream(target.host, target.port), is_initiator=True)
    secured = await Keys(Signer(b"p" * 32)).secure(wire, target.peer)
    pings = HEADER.pack(0, yamux.PING, yamux.SYN, 0, 1) * (yamux.MAX_PAYLOAD // HEADER.size)
    with trio.move_on_after(8), suppress(WireError):
        while True:
            await secured.channel.send_messages([pings])
    wire.close_now()
    await _still_serves(one, two)


async def test_an_exception_of_a_callback_in_gossip_does_not_end_the_node(
    served, until, monkeypatch
):
    one, two = served

    def explode(*args):
        raise RuntimeError("a fault")

    monkeypatch.setattr(one._gossip._router, "mesh_heartbeat", explode)
    await until(lambda: one._gossip.faults)
    await _still_serves(one, two)


async def test_a_message_that_comes_twice_is_delivered_once(served):
    one, _ = served
    heard = one.subscribe("topic")
    publisher = ID.from_base58(Signer(b"q" * 32).peer_id).to_bytes()
    message = rpc_pb2.Message(data=b"x", topicIDs=["topic"], from_id=publisher, seqno=b"1" * 8)
    one._gossip._pubsub.notify_subscriptions(message)
    one._gossip._pubsub.notify_subscriptions(message)
    assert heard.receive_nowait()[1] == b"x"
    with pytest.raises(trio.WouldBlock):
        heard.receive_nowait()


async def test_a_subscriber_that_rests_loses_the_oldest(served):
    one, _ = served
    heard = one.subscribe("topic")
    for number in range(1030):
        one._gossip._deliver("topic", "somebody", b"%d" % number)
    assert heard.receive_nowait() == ("somebody", b"6")


async def test_a_dead_link_is_noticed_by_its_silence(served, until, monkeypatch):
    from protocols.handshake import core

    one, _ = served
    monkeypatch.setattr(core, "ANSWER_S", 0.3)
    monkeypatch.setattr(core, "SILENCE_S", 0.3)
    monkeypatch.setattr(host.handshake_service, "REFRESH_S", 0.1)
    link = one._host.links[one.peers()[0]][0]
    one.say_hello()
    # The wire stops taking bytes, as when a cable is pulled.
    monkeypatch.setattr(link.wire, "send_all", rest)
    await until(lambda: link.session.closed.is_set())


async def test_a_member_that_dials_anew_is_talked_with_on_the_new_connection_alone(pair, until):
    one, two = await pair()
    old = one._host.link_to(two.me)
    stuck = two._host.link_to(one.me)
    old.since -= 60
    # Two has noticed that the connection is gone, and one has not: its end stays open.
    release = stuck.wire.close_now
    stuck.session._channel.close_now = stuck.wire.close_now = lambda: None
    stuck.session.close("the cable was pulled")
    await until(lambda: one._host.link_to(two.me) is not old and two.peers() == [one.me])
    await until(lambda: one._host.links[two.me] == [one._host.link_to(two.me)])
    assert "anew" in old.session.reason
    assert one.peers() == [two.me]
    release()


async def test_connections_that_were_dialled_at_once_are_both_kept(pair, until):
    one, two = await pair()
    second = await two._host.dial(addresses.parse(one.addresses()[0]))
    await second.greeted.wait()
    assert len(one._host.links[two.me]) == len(two._host.links[one.me]) == 2
    assert not any(link.session.closed.is_set() for link in one._host.links[two.me])

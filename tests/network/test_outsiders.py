"""Peers without our handshake: they may stay for what every libp2p node answers, in few places, and never in a member's."""

from __future__ import annotations

from contextlib import suppress

import pytest
import trio

from protocols.framing import frame
from protocols.handshake import Hello
from protocols.handshake.messages import PROTOCOL as HANDSHAKE
from protocols.memory import open_memory_network
from protocols.signing import Signer
from protocols.transport import RemoteProtocolError, StreamError, UnreachableError
from swarm.network import (
    addresses,
    host,
    identify,
    link,
    multistream,
    muxer,
    outsiders,
    serving,
)
from swarm.network.muxer import Session
from swarm.network.secure import Keys
from swarm.network.wire import Wire

OUTSIDE = "/ipfs/test/1.0.0"
INSIDE = "/swarm/test/1.0.0"
CHAIN = b"c" * 32


async def echo(stream) -> None:
    while data := await stream.receive_some():
        await stream.send_all(data)


@pytest.fixture
def come(nursery):
    """`await come(network, 7)`: a peer of another kind connects."""

    async def begin(network, number: int = 66) -> Session:
        target = addresses.parse(network.addresses()[0])
        wire = Wire(await trio.open_tcp_stream(target.host, target.port), is_initiator=True)
        secured = await Keys(Signer(number.to_bytes(32, "big"))).secure(wire, target.peer)
        session = Session(secured.channel, secured.peer, opener=True, on_stream=lambda _: None)
        nursery.start_soon(session.run)
        return session

    return begin


@pytest.fixture
async def other_kind(nursery):
    """The address of a peer that serves identify and one protocol, and no handshake."""
    keys = Keys(Signer(b"o" * 32))
    protocols = [identify.PROTOCOL, OUTSIDE]

    async def serve(stream) -> None:
        if await multistream.accept(stream, protocols) == OUTSIDE:
            await echo(stream)
        else:
            where = addresses.parse("/ip4/127.0.0.1/tcp/4001")
            key = keys.pair.public_key.serialize()
            await stream.send_all(identify.told(key, "other/1", [where], protocols, where))
        await stream.close()

    async def guarded(stream) -> None:
        try:
            await serve(stream)
        except (RemoteProtocolError, StreamError):
            await stream.reset()

    async def hold(stream: trio.SocketStream) -> None:
        secured = await keys.secure(Wire(stream, is_initiator=False))
        session = Session(
            secured.channel,
            secured.peer,
            opener=False,
            on_stream=lambda one: nursery.start_soon(guarded, one),
        )
        await session.run()

    listeners = await nursery.start(trio.serve_tcp, hold, 0)
    port = listeners[0].socket.getsockname()[1]
    return f"/ip4/127.0.0.1/tcp/{port}/p2p/{keys.id.to_base58()}"


async def ask(session: Session, protocol: str):
    stream = session.open_stream()
    await multistream.propose(stream, [protocol])
    return stream


async def test_every_peer_can_identify_and_ping_us(start, come):
    network = await start(1)
    network.handle(OUTSIDE, echo, members_only=False)
    network.handle(INSIDE, echo)
    session = await come(network)
    found = await identify.ask(await ask(session, identify.PROTOCOL))
    assert found.agent == "swarm/test"
    assert {identify.PROTOCOL, identify.PING_PROTOCOL, OUTSIDE} <= found.protocols
    assert INSIDE not in found.protocols
    stream = await ask(session, identify.PING_PROTOCOL)
    await stream.send_all(bytes(range(32)))
    assert await stream.receive_some() == bytes(range(32))


async def test_who_uses_a_protocol_for_outsiders_stays_and_who_says_nothing_does_not(
    start, come, monkeypatch
):
    network = await start(1)
    network.handle(OUTSIDE, echo, members_only=False)
    user = await come(network, 8)
    stream = await ask(user, OUTSIDE)
    monkeypatch.setattr(host, "GREET_S", 0.1)
    silent = await come(network, 7)
    with trio.fail_after(60):
        await silent.closed.wait()
    await stream.send_all(b"still here")
    assert await stream.receive_some() == b"still here"


async def test_an_outsider_is_refused_what_is_for_members_at_once(start, come, monkeypatch):
    monkeypatch.setattr(link, "ASKING_S", 600)
    network = await start(1)
    network.handle(OUTSIDE, echo, members_only=False)
    network.handle(INSIDE, echo)
    session = await come(network)
    await ask(session, OUTSIDE)
    with trio.fail_after(60), pytest.raises(multistream.NotSpokenError):
        await ask(session, INSIDE)
    assert network.peers() == []


async def test_outsiders_have_few_places(start, come):
    network = await start(1, max_outsiders=2)
    network.handle(OUTSIDE, echo, members_only=False)
    kept = [await come(network, number) for number in (7, 8)]
    for session in kept:
        await ask(session, OUTSIDE)
    third = await come(network, 9)
    with pytest.raises((RemoteProtocolError, StreamError)):
        await ask(third, OUTSIDE)
    assert not any(session.closed.is_set() for session in kept)


async def test_outsiders_never_crowd_out_a_member(start, come, until):
    network = await start(1, max_connections=2)
    network.handle(OUTSIDE, echo, members_only=False)
    sessions = [await come(network, number) for number in (7, 8)]
    for session in sessions:
        await ask(session, OUTSIDE)
    member = await start(2, bootstrap=tuple(network.addresses()))
    await until(lambda: member.me in network.peers())
    assert sessions[0].closed.is_set(), "who came first goes first"


async def test_an_outsider_with_nothing_to_say_is_closed(start, come, monkeypatch):
    monkeypatch.setattr(outsiders, "IDLE_S", 0.2)
    network = await start(1)
    network.handle(OUTSIDE, echo, members_only=False)
    session = await come(network)
    with suppress(RemoteProtocolError, StreamError):  # a slow machine is closed before its answer
        await ask(session, OUTSIDE)
    with trio.fail_after(60):
        await session.closed.wait()


async def test_an_outsider_that_says_hello_is_what_its_hello_says(start, come, until):
    network = await start(1)
    session = await come(network)
    await identify.ask(await ask(session, identify.PROTOCOL))
    stream = await ask(session, HANDSHAKE)
    await stream.send_all(frame(Hello(CHAIN, "swarm/late", 1, 0).encode()))
    await until(lambda: network.peers())
    (info,) = network.peer_info()
    assert info.member


async def test_we_connect_to_an_outsider_and_know_its_software(start, other_kind):
    network = await start(1)
    peer = await network.connect_outsider(other_kind)
    (info,) = network.peer_info()
    assert (info.peer, info.software, info.member) == (peer, "other/1", False)
    stream = await network.open_stream(peer, OUTSIDE)
    await stream.send_all(b"hello")
    assert await stream.receive_some() == b"hello"
    assert await network.connect_outsider(other_kind) == peer, "the same connection again"


async def test_a_peer_of_another_kind_is_not_kept_where_a_member_was_looked_for(start, other_kind):
    network = await start(1)
    with pytest.raises(UnreachableError, match="handshake"):
        await network.connect(other_kind)
    assert network.peer_info() == []


async def test_a_member_can_be_connected_to_as_if_it_were_an_outsider(start):
    one, two = await start(1), await start(2)
    assert await two.connect_outsider(one.addresses()[0]) == one.me
    assert two.peers() == [one.me]


async def test_many_short_streams_of_an_outsider_are_all_served(start, come):
    network = await start(1)
    seen = []
    ready = trio.Event()

    async def read(stream) -> None:
        await ready.wait()
        seen.append(await stream.receive_some())

    network.handle(OUTSIDE, read, members_only=False)
    session = await come(network)
    streams = []
    for number in range(128):
        stream = await ask(session, OUTSIDE)
        await stream.send_all(str(number).encode())
        await stream.close()
        streams.append(stream)
    ready.set()
    for stream in streams:
        assert await stream.receive_some() == b""
    assert len(set(seen)) == 128


def test_an_identity_that_is_too_long_or_cut_short_is_refused():
    class Said:
        def __init__(self, *parts: bytes) -> None:
            self.parts = [*parts, b""]

        async def receive_some(self) -> bytes:
            return self.parts.pop(0)

    async def main() -> None:
        for parts in ([bytes(2**15)] * 3, [b"\x05ab"], [b"\xff" * 9], [b"\x02\x0a\x7f"]):
            with pytest.raises(RemoteProtocolError):
                await identify.ask(Said(*parts))

    trio.run(main)
    assert muxer.MAX_INBOUND_STREAMS >= serving.MAX_OUTSIDER_STREAMS


async def test_pings_are_answered_no_faster_than_their_pace(autojump_clock):
    async with open_memory_network() as network:
        asking, answering = (network.join(Signer(bytes((n,)) * 32).peer_id) for n in (1, 2))
        answering.handle("/ping", identify.answer_pings)
        stream = await asking.open_stream(answering.me, "/ping")
        began = trio.current_time()
        await stream.send_all(bytes(100 * identify.PING_BYTES))
        left = 100 * identify.PING_BYTES
        while left:
            left -= len(await stream.receive_some(left))
        assert trio.current_time() - began >= 99 * identify.PING_PAUSE_S

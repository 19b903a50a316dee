"""Relays over real sockets on the loopback: who may use them, and what they give."""

from __future__ import annotations

import pytest
import trio

from protocols.transport import StreamError, UnreachableError
from swarm.network import addresses, relay

pytestmark = pytest.mark.slow
ECHO = "/test/echo/1.0.0"


async def echo(stream) -> None:
    while data := await stream.receive_some():
        await stream.send_all(data)


@pytest.fixture
def three(start, until):
    """A relay and two members of it, who have not heard of each other."""

    async def begin():
        middle = await start(1)
        middle._routers.relay._serves = lambda: True
        # Nobody tells them of each other: the relay's table would.
        ends = [
            await start(n, bootstrap=tuple(middle.addresses()), target_connections=0)
            for n in (2, 3)
        ]
        await until(lambda: len(middle.peers()) == 2 and all(one.peers() for one in ends))
        for one in ends:
            one.handle(ECHO, echo)
        return middle, *ends

    return begin


async def reserve(node, middle) -> str:
    """The address under which a node is reached through its relay."""
    link = node._host.link_to(middle.me)
    assert 3500 < await node._routers.relay.reserve(link) <= relay.RESERVATION_S
    return str(node._routers.relay.reserved[middle.me].of(node.me))


async def test_two_members_talk_through_a_relay_and_it_shows_in_their_address(three, until):
    middle, one, two = await three()
    address = await reserve(one, middle)
    assert address == f"{middle.addresses()[0]}/p2p-circuit/p2p/{one.me}"
    assert address in one.addresses()
    assert await two.connect(address) == one.me
    stream = await two.open_stream(one.me, ECHO)
    sent = bytes(range(256)) * 400
    await stream.send_all(sent)
    await stream.close()
    got = b""
    while part := await stream.receive_some():
        got += part
    assert got == sent
    seen = {each.peer: each.address for each in two.peer_info()}
    assert seen[one.me].endswith("/p2p-circuit")
    assert two.is_relayed(one.me)
    assert not two.is_relayed(middle.me)
    assert len(middle._routers.relay.places) == 1
    two._host.disconnect(one.me, "done")
    await until(lambda: len(middle._routers.relay.places) == 0)
    assert not two.is_relayed(one.me)  # its own address is known too


def test_a_peer_of_whom_only_addresses_through_relays_are_known_is_relayed(make):
    one, other, middle = make(1), make(2), make(3)
    through = addresses.parse(f"/ip4/192.0.2.7/tcp/4001/p2p/{middle.me}/p2p-circuit/p2p/{other.me}")
    assert not one.is_relayed(other.me)
    one._book.learn(other.me, [through])
    assert one.is_relayed(other.me)
    one._book.learn(other.me, [addresses.parse("/ip4/192.0.2.8/tcp/4001")])
    assert not one.is_relayed(other.me)


async def test_a_relay_that_started_again_is_asked_for_a_place_again(three, until):
    middle, one, _ = await three()
    first = one._host.link_to(middle.me)
    await one._routers._keep_places([first])
    assert middle._routers.relay.places.has(one.me, trio.current_time())
    middle._routers.relay.places = relay.Places()
    middle._host.disconnect(one.me, "started again")
    await until(lambda: middle.me in one.peers() and one._host.link_to(middle.me) is not first)
    await until(lambda: one.me in middle.peers())
    await one._routers._keep_places([one._host.link_to(middle.me)])
    assert middle._routers.relay.places.has(one.me, trio.current_time())


async def test_a_place_that_is_given_up_keeps_no_connection_in_memory(three, monkeypatch):
    middle, one, _ = await three()
    await one._routers._keep_places([one._host.link_to(middle.me)])
    assert set(one._routers._leases) == set(one._routers.relay.reserved) == {middle.me}
    monkeypatch.setattr(
        one._routers.reach, "confirmed", lambda: [addresses.parse("/ip4/1.2.3.4/tcp/1")]
    )
    await one._routers._keep_places([])
    assert not one._routers._leases


async def test_nobody_is_reached_through_a_relay_without_a_place_there(three):
    middle, one, two = await three()
    address = f"{middle.addresses()[0]}/p2p-circuit/p2p/{one.me}"
    with pytest.raises(UnreachableError, match="no reservation"):
        await two.connect(address)
    with pytest.raises(UnreachableError, match="no reservation"):
        await two.connect(f"{middle.addresses()[0]}/p2p-circuit/p2p/{two.me}")
    assert middle.peers()


async def test_a_node_that_cannot_be_dialled_does_not_relay(three):
    middle, one, two = await three()
    link = one._host.link_to(two.me) or one._host.link_to(middle.me)
    middle._routers.relay._serves = lambda: False
    with pytest.raises(UnreachableError, match="permission denied"):
        await one._routers.relay.reserve(link)


async def test_a_circuit_from_a_member_that_is_no_relay_of_ours_is_not_taken(three):
    from libp2p.relay.circuit_v2.pb import circuit_pb2

    from swarm.network import envelopes

    middle, one, _ = await three()
    stream = await middle._host.link_to(one.me).open([relay.STOP])
    question = circuit_pb2.StopMessage(type=circuit_pb2.StopMessage.CONNECT)
    await envelopes.send(stream, question)
    answer = await envelopes.receive(stream, circuit_pb2.StopMessage())
    assert answer.status == circuit_pb2.PERMISSION_DENIED
    await stream.reset()


async def test_a_circuit_ends_when_its_bytes_are_used_up_and_nobody_else_is_harmed(
    three, monkeypatch, until
):
    monkeypatch.setattr(relay, "CIRCUIT_BYTES", 2**18)
    monkeypatch.setattr(relay, "CIRCUIT_RATE", 2**30)
    middle, one, two = await three()
    await two.connect(await reserve(one, middle))
    stream = await two.open_stream(one.me, ECHO)
    got = 0
    with trio.fail_after(60), pytest.raises(StreamError):  # noqa: PT012 - which of both sees it is left open
        while True:
            await stream.send_all(bytes(2**14))
            got += len(await stream.receive_some())
    assert 0 < got <= 2**18
    await until(lambda: len(middle._routers.relay.places) == 0)
    assert {one.me, two.me} <= set(middle.peers())
    assert not middle._host.faults


async def test_a_peer_of_a_private_address_is_not_dialled_back(three):
    middle, one, _ = await three()
    link = one._host.link_to(middle.me)
    own = [addresses.parse(text).bare for text in one.addresses()]
    assert await one._routers._dial_back.ask(link, own) == []
    assert middle._host.link_to(one.me).is_member

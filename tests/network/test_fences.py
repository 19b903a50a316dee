"""What one peer, one router or one machine of the local network says ends no more than its own work."""

from __future__ import annotations

import resource
import socket
from functools import partial

import psutil
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from protocols.signing import Signer
from protocols.transport import RemoteProtocolError, UnreachableError
from swarm.errors import NetworkError
from swarm.network import addresses, envelopes, identify, mdns, routers, upnp
from swarm.network.addresses import Address
from swarm.network.dialling import Dialling
from swarm.network.holepunch import HolePuncher
from swarm.network.peerbook import PeerBook
from swarm.network.relay import Relay
from swarm.network.routers import Routers

PEER = Signer(bytes(32)).peer_id
HERE = addresses.parse("/ip4/192.168.1.2/tcp/4001")


class Said:
    """A stream on which a peer has said something."""

    def __init__(self, *parts: bytes) -> None:
        self._parts = [*parts, b""]

    async def receive_some(self, _most: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        return self._parts.pop(0)


@pytest.mark.parametrize("field", [b"\x32", b"\x1a"], ids=["agent", "protocol"])
async def test_an_identity_that_is_no_text_is_a_fault_of_the_peer(field):
    with pytest.raises(RemoteProtocolError, match="not UTF-8"):
        await identify.ask(Said(b"\x04" + field + b"\x02\xff\xfe"))


async def break_(*_: object) -> None:
    await trio.lowlevel.checkpoint()
    message = "nobody thought of this"
    raise TypeError(message)


@pytest.mark.parametrize(
    ("thing", "name"),
    [(identify, "ask"), (routers.DialBack, "ask"), (Relay, "reserve"), (HolePuncher, "improve")],
)
async def test_an_error_about_one_peer_does_not_end_the_look_at_all(
    pair, nursery, monkeypatch, thing, name
):
    monkeypatch.setattr(addresses, "is_public", lambda _: True)
    monkeypatch.setattr(thing, name, break_)
    _one, two = await pair(second={"announce": ("/ip4/127.0.0.1/tcp/9",)})
    looks, host = two._routers, two._host
    if thing is HolePuncher:
        (link,) = host.links[_one.me]
        link.dialled, link.wire.remote = False, Address("ip4", "127.0.0.1", 1, None, PEER)
        monkeypatch.setattr(Routers, "_outside", lambda _: [HERE])
        looks._nursery = nursery
    await looks._look()
    await wait_all_tasks_blocked()
    assert host.faults["TypeError"] == 1
    if thing is Relay:
        assert not looks.relay.reserved
        await looks._look()
        assert host.faults["TypeError"] == 1  # it is left alone for a while
    assert two.peers()


async def test_an_error_about_one_peer_does_not_end_a_search_among_members(pair, monkeypatch):
    one, two = await pair()
    monkeypatch.setattr(one._routing._peers, "_query_peer_for_closest", break_)
    assert await one._routing.closest(bytes(32)) == []
    assert two.me in one.peers()


async def test_an_upgrade_that_breaks_is_an_address_that_leads_nowhere(nursery):
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    port = listener.socket.getsockname()[1]
    with pytest.raises(UnreachableError, match="nobody thought of this"):
        await Dialling(list, break_, None).dial(Address("ip4", "127.0.0.1", port))
    await listener.aclose()


class BrokenWay:
    name = "a broken way"
    forward = break_


async def test_an_error_about_the_router_is_a_problem_that_the_doctor_tells(monkeypatch):
    monkeypatch.setattr(upnp, "_around", lambda: ("192.168.1.1", "192.168.1.2"))
    monkeypatch.setattr(upnp, "_ways", lambda *_: [BrokenWay()])
    changes = []
    mapper = upnp.PortMapper(4001, changes.append)
    assert await mapper._once(None) is None
    assert "nobody thought of this" in mapper.problem
    assert changes == [[]]


async def test_forwarding_that_breaks_leaves_the_network_and_waits_for_an_interface(
    make, nursery, monkeypatch, autojump_clock
):
    monkeypatch.setattr(upnp.PortMapper, "run", break_)
    shown: list[Address] = []
    monkeypatch.setattr(Routers, "_listening", lambda _: shown)
    looks = make(1, listen=("/ip4/0.0.0.0/tcp/4001",))._routers
    nursery.start_soon(looks._map_port)
    await trio.sleep(2 * routers.LOOK_S)
    assert looks.mapper is None
    shown.append(HERE)
    await trio.sleep(2 * routers.LOOK_S)
    assert "nobody thought of this" in looks.report()["forwarding_problem"]


def test_one_machine_of_the_local_network_does_not_take_all_places():
    found = mdns.Found()
    for port in range(1, 1000):
        found.add(Address("ip4", "192.168.1.66", port, PEER))
    assert found.add(HERE.of(PEER))
    assert not found.add(HERE.of(PEER))
    taken = [found.add(Address("ip4", f"10.0.0.{at}", 1, PEER)) for at in range(256)]
    assert sum(taken) == mdns.MAX_FOUND - mdns.MAX_FOUND_AT_ONE - 1


def test_a_name_that_libp2p_does_not_write_is_left_out_of_what_is_told():
    odd = addresses.parse("/dns/my_host/tcp/4001")
    assert envelopes.unpacked(envelopes.packed([odd, HERE])) == [HERE]
    assert identify.told(b"", "swarm/test", [odd], [], odd)


async def test_a_member_that_announces_such_a_name_is_a_member(pair):
    one, two = await pair({"announce": ("/dns/my_host/tcp/4001",)})
    assert one.me in two.peers()
    assert two._facade.known(one.me)


class NoNames(trio.abc.HostnameResolver):
    async def getaddrinfo(self, *_: object, **__: object):
        await trio.lowlevel.checkpoint()
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async def getnameinfo(self, *_: object):
        raise NotImplementedError


async def test_a_name_to_listen_on_that_leads_nowhere_is_told_as_that(make):
    trio.socket.set_custom_hostname_resolver(NoNames())
    with pytest.raises(NetworkError) as told:
        await make(1, listen=("/dns/node_1/tcp/4001",)).run()
    assert "leads to no address" in told.value.hint


@pytest.mark.parametrize("text", ["/ip4/1.2.3.4/tcp/0", "/ip4/0.0.0.0/tcp/4001"])
def test_a_first_address_that_nobody_can_dial_is_told(make, text):
    with pytest.raises(NetworkError, match="cannot be dialled"):
        make(1, bootstrap=(text,))
    book = PeerBook(PEER)
    book.learn(None, [addresses.parse(text)], given=True)
    assert book.due(0, 9, (), hungry=True) == []


async def test_a_machine_that_is_out_of_files_leaves_the_addresses_as_they_were(start, monkeypatch):
    one = await start(1, listen=("/ip4/0.0.0.0/tcp/0",))
    before = one.addresses()
    monkeypatch.setattr("swarm.network.network.INTERFACES_S", -1.0)
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limit[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            psutil.net_if_addrs()
        assert one.addresses() == before
        await one._routers._host.fence(one._routers._look)
        assert not one._host.faults
        assert one.reachability()["listening"]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)


async def test_a_renewed_lease_keeps_the_port_that_the_router_gave(nursery):
    kind = "urn:schemas-upnp-org:service:WANIPConnection:1"
    lent: set[str] = set()

    async def answer(stream: trio.SocketStream) -> None:
        async with stream:
            asked = b""
            while b"</s:Envelope>" not in asked:
                asked += await stream.receive_some()
            said = dict(upnp.elements(asked.partition(b"\r\n\r\n")[2]))
            port = said.get("NewExternalPort", "")
            fault = "<errorCode>718</errorCode>" if port == "4001" else ""
            if port and not fault:
                lent.add(port)
            body = f"<a><NewExternalIPAddress>45.3.0.1</NewExternalIPAddress>{fault}</a>"
            await stream.send_all(f"HTTP/1.0 200 OK\r\n\r\n{body}".encode())

    (listener,) = await nursery.start(partial(trio.serve_tcp, answer, 0, host="127.0.0.1"))
    port = listener.socket.getsockname()[1]
    router = upnp.Upnp("127.0.0.1")
    router._service = (kind, f"http://127.0.0.1:{port}/ctl")
    first = await router.forward(4001, "127.0.0.1")
    assert await router.forward(4001, "127.0.0.1") == first
    assert lent == {str(first.outside.port)}
    nursery.cancel_scope.cancel()


async def test_a_node_that_starts_before_its_machine_is_online_is_looked_after_then(
    make, nursery, autojump_clock
):
    node = make(1, listen=("/ip4/0.0.0.0/tcp/0",), relay=False)
    here = ["127.0.0.1"]
    node._routers._interfaces = lambda: here
    await nursery.start(node.run)
    await trio.sleep(600)
    assert node._routers._nursery is None
    here.append("192.0.2.5")
    await trio.sleep(2 * routers.LOOK_S)
    assert node._routers._nursery is not None
    nursery.cancel_scope.cancel()

"""What follows from what peers say: rules without sockets."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from protocols.signing import Signer
from protocols.transport import RemoteProtocolError
from swarm.network import addresses, autonat, envelopes, holepunch, relay
from swarm.network.addresses import Address, AddressError
from swarm.network.reachability import OBSERVED_S, Mapping, Reachability, Verdict

PEER, OTHER = (Signer(bytes([number]) * 32).peer_id for number in (1, 2))
OUTSIDE = addresses.parse("/ip4/45.3.0.1/tcp/4001")
INSIDE = addresses.parse("/ip4/192.168.1.10/tcp/4001")
OWN = ["192.168.1.10"]


def at(port: int, host: str = "45.3.0.1") -> Address:
    return Address("ip4", host, port)


def test_an_address_through_a_relay_is_read_and_written_the_same():
    text = f"/ip4/45.1.0.1/tcp/4001/p2p/{PEER}/p2p-circuit/p2p/{OTHER}"
    read = addresses.parse(text)
    assert (read.relay, read.peer) == (PEER, OTHER)
    assert str(read) == text
    assert str(read.bare) == text.rpartition("/p2p/")[0]
    assert addresses.parse(str(read.bare)).of(OTHER) == read


@pytest.mark.parametrize(
    "text",
    [
        f"/ip4/45.1.0.1/tcp/4001/p2p/{PEER}/p2p-circuits",
        "/ip4/45.1.0.1/tcp/4001/p2p-circuit",
        f"/ip4/45.1.0.1/tcp/4001/p2p/12D3/p2p-circuit/p2p/{OTHER}",
        f"/ip4/45.1.0.1/tcp/4001/p2p/{PEER}/p2p-circuit/p2p-circuit/p2p/{OTHER}",
        f"/ip4/45.1.0.1/tcp/4001/p2p/{PEER}/p2p-circuit/tcp/{OTHER}",
    ],
)
def test_an_address_of_another_kind_of_circuit_is_refused(text):
    with pytest.raises(AddressError):
        addresses.parse(text)


def test_one_neighbourhood_alone_moves_nothing_however_many_peers_it_has():
    reach = Reachability()
    for host in range(1, 200):
        reach.observed(f"45.1.0.{host}", OUTSIDE, 0, kept_port=True)
        reach.dialled_back(f"45.1.0.{host}", OUTSIDE, 0, ok=True)
    assert reach.agreed() == []
    assert reach.candidates([], [INSIDE]) == []
    assert reach.confirmed() == []
    assert reach.verdict(relays=0, own=OWN) is Verdict.UNKNOWN


def test_two_neighbourhoods_agree_on_an_address_and_a_liar_changes_nothing():
    reach = Reachability()
    reach.observed("45.1.0.1", OUTSIDE, 0, kept_port=True)
    reach.observed("45.2.0.1", OUTSIDE, 0, kept_port=True)
    reach.observed("46.2.0.1", at(22, "8.8.8.8"), 0, kept_port=True)
    assert reach.agreed() == [OUTSIDE]
    assert reach.candidates([], [INSIDE]) == [OUTSIDE]
    assert reach.mapping(OWN) is Mapping.SAME
    assert reach.mapping(["45.3.0.1"]) is Mapping.NONE


def test_ports_that_differ_say_that_no_holes_can_be_punched():
    reach = Reachability()
    reach.observed("45.1.0.1", at(40_001), 0, kept_port=True)
    reach.observed("45.2.0.1", at(40_002), 0, kept_port=True)
    assert reach.agreed() == [at(0)]
    assert reach.mapping(OWN) is Mapping.VARIES
    assert reach.candidates([], [INSIDE]) == [OUTSIDE]


def test_the_port_of_a_connection_from_any_port_says_nothing():
    reach = Reachability()
    reach.observed("45.1.0.1", at(40_001), 0, kept_port=False)
    reach.observed("45.2.0.1", at(40_002), 0, kept_port=False)
    assert reach.mapping(OWN) is Mapping.UNKNOWN
    assert reach.agreed() == [at(0)]


def test_a_private_address_that_a_peer_claims_to_see_counts_for_nothing():
    reach = Reachability()
    for observer in ("45.1.0.1", "45.2.0.1"):
        reach.observed(observer, INSIDE, 0, kept_port=True)
    assert reach.agreed() == []
    assert reach.told() == []


def test_the_verdict_follows_the_dial_backs_and_the_places():
    reach = Reachability()
    for observer in ("45.1.0.1", "45.2.0.1"):
        reach.observed(observer, OUTSIDE, 0, kept_port=True)
        reach.dialled_back(observer, OUTSIDE, 0, ok=False)
    assert reach.verdict(relays=0, own=OWN) is Verdict.UNREACHABLE
    assert reach.verdict(relays=1, own=OWN) is Verdict.PUNCHED
    reach.dialled_back("45.1.0.1", OUTSIDE, 1, ok=True)
    assert reach.verdict(relays=1, own=OWN) is not Verdict.DIRECT
    reach.dialled_back("45.2.0.1", OUTSIDE, 1, ok=True)
    assert reach.verdict(relays=1, own=OWN) is Verdict.DIRECT
    assert reach.confirmed() == [OUTSIDE]
    reach.forget_old(2 + OBSERVED_S)
    assert reach.verdict(relays=0, own=OWN) is Verdict.UNKNOWN


def test_what_peers_tell_is_kept_within_bounds():
    reach = Reachability()
    for first in range(1, 200):
        reach.observed(f"45.{first}.0.1", OUTSIDE, 0, kept_port=True)
        for port in range(1, 50):
            reach.dialled_back(f"45.{first}.0.1", at(port), 0, ok=True)
    assert len(reach._seen) == 32
    assert len(reach._tried) == 128


def test_a_peer_is_dialled_back_at_its_own_public_address_only():
    asked = [
        at(22, "8.8.8.8"),
        at(4001, "192.168.1.10"),
        Address("ip4", "45.3.0.1", 4001, None, PEER),
        *(at(port) for port in range(4001, 4020)),
    ]
    assert autonat.allowed(asked, at(50_000)) == [at(4001), at(4002), at(4003), at(4004)]
    assert autonat.allowed([INSIDE], at(50_000, "192.168.1.10")) == []
    assert autonat.allowed([at(1, "127.0.0.1")], at(50_000, "127.0.0.1")) == []
    assert autonat.allowed([OUTSIDE], Address("ip4", "45.3.0.1", 1, None, PEER)) == []


def test_whoever_asks_for_dial_backs_too_often_is_refused():
    pace = autonat.Pace()
    assert pace.take("one", "45.3.0.1", 0)
    assert not pace.take("one", "45.9.0.1", 1)
    assert not pace.take("two", "45.3.0.1", 1)
    assert pace.take("one", "45.3.0.1", autonat.REST_S)
    served = sum(pace.take(f"p{n}", f"45.{n}.0.1", 30) for n in range(100))
    assert served == autonat.MAX_DIALS_A_MINUTE - 1


def test_places_and_circuits_end_at_their_bounds():
    places = relay.Places()
    given = sum(places.reserve(f"p{n}", "45.3.0.1", 0) for n in range(20))
    assert given == relay.MAX_RESERVATIONS_PER_IP
    assert places.reserve("p0", "45.3.0.1", 0)
    given += sum(places.reserve(f"q{n}", f"45.{n % 250}.9.1", 0) for n in range(500))
    assert given == relay.MAX_RESERVATIONS
    assert places.has("p0", relay.RESERVATION_S - 1)
    assert not places.has("p0", relay.RESERVATION_S)
    opened = sum(places.open("p0", f"q{n}") for n in range(20))
    assert opened == relay.MAX_CIRCUITS_PER_PEER
    places.close("p0", "q0")
    assert places.open("p0", "q19")
    opened += sum(places.open(f"s{n}", f"t{n}") for n in range(100))
    assert opened == relay.MAX_CIRCUITS


def test_a_hole_is_punched_to_one_public_address_of_each_family_only():
    found = [INSIDE, at(1, "45.4.0.1"), at(2, "45.4.0.2"), at(3, "45.4.0.3")]
    six = Address("ip6", "2a00:1::1", 4001)
    assert holepunch.targets([*found, six]) == [at(1, "45.4.0.1"), six]


class Bytes:
    """A pipe that says what it was given, a few bytes at a time."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    async def receive_some(self, max_bytes: int) -> bytes:
        part, self.data = self.data[: min(max_bytes, 3)], self.data[min(max_bytes, 3) :]
        return part

    async def send_all(self, data: bytes) -> None:
        self.data += data


async def test_a_message_that_is_too_long_or_cut_short_is_refused():
    from libp2p.relay.circuit_v2.pb.circuit_pb2 import HopMessage

    for data in (
        b"\xff\xff\xff\xff\xff",
        b"\x80\x40" + b"x" * 9000,
        b"\x05\x08",
        b"\x02\xff\xff",
        b"",
    ):
        with pytest.raises(RemoteProtocolError):
            await envelopes.receive(Bytes(data), HopMessage())


@given(st.binary(max_size=200))
def test_whatever_a_peer_sends_as_a_message_is_read_or_refused(data):
    from libp2p.relay.circuit_v2.pb.dcutr_pb2 import HolePunch

    async def check() -> None:
        try:
            message = await envelopes.receive(Bytes(data), HolePunch())
        except RemoteProtocolError:
            return
        holepunch.targets(envelopes.unpacked(message.ObsAddrs))

    trio.run(check)


@given(st.lists(st.binary(max_size=60), max_size=5))
def test_whatever_a_peer_sends_as_addresses_is_read_or_left_out(data):
    assert all(addresses.is_dialable(one) for one in envelopes.unpacked(data))

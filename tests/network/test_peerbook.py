from __future__ import annotations

from types import SimpleNamespace

import pytest
import trio

from protocols.handshake import Hello
from protocols.signing import Signer
from swarm.network import addresses, peerbook
from swarm.network.addresses import AddressError
from swarm.network.faults import Offenders
from swarm.network.gossip import Bucket
from swarm.network.known_peers import KnownPeers
from swarm.network.peerbook import PeerBook

ME, ANNA, BERT = (Signer(bytes([number]) * 32).peer_id for number in range(3))


def at(port: int, peer: str | None = None, ip: str = "10.0.0.1") -> addresses.Address:
    return addresses.Address("ip4", ip, port, peer)


def due(book: PeerBook, now: float, *, hungry: bool = True) -> list[str | None]:
    return [entry.peer for entry in book.due(now, 10, (), hungry=hungry)]


async def test_the_first_peers_are_on_the_disk_before_a_power_cut_is_likely(
    autojump_clock, tmp_path
):
    book = PeerBook(ME)
    kept = KnownPeers(book, tmp_path / "peers.json")
    with trio.move_on_after(1.5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(kept.run)
            book.learn(ANNA, [at(1)], member=True)
    again = PeerBook(ME)
    again.load((tmp_path / "peers.json").read_bytes())
    assert due(again, 0) == [ANNA]


def test_waits_double_and_a_given_address_is_never_forgotten():
    book = PeerBook(ME)
    book.learn(ANNA, [at(1)], given=True)
    waits = []
    now = 0.0
    for _ in range(20):
        book.failed(ANNA, "refused", now)
        then = book.next_due((), hungry=True)
        waits.append(then - now)
        now = then
    assert waits[:4] == [0.25, 0.5, 1, 2]
    assert max(waits) == peerbook.FAITHFUL_RETRY_S
    assert due(book, now) == [ANNA]


def test_a_found_peer_that_never_answers_is_forgotten():
    book = PeerBook(ME)
    book.learn(ANNA, [at(1)])
    for _ in range(peerbook.GIVE_UP_FAILURES):
        book.failed(ANNA, "refused", 0)
    assert due(book, 1e9) == []


def test_given_peers_come_before_members_and_those_before_others():
    book = PeerBook(ME)
    carl = Signer(b"c" * 32).peer_id
    book.learn(carl, [at(1)])
    book.learn(ANNA, [at(2)], member=True)
    book.learn(BERT, [at(3)], given=True)
    assert due(book, 0) == [BERT, ANNA, carl]
    assert due(book, 0, hungry=False) == [BERT, ANNA]
    assert [entry.peer for entry in book.due(0, 10, {BERT}, hungry=True)] == [ANNA, carl]


def test_a_lost_member_is_tried_again_at_once_and_a_stranger_after_ten_minutes():
    book = PeerBook(ME)
    book.learn(ANNA, [at(1)], member=True)
    book.failed(ANNA, "refused", 100)
    book.lost(ANNA, 100)
    assert due(book, 100.3) == [ANNA]
    book.foreign(ANNA, "abcd", 101)
    book.lost(ANNA, 102)
    assert due(book, 700) == []
    assert due(book, 702) == [ANNA]


def test_problems_name_the_address_the_tries_and_the_reason():
    book = PeerBook(ME)
    book.learn(ANNA, [at(4001)], given=True)
    for _ in range(3):
        book.failed(ANNA, "Connection refused", 0)
    assert book.problems(()) == [
        f"no answer from /ip4/10.0.0.1/tcp/4001/p2p/{ANNA} (tried 3 times): "
        "Connection refused; trying others"
    ]
    assert book.problems({ANNA}) == []
    book.succeeded(ANNA, ANNA, 1)
    assert book.problems(()) == []


def test_an_address_without_a_peer_id_learns_it():
    book = PeerBook(ME)
    book.learn(None, [at(1)], given=True)
    (entry,) = book.due(0, 1, (), hungry=True)
    book.succeeded(entry.key, ANNA, 0)
    assert book.addresses_of(ANNA) == [at(1, ANNA)]
    assert book.due(0, 1, {ANNA}, hungry=True) == []


def test_bounds_hold_and_this_node_is_never_in_the_book():
    book = PeerBook(ME)
    book.learn(ME, [at(1)], given=True)
    book.learn(ANNA, [at(0), at(1, ip="0.0.0.0"), at(1, ip="224.0.0.1")])  # noqa: S104
    assert due(book, 0) == []
    book.learn(BERT, [at(1)], given=True)
    for number in range(peerbook.MAX_ENTRIES + 50):
        book.learn(f"peer {number}", [at(1)])
    assert len(book._entries) == peerbook.MAX_ENTRIES
    assert BERT in due(book, 0)
    book.learn(BERT, [at(port) for port in range(1, 100)])
    assert len(book.addresses_of(BERT)) == peerbook.MAX_ADDRESSES


def test_a_peer_that_tells_the_same_addresses_again_changes_nothing():
    book = PeerBook(ME)
    told = [at(port) for port in range(1, peerbook.MAX_ADDRESSES + 1)]
    book.learn(ANNA, told, member=True)
    book.learn(ANNA, [at(99)])  # somebody else says so
    book.learn(ANNA, told, member=True)
    known = book.addresses_of(ANNA)
    assert sorted(one.port for one in known) == [one.port for one in told]
    book.dump()
    book.learn(ANNA, told, member=True)
    assert not book.changed
    assert book.addresses_of(ANNA) == known


def test_of_many_addresses_those_are_kept_that_a_member_tells_first(make):
    node, other = make(1), make(2)
    link = SimpleNamespace(
        peer=other.me,
        dialled=True,
        is_member=True,
        wire=SimpleNamespace(remote=at(4001, ip="192.0.2.1")),
        hello=Hello(b"", "x", 0, 0, tuple(f"/ip4/198.51.100.{n}/tcp/1" for n in range(1, 17))),
    )
    for _ in range(2):
        node._learn(link)
        known = [one.host for one in node._book.addresses_of(other.me)]
        assert known == ["192.0.2.1", *(f"198.51.100.{n}" for n in range(1, 8))]


async def test_a_save_that_is_cancelled_is_made_up_for(tmp_path):
    book = PeerBook(ME)
    kept = KnownPeers(book, tmp_path / "peers.json")
    book.learn(ANNA, [at(1)], member=True)
    with trio.CancelScope() as scope:
        scope.cancel()
        await kept.save()
    await kept.save_at_end()
    assert ANNA in (tmp_path / "peers.json").read_text()


def test_members_are_written_and_read_back():
    book = PeerBook(ME)
    book.learn(ANNA, [at(1), at(2)], member=True)
    book.learn(BERT, [at(3)])
    again = PeerBook(ME)
    again.load(book.dump())
    assert again.addresses_of(ANNA) == [at(2, ANNA), at(1, ANNA)]
    assert again.addresses_of(BERT) == []


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b'{"version": 2, "peers": []}', b'{"version": 1}', b"x" * 2**21]
)
def test_a_file_that_is_none_is_refused(data):
    with pytest.raises(ValueError):
        PeerBook(ME).load(data)


def test_entries_that_are_damaged_are_left_out():
    book = PeerBook(ME)
    book.load(
        b'{"version": 1, "peers": [7, {"peer": "x", "addresses": ["/ip4/1.2.3.4/tcp/1"]}, '
        b'{"peer": "' + ANNA.encode() + b'", "addresses": ["/ip4/1.2.3.4/tcp/1"]}]}'
    )
    assert due(book, 0) == [ANNA]


@pytest.mark.parametrize(
    "text",
    [
        "/ip4/1.2.3.4/tcp/4001",
        f"/ip4/1.2.3.4/tcp/4001/p2p/{ANNA}",
        "/ip6/::1/tcp/1",
        "/dns4/node.example.org/tcp/4001",
    ],
)
def test_an_address_reads_back_as_it_was_written(text):
    assert str(addresses.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "1.2.3.4:4001",
        "/ip4/1.2.3.4/udp/1",
        "/ip4/1.2.3/tcp/1",
        "/ip4/::1/tcp/1",
        "/ip6/fe80::1%eth0/tcp/1",
        "/ip4/1.2.3.4/tcp/65536",
        "/ip4/1.2.3.4/tcp/-1",
        "/ip4/1.2.3.4/tcp/1/ws",
        "/ip4/1.2.3.4/tcp/1/p2p/nobody",
        "/dns4/not a name/tcp/1",
        "/ip4/1.2.3.4/tcp/1/p2p/" + "1" * 400,
    ],
)
def test_what_cannot_be_dialled_is_refused(text):
    with pytest.raises(AddressError):
        addresses.parse(text)


def test_a_wildcard_becomes_the_interfaces_with_the_loopback_last():
    bound = at(4001, ip="0.0.0.0")  # noqa: S104
    found = addresses.expand(bound, ["127.0.0.1", "192.168.1.2", "fe80::1%eth0", "::1", "odd"])
    assert [str(each) for each in found] == ["/ip4/192.168.1.2/tcp/4001", "/ip4/127.0.0.1/tcp/4001"]
    assert addresses.expand(at(1), ["127.0.0.1"]) == [at(1)]


def test_five_strikes_in_a_minute_refuse_a_peer_for_ten():
    table = Offenders()
    assert [table.note(ANNA, "x", now) for now in range(5)] == [False] * 4 + [True]
    assert table.is_refused(ANNA, 603)
    assert not table.is_refused(ANNA, 604)
    assert not any(table.note(BERT, "x", now * 20) for now in range(50))


def test_a_bucket_allows_its_burst_and_then_its_rate():
    bucket = Bucket(rate=10, burst=5, now=0)
    assert sum(bucket.take(0) for _ in range(20)) == 5
    assert sum(bucket.take(1) for _ in range(20)) == 5
    assert bucket.excess == 30

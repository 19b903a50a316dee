"""What a node sees of its network, over real sockets on the loopback."""

from __future__ import annotations

import signal
import socket
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import trio
from libp2p.peer.id import ID
from libp2p.pubsub.pb import rpc_pb2
from libp2p.utils import encode_varint_prefixed

from protocols.framing import FrameReader, frame
from protocols.signing import Signer
from protocols.transport import MAX_GOSSIP_BYTES, StreamError, UnreachableError
from storage import cid
from swarm.errors import NetworkError
from swarm.network import muxer
from swarm.network.addresses import AddressError

pytestmark = pytest.mark.slow
ECHO = "/test/echo/1.0.0"


async def echo(stream) -> None:
    while data := await stream.receive_some():
        await stream.send_all(data)


async def rest(stream) -> None:
    await trio.sleep_forever()


async def test_two_nodes_become_members_of_each_other_and_share_what_they_say(pair, until):
    one, two = await pair({"head": 7}, {"head": 9})
    (seen,) = one.peer_info()
    assert (seen.peer, seen.member, seen.head, seen.dialled) == (two.me, True, 9, False)
    assert seen.software == "swarm/test"
    assert seen.bytes_in > 0
    assert seen.bytes_out > 0
    assert two.peer_info()[0].head == 7
    assert two.remote_chain_id(one.me) == one.chain_id
    assert one.problems() == two.problems() == []


async def test_a_head_that_grows_is_told_on_the_kept_stream(start, make, nursery, until):
    from protocols.handshake import Hello
    from swarm.network import Network, NetworkSettings

    head = 1
    one = await start(1)
    two = Network(
        NetworkSettings(bootstrap=tuple(one.addresses())),
        Signer(bytes(32)),
        one.chain_id,
        lambda: Hello(b"", "swarm/test", head, 1),
    )
    await nursery.start(two.run)
    await until(lambda: one.peers() and two.peers())
    head = 50
    two.say_hello()
    await until(lambda: one.peer_info()[0].head == 50)


async def test_bytes_go_both_ways_and_an_end_is_an_end(pair):
    one, two = await pair()
    one.handle(ECHO, echo)
    stream = await two.open_stream(one.me, ECHO)
    assert stream.peer == one.me
    await stream.send_all(b"to and fro")
    assert await stream.receive_some() == b"to and fro"
    await stream.close()
    assert await stream.receive_some() == b""
    with pytest.raises(StreamError):
        await stream.send_all(b"more")


async def test_a_frame_of_nine_megabytes_arrives_whole(pair):
    one, two = await pair()
    one.handle(ECHO, echo)
    stream = await two.open_stream(one.me, ECHO)
    body = bytes(range(256)) * (9 * 2**12)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.send_all, frame(body))
        assert await FrameReader(stream, 10 * 2**20).read() == body


async def test_a_handler_that_fails_resets_its_stream_and_no_more(pair):
    one, two = await pair()

    async def fail(stream):
        await stream.receive_some()
        raise RuntimeError("a fault")

    one.handle("/test/fail/1.0.0", fail)
    one.handle(ECHO, echo)
    bad = await two.open_stream(one.me, "/test/fail/1.0.0")
    await bad.send_all(b"x")
    with pytest.raises(StreamError):
        await bad.receive_some()
    good = await two.open_stream(one.me, ECHO)
    await good.send_all(b"still here")
    assert await good.receive_some() == b"still here"


async def test_a_protocol_that_is_not_spoken_is_an_error_at_once(pair):
    one, two = await pair()
    with pytest.raises(UnreachableError, match="does not speak"):
        await two.open_stream(one.me, "/test/nothing/1.0.0")


async def test_a_peer_of_another_network_gets_what_is_for_everybody_and_nothing_else(start, until):
    one = await start(1)
    other = await start(2, chain=b"d" * 32)
    one.handle(ECHO, echo, members_only=False)
    one.handle("/test/members/1.0.0", echo)
    await other.connect(one.addresses()[0])
    await until(lambda: one.peer_info() and one.peer_info()[0].chain_id == b"d" * 32)
    assert one.peers() == other.peers() == []
    stream = await other.open_stream(one.me, ECHO)
    await stream.send_all(b"hello")
    assert await stream.receive_some() == b"hello"
    with pytest.raises(UnreachableError, match="does not speak"):
        await other.open_stream(one.me, "/test/members/1.0.0")
    assert await other.find_providers(cid.of_raw(b"x")) == []
    assert one._routing._table.size() == other._routing._table.size() == 0


async def test_a_given_peer_of_another_network_is_told_as_a_problem(start, until):
    one = await start(1)
    other = await start(2, chain=b"d" * 32, bootstrap=tuple(one.addresses()))
    await until(other.problems)
    assert "belongs to another network (63636363" in other.problems()[0]


async def test_a_node_without_a_genesis_asks_learns_the_chain_and_joins(start, until):
    one = await start(1)
    newcomer = await start(2, chain=b"", bootstrap=tuple(one.addresses()))
    one.handle(ECHO, echo, members_only=False)
    one.handle("/test/members/1.0.0", echo)
    await until(lambda: newcomer.remote_chain_id(one.me))
    assert newcomer.peers() == one.peers() == []
    stream = await newcomer.open_stream(one.me, ECHO)
    await stream.send_all(b"your genesis, please")
    assert await stream.receive_some()
    newcomer.adopt(newcomer.remote_chain_id(one.me))
    assert newcomer.peers() == [one.me]
    stream = await newcomer.open_stream(one.me, "/test/members/1.0.0")
    await stream.send_all(b"as a member")
    assert await stream.receive_some() == b"as a member"
    assert one.peers() == [newcomer.me]


async def test_peers_of_peers_are_found_and_connected(start, until):
    hub = await start(1)
    others = [await start(number, bootstrap=tuple(hub.addresses())) for number in range(2, 7)]
    await until(lambda: all(len(node.peers()) == 5 for node in (hub, *others)))


async def test_a_burst_of_gossip_arrives_once_and_in_order_and_not_at_its_publisher(pair, until):
    one, two = await pair()
    heard, own = one.subscribe("topic"), two.subscribe("topic")
    await until(lambda: _meshed(one, two, "topic"))
    for number in range(100):
        await two.publish("topic", b"%d" % number)
    with trio.fail_after(60):
        assert [await heard.receive() for _ in range(100)] == [
            (two.me, b"%d" % number) for number in range(100)
        ]
    with pytest.raises(trio.WouldBlock):
        own.receive_nowait()


async def test_gossip_reaches_everybody_where_all_know_all(start, until):
    hub = await start(1)
    nodes = [
        hub,
        *[await start(number, bootstrap=tuple(hub.addresses())) for number in range(2, 17)],
    ]
    await until(lambda: all(len(node.peers()) == 15 for node in nodes))
    channels = [node.subscribe("topic") for node in nodes]
    await until(
        lambda: all(len(node._gossip._router.mesh.get("topic", ())) > 3 for node in nodes),
    )
    for number in range(20):
        await nodes[5].publish("topic", b"%d" % number)
    await until(
        lambda: all(
            channel.statistics().current_buffer_used == 20
            for channel in (*channels[:5], *channels[6:])
        ),
    )


def _meshed(one, two, topic: str) -> bool:
    return all(
        any(
            peer.to_base58() == other.me for peer in node._gossip._pubsub.peer_topics.get(topic, ())
        )
        for node, other in ((one, two), (two, one))
    )


async def test_a_topic_subscribed_before_the_first_peer_and_one_after_are_both_heard(
    start, make, nursery, until
):
    one = make(1)
    early = one.subscribe("early")
    await nursery.start(one.run)
    two = await start(2, bootstrap=tuple(one.addresses()))
    await until(lambda: one.peers() and two.peers())
    late = one.subscribe("late")
    for topic, channel in (("early", early), ("late", late)):
        with trio.fail_after(60):
            while True:
                await two.publish(topic, b"news")
                with trio.move_on_after(0.2):
                    assert await channel.receive() == (two.me, b"news")
                    break


async def test_a_topic_subscribed_while_a_peer_is_greeted_is_heard(start, until, monkeypatch):
    one = await start(1)
    pubsub = one._gossip._pubsub
    greeting = pubsub.get_hello_packet

    def greeting_then_topic():
        packet = greeting()
        one.subscribe("topic")  # announced while the greeting, which is without it, is written
        return packet

    monkeypatch.setattr(pubsub, "get_hello_packet", greeting_then_topic)
    two = await start(2, bootstrap=tuple(one.addresses()))
    await until(lambda: two._gossip._pubsub.peer_topics.get("topic"))


async def test_a_peer_is_known_to_hear_a_topic_for_as_long_as_its_stream_says_so(
    start, make, until
):
    two = await start(2)
    known = two._gossip._pubsub.peer_topics
    async with trio.open_nursery() as nursery:
        one = make(1, bootstrap=tuple(two.addresses()))
        heard = one.subscribe("topic")
        await nursery.start(one.run)
        await until(lambda: known.get("topic"))
        two._gossip.member_lost(one.me)  # our stream to it begins anew; it has no reason to
        two._gossip.member_joined(one.me)
        await until(lambda: two._gossip._pubsub.peers)
        await two.publish("topic", b"news")
        with trio.fail_after(60):
            assert await heard.receive() == (two.me, b"news")
        nursery.cancel_scope.cancel()
    await until(lambda: not known.get("topic"))


class Told:
    """A gossip stream on which a peer says which topics it hears, and then nothing."""

    metric_send_channel = None

    def __init__(self, peer: str, *topics: str) -> None:
        self.muxed_conn = SimpleNamespace(peer_id=ID.from_base58(peer))
        packet = rpc_pb2.RPC()
        for topic in topics:
            packet.subscriptions.add(subscribe=True, topicid=topic)
        self._said = encode_varint_prefixed(packet.SerializeToString())

    async def read(self, count: int) -> bytes:
        await trio.lowlevel.checkpoint()
        if not self._said:
            await trio.sleep_forever()
        part, self._said = self._said[:count], self._said[count:]
        return part


async def test_what_a_peer_said_on_an_older_stream_counts_no_more(start, until):
    pubsub = (await start(1))._gossip._pubsub
    peer = Signer(b"p" * 32).peer_id
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pubsub.stream_handler, Told(peer, "old", "both"))
        await until(lambda: pubsub.peer_topics.get("old"))
        nursery.start_soon(pubsub.stream_handler, Told(peer, "both", "new"))
        await until(lambda: pubsub.peer_topics.get("new"))
        assert set(pubsub.peer_topics) == {"both", "new"}
        nursery.cancel_scope.cancel()
    assert not pubsub.peer_topics


async def test_gossip_that_moves_to_another_connection_opens_one_stream(pair, until, monkeypatch):
    one, two = await pair()
    pubsub = two._gossip._pubsub
    await until(lambda: pubsub.peers)
    opened, open_stream = [], pubsub.host.new_stream

    async def count(peer, protocols):
        opened.append(peer)
        return await open_stream(peer, protocols)

    monkeypatch.setattr(pubsub.host, "new_stream", count)
    two._moved(one.me)
    assert not pubsub.peers
    await until(lambda: pubsub.peers)
    assert len(opened) == 1


async def test_gossip_above_its_bound_is_refused_with_an_error(make):
    with pytest.raises(ValueError, match="65,537 bytes"):
        await make(1).publish("topic", bytes(MAX_GOSSIP_BYTES + 1))


async def test_gossip_of_the_greatest_size_arrives(pair, until):
    one, two = await pair()
    heard = one.subscribe("topic")
    await until(lambda: two._gossip._pubsub.peer_topics.get("topic"))
    await two.publish("topic", bytes(MAX_GOSSIP_BYTES))
    with trio.fail_after(60):
        assert await heard.receive() == (two.me, bytes(MAX_GOSSIP_BYTES))


async def test_a_provider_is_found_by_a_third_without_itself_and_without_doubles(start, until):
    one = await start(1)
    two = await start(2, bootstrap=tuple(one.addresses()))
    three = await start(3, bootstrap=tuple(one.addresses()))
    await until(lambda: all(len(node.peers()) == 2 for node in (one, two, three)))
    root = cid.of_raw(b"a root")
    await one.provide(root)
    await two.provide(root)
    await three.provide(root)
    found: list[str] = []

    async def ask() -> None:
        nonlocal found
        while sorted(found) != sorted([one.me, two.me]):
            found = await three.find_providers(root)
            await trio.sleep(0.05)

    with trio.fail_after(60):
        await ask()
    assert await three.find_providers(root, limit=1) != [three.me]
    assert len(await three.find_providers(root, limit=1)) == 1
    assert await three.find_providers(cid.of_raw(b"another")) == []


async def test_an_announcement_reaches_a_peer_that_can_answer_when_the_provider_is_gone(
    start, make, until
):
    one = await start(1)
    two = await start(2, bootstrap=tuple(one.addresses()))
    root = cid.of_raw(b"a root")
    async with trio.open_nursery() as nursery:
        provider = make(3, bootstrap=tuple(one.addresses()))
        await nursery.start(provider.run)
        await until(lambda: len(provider.peers()) == 2)
        await provider.provide(root)
        await until(lambda: one._routing._store.get_providers(root[2:]))
        nursery.cancel_scope.cancel()
    await until(lambda: provider.me not in two.peers())
    assert await two.find_providers(root) == [provider.me]


async def test_a_killed_peer_leaves_and_is_found_again_at_its_address(start, until):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    one = await start(1)
    program = [sys.executable, str(Path(__file__).with_name("child.py")), str(port), "40"]
    child = await trio.lowlevel.open_process(program)
    await one.connect(f"/ip4/127.0.0.1/tcp/{port}") if await _listens(port) else None
    await until(one.peers)
    child.send_signal(signal.SIGKILL)
    await child.wait()
    await until(lambda: not one.peers())
    child = await trio.lowlevel.open_process(program)
    try:
        await until(one.peers)
    finally:
        child.kill()
        await child.wait()


async def _listens(port: int) -> bool:
    with trio.fail_after(60):
        while True:
            try:
                await (await trio.open_tcp_stream("127.0.0.1", port)).aclose()
            except OSError:
                await trio.sleep(0.05)
            else:
                return True


async def test_a_dead_first_address_keeps_nobody_from_the_second(start, until):
    one = await start(1)
    with socket.socket() as dead:
        dead.bind(("127.0.0.1", 0))
        nobody = f"/ip4/127.0.0.1/tcp/{dead.getsockname()[1]}/p2p/{Signer(b'x' * 32).peer_id}"
        two = await start(2, bootstrap=(nobody, *one.addresses()))
        await until(lambda: two.peers() == [one.me])
        await until(two.problems)
    (problem,) = two.problems()
    assert problem.startswith(f"no answer from {nobody} (tried ")
    assert problem.endswith("trying others")


async def test_an_impostor_at_a_known_address_is_not_taken_for_the_peer(start):
    one = await start(1)
    two = await start(2)
    stranger = Signer(b"s" * 32).peer_id
    with pytest.raises(UnreachableError):
        await two.connect(one.addresses()[0].replace(one.me, stranger))
    assert two.peers() == []


async def test_known_peers_are_remembered_from_run_to_run(start, make, until, tmp_path):
    one = await start(1)
    file = tmp_path / "deep" / "peers.json"
    async with trio.open_nursery() as nursery:
        two = make(2, bootstrap=tuple(one.addresses()), known_peers=file)
        await nursery.start(two.run)
        await until(two.peers)
        nursery.cancel_scope.cancel()
    again = await start(2, known_peers=file)
    await until(lambda: again.peers() == [one.me])


async def test_a_damaged_file_of_known_peers_is_a_problem_and_not_the_end(start, tmp_path):
    file = tmp_path / "peers.json"
    file.write_bytes(b'{"version": 1, "peers": 7')
    one = await start(1, known_peers=file)
    assert "cannot be read" in one.problems()[0]


async def test_a_port_that_is_taken_is_told_in_a_sentence(start, make):
    one = await start(1)
    address = one.addresses()[0].partition("/p2p/")[0]
    with pytest.raises(NetworkError, match=r"cannot listen on /ip4/127\.0\.0\.1/tcp/"):
        await make(2, listen=(address,)).run()


async def test_listening_on_every_interface_announces_none_that_cannot_be_dialled(start):
    one = await start(1, listen=("/ip4/0.0.0.0/tcp/0",))
    assert one.addresses()
    assert not any("0.0.0.0" in address for address in one.addresses())  # noqa: S104
    assert "/ip4/127.0.0.1/" in one.addresses()[-1]


async def test_stopping_leaves_no_socket_open(make, until):
    def sockets() -> set[tuple]:
        return {(each.laddr, each.raddr) for each in psutil.Process().net_connections("tcp")}

    before = sockets()
    async with trio.open_nursery() as nursery:
        one = make(1)
        await nursery.start(one.run)
        two = make(2, bootstrap=tuple(one.addresses()))
        await nursery.start(two.run)
        await until(lambda: one.peers() and two.peers())
        assert sockets() - before
        nursery.cancel_scope.cancel()
    assert {pair for pair in sockets() - before if not pair[1]} == set()
    assert one.peers() == []


async def test_a_connection_that_is_lost_is_an_error_and_no_clean_end(start, make, until):
    one = await start(1)
    one.handle(ECHO, echo)
    async with trio.open_nursery() as nursery:
        two = make(2, bootstrap=tuple(one.addresses()))
        await nursery.start(two.run)
        await until(two.peers)
        two.handle("/test/silent/1.0.0", rest)
        stream = await one.open_stream(two.me, "/test/silent/1.0.0")
        nursery.cancel_scope.cancel()
    with pytest.raises(StreamError):
        await stream.receive_some()


async def test_slots_of_connections_that_ended_are_given_back(start, make, until):
    one = await start(1, max_connections=2)
    for number in range(2, 8):
        async with trio.open_nursery() as nursery:
            other = make(number, bootstrap=tuple(one.addresses()))
            await nursery.start(other.run)
            await until(lambda: one.peers() == [other.me])  # noqa: B023 - waited for in this turn
            nursery.cancel_scope.cancel()
        await until(lambda: not one.peers())


async def test_connections_beyond_the_cap_are_refused_and_the_others_stay(start, until):
    one = await start(1, max_connections=2)
    two = await start(2, bootstrap=tuple(one.addresses()), target_connections=1)
    three = await start(3, bootstrap=tuple(one.addresses()), target_connections=1)
    await until(lambda: len(one.peers()) == 2)
    four = await start(4)
    with pytest.raises(UnreachableError):
        await four.connect(one.addresses()[0])
    assert sorted(one.peers()) == sorted([two.me, three.me])


async def test_the_257th_stream_is_an_error_and_no_deadlock(pair):
    one, two = await pair()
    one.handle(ECHO, echo)
    one._host.serving.served[ECHO] = one._host.serving.served[ECHO].__class__(
        one._host.serving.served[ECHO].handler, members_only=True, limit=10_000
    )
    streams = []

    async def open_all() -> None:
        for _ in range(muxer.MAX_OUTBOUND_STREAMS + 1):
            streams.append(await two.open_stream(one.me, ECHO))  # noqa: PERF401 - those before the error count

    with pytest.raises(UnreachableError, match="already open"):
        await open_all()
    assert len(streams) > muxer.MAX_OUTBOUND_STREAMS - 10
    for stream in streams:
        await stream.reset()
    stream = await two.open_stream(one.me, ECHO)
    await stream.send_all(b"room again")
    assert await stream.receive_some() == b"room again"


async def test_one_protocol_cannot_take_every_stream_of_a_peer(pair):
    one, two = await pair()
    one.handle(ECHO, echo)
    streams = [await two.open_stream(one.me, ECHO) for _ in range(64)]
    with pytest.raises((StreamError, UnreachableError)):
        await (await two.open_stream(one.me, ECHO)).receive_some()
    await streams[0].send_all(b"the first still works")
    assert await streams[0].receive_some() == b"the first still works"


async def test_a_peer_that_goes_on_misbehaving_is_disconnected_and_refused(pair, until):
    one, two = await pair()
    for _ in range(5):
        one.note_misbehaviour(two.me, "sent a block that does not verify")
    await until(lambda: not one.peers() and not two.peers())
    with pytest.raises(UnreachableError):
        await two.connect(one.addresses()[0])


async def test_a_stream_to_a_peer_that_is_not_connected_is_dialled_through_the_network(
    start, until
):
    one = await start(1)
    two = await start(2, bootstrap=tuple(one.addresses()))
    await until(two.peers)
    three = await start(3, bootstrap=tuple(one.addresses()), target_connections=1)
    await until(lambda: three.peers() == [one.me])  # the other side knew it before
    await until(lambda: one._routing._table.size() == 2)
    two.handle(ECHO, echo)
    stream = await three.open_stream(two.me, ECHO)
    await stream.send_all(b"found you")
    assert await stream.receive_some() == b"found you"


async def test_what_is_no_address_or_nobody_is_an_error_of_its_own(start):
    one = await start(1)
    with pytest.raises(AddressError):
        await one.connect("/ip4/127.0.0.1/udp/1")
    with pytest.raises(UnreachableError, match="no address"):
        await one.open_stream(Signer(b"n" * 32).peer_id, ECHO)
    with pytest.raises(UnreachableError, match="this node"):
        await one.open_stream(one.me, ECHO)

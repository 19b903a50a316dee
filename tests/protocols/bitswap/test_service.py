from __future__ import annotations

import os
import threading

import pytest
import trio

from protocols.bitswap import lines, service
from protocols.bitswap.errors import NotHeldError, StalledError, TooLargeError
from protocols.bitswap.messages import OLDEST, Entry, Message, block_frame, decode, encode, name
from protocols.transport import StreamError, UnreachableError
from storage import cid as cids
from storage.dag_pb import bytes_field, varint
from storage.errors import QuotaError, StorageError
from storage.memory import MemoryBlockstore
from storage.unixfs import add_path, read_file

MB = 2**20


def entry(cid, **kinds) -> Entry:
    return Entry(bytes(cid), **kinds)


def publish(node, tmp_path, size: int = 3 * MB + 5):
    (tmp_path / "file").write_bytes(os.urandom(size))
    return add_path(tmp_path / "file", node.store).root


def test_a_file_is_fetched_and_fetched_again_for_nothing(in_world, tmp_path):
    async def test(world):
        one, two = await world.node(), await world.node()
        root = publish(one, tmp_path)
        told = []
        fetched = await two.bitswap.fetch(root, [one.peer], lambda *seen: told.append(seen))
        assert b"".join(read_file(root, two.store)) == (tmp_path / "file").read_bytes()
        assert fetched.chunks == 5
        assert fetched.from_peers == {one.peer: fetched.bytes}
        assert told[-1] == (fetched.bytes, fetched.bytes)
        assert (await two.bitswap.fetch(root, [one.peer])).chunks == 0

    in_world(test)


def test_a_fetch_goes_on_where_another_stopped(in_world, tmp_path):
    async def test(world):
        one, two = await world.node(), await world.node()
        root = publish(one, tmp_path)
        some = [cid for cid in one.store.chunks if cid != root][:2]
        two.store.put_many([(cid, one.store.get(cid)) for cid in (root, *some)])
        assert (await two.bitswap.fetch(root, [one.peer])).chunks == 2

    in_world(test)


def test_two_halves_come_from_two_peers(in_world, tmp_path):
    async def test(world):
        one, half, other = await world.node(), await world.node(), await world.node()
        root = publish(one, tmp_path)
        named = list(one.store.chunks.items())
        half.store.put_many(named[::2])
        other.store.put_many(named[1::2])
        two = await world.node()
        fetched = await two.bitswap.fetch(root, [half.peer, other.peer])
        assert set(fetched.from_peers) == {half.peer, other.peer}

    in_world(test)


def test_a_long_message_is_read_in_a_thread_and_in_its_turn(in_world, monkeypatch):
    read = []

    def noted(frame):
        read.append((len(frame) > 10_000, threading.current_thread() is threading.main_thread()))
        return decode(frame)

    monkeypatch.setattr(service, "decode", noted)

    async def test(world):
        node, puppet = await world.node(), world.puppet()
        held = node.hold(*(b"%d" % at for at in range(300)))
        await puppet.want(node, *(entry(cid, have=True) for cid in held))
        await puppet.want(node, *(entry(cid, cancel=True) for cid in held[1:]))
        await puppet.want(node, entry(held[0]))
        assert await puppet.blocks(1) == [held[0]]

    in_world(test)
    assert read == [(True, False), (True, False), (False, True)]


def test_a_peer_is_answered_on_a_stream_of_our_own(in_world):
    async def test(world):
        node, puppet = await world.node(), world.puppet()
        held, asked = node.hold(b"held", b"asked")
        await puppet.want(node, entry(held), entry(asked, have=True))
        assert (await puppet.next()).presences == ((bytes(asked), True),)
        assert await puppet.blocks(1) == [held]
        assert puppet.streams == 1

    in_world(test)


def test_a_stream_with_nothing_left_to_say_is_closed_and_another_opened(in_world):
    async def test(world):
        node, puppet = await world.node(), world.puppet()
        one, two = node.hold(b"one", b"two")
        await puppet.want(node, entry(one))
        assert await puppet.blocks(1) == [one]
        await trio.sleep(lines.LINGER_SECONDS * 2)
        await puppet.want(node, entry(two))
        assert await puppet.blocks(1) == [two]
        assert puppet.streams == 2

    in_world(test)


def test_what_is_not_held_is_told_and_sent_once_it_arrives(in_world):
    async def test(world):
        node, puppet = await world.node(), world.puppet()
        late, quiet = cids.of_raw(b"late"), cids.of_raw(b"quiet")
        await puppet.want(node, entry(late, dont_have=True), entry(quiet))
        assert (await puppet.next()).presences == ((bytes(late), False),)
        node.hold(b"late", b"quiet")
        assert set(await puppet.blocks(2)) == {late, quiet}

    in_world(test)


def test_a_chunk_that_was_fetched_is_sent_on_to_who_waits_for_it(in_world, tmp_path):
    async def test(world):
        source, node, puppet = await world.node(), await world.node(), world.puppet()
        root = publish(source, tmp_path, 100)
        await puppet.want(node, entry(root, have=True))
        await node.bitswap.fetch(root, [source.peer])
        assert (await puppet.next()).presences == ((bytes(root), True),)

    in_world(test)


@pytest.mark.slow
def test_a_slow_reader_holds_up_nobody_and_little_memory(in_world, monkeypatch):
    async def test(world):
        node, slow, quick = await world.node(), world.puppet(), world.puppet()
        slow.is_deaf = True
        wanted = node.hold(*(os.urandom(MB) for _ in range(8)))
        read = []
        get = node.store.get
        monkeypatch.setattr(node.store, "get", lambda cid: read.append(cid) or get(cid))
        await slow.want(node, *(entry(cid) for cid in wanted))
        await trio.sleep(1)
        assert len(read) == 2, "one batch, whatever is wanted"
        await slow.want(node, entry(wanted[5], cancel=True))
        await quick.want(node, entry(wanted[0]))
        assert await quick.blocks(1) == [wanted[0]]
        await trio.sleep(lines.SEND_SECONDS + 1)
        assert slow.peer not in node.bitswap._ways, "given up"

    in_world(test)


@pytest.mark.slow
def test_a_peer_on_a_line_of_eight_kilobytes_a_second_gets_a_large_chunk(in_world):
    async def test(world):
        node, slow = await world.node(), world.puppet()
        slow.rate = 8_000
        (wanted,) = node.hold(os.urandom(MB))
        await slow.want(node, entry(wanted))
        with trio.fail_after(200):
            message = await slow.heard.receive()
        assert name(message.blocks[0]) == wanted

    in_world(test)


@pytest.mark.slow
def test_a_peer_that_was_given_up_some_times_is_sent_what_it_asks_for_then(in_world):
    async def test(world):
        node, puppet = await world.node(), world.puppet()
        puppet.is_deaf = True
        (wanted,) = node.hold(os.urandom(MB))
        for _ in range(lines.MAX_TRIES):
            await puppet.want(node, entry(wanted))
            await trio.sleep(lines.SEND_SECONDS + 1)
            assert puppet.peer not in node.bitswap._ways, "given up"
        puppet.is_deaf = False
        await puppet.want(node, entry(wanted))
        assert await puppet.blocks(1) == [wanted]

    in_world(test)


@pytest.mark.slow
def test_a_cancel_stops_what_was_not_sent_yet(in_world):
    async def test(world):
        node, puppet = await world.node(), world.puppet()
        wanted = node.hold(*(os.urandom(MB) for _ in range(6)))
        world.network.stall(node.peer, puppet.peer)
        await puppet.want(node, *(entry(cid) for cid in wanted))
        await trio.sleep(1)
        await puppet.want(node, *(entry(cid, cancel=True) for cid in wanted))
        await trio.sleep(1)
        world.network.heal()
        assert len(await puppet.blocks(2)) == 2
        assert await puppet.is_told_nothing()

    in_world(test)


@pytest.mark.slow
def test_a_full_list_replaces_what_was_wanted(in_world):
    async def test(world):
        node, puppet = await world.node(), world.puppet()
        await puppet.want(node, entry(cids.of_raw(b"one")))
        await puppet.want(node, entry(cids.of_raw(b"two")), full=True)
        await trio.sleep(1)
        node.hold(b"one", b"two")
        assert await puppet.blocks(1) == [cids.of_raw(b"two")]
        assert await puppet.is_told_nothing()

    in_world(test)


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x05hello",
        b"\xff" * 9,
        b"\x03\x0a\x7f\x00",
        block_frame(bytes(cids.of_raw(b"")), bytes(MB)),
    ],
    ids=["no protobuf", "no length", "cut short", "a large frame of one that was asked nothing"],
)
def test_garbage_resets_its_stream_and_no_other(in_world, garbage):
    async def test(world):
        node, puppet = await world.node(), world.puppet()
        (held,) = node.hold(b"held")
        good = await puppet.open(node)
        bad = await puppet.open(node)
        await bad.send_all(garbage)
        with pytest.raises(StreamError), trio.fail_after(5):
            await bad.receive_some()
        await good.send_all(encode(Message((entry(held),))))
        assert await puppet.blocks(1) == [held]

    in_world(test)


def test_a_wrong_block_is_dropped_and_its_sender_noted(in_world):
    async def test(world):
        node, puppet = await world.node(), world.puppet()
        wanted = cids.of_raw(b"right")
        async with trio.open_nursery() as nursery:

            async def fetch() -> None:
                await node.bitswap.fetch(wanted, [puppet.peer])

            nursery.start_soon(fetch)
            assert [one.wire for one in (await puppet.next()).entries] == [bytes(wanted)]
            await puppet.say(node, block_frame(bytes(wanted), b"wrong") + b"wrong")
            await trio.sleep(1)
            assert node.store.chunks == {}
            ((peer, reason),) = node.complaints
            assert peer == puppet.peer
            assert cids.text(cids.of_raw(b"wrong")) in reason
            await puppet.say(node, block_frame(bytes(wanted), b"right") + b"right")
        assert node.store.get(wanted) == b"right"

    in_world(test)


def test_a_chunk_that_comes_late_or_twice_is_no_misbehaviour(in_world):
    async def test(world):
        node, puppet = await world.node(), world.puppet()
        wanted = cids.of_raw(b"right")
        frame = block_frame(bytes(wanted), b"right") + b"right"
        with trio.move_on_after(1):
            await node.bitswap.fetch(wanted, [puppet.peer])
        assert [one.cancel for one in (await puppet.next()).entries] == [False]
        assert [one.cancel for one in (await puppet.next()).entries] == [True]
        await puppet.say(node, frame, frame)
        await trio.sleep(1)
        assert node.complaints == []
        assert node.store.chunks == {}

    in_world(test)


@pytest.mark.slow
def test_a_silent_peer_is_asked_again(in_world):
    async def test(world):
        node, puppet = await world.node(), world.puppet()
        wanted = cids.of_raw(b"right")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.bitswap.fetch, wanted, [puppet.peer])
            await puppet.next()
            assert (await puppet.next()).entries[0].wire == wanted
            await puppet.say(node, block_frame(bytes(wanted), b"right") + b"right")

    in_world(test)


@pytest.mark.slow
def test_a_lost_connection_is_opened_again_and_the_fetch_goes_on(in_world, tmp_path):
    async def test(world):
        one, two = await world.node(), await world.node()
        root = publish(one, tmp_path)
        world.network.stall(one.peer, two.peer)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(two.bitswap.fetch, root, [one.peer])
            await trio.sleep(0.5)
            world.network.sever(one.peer, two.peer)
            await trio.sleep(0.5)
            world.network.heal()
        assert b"".join(read_file(root, two.store)) == (tmp_path / "file").read_bytes()

    in_world(test)


@pytest.mark.slow
def test_what_nobody_has_is_said_to_be_missing_and_by_whom(in_world):
    async def test(world):
        one, two = await world.node(), await world.node()
        wanted = cids.of_raw(b"nowhere")
        with pytest.raises(NotHeldError, match=f"{one.peer} does not have"):
            await two.bitswap.fetch(wanted, [one.peer])
        assert two.store.usage().reserved == 0

    in_world(test)


@pytest.mark.slow
def test_a_peer_that_cannot_be_reached_is_named(in_world):
    async def test(world):
        node, away = await world.node(), world.transport()
        world.network.leave(away.me)
        with pytest.raises(StalledError, match=f"{away.me} cannot be reached"):
            await node.bitswap.fetch(cids.of_raw(b"x"), [away.me])

    in_world(test)


@pytest.mark.slow
def test_a_peer_that_stops_in_the_middle_is_a_stall(in_world, tmp_path):
    async def test(world):
        one, two, puppet = await world.node(), await world.node(), world.puppet()
        root = publish(one, tmp_path)
        two.store.put_many([(root, one.store.get(root))])
        with pytest.raises(StalledError, match="silent 3 times"):
            await two.bitswap.fetch(root, [puppet.peer])

    in_world(test)


def test_content_that_is_too_large_or_does_not_fit_is_refused(in_world, tmp_path):
    async def test(world):
        one, two, small = await world.node(), await world.node(), await world.node(limit=MB)
        root = publish(one, tmp_path)
        with pytest.raises(TooLargeError):
            await two.bitswap.fetch(root, [one.peer], max_bytes=MB)
        with pytest.raises(QuotaError):
            await small.bitswap.fetch(root, [one.peer])
        assert small.store.usage().reserved == 0

    in_world(test)


def test_a_peer_of_the_oldest_version_is_served_and_asked(in_world):
    async def test(world):
        node, puppet = await world.node(), world.puppet(protocols=(OLDEST,))
        held = cids.of_dag_pb(b"")
        node.store.put_many([(held, b"")])
        stream = await puppet.transport.open_stream(node.peer, OLDEST)
        await stream.send_all(encode(Message((Entry(held[2:]),))))
        assert await puppet.blocks(1) == [held]

    in_world(test)


@pytest.mark.slow
def test_the_peer_that_was_silent_the_longest_makes_room_for_a_new_one(in_world, monkeypatch):
    async def test(world):
        monkeypatch.setattr(service, "MAX_PEERS", 2)
        node = await world.node()
        puppets = [world.puppet() for _ in range(3)]
        late = cids.of_raw(b"late")
        for puppet in puppets:
            await puppet.want(node, entry(late))
            await trio.sleep(0.1)
        node.hold(b"late")
        for puppet in puppets[1:]:
            assert await puppet.blocks(1) == [late]
        assert await puppets[0].is_told_nothing()

    in_world(test)


def test_a_peer_that_a_fetch_asks_makes_room_for_nobody(in_world, monkeypatch):
    async def test(world):
        monkeypatch.setattr(service, "MAX_PEERS", 2)
        node, asked = await world.node(), world.puppet()
        wanted, late = cids.of_raw(b"right"), cids.of_raw(b"late")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.bitswap.fetch, wanted, [asked.peer])
            assert (await asked.next()).entries[0].wire == wanted
            others = [world.puppet() for _ in range(3)]
            for other in others:
                await trio.sleep(0.1)
                await other.want(node, entry(late))
            await trio.sleep(0.1)
            await asked.say(node, block_frame(bytes(wanted), b"right") + b"right")
        assert node.store.get(wanted) == b"right"
        assert node.complaints == []
        node.hold(b"late")
        assert await others[2].blocks(1) == [late]

    in_world(test)


def test_a_peer_that_speaks_no_bitswap_is_told_at_once(in_world):
    async def test(world):
        node, other = await world.node(), world.transport()
        line = node.bitswap._line(other.me)
        with pytest.raises(UnreachableError, match="does not speak"):
            await line.open()

    in_world(test)


@pytest.mark.slow
def test_a_store_that_fails_for_a_while_does_not_end_the_service(in_world):
    async def test(world):
        node, puppet = await world.node(), world.puppet()
        wanted = cids.of_raw(b"late")
        await puppet.say(node, encode(Message((entry(wanted),))))
        await trio.sleep(1)
        size = node.store.size

        def fail(_):
            message = "the disk failed"
            raise StorageError(message)

        node.store.size = fail
        await trio.sleep(3 * service.LOOK_SECONDS)
        node.store.size = size
        node.store.put_many([(wanted, b"late")])
        assert await puppet.blocks(1) == [wanted]

    in_world(test)


def test_many_chunks_that_nobody_asked_for_are_one_complaint(in_world):
    async def test(world):
        node, puppet = await world.node(), world.puppet()
        frame = b"".join(
            bytes_field(3, bytes_field(1, b"\x01\x55\x12\x20") + bytes_field(2, b"%d" % number))
            for number in range(1_000)
        )
        await puppet.say(node, varint(len(frame)) + frame)
        await trio.sleep(1)
        assert len(node.complaints) == 1
        assert node.store.chunks == {}

    in_world(test)


@pytest.mark.slow
def test_wants_of_many_peers_are_looked_for_in_turns_and_all_are_served(in_world, monkeypatch):
    async def test(world):
        monkeypatch.setattr(service, "LOOK_WANTS", 10)
        node, puppets = await world.node(), [world.puppet() for _ in range(5)]
        late = [(cids.of_raw(b"late %d" % at), b"late %d" % at) for at in range(5)]
        for at, puppet in enumerate(puppets):
            others = [cids.of_raw(b"other %d" % number) for number in range(10 * at, 10 * at + 10)]
            await puppet.say(node, encode(Message(tuple(map(entry, [late[at][0], *others])))))
        await trio.sleep(1)
        asked = []
        size = node.store.size
        node.store.size = lambda cid: asked.append(cid) or size(cid)
        await trio.sleep(service.LOOK_SECONDS)
        assert len(asked) == 11
        node.store.put_many(late)
        for at, puppet in enumerate(puppets):
            assert await puppet.blocks(1) == [late[at][0]]

    in_world(test)


class ShortOfMemory(MemoryBlockstore):
    """A store on a machine whose memory is used up, while a test says so."""

    is_short = False

    def get(self, cid):
        if self.is_short:
            raise MemoryError
        return super().get(cid)


def test_what_fails_in_answering_one_peer_ends_no_node(in_world, tmp_path):
    async def test(world):
        one, two = await world.node(), await world.node()
        short = one.bitswap._store = ShortOfMemory(2**30)
        (held,) = [cids.of_raw(b"held")]
        short.put_many([(held, b"held")])
        short.is_short = True
        with pytest.raises(StalledError):
            await two.bitswap.fetch(held, [one.peer], patience=5)
        short.is_short = False
        assert (await two.bitswap.fetch(held, [one.peer])).chunks == 1

    in_world(test)

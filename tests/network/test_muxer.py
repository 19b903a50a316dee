"""The muxer between two sessions joined in memory: cut anywhere, and broken on purpose."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from protocols.transport import RemoteProtocolError, StreamError
from swarm.limits.traffic import Traffic
from swarm.network import muxed_stream, muxer, yamux
from swarm.network.muxer import Session
from swarm.network.yamux import HEADER


class Channel:
    """One end of a pair; plaintext messages, cut as told."""

    def __init__(self, cuts=None) -> None:
        self.send, self.incoming = trio.open_memory_channel(1000)
        self.other: Channel
        self.came: list[bytes] = []
        self._cuts = cuts

    async def send_messages(self, messages) -> None:
        data = b"".join(messages)
        while data:
            size = (next(self._cuts) if self._cuts else 0) or len(data)
            await self.other.send.send(data[:size])
            data = data[size:]

    async def receive(self) -> bool:
        try:
            self.came.append(await self.incoming.receive())
        except (trio.EndOfChannel, trio.ClosedResourceError):
            return False
        return True

    def messages(self):
        while self.came:
            yield self.came.pop(0)

    def close_now(self) -> None:
        self.other.send.close()
        self.incoming.close()


def _cycle(sizes):
    while True:
        yield from sizes


@pytest.fixture
def join(nursery):
    def begin(cuts=None):
        return _join(nursery, cuts)

    return begin


def _join(nursery, cuts=None):
    left, right = Channel(cuts), Channel(cuts)
    left.other, right.other = right, left
    arrived: list = []
    one = Session(left, "right", opener=True, on_stream=arrived.append)
    two = Session(right, "left", opener=False, on_stream=arrived.append)
    nursery.start_soon(one.run)
    nursery.start_soon(two.run)
    return one, two, arrived


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 70_000), min_size=1, max_size=4),
    parts=st.lists(st.binary(max_size=200_000), min_size=1, max_size=4),
)
def test_bytes_cut_anywhere_arrive_in_order(sizes, parts):
    async def main() -> bytes:
        async with trio.open_nursery() as nursery:
            one, _, arrived = _join(nursery, _cycle(sizes))
            stream = one.open_stream()

            async def write() -> None:
                for part in parts:
                    await stream.send_all(part)
                await stream.close()

            nursery.start_soon(write)
            while not arrived:  # noqa: ASYNC110 - filled by a callback
                await trio.sleep(0.01)
            got = b""
            while data := await arrived[0].receive_some(10_000):
                got += data
            nursery.cancel_scope.cancel()
        return got

    assert trio.run(main, clock=MockClock(autojump_threshold=0)) == b"".join(parts)


async def _other_end(one, arrived):
    stream = one.open_stream()
    await trio.testing.wait_all_tasks_blocked()
    return stream, arrived[-1]


async def test_a_writer_waits_for_a_reader_that_rests_an_hour(join, autojump_clock, nursery):
    one, two, arrived = join()
    here, there = await _other_end(one, arrived)
    nursery.start_soon(here.send_all, bytes(3 * 2**20))
    await trio.sleep(3600)
    assert two.unread == yamux.INITIAL_WINDOW
    got = 0
    while got < 3 * 2**20:
        got += len(await there.receive_some())
    assert two.unread == 0


async def test_the_window_grows_to_four_mebibytes_and_no_further(join, autojump_clock, nursery):
    one, two, arrived = join()
    here, there = await _other_end(one, arrived)
    nursery.start_soon(here.send_all, bytes(20 * 2**20))
    for _ in range(20):
        await trio.sleep(1)
        await there.receive_some(2**17)
    await trio.sleep(1)
    assert yamux.INITIAL_WINDOW < two.unread <= yamux.RECEIVE_WINDOW


async def test_an_end_on_one_side_leaves_the_other_open(join, autojump_clock):
    one, two, arrived = join()
    here, there = await _other_end(one, arrived)
    await here.close()
    assert await there.receive_some() == b""
    await there.send_all(b"answer")
    await there.close()
    assert await here.receive_some() == b"answer"
    assert await here.receive_some() == b""
    assert one.streams == two.streams == []


async def test_a_reset_is_an_error_on_both_sides_and_frees_the_stream(join, autojump_clock):
    one, two, arrived = join()
    here, there = await _other_end(one, arrived)
    await here.reset()
    await here.reset()
    for stream in (here, there):
        with pytest.raises(StreamError):
            await stream.receive_some()
        with pytest.raises(StreamError):
            await stream.send_all(b"x")
    assert one.streams == two.streams == []


async def test_a_stream_that_is_reset_before_it_was_sent_stays_closed_there(join, autojump_clock):
    one, two, _ = join()
    await one.open_stream().reset()
    await trio.testing.wait_all_tasks_blocked()
    assert two.streams == []


async def test_a_writer_that_is_cancelled_harms_no_other_stream(join, autojump_clock):
    one, _, arrived = join()
    here, there = await _other_end(one, arrived)
    with trio.move_on_after(1):
        await here.send_all(bytes(2**20))
    other, end = await _other_end(one, arrived)
    await other.send_all(b"whole")
    assert await end.receive_some() == b"whole"
    assert there is not end


async def test_the_end_of_a_connection_keeps_what_has_arrived(join, autojump_clock):
    one, two, arrived = join()
    here, there = await _other_end(one, arrived)
    await here.send_all(b"last words")
    await here.close()
    await trio.testing.wait_all_tasks_blocked()
    one.close("gone")
    await trio.testing.wait_all_tasks_blocked()
    assert two.closed.is_set()
    assert await there.receive_some() == b"last words"
    assert await there.receive_some() == b""
    with pytest.raises(StreamError):
        two.open_stream()


async def test_unread_bytes_of_all_streams_have_one_bound(join, autojump_clock, monkeypatch):
    monkeypatch.setattr(muxer, "MAX_UNREAD", 2**19)
    one, two, arrived = join()
    ends = [await _other_end(one, arrived) for _ in range(4)]
    for here, _ in ends[:2]:
        await here.send_all(bytes(yamux.INITIAL_WINDOW))
    await trio.testing.wait_all_tasks_blocked()
    await ends[2][0].send_all(b"one too many")
    await trio.testing.wait_all_tasks_blocked()
    with pytest.raises(StreamError):
        await ends[2][1].receive_some()
    assert two.unread == 2**19


async def test_a_stream_that_was_broken_off_does_not_end_well_with_its_last_frame(join):
    one, two, arrived = join()
    here = one.open_stream()
    await wait_all_tasks_blocked()
    there = arrived[0]
    two._feed(HEADER.pack(0, yamux.DATA, yamux.FIN, here.number, 10) + b"12345")
    there.break_off("too much is unread")
    two._feed(b"67890")
    with pytest.raises(StreamError):
        await there.receive_some()


async def test_who_waits_for_the_socket_of_a_finished_stream_is_woken_by_its_end(autojump_clock):
    session = Session(Channel(), "peer", opener=True, on_stream=lambda stream: None)
    session._channel.other = Channel()
    here = session.open_stream()
    await here.send_all(b"last words")
    here.ended()
    here.finish()
    assert session.streams == []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(here.flushed)
        await wait_all_tasks_blocked()
        session.close("gone")
        with trio.fail_after(1):
            await here.flushed()


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.binary(max_size=100)
        | st.builds(
            HEADER.pack,
            st.integers(0, 1),
            st.integers(0, 4),
            st.integers(0, 15),
            st.integers(0, 5),
            st.integers(0, 40),
        ),
        max_size=12,
    )
)
def test_any_bytes_are_frames_or_a_protocol_error(messages):
    async def main() -> None:
        channel = Channel()
        channel.other = Channel()
        session = Session(channel, "peer", opener=True, on_stream=lambda stream: None)
        try:
            for message in messages:
                session._feed(message)
        except RemoteProtocolError:
            pass
        assert session.unread == sum(stream._unread for stream in session.streams)
        session.close("done")
        assert session.unread == 0

    trio.run(main)


async def test_a_short_part_of_a_long_message_does_not_keep_the_message_in_memory(join):
    one, two, arrived = join()
    here = one.open_stream()
    await wait_all_tasks_blocked()
    ping = HEADER.pack(0, yamux.PING, yamux.ACK, 0, 1)
    frame = HEADER.pack(0, yamux.DATA, 0, here.number, muxed_stream.JOIN_BYTES) + bytes(
        muxed_stream.JOIN_BYTES
    )
    for _ in range(4):
        two._feed(frame + ping * 4_000)
    kept = [memoryview(chunk).obj for chunk in arrived[0]._chunks]
    assert sum(map(len, kept)) == arrived[0]._unread == 4 * muxed_stream.JOIN_BYTES


async def test_two_writers_of_one_stream_both_go_on_when_its_window_grows(
    join, autojump_clock, nursery
):
    one, _, arrived = join()
    here, there = await _other_end(one, arrived)
    for _ in range(2):
        nursery.start_soon(here.send_all, bytes(300_000))
    got = 0
    with trio.fail_after(100):
        while got < 600_000:
            got += len(await there.receive_some())


async def test_a_writer_whose_window_another_used_up_gives_its_room_on(
    join, autojump_clock, nursery, monkeypatch
):
    monkeypatch.setattr(muxer, "MAX_QUEUED", 2**14)
    monkeypatch.setattr(muxer, "MAX_PAYLOAD", 2**14)
    one, _, arrived = join()
    here, _ = await _other_end(one, arrived)
    other, end = await _other_end(one, arrived)
    gate = trio.Event()
    send = one._channel.send_messages

    async def send_late(messages):
        await gate.wait()
        await send(messages)

    one._channel.send_messages = send_late
    here._window = 3 * 2**14
    for _ in range(5):  # one is with the socket, one fills the queue, one uses up the window
        nursery.start_soon(here.send_all, bytes(2**14))
        await wait_all_tasks_blocked()
    nursery.start_soon(other.send_all, b"a word")
    await wait_all_tasks_blocked()
    gate.set()
    with trio.fail_after(100):
        assert await end.receive_some() == b"a word"


async def test_the_ends_of_streams_that_the_peer_resets_wait_for_no_rate(nursery, autojump_clock):
    traffic = Traffic(clock=trio.current_time)
    traffic.limit(50_000, 0, 0)
    traffic.begins(10**6)  # in debt: what can wait does not go
    channel = Channel()
    channel.other = Channel()
    session = Session(channel, "peer", opener=False, on_stream=lambda stream: None, traffic=traffic)
    nursery.start_soon(session.run)
    for number in range(1, 2001, 2):
        session._feed(HEADER.pack(0, yamux.WINDOW_UPDATE, yamux.SYN, number, 0))
        stream = session._streams[number]
        stream.protocol = "/ipfs/bitswap/1.2.0"
        session._feed(HEADER.pack(0, yamux.WINDOW_UPDATE, yamux.FIN, number, 0))
        stream.finish()
    await wait_all_tasks_blocked()
    assert not session._patient
    assert not session._queue

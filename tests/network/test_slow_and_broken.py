"""Streams and their connection under slow readers, half-closes, resets, and bytes that were changed on the way."""

from __future__ import annotations

import sys
from contextlib import asynccontextmanager, suppress

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from protocols.signing import Signer
from protocols.transport import StreamError
from swarm.network import muxer, yamux
from swarm.network.muxer import Session
from swarm.network.secure import Keys
from swarm.network.wire import Wire
from swarm.network.yamux import HEADER
from tests.network.test_muxer import Channel, _join

MIB = 2**20


@pytest.fixture
def join(nursery):
    return lambda: _join(nursery)


async def _pair(one, arrived):
    stream = one.open_stream()
    await wait_all_tasks_blocked()
    return stream, arrived[-1]


async def _read(stream, count) -> None:
    while count > 0:
        count -= len(await stream.receive_some())


# Slow readers.


async def test_a_stream_that_nobody_reads_holds_up_no_other(join, autojump_clock, nursery):
    one, two, arrived = join()
    deaf, _ = await _pair(one, arrived)
    here, there = await _pair(one, arrived)
    nursery.start_soon(deaf.send_all, bytes(MIB))
    nursery.start_soon(here.send_all, bytes(9 * MIB))
    with trio.fail_after(1):
        await _read(there, 9 * MIB)
    assert two.unread == yamux.INITIAL_WINDOW


async def test_a_socket_that_takes_nothing_makes_writers_wait(autojump_clock, nursery):
    channel = Channel()
    channel.other = Channel()
    channel.other.send, _kept = trio.open_memory_channel(0)
    session = Session(channel, "peer", opener=True, on_stream=lambda _: None)
    nursery.start_soon(session.run)
    for _ in range(20):
        nursery.start_soon(session.open_stream().send_all, bytes(yamux.INITIAL_WINDOW))
    await trio.sleep(3600)
    assert session._queued <= muxer.MAX_QUEUED + yamux.MAX_PAYLOAD + HEADER.size
    nursery.cancel_scope.cancel()


async def test_frames_of_two_bytes_cost_hardly_more_memory_than_their_bytes(join, autojump_clock):
    one, two, arrived = join()
    _, there = await _pair(one, arrived)
    frame = HEADER.pack(0, yamux.DATA, 0, there.number, 2) + b"ab"
    for _ in range(yamux.INITIAL_WINDOW // 2 // 64):
        two._feed(frame * 64)
    assert two.unread == yamux.INITIAL_WINDOW
    assert sum(map(sys.getsizeof, there._chunks)) < 1.1 * yamux.INITIAL_WINDOW
    assert await there.receive_some(2**20) == b"ab" * (yamux.INITIAL_WINDOW // 2)


# Half-close.


async def test_after_its_end_a_side_goes_on_to_receive_more_than_a_window(
    join, autojump_clock, nursery
):
    one, two, arrived = join()
    here, there = await _pair(one, arrived)
    await here.send_all(b"question")
    await here.close()
    assert await there.receive_some() == b"question"
    assert await there.receive_some() == b""

    async def answer() -> None:
        await there.send_all(bytes(9 * MIB))
        await there.close()

    nursery.start_soon(answer)
    await _read(here, 9 * MIB)
    assert await here.receive_some() == b""
    assert one.streams == two.streams == []
    with pytest.raises(StreamError, match="closed for writing"):
        await here.send_all(b"x")


async def test_an_end_arrives_behind_all_that_was_written_before_it(join, autojump_clock, nursery):
    one, _, arrived = join()
    here, there = await _pair(one, arrived)

    async def write() -> None:
        await here.send_all(bytes(3 * MIB))
        await here.close()

    nursery.start_soon(write)
    await trio.sleep(60)
    await _read(there, 3 * MIB)
    assert await there.receive_some() == b""


# Reset.


@pytest.mark.parametrize("side", ["the writer", "the reader"])
async def test_a_reset_wakes_a_writer_that_waits_for_the_window(
    join, autojump_clock, nursery, side
):
    one, two, arrived = join()
    here, there = await _pair(one, arrived)
    failures = []

    async def write() -> None:
        try:
            await here.send_all(bytes(3 * MIB))
        except StreamError as error:
            failures.append(error)

    nursery.start_soon(write)
    await wait_all_tasks_blocked()
    await (here if side == "the writer" else there).reset()
    await wait_all_tasks_blocked()
    assert len(failures) == 1
    assert one.streams == two.streams == []
    assert one.unread == two.unread == 0


async def test_a_reset_in_the_middle_of_a_frame_leaves_the_connection_whole(join, autojump_clock):
    one, two, arrived = join()
    here, there = await _pair(one, arrived)
    two._feed(HEADER.pack(0, yamux.DATA, 0, there.number, 1000) + bytes(400))
    await there.reset()
    two._feed(bytes(600))
    await wait_all_tasks_blocked()
    with pytest.raises(StreamError):
        await here.receive_some()
    other, end = await _pair(one, arrived)
    await other.send_all(b"whole")
    assert await end.receive_some() == b"whole"
    assert two.unread == 0


async def test_streams_that_come_and_are_reset_at_once_leave_nothing(join, autojump_clock):
    one, two, _ = join()
    for _ in range(3 * muxer.MAX_INBOUND_STREAMS):
        await one.open_stream().reset()
        await wait_all_tasks_blocked()
    assert one.streams == two.streams == []
    assert not two.closed.is_set()


# Abuse.


@pytest.mark.parametrize(
    ("flags", "why"),
    [(0, "data after the end"), (yamux.SYN, "cannot be opened")],
    ids=["after its end", "opened twice"],
)
async def test_data_on_a_stream_that_takes_none_ends_the_connection(
    join, autojump_clock, flags, why
):
    one, two, arrived = join()
    here, there = await _pair(one, arrived)
    await here.close()
    await wait_all_tasks_blocked()
    frame = HEADER.pack(0, yamux.DATA, flags, there.number, 1) + b"x"
    await one._channel.send_messages([frame])
    await wait_all_tasks_blocked()
    assert two.closed.is_set()
    assert why in two.reason
    with pytest.raises(StreamError):
        await there.send_all(b"x")


# What was changed on the way.


class Way:
    """The wire between two nodes; carries bytes as they are until told otherwise."""

    def __init__(self) -> None:
        self.change = lambda data: data

    async def carry(self, source, target) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while data := await source.receive_some(2**16):
                changed = self.change(data)
                await target.send_all(changed)
                if len(changed) < len(data):
                    break
            await target.send_eof()


@asynccontextmanager
async def _secured(nursery):
    """Two sessions over Noise on real sockets, and the way from the first to the second."""
    way, accepted = Way(), []
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    ours = await trio.open_tcp_stream("127.0.0.1", port)
    (middle,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    dialled = await trio.open_tcp_stream("127.0.0.1", middle.socket.getsockname()[1])
    inner, outer = await middle.accept(), await listener.accept()
    nursery.start_soon(way.carry, inner, ours)
    nursery.start_soon(Way().carry, ours, inner)

    async def accept() -> None:
        accepted.append(await Keys(Signer(b"b" * 32)).secure(Wire(outer, is_initiator=False)))

    async with trio.open_nursery() as both:
        both.start_soon(accept)
        first = await Keys(Signer(b"a" * 32)).secure(Wire(dialled, is_initiator=True))
    arrived = []
    one = Session(first.channel, "two", opener=True, on_stream=arrived.append)
    two = Session(accepted[0].channel, "one", opener=False, on_stream=arrived.append)
    nursery.start_soon(one.run)
    nursery.start_soon(two.run)
    try:
        yield one, two, arrived, way
    finally:
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            for stream in (ours, dialled, inner, outer, listener, middle):
                await trio.aclose_forcefully(stream)


def _flip(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.parametrize(
    "change",
    [_flip, lambda data: data + data, lambda data: data[:-1], lambda data: b"\x00\x00" + data],
    ids=["a flipped bit", "sent twice", "an end before the last byte", "an empty message"],
)
async def test_bytes_changed_on_the_way_are_never_read_and_end_the_connection(nursery, change):
    async with _secured(nursery) as (one, two, arrived, way):
        here = one.open_stream()
        await here.send_all(b"before")
        with trio.fail_after(60):
            while not arrived:  # noqa: ASYNC110 - filled by a callback
                await trio.sleep(0.001)
            there = arrived[0]
            assert await there.receive_some() == b"before"
            way.change = change
            await here.send_all(b"during")
            await here.send_all(b"after")
            got = bytearray()
            with pytest.raises(StreamError):
                await _collect(there, got)
            await two.closed.wait()
        assert b"duringafter".startswith(got)


async def _collect(stream, into) -> None:
    while data := await stream.receive_some():
        into += data

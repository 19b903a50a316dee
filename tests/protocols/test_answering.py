"""Who opens streams and is silent makes room, one for each that comes, and is forgotten afterwards."""

from __future__ import annotations

import pytest
import trio

from protocols.answering import LAG_SECONDS, LEAST_RATE, Answering, Paced
from protocols.framing import frame
from protocols.transport import RemoteProtocolError, StreamError


class Asked:
    """A stream on which a question comes when the test says so."""

    def __init__(self, peer: str) -> None:
        self.peer = peer
        self.ask, self._question = trio.open_memory_channel[bytes](1)
        self.took = 0.0
        self.was_reset = False

    async def receive_some(self, max_bytes: int = 2**18) -> bytes:
        return await self._question.receive()

    async def send_all(self, data: bytes) -> None:
        await trio.sleep(self.took)

    async def close(self) -> None:
        await trio.lowlevel.checkpoint()

    async def reset(self) -> None:
        self.was_reset = True
        await trio.lowlevel.checkpoint()


class Answered:
    """Serves streams, and notes how each ended."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.answering = Answering(streams=2, per_peer=2, max_request=64, seconds=10)
        self.ended: list[tuple[str, str]] = []
        self._nursery = nursery
        self.end = trio.Event()

    def open(self, peer: str) -> Asked:
        stream = Asked(peer)
        self._nursery.start_soon(self._serve, stream)
        return stream

    async def _serve(self, stream: Asked) -> None:
        async def answer(_stream: Asked, _request: bytes) -> None:
            await self.end.wait()

        try:
            await self.answering.serve(stream, answer)
        except (StreamError, RemoteProtocolError, trio.TooSlowError) as error:
            self.ended.append((stream.peer, type(error).__name__))
        else:
            self.ended.append((stream.peer, "reset" if stream.was_reset else "answered"))


async def test_each_that_comes_takes_the_place_of_another_silent_one(autojump_clock, nursery):
    answered = Answered(nursery)
    answered.open("a"), answered.open("b")
    await trio.sleep(1)
    answered.open("c"), answered.open("d")  # both before either of the first has gone
    await trio.sleep(1)
    assert sorted(answered.ended) == [("a", "StreamError"), ("b", "StreamError")]


async def test_where_something_was_asked_on_every_stream_another_is_reset(autojump_clock, nursery):
    answered = Answered(nursery)
    for peer in "ab":
        answered.open(peer).ask.send_nowait(frame(b"?"))
    await trio.sleep(1)
    answered.open("c")
    await trio.sleep(1)
    assert answered.ended == [("c", "reset")]
    answered.end.set()
    await trio.sleep(1)
    assert sorted(answered.ended[1:]) == [("a", "answered"), ("b", "answered")]


async def test_nothing_is_kept_of_a_peer_that_is_gone(autojump_clock, nursery):
    answered = Answered(nursery)
    answered.open("a")
    await trio.sleep(11)
    assert answered.ended == [("a", "TooSlowError")]
    assert not answered.answering._of
    assert not answered.answering._silent


async def test_an_answer_may_lag_for_a_minute_in_all_and_not_for_longer(autojump_clock):
    stream = Asked("a")
    paced, part = Paced(stream), bytes(LEAST_RATE)
    stream.took = 3  # for a second's worth
    for _ in range(int(LAG_SECONDS) // 2 - 1):
        await paced.send_all(part)
    stream.took = 0.9  # what lags goes on at the least rate
    for _ in range(10):
        await paced.send_all(part)
    stream.took = 1 + 2 + 1.1
    with pytest.raises(trio.TooSlowError):
        await paced.send_all(part)


async def test_an_answer_that_is_taken_in_the_last_moment_is_no_fault(autojump_clock):
    class Late(Asked):
        async def send_all(self, data: bytes) -> None:
            if data:
                autojump_clock.jump(LAG_SECONDS + 2)  # taken before anybody looks at the clock
            await trio.lowlevel.cancel_shielded_checkpoint()

    paced = Paced(Late("a"))
    await paced.send_all(b"1")
    await paced.send_all(b"")

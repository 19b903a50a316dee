from __future__ import annotations

import math

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from protocols.framing import frame
from protocols.handshake import HandshakeError, Hello, core, messages, service
from protocols.handshake.core import Exchange, Heard, Say, Standing, standing
from protocols.memory import open_memory_network
from protocols.transport import StreamError
from storage import canonical

A, B = b"a" * 32, b"b" * 32
HELLO = Hello(A, "swarm/0.1.0", 7, messages.ROLE_WORKER, ("/ip4/127.0.0.1/tcp/1",))


def test_the_bytes_of_a_hello_stay_what_they_are():
    assert HELLO.encode().hex() == (
        "86015820"
        + "61" * 32
        + "6b737761726d2f302e312e30070281742f6970342f3132372e302e302e312f7463702f31"
    )
    assert messages.decode(HELLO.encode()) == HELLO


@given(st.binary(max_size=300))
def test_any_bytes_are_a_hello_or_refused(data):
    try:
        hello = messages.decode(data)
    except HandshakeError:
        return
    assert hello.encode() == data or hello.version > messages.VERSION


@pytest.mark.parametrize(
    "value",
    [
        [1, b"short", "x", 0, 0, []],
        [1, A, "x" * 65, 0, 0, []],
        [1, A, "x\n", 0, 0, []],
        [1, A, "x", -1, 0, []],
        [1, A, "x", 2**63, 0, []],
        [1, A, "x", 0, 2**16, []],
        [1, A, "x", 0, 0, ["y"] * 17],
        [1, A, "x", 0, 0, ["y" * 161]],
        [1, A, "x", 0, 0, [b"y"]],
        [1, A, "x", True, 0, []],
        [1, A, "x", 0, 0, [], 5],
        [0, A, "x", 0, 0, []],
        [True, A, "x", 0, 0, []],
        [1, A, "x", 0, 0],
        [],
        7,
        None,
    ],
)
def test_a_hello_out_of_its_bounds_is_refused(value):
    with pytest.raises(HandshakeError):
        messages.decode(canonical.encode(value))


def test_a_later_version_may_append_fields():
    hello = messages.decode(canonical.encode([2, A, "x", 0, 0, [], "new", 5]))
    assert (hello.version, hello.chain_id) == (2, A)


def test_only_the_same_chain_makes_members():
    assert standing(A, A) is Standing.MEMBER
    assert standing(A, B) is Standing.STRANGER
    assert standing(b"", A) is standing(A, b"") is standing(b"", b"") is Standing.ASKING


def test_the_answerer_answers_each_hello_and_the_opener_does_not():
    assert Exchange(opener=True).handle(HELLO.encode(), 0) == [Heard(HELLO)]
    assert Exchange(opener=False).handle(HELLO.encode(), 0) == [Heard(HELLO), Say()]


def test_more_than_twenty_hellos_in_five_seconds_are_a_flood():
    exchange = Exchange(opener=False)
    for number in range(20):
        exchange.handle(HELLO.encode(), number / 10)
    with pytest.raises(HandshakeError, match="more than 20"):
        exchange.handle(HELLO.encode(), 4.9)
    assert exchange.handle(HELLO.encode(), 5.0)


async def _talk(silent: bool, seconds: float) -> tuple[list[Hello], str]:
    heard: list[Hello] = []
    end = ""
    head = 0
    changed = trio.Event()

    def mine() -> Hello:
        nonlocal head
        head += 1
        return Hello(A, "two", head, 0)

    async with open_memory_network() as network:
        one, two = network.join("one"), network.join("two")

        async def answer(stream) -> None:
            if silent:
                await trio.sleep_forever()
            await service.converse(
                stream, opener=False, mine=mine, heard=lambda hello: None, changed=lambda: changed
            )

        two.handle(messages.PROTOCOL, answer)
        stream = await one.open_stream("two", messages.PROTOCOL)
        with trio.move_on_after(seconds):
            try:
                await service.converse(
                    stream,
                    opener=True,
                    mine=lambda: HELLO,
                    heard=heard.append,
                    changed=lambda: changed,
                )
            except StreamError as error:
                end = str(error)
    return heard, end


class Joined:
    """One end of a stream: what is said here stands in `said`, after `way` seconds each."""

    peer = "peer"

    def __init__(self, way: float) -> None:
        self.said: list[bytes] = []
        self._way = way
        self._send, self._incoming = trio.open_memory_channel(10)

    async def send_all(self, data) -> None:
        await trio.sleep(self._way)
        self.said.append(data)

    def hear(self, data: bytes) -> None:
        self._send.send_nowait(data)

    async def receive_some(self, max_bytes: int = 0) -> bytes:
        return await self._incoming.receive()


async def test_what_changes_while_an_answer_is_awaited_is_told_at_once(autojump_clock, nursery):
    stream = Joined(0)
    news = trio.Event()
    head = 1

    async def open_() -> None:
        await service.converse(
            stream,
            opener=True,
            mine=lambda: Hello(A, "one", head, 0),
            heard=lambda hello: None,
            changed=lambda: news,
        )

    nursery.start_soon(open_)
    await trio.sleep(1)
    head = 2
    news.set()
    news = trio.Event()
    stream.hear(frame(HELLO.encode()))
    await trio.sleep(1)
    assert [messages.decode(each[4:]).head for each in stream.said] == [1, 2]


@pytest.mark.parametrize("opener", [True, False])
async def test_a_peer_that_takes_no_hello_is_given_up(autojump_clock, opener):
    stream = Joined(math.inf)
    stream.hear(frame(HELLO.encode()))
    with trio.fail_after(60), pytest.raises(StreamError, match="takes no hello"):
        await service.converse(
            stream,
            opener=opener,
            mine=lambda: HELLO,
            heard=lambda hello: None,
            changed=trio.Event,
        )


async def test_heads_are_told_again_every_five_seconds(autojump_clock):
    heard, _ = await _talk(silent=False, seconds=12)
    assert [hello.head for hello in heard] == [1, 2, 3]


async def test_a_silent_peer_is_given_up_after_ten_seconds(autojump_clock):
    heard, end = await _talk(silent=True, seconds=60)
    assert (heard, end) == ([], "no hello for 10 s")
    assert trio.current_time() == core.ANSWER_S

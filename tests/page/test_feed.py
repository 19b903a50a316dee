"""News: to many, at their own pace, bounded, and only while somebody listens."""

from __future__ import annotations

import json
import socket

import pytest
import trio
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from swarm.control import service
from swarm.control.service import serve_app
from swarm.errors import RefusedError
from swarm.page import feed
from swarm.page.feed import Feed, Hub, Part


class Counter:
    """A part that is read again and again.

    Args:
        step: How much more each reading tells.
    """

    def __init__(self, step=1) -> None:
        self.reads = 0
        self.value = 0
        self.step = step
        self.fails = False

    async def __call__(self):
        await trio.lowlevel.checkpoint()
        self.reads += 1
        if self.fails:
            msg = "the disk failed"
            raise OSError(msg)
        self.value += self.step
        return {"value": self.value}


class Wire:
    """A browser's end of one stream."""

    def __init__(self) -> None:
        self.sent = []
        self.gone = trio.Event()
        self.takes = True

    async def receive(self):
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message):
        if not self.takes:
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint()
        self.sent.append(message.get("body", b""))

    def told(self):
        return b"".join(self.sent)


async def run_for(seconds, *tasks):
    with trio.move_on_after(seconds):
        async with trio.open_nursery() as nursery:
            for task in tasks:
                nursery.start_soon(task)


def stream(hub, wire):
    return lambda: Feed(hub)({}, wire.receive, wire.send)


async def test_nothing_is_read_while_nobody_listens(autojump_clock):
    part = Counter()
    hub = Hub({"node": Part(part, 1)})
    await run_for(100, hub.run)
    assert part.reads == 0


async def test_reading_ends_when_the_last_listener_goes(autojump_clock):
    part, wire = Counter(), Wire()
    hub = Hub({"node": Part(part, 1)})

    async def go():
        await trio.sleep(4.5)
        wire.gone.set()

    await run_for(100, hub.run, stream(hub, wire), go)
    assert 4 <= part.reads <= 7


async def test_two_listeners_are_told_of_one_reading(autojump_clock):
    part, wires = Counter(), [Wire(), Wire()]
    hub = Hub({"node": Part(part, 1)})
    await run_for(4.5, hub.run, *(stream(hub, one) for one in wires))
    assert part.reads == 5
    assert all(one.told().count(b"event: node") == 5 for one in wires)


async def test_a_listener_that_comes_late_is_told_the_newest_at_once(autojump_clock):
    part, early, late = Counter(), Wire(), Wire()
    hub = Hub({"node": Part(part, 10)})

    async def come():
        await trio.sleep(15)
        with trio.move_on_after(1):
            await stream(hub, late)()

    await run_for(17, hub.run, stream(hub, early), come)
    assert b'data: {"value":2}' in late.told()
    assert b'data: {"value":1}' not in late.told()


async def test_what_did_not_change_is_no_news_and_silence_has_a_heartbeat(autojump_clock):
    part, wire = Counter(step=0), Wire()
    hub = Hub({"node": Part(part, 1)})
    await run_for(3 * feed.HEARTBEAT_SECONDS + 1, hub.run, stream(hub, wire))
    assert wire.told().count(b"event: node") == 1
    assert wire.told().count(b": alive\n\n") == 3


async def test_each_event_is_one_line_of_json(autojump_clock):
    async def read():
        await trio.lowlevel.checkpoint()
        return {"text": "two\nlines\n\nevent: other\r\u2028"}

    wire = Wire()
    hub = Hub({"log": Part(read, 1)})
    await run_for(1.5, hub.run, stream(hub, wire))
    block = wire.told().split(b"\n\n")[1].split(b"\n")
    assert block[0] == b"event: log"
    assert len(block) == 2
    assert json.loads(block[1].removeprefix(b"data: "))["text"].startswith("two\nlines")


async def test_a_part_that_fails_leaves_the_others(autojump_clock):
    good, bad, wire = Counter(), Counter(), Wire()
    bad.fails = True
    hub = Hub({"peers": Part(bad, 1), "node": Part(good, 1)})
    await run_for(2.5, hub.run, stream(hub, wire))
    assert wire.told().count(b"event: node") == 3
    assert bad.reads == 3


async def test_listeners_that_take_nothing_delay_nobody_and_are_let_go(tmp_path, autojump_clock):
    async def read():
        part.reads += 1
        await trio.lowlevel.checkpoint()
        return {"value": part.reads, "pad": "x" * 100_000}

    async def answer(_request):
        try:
            return Feed(hub)
        except RefusedError as error:
            return PlainTextResponse(error.message, 409)

    async def ask():
        stream = await trio.open_unix_socket(str(tmp_path / "page.sock"))
        await stream.send_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        return stream

    part = Counter()
    hub = Hub({"node": Part(read, 1)})
    app = Starlette(routes=[Route("/", answer)])
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "page.sock"))
        listener.listen(64)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hub.run)
            await nursery.start(serve_app, app, listener)
            silent = [await ask() for _ in range(feed.MAX_LISTENERS - 1)]
            async with await ask() as quick:
                got = b""
                while b"event: node" not in got:
                    got += await quick.receive_some()
                async with await ask() as one_more:
                    assert b" 409 " in await one_more.receive_some()
                end = trio.current_time() + service.SEND_SECONDS + 10
                while trio.current_time() < end:
                    got += await quick.receive_some()
                assert got.count(b"event: node") > service.SEND_SECONDS
                async with await ask() as one_more:
                    assert b" 200 " in await one_more.receive_some()
            for one in silent:
                await one.aclose()
            nursery.cancel_scope.cancel()


async def test_only_so_many_listen_at_once(autojump_clock):
    hub = Hub({"node": Part(Counter(), 1)})
    wires = [Wire() for _ in range(feed.MAX_LISTENERS)]
    refused = []

    async def one_more():
        await trio.sleep(1)
        with pytest.raises(RefusedError):
            Feed(hub)
        refused.append(True)
        wires[0].gone.set()
        await trio.sleep(1)
        Feed(hub)

    await run_for(3, hub.run, one_more, *(stream(hub, one) for one in wires))
    assert refused


async def test_what_is_not_json_is_no_news_until_it_is_again(autojump_clock):
    told = iter([1.0, float("nan"), 2.0, 2.0])

    async def read():
        await trio.lowlevel.checkpoint()
        return {"loss": next(told)}

    wire = Wire()
    hub = Hub({"node": Part(read, 1)})
    await run_for(3.5, hub.run, stream(hub, wire))
    news = [one for one in wire.told().split(b"\n") if one.startswith(b"data: ")]
    assert news == [b'data: {"loss":1.0}', b'data: {"loss":2.0}']

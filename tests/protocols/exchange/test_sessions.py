from __future__ import annotations

import trio

from protocols.exchange.messages import PROTOCOL, Block, Cancel, Decoder, DontHave, Want, encode
from protocols.exchange.messages import REQUESTS as REQUEST_KINDS
from protocols.exchange.sessions import Sessions
from storage.cid import of_raw
from tests.protocols.exchange.conftest import open_neighbourhood

DATA = b"a chunk"
CHUNK = of_raw(DATA)


class Told:
    """A sink that writes down what it is told."""

    def __init__(self) -> None:
        self.blocks: list[bytes] = []
        self.lacked: list[bytes] = []
        self.losses: list[str] = []
        self.changed = trio.Event()

    def heard(self, peer, count):
        pass

    def block(self, peer, cid, data):
        self.blocks.append(data)
        self.changed.set()

    def lacks(self, peer, cid):
        self.lacked.append(cid)
        self.changed.set()

    def lost(self, peer, why):
        self.losses.append(why)
        self.changed.set()


class Script:
    """A provider played by the test."""

    def __init__(self) -> None:
        self.streams_send, self.streams = trio.open_memory_channel(8)
        self.decoder = Decoder(REQUEST_KINDS, blocks=False)
        self.waiting = []
        self.stream = None

    async def handle(self, stream):
        await self.streams_send.send(stream)
        await trio.sleep_forever()

    async def next(self):
        if self.stream is None:
            self.stream = await self.streams.receive()
        with trio.fail_after(5):
            while not self.waiting:
                self.waiting = self.decoder.feed(await self.stream.receive_some())
        return self.waiting.pop(0)


async def test_a_want_of_one_that_comes_after_the_cancel_of_another_is_sent_again():
    async with open_neighbourhood() as near, trio.open_nursery() as nursery:
        script, me, provider = Script(), near.transport(), near.transport()
        provider.handle(PROTOCOL, script.handle)
        sessions = Sessions(me, lambda *_: None, lambda *_: None)
        session = await sessions.get(provider.me, nursery)
        first, second = Told(), Told()
        assert session.want(first, [CHUNK]) == []
        assert await script.next() == Want((CHUNK,))
        session.cancel(first, [CHUNK])
        assert await script.next() == Cancel((CHUNK,))
        session.want(second, [CHUNK])
        await script.stream.send_all(encode(DontHave((CHUNK,))))
        assert await script.next() == Want((CHUNK,))
        assert first.lacked == [CHUNK]
        assert second.lacked == []
        await script.stream.send_all(encode(Block(CHUNK, DATA)))
        await second.changed.wait()
        assert second.blocks == [DATA]
        assert session.room == 1_024
        nursery.cancel_scope.cancel()


async def test_a_want_that_two_share_is_sent_once_and_cancelled_when_both_gave_up():
    async with open_neighbourhood() as near, trio.open_nursery() as nursery:
        script, me, provider = Script(), near.transport(), near.transport()
        provider.handle(PROTOCOL, script.handle)
        session = await Sessions(me, lambda *_: None, lambda *_: None).get(provider.me, nursery)
        first, second = Told(), Told()
        session.want(first, [CHUNK])
        session.want(second, [CHUNK])
        assert await script.next() == Want((CHUNK,))
        session.cancel(first, [CHUNK])
        session.detach(second)
        assert await script.next() == Cancel((CHUNK,))
        assert not session.is_idle
        await script.stream.send_all(encode(DontHave((CHUNK,))))
        await first.changed.wait()
        assert session.is_idle
        nursery.cancel_scope.cancel()


async def test_all_who_use_a_session_hear_of_its_loss_and_the_next_one_is_new():
    async with open_neighbourhood() as near, trio.open_nursery() as nursery:
        script, me, provider = Script(), near.transport(), near.transport()
        provider.handle(PROTOCOL, script.handle)
        sessions = Sessions(me, lambda *_: None, lambda *_: None)
        session = await sessions.get(provider.me, nursery)
        assert await sessions.get(provider.me, nursery) is session
        told = Told()
        session.attach(told)
        await (await script.streams.receive()).reset()
        await told.changed.wait()
        assert len(told.losses) == 1
        assert await sessions.get(provider.me, nursery) is not session
        nursery.cancel_scope.cancel()


async def test_a_stream_that_nobody_uses_is_closed_in_the_end(autojump_clock):
    async with open_neighbourhood() as near, trio.open_nursery() as nursery:
        script, me, provider = Script(), near.transport(), near.transport()
        provider.handle(PROTOCOL, script.handle)
        session = await Sessions(me, lambda *_: None, lambda *_: None).get(provider.me, nursery)
        with trio.fail_after(1_000):
            await session.closed.wait()
        assert session.why == "nobody used it"


async def test_what_fails_in_hearing_one_provider_ends_its_stream_and_no_more():
    async with open_neighbourhood() as near, trio.open_nursery() as nursery:
        script, me, provider = Script(), near.transport(), near.transport()
        provider.handle(PROTOCOL, script.handle)
        sessions = Sessions(me, lambda *_: None, lambda *_: None)
        session = await sessions.get(provider.me, nursery)
        told = Told()

        def block(peer, cid, data):
            raise MemoryError

        told.block = block
        session.attach(told)
        session.want(told, [CHUNK])
        assert await script.next() == Want((CHUNK,))
        await script.stream.send_all(encode(Block(CHUNK, DATA)))
        await session.closed.wait()
        assert len(told.losses) == 1
        assert await sessions.get(provider.me, nursery) is not session
        nursery.cancel_scope.cancel()

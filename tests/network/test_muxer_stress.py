"""The muxer under many streams at once: writers, readers, cancels, resets and rates that change, from one seed."""

from __future__ import annotations

import random
from collections import Counter

import pytest
import trio
from trio.testing import MockClock

from protocols.transport import StreamError
from swarm.limits.traffic import Traffic
from swarm.network import muxed_stream, muxer, yamux
from swarm.network.muxer import Session
from tests.network.test_muxer import Channel

PROTOCOLS = ("/swarm/handshake/1", "/ipfs/bitswap/1.2.0", "/swarm/sync/1")
RATES = (0, 0, 3_000, 20_000, 300_000)
COUNT = 31
FIRST = 3
"""Who says the first word, before the protocol is known; the other writers are those below."""
LONG = 20_000.0
"""Virtual seconds, in which all of it ends at the lowest rate."""


class SlowChannel(Channel):
    """Takes as long as a line of 2 MB/s, and counts what it takes."""

    traffic: Traffic

    async def send_messages(self, messages) -> None:
        size = sum(map(len, messages))
        self.traffic.begins(size)
        await trio.sleep(size / 2e6)
        self.traffic.sent(size)
        try:
            await super().send_messages(messages)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise muxer.WireError("gone") from error


class Watched(Session):
    """Says when more is queued than may be."""

    def send_data(self, stream, flags, data) -> None:
        if data:
            if stream.can_wait:
                assert self._patient_queued < self._most or not self._patient_queued
            else:
                assert self._queued < muxer.MAX_QUEUED
        super().send_data(stream, flags, data)

    @property
    def _most(self) -> int:
        self.best = max(self.best, self._patience())
        return self.best

    best = 0


async def until_lost(part, *args) -> None:
    try:
        await part(*args)
    except* StreamError:
        pass


class Conversation:
    """What some writers say on one stream, each in bytes of its own that count on, and what its reader hears."""

    def __init__(self, rng: random.Random, here) -> None:
        self.rng = rng
        self.here = here
        self.said: Counter[int] = Counter()
        self.cut: set[int] = set()
        self.heard: list[bytes] = []
        self.is_reset = rng.random() < 0.2

    @staticmethod
    def text(mark: int, start: int, size: int) -> bytes:
        """What one writer says: no two neighbouring frames are equal."""
        own = bytes(range(mark * COUNT, (mark + 1) * COUNT))
        return (own * (size // COUNT + 2))[start % COUNT :][:size]

    async def say(self, mark: int, size: int) -> None:
        data = self.text(mark, self.said[mark], size)
        self.said[mark] += size
        await self.here.send_all(data)

    async def write(self, there) -> None:
        async with trio.open_nursery() as nursery:
            for mark in range(self.rng.choice((1, 1, FIRST))):
                nursery.start_soon(self._write_as, mark)
            if self.is_reset:
                await trio.sleep(self.rng.random() * 6)
                await self.rng.choice((self.here, there)).reset()
        await self.here.close()

    async def _write_as(self, mark: int) -> None:
        for _ in range(self.rng.randrange(1, 6)):
            with trio.move_on_after(self.rng.choice((0.1, 2.0, LONG, LONG, LONG))) as scope:
                await self.say(mark, self.rng.choice((1, 100, 5_000, 40_000)))
            if scope.cancelled_caught:
                self.cut.add(mark)
            await trio.sleep(self.rng.choice((0, 0, 0.3)))

    async def read(self, there) -> None:
        while data := await there.receive_some(self.rng.choice((100, 10_000, 2**18))):
            self.heard.append(data)
            await trio.sleep(self.rng.choice((0, 0, 0, 0.5)))

    def check(self) -> None:
        """Each writer that was not cancelled was heard, whole and in order."""
        heard = b"".join(self.heard)
        for mark in set(self.said) - self.cut:
            own = range(mark * COUNT, (mark + 1) * COUNT)
            others = bytes(one for one in range(256) if one not in own)
            assert heard.translate(None, others) == self.text(mark, 0, self.said[mark])


class Trial:
    """Two sessions and what goes between them."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.traffics = [Traffic(clock=trio.current_time) for _ in range(2)]
        for traffic in self.traffics:
            traffic.limit(self.rng.choice(RATES), self.rng.choice(RATES), 0)
        left, right = SlowChannel(), SlowChannel()
        left.other, right.other = right, left
        left.traffic, right.traffic = self.traffics
        self.arrived: dict[int, trio.Event] = {}
        self.there: dict[int, object] = {}
        self.kinds: dict[int, str] = {}
        self.sessions = [
            Watched(channel, "peer", opener=opener, on_stream=self._came, traffic=traffic)
            for channel, opener, traffic in zip(
                (left, right), (True, False), self.traffics, strict=True
            )
        ]

    def _came(self, stream) -> None:
        stream.protocol = self.kinds.get(stream.number, "")
        self.there[stream.number] = stream
        self.arrived.setdefault(stream.number, trio.Event()).set()

    async def conversation(self) -> None:
        """One stream, from its beginning to its end."""
        await trio.sleep(self.rng.random() * 5)
        here = self.rng.choice(self.sessions).open_stream()
        self.kinds[here.number] = kind = self.rng.choice(PROTOCOLS)
        arrived = self.arrived.setdefault(here.number, trio.Event())
        one = Conversation(self.rng, here)
        if self.rng.random() < 0.5:
            here.protocol = kind
        await one.say(FIRST, self.rng.randrange(1, 40))
        here.protocol = kind
        await arrived.wait()
        there = self.there[here.number]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(until_lost, one.write, there)
            nursery.start_soon(until_lost, one.read, there)
        if not one.is_reset and not self.is_closed:
            one.check()
        await there.close()

    is_closed = False

    async def run(self) -> None:
        """Until all conversations are over."""
        rng = self.rng
        async with trio.open_nursery() as around:
            for session in self.sessions:
                around.start_soon(session.run)

            async def change() -> None:
                while True:
                    await trio.sleep(rng.random() * 10)
                    rng.choice(self.traffics).limit(rng.choice(RATES), rng.choice(RATES), 0)

            around.start_soon(change)

            async def close() -> None:
                await trio.sleep(rng.random() * 10)
                self.is_closed = True
                rng.choice(self.sessions).close("as the seed says")

            if rng.random() < 0.4:
                around.start_soon(close)
            with trio.fail_after(LONG):
                async with trio.open_nursery() as nursery:
                    for _ in range(rng.randrange(2, 13)):
                        nursery.start_soon(until_lost, self.conversation)
            await trio.sleep(200)
            for session in self.sessions:
                assert session.closed.is_set() == self.is_closed
                assert session._queued == session._patient_queued == 0
                assert session.unread == 0
                assert len(session._room) == len(session._patient_room) == 0
                assert session.streams == []
            for traffic in self.traffics:
                assert traffic.going._line == traffic.coming._line == []
            around.cancel_scope.cancel()


SEEDS = range(40)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_byte_arrives_and_nothing_hangs(seed, monkeypatch):
    for name, value in {
        "MAX_PAYLOAD": 4096,
        "MAX_PLAINTEXT": 4096 + yamux.HEADER.size,
        "WRITE_BYTES": 2**15,
        "MAX_QUEUED": 2**14,
        "LEAST_PART": 512,
        "INITIAL_WINDOW": 2**14,
        "RECEIVE_WINDOW": 2**16,
    }.items():
        used_by = [one for one in (muxer, muxed_stream) if hasattr(one, name)]
        assert used_by
        for module in used_by:
            monkeypatch.setattr(module, name, value)

    async def main() -> None:
        await Trial(seed).run()

    trio.run(main, clock=MockClock(autojump_threshold=0))

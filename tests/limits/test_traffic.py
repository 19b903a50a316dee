"""The limiter on real muxed sessions in virtual time, and on real sockets."""

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from protocols.signing import Signer
from protocols.transport import StreamError, UnreachableError
from swarm.limits.traffic import Traffic
from swarm.network import Network, NetworkSettings
from swarm.network.muxer import INITIAL_WINDOW, Session
from tests.network.test_muxer import Channel

MB = 10**6
CONTENT = "/swarm/exchange/1.0.0"
VOTES = "/swarm/consensus/1.0.0"


class Counted(Channel):
    """An end that counts as a socket does."""

    traffic: Traffic

    async def send_messages(self, messages):
        self.traffic.begins(sum(map(len, messages)))
        await super().send_messages(messages)
        self.traffic.sent(sum(map(len, messages)))

    async def receive(self):
        if not await super().receive():
            return False
        self.traffic.received(len(self.came[-1]))
        return True


@pytest.fixture
def join(nursery):
    def begin(upload=0, download=0):
        ends = Counted(), Counted()
        ends[0].other, ends[1].other = ends[1], ends[0]
        arrived, sessions = [], []
        for channel, rates in zip(ends, ((upload, 0), (0, download)), strict=True):
            channel.traffic = Traffic(None, trio.current_time)
            channel.traffic.limit(*rates, 0)
            session = Session(
                channel,
                "peer",
                opener=channel is ends[0],
                on_stream=arrived.append,
                traffic=channel.traffic,
            )
            sessions.append(session)
            nursery.start_soon(session.run)
        return *sessions, arrived

    return begin


async def opened(session, arrived, protocol):
    stream = session.open_stream()
    await wait_all_tasks_blocked()
    stream.protocol = arrived[-1].protocol = protocol
    return stream, arrived[-1]


async def read(stream, count):
    while count > 0:
        count -= len(await stream.receive_some())


async def timed(here, there, count, nursery):
    began = trio.current_time()
    nursery.start_soon(here.send_all, bytes(count))
    await read(there, count)
    return trio.current_time() - began


async def test_content_leaves_at_the_rate_that_is_allowed(join, nursery, autojump_clock):
    one, _, arrived = join(upload=2 * MB)
    here, there = await opened(one, arrived, CONTENT)
    took = await timed(here, there, 20 * MB, nursery)
    assert 9 <= took <= 11


@pytest.mark.parametrize("rates", [(50_000, 0), (0, 50_000)], ids=["upload", "download"])
async def test_many_connections_together_keep_to_the_rate(nursery, autojump_clock, rates):
    rate, seconds, taken = 50_000, 60, []
    ours, theirs = Traffic(None, trio.current_time), Traffic(None, trio.current_time)
    ours.limit(rates[0], 0, 0)
    theirs.limit(0, rates[1], 0)

    async def drain(stream):
        while True:
            taken.append(len(await stream.receive_some()))

    for _ in range(10):
        ends, arrived = (Counted(), Counted()), []
        ends[0].other, ends[1].other = ends[1], ends[0]
        sessions = []
        for channel, traffic in zip(ends, (ours, theirs), strict=True):
            channel.traffic = traffic
            opens = {"opener": channel is ends[0], "on_stream": arrived.append, "traffic": traffic}
            sessions.append(Session(channel, "peer", **opens))
            nursery.start_soon(sessions[-1].run)
        here, there = await opened(sessions[0], arrived, CONTENT)
        nursery.start_soon(here.send_all, bytes(5 * MB))
        nursery.start_soon(drain, there)
    await trio.sleep(seconds)
    # A burst and a turn are ahead of it, and the window with which each stream begins.
    assert 0.9 <= sum(taken) / rate / seconds <= 1.1
    assert theirs.month.received <= 1.1 * rate * seconds + 10 * INITIAL_WINDOW
    nursery.cancel_scope.cancel()


async def test_a_vote_does_not_wait_behind_content(join, nursery, autojump_clock):
    one, _, arrived = join(upload=MB)
    here, there = await opened(one, arrived, CONTENT)
    nursery.start_soon(here.send_all, bytes(10 * MB))
    nursery.start_soon(read, there, 10 * MB)
    vote, seen = await opened(one, arrived, VOTES)
    for _ in range(20):
        await trio.sleep(0.37)
        assert await timed(vote, seen, 1000, nursery) < 0.01


async def test_what_comes_is_slowed_by_not_reading_on(join, nursery, autojump_clock):
    one, two, arrived = join(download=2 * MB)
    here, there = await opened(one, arrived, CONTENT)
    took = await timed(here, there, 20 * MB, nursery)
    assert 8 <= took <= 11
    assert two.unread <= 4 * MB


async def test_a_rate_that_is_changed_holds_at_once(join, nursery, autojump_clock):
    one, _, arrived = join(upload=100_000)
    here, there = await opened(one, arrived, CONTENT)
    nursery.start_soon(here.send_all, bytes(20 * MB))
    with trio.move_on_after(2):
        await read(there, 20 * MB)
    one.traffic.limit(0, 0, 0)
    with trio.fail_after(2):
        await read(there, 19 * MB)


async def test_without_a_limit_nothing_waits_and_frames_stay_in_order(
    join, nursery, autojump_clock
):
    one, _, arrived = join()
    here, there = await opened(one, arrived, CONTENT)
    sent = bytes(range(256)) * 8192
    nursery.start_soon(here.send_all, sent)
    came = bytearray()
    began = trio.current_time()
    while len(came) < len(sent):
        came += await there.receive_some()
    assert bytes(came) == sent
    assert trio.current_time() == began


def test_sockets_to_this_machine_are_not_counted():
    assert not Traffic.applies("127.0.0.1", "127.0.0.1")
    assert not Traffic.applies("::1", "::1")
    assert not Traffic.applies("192.0.2.7", "192.0.2.7")
    assert Traffic.applies("192.0.2.7", "192.0.2.8")


class Everywhere(Traffic):
    """Counts the loopback too, which is all that a test has."""

    @staticmethod
    def applies(here, there):
        return True


def network(number, **kinds):
    from protocols.handshake import Hello

    signer = Signer(number.to_bytes(32, "big"))
    return Network(NetworkSettings(**kinds), signer, b"c" * 32, lambda: Hello(b"", "t", 0, 1))


async def connected(nursery, traffic):
    one = network(1, traffic=traffic)
    await nursery.start(one.run)
    two = network(2, bootstrap=tuple(one.addresses()))
    await nursery.start(two.run)
    with trio.fail_after(8):
        while two.me not in one.peers() or one.me not in two.peers():  # noqa: ASYNC110 - no event
            await trio.sleep(0.01)
    return one, two


async def asked(who, whom):
    stream = await who.open_stream(whom.me, CONTENT)
    return await stream.receive_some()


async def test_a_node_that_does_not_serve_breaks_off_content_and_still_votes(nursery):
    traffic = Everywhere()
    one, two = await connected(nursery, traffic)
    begun = trio.Event()

    async def endless(stream):
        await stream.send_all(b"x")
        begun.set()
        await trio.sleep_forever()

    async def echo(stream):
        await stream.send_all(await stream.receive_some())

    one.handle(CONTENT, endless, members_only=False)
    one.handle(VOTES, echo, members_only=True)
    content = await two.open_stream(one.me, CONTENT)
    assert await content.receive_some() == b"x"
    assert traffic.month.sent > 0
    assert traffic.month.received > 0
    traffic.is_cut = lambda: True
    one.stop_serving()
    with trio.fail_after(5), pytest.raises(StreamError):
        await content.receive_some()
    with trio.fail_after(5), pytest.raises((StreamError, UnreachableError)):
        await asked(two, one)
    vote = await two.open_stream(one.me, VOTES)
    await vote.send_all(b"aye")
    with trio.fail_after(5):
        assert await vote.receive_some() == b"aye"
    nursery.cancel_scope.cancel()

"""The limiter on real muxed sessions in virtual time, and on real sockets."""

import contextlib

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from protocols.signing import Signer
from protocols.transport import StreamError, UnreachableError
from swarm.limits.rate import MIN_BURST
from swarm.limits.traffic import Traffic
from swarm.network import Network, NetworkSettings
from swarm.network.muxer import Session
from swarm.network.yamux import INITIAL_WINDOW
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


def limited(upload=0, download=0):
    traffic = Traffic(None, trio.current_time)
    traffic.limit(upload, download, 0)
    return traffic


def connect(nursery, ours, theirs):
    """One connection, its two ends limited each by its own."""
    ends, arrived, sessions = (Counted(), Counted()), [], []
    ends[0].other, ends[1].other = ends[1], ends[0]
    for channel, traffic in zip(ends, (ours, theirs), strict=True):
        channel.traffic = traffic
        opens = {"opener": channel is ends[0], "on_stream": arrived.append, "traffic": traffic}
        sessions.append(Session(channel, "peer", **opens))
        nursery.start_soon(sessions[-1].run)
    return *sessions, arrived


@pytest.fixture
def join(nursery):
    def begin(upload=0, download=0):
        return connect(nursery, limited(upload), limited(0, download))

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
    ours, theirs = limited(rates[0]), limited(0, rates[1])

    async def drain(stream):
        while True:
            taken.append(len(await stream.receive_some()))

    for _ in range(10):
        one, _, arrived = connect(nursery, ours, theirs)
        here, there = await opened(one, arrived, CONTENT)
        nursery.start_soon(here.send_all, bytes(5 * MB))
        nursery.start_soon(drain, there)
    await trio.sleep(seconds)
    # A burst and a turn are ahead of it, and the window with which each stream begins.
    assert 0.9 <= sum(taken) / rate / seconds <= 1.1
    assert theirs.month.received <= 1.1 * rate * seconds + 10 * INITIAL_WINDOW
    nursery.cancel_scope.cancel()


@pytest.mark.slow
@pytest.mark.parametrize("rates", [(50_000, 0), (0, 50_000)], ids=["upload", "download"])
@pytest.mark.parametrize("shape", [(20, 1), (4, 5), (1, 20)], ids="{0[0]} x {0[1]}".format)
async def test_none_of_many_streams_is_left_without_a_turn(nursery, autojump_clock, rates, shape):
    ours, theirs = limited(rates[0]), limited(0, rates[1])
    connections, streams = shape
    taken, longest = [0] * 20, [0.0] * 20

    async def drain(at, stream):
        while True:
            began = trio.current_time()
            taken[at] += len(await stream.receive_some())
            longest[at] = max(longest[at], trio.current_time() - began)

    for connection in range(connections):
        one, _, arrived = connect(nursery, ours, theirs)
        for number in range(streams):
            here, there = await opened(one, arrived, CONTENT)
            nursery.start_soon(here.send_all, bytes(5 * MB))
            nursery.start_soon(drain, connection * streams + number, there)
    await trio.sleep(60)
    nursery.cancel_scope.cancel()
    # A turn is a tenth of a second, and twenty of them are due between two of the same stream.
    assert max(longest) < 4
    assert max(taken) - min(taken) <= MIN_BURST + 20_000
    assert sum(taken) > 0.95 * 60 * 50_000


async def test_a_question_does_not_wait_long_behind_an_answer(join, nursery, autojump_clock):
    one, _, arrived = join(upload=50_000)
    here, there = await opened(one, arrived, CONTENT)
    nursery.start_soon(here.send_all, bytes(10 * MB))
    nursery.start_soon(read, there, 10 * MB)
    await trio.sleep(5)
    asking, asked = await opened(one, arrived, CONTENT)
    assert await timed(asking, asked, 100, nursery) < 1
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("ending", ["reset", "cancelled", "connection"])
async def test_who_goes_while_it_waits_for_its_turn_holds_up_nobody(
    nursery, autojump_clock, ending
):
    traffic, pairs = limited(0, 50_000), []
    for _ in range(2):
        one, two, arrived = connect(nursery, limited(), traffic)
        pairs.append((*await opened(one, arrived, CONTENT), two))
    scope = trio.CancelScope()

    async def leave(stream):
        with scope, contextlib.suppress(StreamError):
            await read(stream, 5 * MB)

    async def give(stream):
        with contextlib.suppress(StreamError):
            await stream.send_all(bytes(MB))

    for here, _, _ in pairs:
        nursery.start_soon(give, here)
    (_, goes, session), (_, stays, _) = pairs
    nursery.start_soon(leave, goes)
    await trio.sleep(2.05)  # it waits
    match ending:
        case "reset":
            await goes.reset()
        case "cancelled":
            scope.cancel()
        case "connection":
            session.close("gone")
    with trio.fail_after(16):  # what had arrived on the other is read too
        await read(stays, 500_000)
    nursery.cancel_scope.cancel()


async def test_a_stream_that_is_reset_while_it_waits_for_room_lets_the_next_go(
    join, nursery, autojump_clock
):
    one, _, arrived = join(upload=50_000)
    pairs = [await opened(one, arrived, CONTENT) for _ in range(6)]

    async def give(stream):
        with contextlib.suppress(StreamError):
            await stream.send_all(bytes(MB // 4))

    for here, _ in pairs:
        nursery.start_soon(give, here)
    await trio.sleep(2)
    for here, _ in pairs[:5]:
        await here.reset()
    with trio.fail_after(6):
        await read(pairs[5][1], MB // 4)


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

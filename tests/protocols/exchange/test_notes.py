"""What a fetch says of itself: from whom it comes and how fast, or why nothing comes."""

from __future__ import annotations

from functools import partial

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from protocols.exchange import core, notes, service
from protocols.exchange.core import Schedule, Sender
from protocols.exchange.errors import ContentNotFoundError, FetchStalledError
from protocols.exchange.notes import Standing, note
from storage.cid import of_raw
from storage.memory import MemoryBlockstore
from tests.protocols.exchange.conftest import copy_of, open_neighbourhood

FAST = Sender("12D3KooWFastmKxq", 8_100_000.0, 0.1)
SLOW = Sender("12D3KooWSlow9dTr", 2_000_000.0, 0.2)
NEW = Sender("12D3KooWNewcEab7", None, 0.1)
QUIET = Sender("12D3KooWQuietZz1", 5_000_000.0, 8.4)


@pytest.mark.parametrize(
    ("standing", "said"),
    [
        (Standing([FAST]), "from 1 peer: …mKxq 8.1 MB/s"),
        (Standing([SLOW, FAST]), "from 2 peers: …mKxq 8.1 MB/s, …9dTr 2.0 MB/s"),
        (Standing([NEW]), "asking …Eab7"),
        (
            Standing([FAST, QUIET, NEW]),
            "from 1 peer: …mKxq 8.1 MB/s; …tZz1 has sent nothing for 8 s",
        ),
        (Standing([QUIET, NEW]), "…tZz1 has sent nothing for 8 s; asking …Eab7"),
        (
            Standing([QUIET]),
            "…tZz1 has sent nothing for 8 s; others are looked for after 10 s",
        ),
        (
            Standing([QUIET, QUIET], dialling=2),
            "…tZz1, …tZz1 have sent nothing for 8 s; connecting to 2 peers",
        ),
        (Standing([FAST] * 5), f"from 5 peers: {', '.join(['…mKxq 8.1 MB/s'] * 3)} and 2 more"),
        (Standing(missing=3, is_checking=True), "checking and writing what came"),
        (Standing(), "reading what is here already"),
        (Standing(missing=1), "looking for peers that have it"),
        (Standing(missing=1, dialling=1), "connecting to 1 peer"),
        (
            Standing(missing=1, has_looked=True, again=3.2),
            "there is nobody to ask; looking again in 4 s",
        ),
        (
            Standing(missing=1_500, has_looked=True, answers=2),
            "nobody has the 1,500 missing chunks; looking again now",
        ),
        (
            Standing(missing=1, has_looked=True, answers=4, liars=1, unreachable=2, again=0.0),
            "1 peer sent wrong bytes, 2 peers cannot be reached, "
            "nobody has the missing chunk; looking again in 1 s",
        ),
        (
            Standing(missing=1, has_looked=True, answers=1, unreachable=1, again=1.0),
            "1 peer cannot be reached; looking again in 1 s",
        ),
    ],
)
def test_a_standing_reads(standing, said):
    assert note(standing) == said


COUNTS = st.integers(0, 2**40)
SENDERS = st.builds(
    Sender,
    st.text("12D3KooWabc", max_size=60),
    st.none() | st.floats(0, 1e18),
    st.floats(0, core.SILENCE_SECONDS + 1),
)


@given(
    st.builds(
        Standing,
        st.lists(SENDERS, max_size=64),
        missing=COUNTS,
        is_checking=st.booleans(),
        liars=st.integers(0, 2**20),
        dialling=st.integers(0, 2**20),
        unreachable=st.integers(0, 2**20),
        answers=COUNTS,
        has_looked=st.booleans(),
        again=st.none() | st.floats(-1, 100),
    )
)
def test_a_note_always_gives_a_reason_on_one_bounded_line(standing):
    said = note(standing)
    assert said
    assert said.isprintable()
    assert len(said) <= notes.MAX_NOTE_CHARACTERS


def test_a_schedule_knows_who_sends_how_fast_and_who_has_fallen_silent():
    schedule = Schedule(0.0)
    cids = [of_raw(bytes([at])) for at in range(30)]
    for cid in cids:
        schedule.add(cid, 2**20)
    assert (schedule.missing, schedule.senders(0.0)) == (30, ())
    schedule.join("fast", 0.0)
    schedule.join("silent", 0.0)
    asked = {one.peer: one.cids for one in schedule.tick(0.0, 8 * 2**20)}
    for at, cid in enumerate(asked["fast"]):
        now = (at + 1) / 16
        schedule.heard("fast", now)
        schedule.received("fast", cid, 2**20, now)
    schedule.tick(now, 16 * 2**20)
    assert schedule.senders(now + 0.2)[0].rate == schedule.rate("fast")
    fast, silent = schedule.senders(now + 2)
    assert (fast.peer, round(fast.rate), fast.silent) == ("fast", 2**19, 2.0)
    assert (silent.peer, silent.rate, silent.silent) == ("silent", None, now + 2)
    assert schedule.missing == 30 - len(asked["fast"])


def test_who_owes_only_what_has_come_from_another_is_no_sender():
    schedule = Schedule(0.0)
    cid = of_raw(b"a")
    schedule.add(cid, 1)
    schedule.join("late", 0.0)
    schedule.tick(0.0, 2**20)
    schedule.received("other", cid, 1, 1.0)
    assert schedule.senders(2.0) == ()


def said_of(told):
    """The notes in their order, each once where it stands in a row."""
    found = [each for _, _, each in told]
    return [one for one, before in zip(found, [None, *found], strict=False) if one != before]


@pytest.mark.slow
async def test_a_fetch_tells_from_whom_it_comes_and_clears_that_at_its_end(
    published, patient_clock
):
    store, root = published
    async with open_neighbourhood(latency_s=0.4) as near:
        giver, taker = await near.node(copy_of(store)), await near.node()
        told = []
        await taker.exchange.fetch(root, progress=lambda *now: told.append(now))
    said = said_of(told)
    assert any(one.startswith(f"from 1 peer: …{giver.peer[-4:]} ") for one in said)
    assert said[-1] == ""


@pytest.mark.slow
async def test_a_stalled_fetch_tells_who_fell_silent_and_what_is_done_about_it(
    published, patient_clock
):
    store, root = published
    async with open_neighbourhood(latency_s=0.05) as near:
        giver, taker = await near.node(store), await near.node()
        told = []

        def stall(*now) -> None:
            told.append(now)
            if now[0] > 3 * 2**20:
                near.network.stall(giver.peer, taker.peer)

        with pytest.raises(FetchStalledError):
            await taker.exchange.fetch(root, progress=stall)
    silent = f"…{giver.peer[-4:]} has sent nothing for 8 s; others are looked for after 10 s"
    assert silent in said_of(told)


@pytest.mark.slow
async def test_a_fetch_whose_chunks_nobody_has_tells_how_many_and_when_it_looks_again(
    published, patient_clock
):
    store, root = published
    leaves = [cid for cid in store.chunks if cid != root]
    part = copy_of(store)
    for cid in leaves[:3]:
        del part.chunks[cid]
    async with open_neighbourhood() as near:
        await near.node(part)
        taker = await near.node()
        told = []
        with pytest.raises(ContentNotFoundError):
            await taker.exchange.fetch(root, progress=lambda *now: told.append(now))
    said = said_of(told)
    why = "nobody has the 3 missing chunks; looking again in"
    assert any(one.startswith(why) for one in said)


async def test_a_fetch_that_finds_nobody_says_so(published, autojump_clock, threadless):
    _, root = published
    async with open_neighbourhood() as near:
        taker = await near.node()
        told = []
        with pytest.raises(ContentNotFoundError):
            await taker.exchange.fetch(root, progress=lambda *now: told.append(now), patience=4.0)
    assert "there is nobody to ask; looking again in 1 s" in said_of(told)


@pytest.mark.slow
async def test_a_peer_that_lied_is_the_reason_that_nothing_comes(published, patient_clock):
    store, root = published

    class Lying(MemoryBlockstore):
        def get(self, cid):
            return self.chunks[cid][::-1]

    liar = Lying()
    liar.chunks.update(store.chunks)
    async with open_neighbourhood() as near:
        await near.node(liar)
        taker = await near.node()
        told = []
        with pytest.raises(ContentNotFoundError):
            await taker.exchange.fetch(root, progress=lambda *now: told.append(now), patience=4.0)
    assert "1 peer sent wrong bytes; looking again in 1 s" in said_of(told)


async def test_a_fetch_that_waits_for_its_turn_says_so(published, monkeypatch, autojump_clock):
    _, root = published
    monkeypatch.setattr(service, "MAX_FETCHES", 1)
    async with open_neighbourhood() as near, trio.open_nursery() as nursery:
        taker = await near.node()
        nursery.start_soon(taker.exchange.fetch, root)
        await wait_all_tasks_blocked()
        told = []
        nursery.start_soon(
            partial(taker.exchange.fetch, root, progress=lambda *now: told.append(now))
        )
        await wait_all_tasks_blocked()
        assert told == [(0, 0, "waiting until one of 1 other fetches ends")]
        nursery.cancel_scope.cancel()

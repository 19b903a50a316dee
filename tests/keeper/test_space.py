"""What is lent holds at every write, and who finds no room waits until slots have given way."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from storage import cid as cids
from storage.blockstore import SegmentBlockstore
from storage.errors import QuotaError
from storage.slot_contents import SlotContents
from storage.slots import SLOT_COST, SlotStore
from storage.unixfs import add_path
from swarm.keeper.making_room import MakingRoom, PatientExchange
from swarm.keeper.space import LentSpace, bytes_below
from swarm.store.collector import StoreCollector
from tests.protocols.exchange.conftest import open_neighbourhood
from tests.store.nodes import nothing_known

MIB = 2**20
LENT = 12 * SLOT_COST
LOOK = 15
"""Seconds between two looks of a keeper."""


class Folder:
    """A store, its space and slots, and a shelf that takes so many bytes."""

    def __init__(self, path, lent=LENT):
        self.path = path
        self.shelf = 0
        self.store = SegmentBlockstore(path / "chunks", lent, keep_free=0)
        self.space = LentSpace(self.store, lent, lambda: self.shelf)
        self.slots = SlotStore(path / "slots", b"k" * 32, b"c" * 32, 4, 1, space=self.space)
        self.contents = SlotContents(self.slots, self.store)

    def put(self, size):
        data = os.urandom(size)
        self.store.put_many([(cids.of_raw(data), data)])

    def on_disk(self):
        return self.shelf + bytes_below(self.path / "slots") + self.store.usage().used

    def close(self):
        self.slots.close()
        self.store.close()


@pytest.fixture
def patient_clock():
    """Virtual time that jumps only when no thread is at work either."""
    return MockClock(autojump_threshold=0.02)


@pytest.fixture
def folder(tmp_path):
    found = Folder(tmp_path)
    yield found
    found.close()


def test_neither_chunks_nor_slots_nor_files_go_beyond_what_is_lent(folder):
    for _ in range(7):
        folder.slots.append()
    for _ in range(3):
        folder.put(MIB)
    folder.shelf = MIB + MIB // 2
    folder.space.look()
    with pytest.raises(QuotaError):
        folder.put(2 * MIB)
    with pytest.raises(QuotaError):
        folder.slots.append()
    assert 0 <= folder.space.free < SLOT_COST
    folder.shelf += 2 * MIB
    with pytest.raises(QuotaError):
        folder.space.look()
    folder.shelf -= 2 * MIB
    folder.space.look()
    database = bytes_below(folder.path / "slots") - len(folder.slots) * MIB
    assert folder.on_disk() - database <= LENT


def test_a_slot_that_is_replaced_takes_room_until_it_is_settled(folder):
    for _ in range(8):
        folder.slots.append()
    folder.slots.settle(folder.slots.stage().root)
    free = folder.space.free
    data = os.urandom(MIB)
    folder.slots.replace(0, (cids.of_raw(data), data))
    assert folder.space.free == free - SLOT_COST
    folder.slots.settle(folder.slots.stage().root)
    assert folder.space.free == free
    folder.slots.shrink(4)
    assert folder.space.free == free + 4 * SLOT_COST


def test_who_lends_less_keeps_what_is_here_and_writes_no_more(folder):
    for _ in range(8):
        folder.slots.append()
    folder.space.lend(4 * SLOT_COST)
    assert folder.space.free < 0
    with pytest.raises(QuotaError):
        folder.put(100)
    with pytest.raises(QuotaError):
        folder.slots.append()
    folder.slots.shrink(2)
    folder.put(MIB)


def test_slots_of_another_start_count_where_nobody_keeps(tmp_path):
    first = Folder(tmp_path)
    for _ in range(5):
        first.slots.append()
    first.close()
    again = Folder(tmp_path)
    assert again.space.slots == 5 * SLOT_COST
    assert again.store.usage().limit == LENT - 5 * SLOT_COST
    again.close()


@asynccontextmanager
async def making_room(folder, opens, look_seconds=LOOK):
    """What a keeper does once a look, when the ledger lets it."""
    waiting = MakingRoom(
        folder.space,
        folder.store,
        folder.slots,
        lambda: "slots give way",
        trio.CapacityLimiter(1),
    )

    async def look():
        while True:
            waiting.look()
            if opens.is_set() and waiting.wanted > folder.space.free:
                fits = (folder.space.free + folder.space.slots - waiting.wanted) // SLOT_COST
                folder.slots.shrink(max(0, fits))
            waiting.looked()
            await trio.sleep(look_seconds)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        yield waiting
        nursery.cancel_scope.cancel()


async def test_who_finds_no_room_waits_for_slots_and_is_told_so(folder, patient_clock):
    for _ in range(9):
        folder.slots.append()
    opens, told = trio.Event(), []

    async def publish():
        return await trio.to_thread.run_sync(folder.store.reserve, 6 * MIB)

    async with making_room(folder, opens) as waiting, trio.open_nursery() as nursery:

        async def work():
            with await waiting.patiently(publish, told.append):
                assert folder.store.usage().reserved >= 6 * MIB
            told.append("done")

        nursery.start_soon(work)
        await trio.sleep(70)
        assert told
        assert set(told) == {"slots give way"}
        assert len(folder.slots) == 9
        opens.set()
    assert told[-1] == "done"
    assert 1 <= len(folder.slots) < 6


async def test_a_fetch_that_waits_for_slots_says_so_beside_what_is_here(folder, patient_clock):
    for _ in range(9):
        folder.slots.append()
    opens, told = trio.Event(), []

    async def fetch(tell):
        tell(1, 6 * MIB, "from 1 peer: …mKxq 8.1 MB/s")
        with await trio.to_thread.run_sync(folder.store.reserve, 6 * MIB):
            tell(6 * MIB, 6 * MIB)

    async with making_room(folder, opens) as waiting, trio.open_nursery() as nursery:
        nursery.start_soon(waiting.fetching, fetch, lambda *now: told.append(now))
        await trio.sleep(70)
        assert told[-1] == (1, 6 * MIB, "slots give way")
        opens.set()
    assert told[-1] == (6 * MIB, 6 * MIB, "")


async def test_who_asks_for_more_than_could_ever_be_free_is_refused_at_once(folder, patient_clock):
    for _ in range(8):
        folder.slots.append()
    folder.slots.settle(folder.slots.stage().root)
    data = os.urandom(MIB)
    folder.slots.replace(1, (cids.of_raw(data), data))
    folder.slots.settle(folder.slots.stage().root)
    opens = trio.Event()
    opens.set()
    async with making_room(folder, opens) as waiting:
        began = trio.current_time()
        with pytest.raises(QuotaError):
            await waiting.wait(LENT - SLOT_COST)  # the chunk's slot stays, and the one below it
        assert trio.current_time() == began
        await waiting.wait(9 * MIB)
        assert len(folder.slots) < 4
        assert folder.slots.get(cids.of_raw(data)) == data


async def test_dead_bytes_of_what_moved_into_slots_are_collected_when_they_are_what_is_lacking(
    folder,
):
    """Nobody makes a slot give way here: the room can come from nowhere else."""
    pinned = os.urandom(1_000)
    folder.store.put_many([(cids.of_raw(pinned), pinned)])
    folder.store.pin(cids.of_raw(pinned), "mine")
    for _ in range(4):
        folder.slots.append()
    folder.slots.settle(folder.slots.stage().root)
    chunks = [os.urandom(MIB) for _ in range(3)]
    folder.store.put_many([(cids.of_raw(data), data) for data in chunks])
    for data in chunks:
        assert folder.contents.put(cids.of_raw(data), 4)
    folder.slots.settle(folder.slots.stage().root)
    collector = StoreCollector(folder.store, nothing_known)
    waiting = MakingRoom(
        folder.space, folder.store, folder.slots, str, trio.CapacityLimiter(1), collector.reclaim
    )
    with pytest.raises(QuotaError):
        await waiting.wait(7 * MIB)  # nothing was let go, as far as anybody said
    collector.released()
    await waiting.wait(7 * MIB)
    assert folder.space.free >= 7 * MIB
    assert all(folder.store.get(cids.of_raw(data)) == data for data in [*chunks, pinned])
    assert await collector.reclaim() == 0


async def test_room_that_does_not_come_is_not_waited_for_without_end(folder, patient_clock):
    for _ in range(9):
        folder.slots.append()
    async with making_room(folder, trio.Event()) as waiting:
        with pytest.raises(QuotaError):
            await waiting.wait(6 * MIB)
        waiting.look()
        assert waiting.wanted == 0


async def test_slots_give_way_for_a_while_to_who_was_refused_and_may_ask_again(
    folder, patient_clock
):
    for _ in range(9):
        folder.slots.append()
    opens = trio.Event()
    opens.set()
    async with making_room(folder, opens) as waiting:
        with pytest.raises(QuotaError):
            folder.store.reserve(5 * MIB)
        await trio.sleep(LOOK + 1)
        with folder.store.reserve(5 * MIB):
            pass
        await trio.sleep(200)
        assert waiting.wanted == 0
        with pytest.raises(QuotaError):
            folder.store.reserve(1_000 * MIB)
        await trio.sleep(LOOK + 1)
        assert waiting.wanted == 0


@pytest.mark.slow
async def test_a_fetch_waits_for_room_and_goes_on_where_it_was(tmp_path):
    (tmp_path / "file").write_bytes(os.urandom(6 * MIB))
    folder = Folder(tmp_path / "here")
    for _ in range(10):
        folder.slots.append()
    opens = trio.Event()
    opens.set()
    async with open_neighbourhood() as near:
        giver = await near.node()
        root = add_path(tmp_path / "file", giver.store).root
        exchange = PatientExchange(near.transport(), folder.store)
        exchange.register()
        async with making_room(folder, opens, 0.1) as waiting, trio.open_nursery() as nursery:
            await nursery.start(exchange.run)
            with pytest.raises(QuotaError):
                await exchange.fetch(root, [giver.peer])
            exchange.making_room = waiting
            await exchange.fetch(root, [giver.peer])
            nursery.cancel_scope.cancel()
    assert folder.store.has(root)
    assert folder.space.free >= 0
    folder.close()

"""What goes into slots, and what may wait when a chunk does not."""

from __future__ import annotations

import errno
import os

import pytest
import trio
from trio.testing import MockClock

from storage import cid as cids
from storage.blockstore import SegmentBlockstore
from storage.sealer import Pace
from storage.slot_contents import SlotContents
from storage.slots import SlotStore
from swarm.keeper.cellar import Cellar

MIB = 2**20


class Duties:
    """Leaves that are pieces of their own."""

    has_let_go = False

    def __init__(self, roots):
        self._cold = roots[::-1]

    def take_cold(self):
        return self._cold.pop() if self._cold else None


class Holed(SegmentBlockstore):
    """A store on a disk with places that cannot be read until they are mended."""

    def __init__(self, folder):
        super().__init__(folder, 2**30, keep_free=0)
        self.holes = set()

    def get(self, cid):
        if cid in self.holes:
            raise OSError(errno.EIO, "Input/output error")
        return super().get(cid)


@pytest.fixture
def patient_clock():
    """Virtual time that jumps only when no thread is at work either."""
    return MockClock(autojump_threshold=0.05)


@pytest.mark.slow
async def test_a_damaged_chunk_that_should_move_down_keeps_no_other_from_its_slot(
    tmp_path, patient_clock
):
    store = SegmentBlockstore(tmp_path / "chunks", 2**30, keep_free=0)
    slots = SlotStore(tmp_path / "slots", b"k" * 32, b"c" * 32, 4, 1)
    contents = SlotContents(slots, store)
    damaged, fresh = ((cids.of_raw(data), data) for data in (os.urandom(MIB), os.urandom(MIB)))
    for chunk in (None, None, None, damaged):
        slots.append(chunk)
    slots.settle(slots.stage().root)
    with (tmp_path / "slots" / "000000.slots").open("r+b") as file:
        file.seek(3 * MIB)
        file.write(bytes(MIB))
    store.put_many([fresh])
    duties = Duties([fresh[0]])
    cellar = Cellar(
        slots, contents, duties, pace=lambda: Pace(1.0), batch=lambda: 4, stay=lambda: 2
    )

    async def until_found(cid):
        while store.index.find(cid) is not None:  # noqa: ASYNC110 - a thread seals
            await trio.sleep(0.1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(cellar.run)
        with trio.fail_after(60):
            await until_found(fresh[0])
        assert store.get(fresh[0]) == fresh[1]
        assert store.missing([damaged[0]]) == [damaged[0]]
        store.put_many([damaged])  # a peer had it
        duties._cold.append(damaged[0])
        with trio.fail_after(60):
            await until_found(damaged[0])
        nursery.cancel_scope.cancel()
    assert store.get(damaged[0]) == damaged[1]
    slots.close()
    store.close()


async def test_a_chunk_that_cannot_be_put_away_lets_the_others_pass_and_is_tried_again(
    tmp_path, patient_clock
):
    store = Holed(tmp_path / "chunks")
    slots = SlotStore(tmp_path / "slots", b"k" * 32, b"c" * 32, 4, 1)
    contents = SlotContents(slots, store)
    for _ in range(3):
        slots.append()
    slots.settle(slots.stage().root)
    leaves = []
    for _ in range(3):
        data = os.urandom(MIB)
        leaves.append(cids.of_raw(data))
        store.put_many([(leaves[-1], data)])
    store.holes.add(leaves[0])
    cellar = Cellar(
        slots, contents, Duties(leaves), pace=lambda: Pace(1.0), batch=lambda: 4, stay=lambda: 3
    )

    async def until_held(count):
        while slots.holding < count:  # noqa: ASYNC110 - a thread seals
            await trio.sleep(0.1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(cellar.run)
        with trio.fail_after(60):
            await until_held(2)
        assert [slots.find(leaf) is None for leaf in leaves] == [True, False, False]
        store.holes.clear()
        with trio.fail_after(60):
            await until_held(3)
        nursery.cancel_scope.cancel()
    assert store.get(leaves[0])
    slots.close()
    store.close()

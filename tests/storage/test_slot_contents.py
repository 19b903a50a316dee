"""Chunks between the store and the slots: at every moment one of the two gives them."""

from __future__ import annotations

import errno
import os
import random
import shutil
import tempfile
from pathlib import Path

import pytest

from storage import cid as cids
from storage import dag
from storage.blockstore import SegmentBlockstore
from storage.collection import Collector
from storage.errors import ChunkNotFoundError, CorruptChunkError, DiskFullError, StorageError
from storage.sealing import SLOT_BYTES
from storage.slot_contents import SlotContents
from storage.slots import SlotStore
from storage.unixfs import add_path, read_file
from storage.walk import missing_below
from tests.storage.faulty_disk import BROKEN, FULL, FaultyDisk

KEY, CHAIN = b"k" * 32, b"c" * 32
SLOTS = 8


@pytest.fixture
def folder():
    """In memory where there is such a place: SQLite syncs at each change."""
    memory = Path("/dev/shm")  # noqa: S108
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        yield Path(name)


class Keeper:
    """A store, slots of zeros that are settled, and a piece of three chunks in the store."""

    def __init__(self, folder, **slots):
        self.folder = folder
        self.store = SegmentBlockstore(folder / "chunks", 2**30, keep_free=0)
        self.slots = SlotStore(folder / "slots", KEY, CHAIN, 4, 1, **slots)
        self.contents = SlotContents(self.slots, self.store)

    def fill(self):
        while len(self.slots) < SLOTS:
            self.slots.append()
        self.settle()
        return self

    def settle(self):
        self.slots.settle(self.slots.stage().root)

    def piece(self, seed, chunks=3):
        path = self.folder / f"piece {seed}"
        path.write_bytes(random.Random(seed).randbytes(chunks * 2**20 - 100))
        return add_path(path, self.store).root, path.read_bytes()

    def put_away(self, root):
        waiting = self.contents.waiting(root)
        for cid in waiting:
            assert self.contents.put(cid, SLOTS)
        return waiting

    def read(self, root):
        return b"".join(read_file(root, self.store))

    def close(self):
        self.slots.close()
        self.store.close()


@pytest.fixture
def keeper(folder):
    found = Keeper(folder).fill()
    yield found
    found.close()


def zeros(keeper):
    return SLOTS - keeper.slots.holding


def test_a_piece_lies_in_slots_once_and_is_read_as_before(keeper):
    root, data = keeper.piece(1)
    keeper.store.hold(root, "duty")
    leaves = keeper.put_away(root)
    assert len(leaves) == 3
    assert all(keeper.store.index.find(cid) is None for cid in leaves)
    assert keeper.store.missing([root, *leaves]) == []
    assert [keeper.store.size(cid) for cid in leaves] == [2**20, 2**20, 2**20 - 100]
    assert keeper.read(root) == data
    keeper.settle()
    assert keeper.read(root) == data
    assert keeper.contents.waiting(root) == []
    Collector(keeper.store, dead_share=0.0).run_once()
    assert keeper.store.usage().used < 2**20
    assert list(missing_below(root, keeper.store, dag.links)) == []


def test_small_chunks_and_manifests_stay_in_the_store(keeper):
    path = keeper.folder / "small"
    path.write_bytes(b"x" * 2_000)
    small = add_path(path, keeper.store).root
    assert keeper.contents.waiting(small) == []
    root, _ = keeper.piece(1)
    assert root not in keeper.put_away(root)
    assert keeper.store.index.find(root) is not None


def test_where_no_zeros_are_left_below_the_bound_a_chunk_stays_where_it_is(keeper):
    root, data = keeper.piece(1)
    first, second, third = keeper.contents.waiting(root)
    assert keeper.contents.put(first, 2)
    assert keeper.contents.put(second, 2)
    assert not keeper.contents.put(third, 2)
    assert keeper.store.index.find(third) is not None
    assert keeper.read(root) == data


def test_a_slot_goes_back_to_zeros_when_nothing_reaches_its_chunk(keeper):
    (root, data), (other, rest) = keeper.piece(1), keeper.piece(2)
    for one in (root, other):
        keeper.store.hold(one, "duty")
        keeper.put_away(one)
    keeper.settle()
    keeper.store.release(root, "duty")
    assert keeper.contents.clear(2) == 2
    assert keeper.contents.clear(2) == 1
    assert keeper.contents.clear(2) == 0
    keeper.settle()
    assert zeros(keeper) == SLOTS - 3
    assert keeper.read(other) == rest
    with pytest.raises(ChunkNotFoundError):
        keeper.read(root)
    assert data != rest


def test_a_chunk_that_its_owner_pinned_stays_when_the_deal_is_over(keeper):
    root, data = keeper.piece(1)
    keeper.store.hold(root, "duty")
    keeper.put_away(root)
    keeper.store.pin(root, "mine")
    keeper.store.release(root, "duty")
    assert keeper.contents.clear(9) == 0
    keeper.store.unpin(root)
    with keeper.store.lease("fetch", root):
        assert keeper.contents.clear(9) == 0
    assert keeper.read(root) == data


def test_a_chunk_that_work_in_progress_found_to_be_held_is_not_taken_from_it(keeper):
    root, _ = keeper.piece(1)
    found, *others = keeper.put_away(root)
    keeper.settle()
    with keeper.store.lease("work"):
        assert keeper.store.missing([found]) == []
        assert keeper.contents.clear(9) == len(others)
        assert keeper.store.has(found)
    assert keeper.contents.clear(9) == 1


def test_what_is_about_to_be_emptied_counts_as_missing_already(keeper):
    root, _ = keeper.piece(1)
    keeper.put_away(root)
    keeper.settle()
    seen = []
    replace = keeper.slots.replace

    def watched(slot, chunk):
        seen.append(keeper.store.has(keeper.slots.chunk_in(slot)))
        replace(slot, chunk)

    keeper.slots.replace = watched
    assert keeper.contents.clear(9) == 3
    assert seen == [False] * 3


def test_while_a_manifest_that_is_kept_is_unreadable_nothing_is_emptied(keeper):
    (root, _), (gone, _) = keeper.piece(1), keeper.piece(2)
    for one in (root, gone):
        keeper.store.hold(one, "duty")
        keeper.put_away(one)
    keeper.settle()
    place = keeper.store.index.find(gone)
    segment = next((keeper.folder / "chunks").glob("*.seg"))
    with segment.open("r+b") as file:
        file.seek(place.offset + 50)
        file.write(b"damage")
    with pytest.raises(CorruptChunkError):
        keeper.store.get(gone)
    keeper.store.release(root, "duty")
    assert keeper.contents.clear(9) == 0


def test_the_last_chunk_moves_down_where_slots_are_to_be_given_back(keeper):
    (root, data), (other, rest) = keeper.piece(1), keeper.piece(2)
    for one in (root, other):
        keeper.store.hold(one, "duty")
        keeper.put_away(one)
    keeper.settle()
    keeper.store.release(root, "duty")
    keeper.contents.clear(9)
    keeper.settle()
    assert keeper.slots.top == 6
    assert not keeper.contents.move_down(6)
    while keeper.contents.move_down(3):
        assert keeper.read(other) == rest
    keeper.settle()
    assert keeper.slots.top == 3
    keeper.slots.shrink(3)
    assert keeper.read(other) == rest
    assert data != rest


def test_a_moment_without_file_handles_loses_no_chunk(keeper, monkeypatch):
    root, data = keeper.piece(1)
    sealed = keeper.put_away(root)
    keeper.settle()

    def refuse(*_, **__):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as context:
        context.setattr(Path, "open", refuse)
        with pytest.raises(OSError, match="Too many open files"):
            keeper.store.get(sealed[0])
    assert keeper.store.missing(sealed) == []
    assert keeper.store.damaged() == frozenset()
    assert keeper.read(root) == data


def test_a_damaged_slot_is_mended_with_what_was_fetched_again(keeper):
    root, data = keeper.piece(1)
    keeper.store.hold(root, "duty")
    leaves = keeper.put_away(root)
    keeper.settle()
    version = keeper.slots.settled
    with (keeper.folder / "slots" / "000000.slots").open("r+b") as file:
        file.write(bytes(SLOT_BYTES))
    with pytest.raises(CorruptChunkError):
        keeper.read(root)
    assert keeper.store.missing(leaves) == [leaves[0]]
    keeper.store.put_many([(leaves[0], data[: 2**20])])
    assert keeper.contents.waiting(root) == [leaves[0]]
    keeper.put_away(root)
    assert keeper.read(root) == data
    assert (keeper.slots.verify(), keeper.slots.settled) == ([], version)


def test_a_chunk_whose_damaged_slot_was_emptied_counts_as_held_in_its_next_slot(keeper):
    root, data = keeper.piece(1)
    keeper.store.hold(root, "duty")
    leaves = keeper.put_away(root)
    keeper.settle()
    with (keeper.folder / "slots" / "000000.slots").open("r+b") as file:
        file.write(bytes(SLOT_BYTES))
    with pytest.raises(CorruptChunkError):
        keeper.read(root)
    keeper.store.release(root, "duty")
    assert keeper.contents.clear(9) == 3
    keeper.settle()
    assert keeper.piece(1)[0] == root
    keeper.store.hold(root, "duty")
    assert len(keeper.put_away(root)) == 3
    assert keeper.store.missing(leaves) == []
    assert keeper.read(root) == data


def test_the_name_of_a_file_of_slots_is_durable_though_its_first_write_failed(folder):
    disk = FaultyDisk()
    slots = SlotStore(folder / "slots", KEY, CHAIN, 4, 1, files=disk)
    disk.faults = {disk.operations + 2: FULL}
    with pytest.raises(DiskFullError):
        slots.append()
    assert slots.append() == 0
    assert "000000.slots" in disk.durable_names
    slots.close()


class SlotDisk(FaultyDisk):
    """Leaves of the folder of slots what a stop at this moment would, beside the databases as they are."""

    def image(self, keeper, target, source):
        power = source.random() < 0.5
        for part in ("chunks", "slots"):
            shutil.copytree(
                keeper.folder / part, target / part, ignore=lambda *_: ["lock", "pending"]
            )
        (target / "slots" / "pending").mkdir()
        for old in (target / "slots").glob("*.slots"):
            old.unlink()
        names = self.names if not power else self.with_some(source)
        for name, inode in names.items():
            place = target / "slots" / ("pending" if name.endswith(".slot") else ".")
            share = source.choice([0.0, 0.5, 1.0]) if power else 1.0
            (place / name).write_bytes(inode.some(lambda _, share=share: share))

    def with_some(self, source):
        names = dict(self.durable_names)
        for change in self.name_changes:
            if source.random() < 0.5:
                for name, inode in change:
                    names.pop(name, None)
                    if inode is not None:
                        names[name] = inode
        return names


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_the_machine_may_stop_at_any_write_and_the_piece_is_read(folder, seed):
    source = random.Random(seed)
    disk = SlotDisk()
    (folder / "now").mkdir()
    keeper = Keeper(folder / "now", files=disk).fill()
    root, data = keeper.piece(1)
    keeper.store.hold(root, "duty")
    stops = []

    def stop(operation):
        stops.append(operation)
        target = folder / "image"
        target.mkdir()
        disk.image(keeper, target, source)
        after = Keeper(target)
        try:
            assert after.read(root) == data
            assert after.slots.settled.slots in {SLOTS, 4}
            after.put_away(root)
            after.slots.settle((after.slots.staged or after.slots.stage()).root)
            assert after.read(root) == data
            assert after.slots.verify() == []
        finally:
            after.close()
            shutil.rmtree(target)

    disk.before = stop
    keeper.put_away(root)
    keeper.settle()
    keeper.slots.shrink(4)
    stop("the end")
    assert {"create", "write", "sync", "sync folder", "unlink", "truncate"} <= set(stops)
    disk.before = lambda _: None
    keeper.close()


@pytest.mark.slow
@pytest.mark.parametrize("code", [FULL, BROKEN])
def test_any_write_may_be_refused_and_the_piece_is_read(folder, code):
    for number in range(1, 24, 6):
        home = folder / str(number)
        home.mkdir()
        disk = FaultyDisk()
        keeper = Keeper(home, files=disk).fill()
        root, data = keeper.piece(1)
        keeper.store.hold(root, "duty")
        disk.faults = {disk.operations + number: code}
        expected = DiskFullError if code == FULL else (StorageError, OSError)
        try:
            keeper.put_away(root)
            keeper.settle()
        except expected:
            assert keeper.read(root) == data
        keeper.put_away(root)
        if keeper.slots.staged is None:
            keeper.slots.stage()
        keeper.slots.settle(keeper.slots.staged.root)
        assert keeper.read(root) == data
        assert cids.codec(root) != cids.RAW
        keeper.close()

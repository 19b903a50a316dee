"""Thousands of operations in any order beside a dict that says what was promised: nothing of it is lost, and all is counted."""

from __future__ import annotations

import random
import shutil
import tempfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from storage import cid as cids
from storage.collection import Collector
from storage.dag_pb import Link
from storage.errors import CorruptChunkError
from storage.leases import Lease
from storage.references import FileState, Reference
from storage.unixfs_nodes import folder_node
from tests.storage.faulty_disk import FaultyDisk
from tests.storage.trees import accounted, leaf, open_store, tree

OPERATIONS = {
    "begin": 10,
    "go_on": 40,
    "give_up": 2,
    "unpin": 5,
    "release": 5,
    "hand_over": 2,
    "collect_some": 25,
    "collect_all": 4,
    "read_damage": 1,
    "restart": 1,
}


@pytest.fixture
def folder():
    """In memory where there is such a place: SQLite syncs at each change."""
    memory = Path("/dev/shm")  # noqa: S108
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        yield Path(name)


@dataclass
class Work:
    """A publish or a fetch under way, and what it counts on."""

    root: bytes
    chunks: dict
    lease: Lease
    is_in_place: bool
    left: list
    here: dict = field(default_factory=dict)


class Model:
    """A store, and what it has promised."""

    def __init__(self, folder, seed):
        self.folder = folder
        self.random = random.Random(seed)
        self.stops = random.Random(seed)
        self.pinned, self.held, self.works = {}, {}, []
        self.collection, self.number, self.images = None, 0, 0
        self.open()

    def open(self):
        place = self.folder / "chunks"
        self.disk = FaultyDisk()
        for path in [*place.glob("*.seg"), *place.glob("format")]:
            self.disk.inode(path)
        size = self.random.choice([4_096, 9_000, 40_000])
        self.store = open_store(place, segment_bytes=size, files=self.disk)
        self.disk.before = self.stop

    def close(self):
        self.disk.before = lambda _: None
        if self.collection is not None:
            self.collection.close()
            self.collection = None
        self.store.close()

    def promised(self):
        found = [*self.pinned.values(), *self.held.values(), *(one.here for one in self.works)]
        return {cid: data for chunks in found for cid, data in chunks.items()}

    def check(self, store):
        promised = self.promised()
        assert store.missing(promised, count_on=False) == []
        assert {cid: store.get(cid) for cid in promised} == promised
        assert accounted(store)

    def turn(self):
        name = self.random.choices([*OPERATIONS], [*OPERATIONS.values()])[0]
        getattr(self, name)()
        self.check(self.store)
        on_disk = sum(path.stat().st_size for path in (self.folder / "chunks").glob("*.seg"))
        assert self.store.log.size == on_disk

    def stop(self, _):
        """The machine stops at this moment, now and then."""
        if self.stops.random() > 0.1:
            return
        self.images += 1
        image = self.folder / "image"
        leave = self.stops.choice([self.disk.after_kill, self.disk.after_power_cut])
        leave(self.folder / "chunks", image, self.stops)
        store = open_store(image)
        self.check(store)
        collected = Collector(store, dead_share=0.0).run_once()
        assert collected.unreadable == collected.damaged == []
        assert accounted(store)
        for chunks in [*self.pinned.values(), *self.held.values()]:
            assert {cid: store.get(cid) for cid in chunks} == chunks
        store.close()
        shutil.rmtree(image)

    # Operations

    def begin(self):
        if len(self.works) == 4:
            return
        self.number += 1
        seeds = [self.random.randrange(30) for _ in range(self.random.randint(1, 8))]
        leaves = [leaf(seed, (50, 300, 900)[seed % 3]) for seed in seeds]
        root, chunks = tree(self.number % self.random.choice([7, 10_000]), leaves)
        if self.random.random() < 0.4:
            built, block = folder_node([Link(root, "below", 10)])
            root, chunks = built.cid, chunks | {built.cid: block}
        about = root if self.random.random() < 0.3 else None
        is_in_place = self.random.random() < 0.2
        lease = self.store.lease("work", about)
        self.works.append(Work(root, chunks, lease, is_in_place, list(chunks)))

    def go_on(self):
        if not self.works:
            return
        work = self.random.choice(self.works)
        if not work.left:
            self.keep(work)
            return
        self.random.shuffle(work.left)
        count = self.random.randint(1, len(work.left))
        some, work.left = work.left[:count], work.left[count:]
        copied = some
        if work.is_in_place:
            copied = [cid for cid in some if cids.codec(cid) != cids.RAW]
            files = [cid for cid in some if cids.codec(cid) == cids.RAW]
            self.store.add_references([self.reference(cid, work.chunks[cid]) for cid in files])
        elif self.random.random() < 0.7:
            copied = self.store.missing(some)
        with self.store.reserve(self.random.randrange(2_000)) as room:
            self.store.put_many([(cid, work.chunks[cid]) for cid in copied], room)
        work.here |= {cid: work.chunks[cid] for cid in some}

    def reference(self, cid, data):
        path = self.folder / cid.hex()
        if not path.exists():
            path.write_bytes(data)
        return Reference(cid, path, 0, len(data), zlib.crc32(data), FileState.of(path.stat()))

    def keep(self, work):
        how = self.random.random()
        if how < 0.4:
            self.store.pin(work.root, "kept")
            self.pinned[work.root] = work.chunks
        elif how < 0.8:
            self.store.hold(work.root, "duty")
            self.held[work.root] = work.chunks
        self.works.remove(work)
        work.lease.close()

    def give_up(self):
        if self.works:
            self.works.pop(self.random.randrange(len(self.works))).lease.close()

    def unpin(self):
        if self.pinned:
            root = self.random.choice(sorted(self.pinned))
            del self.pinned[root]
            self.store.unpin(root)

    def release(self):
        if self.held:
            root = self.random.choice(sorted(self.held))
            del self.held[root]
            self.store.release(root, "duty")

    def hand_over(self):
        """A pin becomes a hold."""
        if self.pinned:
            root = self.random.choice(sorted(self.pinned))
            self.store.hold(root, "duty")
            self.held[root] = self.pinned.pop(root)
            self.store.unpin(root)

    def collect_some(self):
        if self.collection is None:
            share = self.random.choice([0.0, 0.3, 0.5])
            self.collection = Collector(self.store, dead_share=share).steps()
        for _ in range(self.random.randint(1, 6)):
            if next(self.collection, None) is None:
                self.collection = None
                return

    def collect_all(self):
        if self.collection is None:
            collected = Collector(self.store, dead_share=0.0).run_once()
            assert collected.unreadable == collected.damaged == []
        else:
            list(self.collection)
            self.collection = None

    def read_damage(self):
        """A sector goes bad in a chunk, somebody reads it, and it is put again."""
        rows = list(self.store.index.rows())
        if not rows or self.collection is not None:
            return
        cid, place = self.random.choice(rows)
        data = self.store.get(cid)
        path = self.folder / "chunks" / f"{place.segment:08}.seg"
        inode, at = self.disk.inode(path), place.offset + 60
        inode.durable, inode.since = bytearray(inode.all()), []
        inode.durable[at] ^= 1
        path.write_bytes(inode.durable)
        with pytest.raises(CorruptChunkError):
            self.store.get(cid)
        self.disk.before = lambda _: None
        self.store.put_many([(cid, data)], verify=True)
        self.disk.before = self.stop
        assert cid not in self.store.damaged()

    def restart(self):
        for work in self.works:
            work.lease.close()
        self.works.clear()
        self.close()
        if self.random.random() < 0.3:
            (self.folder / "chunks" / "index.db").unlink()
        self.open()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_what_was_promised_is_held_and_all_bytes_are_counted(folder, seed):
    model = Model(folder, seed)
    for _ in range(600):
        model.turn()
    assert model.images > 10
    model.close()

"""At every write that the store makes, the machine may stop or the disk may fail: nothing acknowledged is lost."""

from __future__ import annotations

import random
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest

from storage.collection import Collector
from storage.consensus_log import ConsensusLog
from storage.dag import links
from storage.errors import LogError, StorageError
from storage.walk import missing_below
from tests.storage.faulty_disk import BROKEN, FULL, FaultyDisk
from tests.storage.trees import accounted, leaf, numbered, open_store, tree


@pytest.fixture
def folder():
    """In memory where there is such a place: SQLite syncs thousands of times."""
    memory = Path("/dev/shm")  # noqa: S108
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        yield Path(name)


class Workload:
    """Publishes, unpublishes and collects; knows at each moment what it was promised."""

    def __init__(self, seed):
        self.source = random.Random(seed)
        self.pinned = {}
        self.put = {}

    def run(self, store, turns=14):
        for turn in range(turns):
            self.publish(store, turn)
            if turn % 3 == 1:
                self.unpublish(store)
            if turn % 4 == 3:
                self.put.clear()
                Collector(store, dead_share=self.source.choice([0.0, 0.5])).run_once()

    def publish(self, store, turn):
        leaves = [leaf((turn, at), self.source.choice([20, 300, 900])) for at in range(5)]
        shared = self.source.choice([*self.pinned.values()]) if self.pinned else {}
        leaves += [(cid, data) for cid, data in shared.items() if cid[1] == 0x55][:3]
        root, chunks = tree(turn, leaves)
        with store.lease("publish"):
            store.put_many(list(chunks.items())[:4])
            self.put.update(list(chunks.items())[:4])
            store.put_many(chunks.items())
            self.put.update(chunks)
            store.pin(root, str(turn))
            self.pinned[root] = chunks

    def unpublish(self, store):
        root = self.source.choice(sorted(self.pinned))
        del self.pinned[root]  # before it is asked: from now on nothing is promised
        store.unpin(root)

    def promised(self):
        return {
            cid: data
            for chunks in [*self.pinned.values(), self.put]
            for cid, data in chunks.items()
        }

    def check(self, folder):
        """What was promised is in the store in a folder, and stays through a collection."""
        store = open_store(folder)
        promised = self.promised()
        assert {cid: store.get(cid) for cid in promised} == promised
        assert self.pinned.keys() <= store.pins().keys()
        assert store.verify() == []
        assert accounted(store)
        collected = Collector(store, dead_share=0.0).run_once()
        assert collected.unreadable == collected.damaged == []
        for root, chunks in self.pinned.items():
            assert list(missing_below(root, store, links)) == []
            assert {cid: store.get(cid) for cid in chunks} == chunks
        store.put_many(numbered("goes on")[1].items())
        assert accounted(store)
        store.close()


@pytest.mark.slow
@pytest.mark.parametrize("cut", ["kill", "power"])
@pytest.mark.parametrize("seed", [1, 2])
def test_the_machine_may_stop_at_any_write(folder, cut, seed):
    source = random.Random(seed)
    work = Workload(seed)
    seen = set()

    def stop(operation):
        seen.add(operation)
        image = folder / "image"
        if cut == "kill":
            disk.after_kill(folder / "store", image, source)
        else:
            disk.after_power_cut(folder / "store", image, source)
        work.check(image)
        shutil.rmtree(image)

    disk = FaultyDisk()
    store = open_store(folder / "store", files=disk)
    disk.before = stop
    work.run(store)
    store.close()
    assert {"create", "write", "sync", "sync folder", "unlink"} <= seen
    assert disk.operations > 60
    work.check(folder / "store")


@pytest.mark.parametrize("code", [FULL, BROKEN])
def test_any_write_may_be_refused(folder, code):
    for number in range(1, 90, 4 if code == FULL else 5):
        work = Workload(number)
        disk = FaultyDisk(faults={number: code})
        place = folder / str(number)
        refused = 0
        for _ in range(2):
            try:
                store = open_store(place, files=disk)
            except OSError:
                refused += 1
                continue
            try:
                work.run(store, turns=8)
            except StorageError:
                refused += 1
            store.close()
        assert refused <= 1, "the disk fails once"
        work.check(place)


def test_a_disk_that_takes_less_than_it_is_given_is_given_the_rest(folder):
    store = open_store(folder / "store", files=FaultyDisk(short=True))
    work = Workload(3)
    work.run(store, turns=4)
    store.close()
    work.check(folder / "store")


def test_a_failed_sync_is_not_trusted_again(folder):
    disk = FaultyDisk()
    store = open_store(folder / "store", files=disk)
    store.put_many([leaf("before")])
    disk.faults = {disk.operations + 2: BROKEN}
    with pytest.raises(StorageError, match="open the store again"):
        store.put_many([leaf("lost")])
    with pytest.raises(StorageError, match="open the store again"):
        store.put_many([leaf("after")])
    assert store.get(leaf("before")[0]) == leaf("before")[1]
    store.close()
    again = open_store(folder / "store")
    again.put_many([leaf("after")])
    assert again.verify() == []
    again.close()


class TestConsensusLog:
    def write(self, path, files, acknowledged):
        with ConsensusLog(path, files) as log:
            for turn in range(8):
                log.append([f"vote {turn}".encode() * 9, b"and"])
                acknowledged += [f"vote {turn}".encode() * 9, b"and"]
                if turn == 4:
                    keep = acknowledged[-4:]
                    log.rotate(keep)
                    acknowledged[:] = keep

    @pytest.mark.parametrize("cut", ["kill", "power"])
    def test_the_machine_may_stop_at_any_write(self, folder, cut):
        source = random.Random(7)
        acknowledged = []
        images = []

        def stop(operation):
            image = folder / f"image{len(images)}"
            if cut == "kill":
                disk.after_kill(folder, image, source)
            else:
                disk.after_power_cut(folder, image, source)
            images.append((image, list(acknowledged)))

        disk = FaultyDisk(stop)
        self.write(folder / "votes", disk, acknowledged)
        assert len(images) > 15
        for image, promised in images:
            if not (image / "votes").exists():
                assert promised == []
                continue
            with ConsensusLog(image / "votes") as log:
                found = log.entries()
                assert found[: len(promised)] == promised or found == promised[-4:]
                log.append([b"on"])

    def test_a_refused_write_is_taken_back(self, folder):
        for number in range(1, 16):
            acknowledged = []
            path = folder / str(number) / "votes"
            with suppress(OSError):
                self.write(path, FaultyDisk(faults={number: BROKEN}), acknowledged)
            try:
                log = ConsensusLog(path)
            except LogError:
                assert acknowledged == []
                continue
            assert log.entries()[: len(acknowledged)] == acknowledged or (
                log.entries() == acknowledged[-4:]
            )
            log.close()


@pytest.mark.parametrize("name", ["pins.db", "references.db"])
def test_a_damaged_database_that_cannot_be_made_anew_is_refused_and_kept(folder, name):
    open_store(folder / "store").close()
    path = folder / "store" / name
    path.write_bytes(b"no database at all" * 300)
    with pytest.raises(LogError, match=name):
        open_store(folder / "store")
    assert path.read_bytes().startswith(b"no database")
    path.unlink()
    open_store(folder / "store").close()

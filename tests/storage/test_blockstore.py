"""What every store of chunks owes its callers, and what the one on the disk does besides."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from storage import cid as cids
from storage import segments, unixfs
from storage.blockstore import (
    BATCH_BYTES,
    FLUSH_CHUNKS,
    FORMAT,
    Blockstore,
    SegmentBlockstore,
)
from storage.chunks import MAX_CHUNK_BYTES
from storage.collection import Collector
from storage.errors import (
    ChunkNotFoundError,
    ChunkTooLargeError,
    CidError,
    CorruptChunkError,
    DiskFullError,
    DiskReserveError,
    LogError,
    QuotaError,
    StorageError,
    StoreLockedError,
)
from storage.files import Files
from storage.memory import MemoryBlockstore
from storage.quota import CHUNK_OVERHEAD_BYTES, INDEX_ROW_BYTES, cost, default_keep_free
from storage.segments import PREFIX_BYTES, SEGMENT_BYTES, SegmentLog

MIB = 2**20


def chunk(number: int, size: int = 100):
    data = number.to_bytes(8, "big") * (size // 8 + 1)
    return cids.of_raw(data[:size]), data[:size]


def chunks(count: int, size: int = 100):
    return [chunk(number, size) for number in range(count)]


@pytest.fixture(params=["memory", "segments"])
def make(request, tmp_path):
    made = []

    def make_store(limit: int = 2**32) -> Blockstore:
        if request.param == "memory":
            store = MemoryBlockstore(limit)
        else:
            store = SegmentBlockstore(tmp_path / "chunks", limit)
        made.append(store)
        return store

    yield make_store
    for store in made:
        store.close()


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "chunks"


def damage(folder, segment: int, offset: int):
    path = folder / f"{segment:08}.seg"
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


class TestEveryStore:
    def test_gives_back_what_was_put(self, make):
        store = make()
        pairs = [*chunks(20), chunk(1, 0), chunk(2, MAX_CHUNK_BYTES)]
        assert store.put_many(pairs) == sum(len(data) for _, data in pairs)
        for cid, data in pairs:
            assert store.has(cid)
            assert store.get(cid) == data
            assert store.size(cid) == len(data)

    def test_says_what_is_not_there(self, make):
        store = make()
        held, absent = chunk(1), chunk(2)
        store.put_many([held])
        assert not store.has(absent[0])
        assert store.missing([absent[0], held[0], absent[0]]) == [absent[0]]
        with pytest.raises(ChunkNotFoundError, match=cids.text(absent[0])):
            store.get(absent[0])
        with pytest.raises(ChunkNotFoundError):
            store.size(absent[0])

    def test_a_chunk_that_is_held_costs_nothing_again(self, make):
        store = make()
        store.put_many(chunks(3))
        before = store.usage()
        assert store.put_many([*chunks(3), *chunks(3)]) == 0
        assert store.usage() == before

    def test_a_chunk_twice_in_one_call_is_kept_once(self, make):
        store = make()
        assert store.put_many(chunks(2) + chunks(2)) == 200
        assert store.usage().used == 2 * cost(100)

    def test_takes_memoryviews_and_generators(self, make):
        store = make()
        cid, data = chunk(5, 1_000)
        store.put_many(pair for pair in [(cid, memoryview(data))])
        assert store.get(cid) == data

    def test_refuses_what_is_no_chunk(self, make):
        store = make()
        with pytest.raises(ChunkTooLargeError):
            store.put_many([chunk(1, MAX_CHUNK_BYTES + 1)])
        with pytest.raises(CidError):
            store.put_many([(b"short", b"data")])
        with pytest.raises(CorruptChunkError):
            store.put_many([(chunk(1)[0], b"other bytes")], verify=True)
        assert store.usage().used == 0

    def test_refuses_what_does_not_fit_and_keeps_what_did(self, make):
        store = make(2 * cost(100))
        store.put_many(chunks(2))
        with pytest.raises(QuotaError) as refused:
            store.put_many([chunk(9)])
        assert refused.value.free == 0
        assert store.missing(cid for cid, _ in chunks(2)) == []
        assert not store.has(chunk(9)[0])

    def test_a_reservation_keeps_its_room_from_others(self, make):
        store = make(10 * cost(100))
        with store.reserve(5 * 100) as reservation:
            promised = store.usage().reserved
            assert promised >= 500
            with pytest.raises(QuotaError):
                store.reserve(10 * cost(100) - promised)
            store.put_many([chunk(1)], reservation)
            assert store.usage().reserved == promised - cost(100)
            assert store.usage().used == cost(100)
        assert store.usage().reserved == 0
        assert store.usage().free == 9 * cost(100)

    def test_a_reservation_that_was_too_small_draws_from_what_is_free(self, make):
        store = make(10 * cost(100))
        with store.reserve(1) as reservation:
            store.put_many(chunks(10), reservation)
            assert reservation.remaining == 0
        assert store.usage().free == 0

    def test_a_reservation_can_be_given_back_twice(self, make):
        store = make(1_000)
        reservation = store.reserve(100)
        reservation.release()
        reservation.release()
        assert store.usage().free == 1_000

    def test_a_lower_limit_refuses_new_bytes_and_keeps_old_ones(self, make):
        store = make()
        store.put_many(chunks(3))
        store.set_limit(10)
        assert store.usage().free == 0
        assert store.get(chunk(0)[0]) == chunk(0)[1]
        with pytest.raises(QuotaError):
            store.put_many([chunk(7)])
        with pytest.raises(StorageError):
            store.set_limit(-1)

    def test_pins_are_listed_by_root_with_their_label(self, make):
        store = make()
        first, second = chunk(1)[0], chunk(2)[0]
        store.pin(first, "shakespeare")
        store.pin(second, "gpt")
        store.pin(first, "shakespeare v2")
        store.unpin(second)
        store.unpin(second)
        assert store.pins() == {first: "shakespeare v2"}

    def test_verify_of_a_sound_store_finds_nothing_and_counts_to_the_end(self, make):
        store = make()
        store.put_many(chunks(5))
        seen = []
        assert store.verify(lambda done, total: seen.append((done, total))) == []
        assert seen[-1] == (500, 500)

    def test_many_threads_may_put_and_get_at_once(self, make):
        store = make()
        pairs = chunks(60, 5_000)

        def work(start: int) -> None:
            mine = pairs[start:] + pairs[:start]
            for at in range(0, len(mine), 7):
                store.put_many(mine[at : at + 7])
                for cid, data in mine[at : at + 7]:
                    assert store.get(cid) == data

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(work, range(0, 60, 10)))
        assert store.usage().used == 60 * cost(5_000)
        assert store.verify() == []


class TestOnDisk:
    def test_everything_is_there_after_opening_again(self, folder):
        with_pins = SegmentBlockstore(folder, 2**30)
        with_pins.put_many(chunks(10))
        with_pins.pin(chunk(1)[0], "label")
        usage = with_pins.usage()
        with_pins.close()
        store = SegmentBlockstore(folder, 2**30)
        assert store.usage() == usage
        assert store.missing(cid for cid, _ in chunks(10)) == []
        assert store.pins() == {chunk(1)[0]: "label"}
        store.close()

    @pytest.mark.slow
    def test_segments_are_filled_to_64_mib_and_go_on_in_the_next(self, folder):
        store = SegmentBlockstore(folder, 2**30)
        pairs = chunks(70, MIB)
        store.put_many(pairs)
        store.close()
        sizes = sorted(path.stat().st_size for path in folder.glob("*.seg"))
        assert len(sizes) == 2
        assert SEGMENT_BYTES - MIB < sizes[1] <= SEGMENT_BYTES
        store = SegmentBlockstore(folder, 2**30)
        store.put_many([chunk(99)])
        assert len(list(folder.glob("*.seg"))) == 2
        assert all(store.get(cid) == data for cid, data in pairs)
        store.close()

    def test_only_the_segment_that_is_written_to_stays_open(self, folder):
        store = SegmentBlockstore(folder, 2**30, segment_bytes=400)
        before = len(list(Path("/proc/self/fd").iterdir()))
        for pair in chunks(20):
            store.put_many([pair])
        assert len(store.log.sizes()) > 4
        assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1
        assert all(store.get(cid) == data for cid, data in chunks(20))
        store.close()

    def test_a_lost_or_damaged_index_is_made_anew(self, folder):
        store = SegmentBlockstore(folder, 2**30)
        store.put_many(chunks(30))
        usage = store.usage()
        store.close()
        for spoil in (
            lambda path: path.unlink(),
            lambda path: path.write_bytes(b"no database at all" * 300),
        ):
            spoil(folder / "index.db")
            store = SegmentBlockstore(folder, 2**30)
            assert store.missing(cid for cid, _ in chunks(30)) == []
            assert store.usage() == usage
            store.close()

    def test_wrong_bytes_are_never_given_back_and_can_be_put_again(self, folder):
        store = SegmentBlockstore(folder, 2**30)
        store.put_many(chunks(3))
        damage(folder, 1, PREFIX_BYTES + 100 + PREFIX_BYTES + 5)
        cid, data = chunk(1)
        with pytest.raises(CorruptChunkError, match=cids.text(cid)):
            store.get(cid)
        assert store.missing([cid]) == [cid]
        store.put_many([(cid, data)])
        assert store.get(cid) == data
        assert store.get(chunk(2)[0]) == chunk(2)[1]
        store.close()

    @pytest.mark.parametrize("offset", [0, 4, 8, 20, 43, 44, 143])
    def test_damage_anywhere_in_a_record_is_found(self, folder, offset):
        store = SegmentBlockstore(folder, 2**30)
        store.put_many(chunks(3))
        damage(folder, 1, PREFIX_BYTES + 100 + offset)
        assert store.verify() == [chunk(1)[0]]
        assert store.verify() == []
        assert store.missing(cid for cid, _ in chunks(3)) == [chunk(1)[0]]
        store.close()

    def test_bytes_that_were_put_under_a_wrong_name_are_found_by_verify(self, folder):
        store = SegmentBlockstore(folder, 2**30)
        store.put_many([(chunk(1)[0], b"not these")])
        assert store.verify() == [chunk(1)[0]]
        store.close()

    @pytest.mark.parametrize("offset", [0, 2, 10, 60])
    def test_a_new_index_steps_over_a_record_damaged_in_the_middle(self, folder, offset):
        store = SegmentBlockstore(folder, 2**30)
        store.put_many(chunks(5))
        store.close()
        (folder / "index.db").unlink()
        damage(folder, 1, 2 * (PREFIX_BYTES + 100) + offset)
        store = SegmentBlockstore(folder, 2**30)
        assert store.missing(cid for cid, _ in chunks(5)) == [chunk(2)[0]]
        store.close()

    def test_a_damaged_chunk_that_is_full_of_names_takes_nothing_after_it_along(self, folder):
        names = b"".join(chunk(number)[0] for number in range(7_000))
        listing = cids.of_raw(names), names
        store = SegmentBlockstore(folder, 2**30)
        for pair in (chunk(0), listing, chunk(1)):
            store.put_many([pair])
        store.close()
        (folder / "index.db").unlink()
        damage(folder, 1, PREFIX_BYTES + 100 + 4)
        store = SegmentBlockstore(folder, 2**30)
        assert store.missing([chunk(0)[0], listing[0], chunk(1)[0]]) == [listing[0]]
        assert store.get(chunk(1)[0]) == chunk(1)[1]
        store.close()

    def test_what_is_not_looked_through_to_its_end_is_not_cut_off(self, folder, monkeypatch):
        monkeypatch.setattr(segments, "MAX_GUESSED_BYTES", 1000)
        fake = segments.records.HEADER.pack(500, 0) + chunk(0)[0]
        trap = cids.of_raw(fake * 20), fake * 20
        store = SegmentBlockstore(folder, 2**30)
        for pair in (trap, chunk(1)):
            store.put_many([pair])
        store.close()
        size = (folder / "00000001.seg").stat().st_size
        (folder / "index.db").unlink()
        damage(folder, 1, 4)
        store = SegmentBlockstore(folder, 2**30)
        store.put_many([chunk(2)])
        store.close()
        assert (folder / "00000001.seg").stat().st_size == size + PREFIX_BYTES + 100
        monkeypatch.undo()
        (folder / "index.db").unlink()
        store = SegmentBlockstore(folder, 2**30)
        assert store.missing([chunk(1)[0], chunk(2)[0]]) == []
        store.close()

    def test_an_index_that_fails_while_it_is_open_is_a_failure_of_the_store(self, folder):
        store = SegmentBlockstore(folder, 2**32)
        store.put_many(chunks(1))
        with closing(sqlite3.connect(folder / "index.db")) as other:
            other.execute("DROP TABLE chunks")
        for ask in (store.has, store.get, store.size, lambda cid: store.missing([cid])):
            with pytest.raises(StorageError, match="the disk failed"):
                ask(chunk(0)[0])
        with pytest.raises(StorageError, match="the disk failed"):
            store.put_many(chunks(2))
        store.close()

    def test_a_pin_may_be_called_like_a_file_whose_name_is_not_utf_8(self, folder):
        store = SegmentBlockstore(folder, 2**32)
        store.pin(chunk(0)[0], os.fsdecode(b"caf\xe9"))
        assert store.pins() == {chunk(0)[0]: "caf?"}
        store.close()

    def test_a_segment_that_is_gone_takes_its_chunks_from_the_index(self, folder):
        store = SegmentBlockstore(folder, 2**30)
        store.put_many(chunks(5))
        store.close()
        (folder / "00000001.seg").unlink()
        store = SegmentBlockstore(folder, 2**30)
        assert len(store.missing(cid for cid, _ in chunks(5))) == 5
        assert store.usage().used == 0
        store.put_many(chunks(5))
        assert store.verify() == []
        store.close()

    def test_a_second_opening_is_refused_with_the_pid_of_the_first(self, folder):
        store = SegmentBlockstore(folder, 2**30)
        with pytest.raises(StoreLockedError, match=str(os.getpid())):
            SegmentBlockstore(folder, 2**30)
        store.close()
        SegmentBlockstore(folder, 2**30).close()

    def test_another_version_of_the_layout_is_refused(self, folder):
        SegmentBlockstore(folder, 2**30).close()
        (folder / "format").write_bytes(FORMAT.replace(b"1", b"2"))
        with pytest.raises(
            LogError, match="of version 2, and this program reads version 1; run the swarm"
        ):
            SegmentBlockstore(folder, 2**30)
        assert (folder / "format").read_bytes() != FORMAT

    def test_a_full_disk_leaves_nothing_half_written(self, folder):
        store = SegmentBlockstore(folder, 2**30)
        store.put_many(chunks(3))
        before = (store.usage(), (folder / "00000001.seg").stat().st_size)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, hard))
        try:
            with pytest.raises(DiskFullError, match="the disk is full"):
                store.put_many(chunks(4, MIB // 2))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            signal.signal(signal.SIGXFSZ, ignored)
        assert (store.usage(), (folder / "00000001.seg").stat().st_size) == before
        store.put_many(chunks(4, MIB // 2))
        assert store.verify() == []
        store.close()

    def test_a_closed_store_refuses_everything_and_may_be_closed_again(self, folder):
        store = SegmentBlockstore(folder, 2**30)
        store.put_many(chunks(1))
        store.close()
        store.close()
        for call in (
            lambda: store.has(chunk(0)[0]),
            lambda: store.get(chunk(0)[0]),
            lambda: store.put_many(chunks(1)),
            store.verify,
        ):
            with pytest.raises(StorageError, match="closed"):
                call()

    def test_chunks_before_a_failure_of_their_source_can_be_put_again(self, folder):
        store = SegmentBlockstore(folder, 2**30)

        def source():
            yield from chunks(3)
            message = "the peer hung up"
            raise ConnectionError(message)

        with pytest.raises(ConnectionError):
            store.put_many(source())
        store.put_many(chunks(3))
        assert store.usage().used == 3 * cost(100)
        assert store.verify() == []
        store.close()

    def test_a_read_does_not_wait_for_a_write_that_goes_on(self, folder):
        store = SegmentBlockstore(folder, 2**30)
        store.put_many([chunk(1)])
        written, go_on = threading.Event(), threading.Event()

        def source():
            for number in range(BATCH_BYTES // MIB + 1):
                yield chunk(100 + number, MIB)
            written.set()
            assert go_on.wait(10)
            yield chunk(200)

        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(store.put_many, source())
            assert written.wait(10)
            assert store.get(chunk(1)[0]) == chunk(1)[1]
            assert not store.has(chunk(100, MIB)[0]), "not durable yet, so not held yet"
            store.put_many([chunk(2)])
            assert store.get(chunk(100, MIB)[0]) == chunk(100, MIB)[1]
            go_on.set()
            writing.result(10)
        store.close()

    @pytest.mark.slow
    def test_the_index_takes_no_more_than_its_share(self, folder):
        store = SegmentBlockstore(folder, 2**30)
        store.put_many(chunks(20_000, 16))
        used = store.usage().used
        store.close()
        index = (folder / "index.db").stat().st_size
        assert index < 20_000 * INDEX_ROW_BYTES
        assert used == 20_000 * (16 + CHUNK_OVERHEAD_BYTES)
        assert sum(path.stat().st_size for path in folder.iterdir()) < used


class TestEveryStoreKnowsMore:
    def test_holds_are_listed_by_root_and_reason(self, make):
        store = make()
        first, second = sorted([chunk(1)[0], chunk(2)[0]])
        store.hold(second, "duty")
        store.hold(first, "fetch")
        store.hold(first, "duty")
        store.hold(first, "duty")
        store.release(second, "duty")
        store.release(second, "duty")
        assert store.holds() == [(first, "duty"), (first, "fetch")]
        for refused in (store.pin, store.hold):
            with pytest.raises(StorageError, match="label"):
                refused(first, "x" * 2_000)

    def test_a_check_can_be_gone_on_with(self, make):
        store = make()
        store.put_many(chunks(12))
        whole = list(store.check())
        assert len(whole) == 12
        assert all(each.is_good and each.length == 100 for each in whole)
        for at in range(12):
            assert list(store.check(whole[at].at)) == whole[at + 1 :]

    def test_a_question_may_be_asked_without_counting_on_the_answer(self, make):
        store = make()
        store.put_many(chunks(3))
        with store.lease("fetch"):
            asked = [cid for cid, _ in chunks(6)]
            assert store.missing(asked, count_on=False) == asked[3:]

    def test_a_lease_can_be_taken_and_closed_twice(self, make):
        store = make()
        with store.lease("work", chunk(1)[0]) as lease:
            assert lease.label == "work"
            assert lease.root == chunk(1)[0]
            store.put_many(chunks(2))
            assert store.missing([chunk(1)[0]]) == []
        lease.close()


class FullDisk(Files):
    """A disk of a given size of which a given part is free."""

    def __init__(self, size: int, free: int) -> None:
        self.size, self.free = size, free

    def space(self, folder):
        return self.size, self.free


class TestTheDiskIsNotFilled:
    def test_a_file_that_does_not_fit_is_refused_for_the_disk_and_not_the_quota(self, folder):
        file = folder.parent / "file"
        file.write_bytes(bytes(9_000))
        store = SegmentBlockstore(folder, 2**30, keep_free=1_000, files=FullDisk(2**40, 5_000))
        with pytest.raises(DiskReserveError, match="1,000 bytes of the disk are kept free"):
            unixfs.add_path(file, store)
        assert store.usage().used == 0

    def test_beyond_the_reserve_nothing_is_written(self, folder):
        disk = FullDisk(2**40, 5_000)
        store = SegmentBlockstore(folder, 2**30, keep_free=1_000, files=disk)
        assert store.usage().free == 4_000
        store.put_many([chunk(1)])
        disk.free = 1_300
        with pytest.raises(DiskReserveError, match="1,000 bytes of the disk are kept free"):
            store.put_many([chunk(2)])
        with pytest.raises(QuotaError):
            store.reserve(100)
        assert store.put_many([chunk(1)]) == 0
        assert store.usage().free == 300
        disk.free = 500
        assert store.usage().free == 0
        store.close()

    def test_what_is_promised_is_not_promised_twice(self, folder):
        store = SegmentBlockstore(folder, 2**30, keep_free=0, files=FullDisk(2**40, 1_000))
        with store.reserve(500) as reservation:
            with pytest.raises(DiskReserveError):
                store.reserve(500)
            store.put_many([chunk(1)], reservation)
        store.close()

    def test_the_reserve_is_a_twentieth_and_ten_gigabytes_at_most(self, folder):
        assert default_keep_free(100 * 10**9) == 5 * 10**9
        assert default_keep_free(10**12) == 10 * 10**9
        store = SegmentBlockstore(folder, 2**30, files=FullDisk(10**6, 50_100))
        assert store.usage().free == 100
        store.close()


@pytest.mark.slow
def test_a_store_of_100_000_chunks_opens_by_reading_the_index_alone(folder, monkeypatch):
    store = SegmentBlockstore(folder, 2**30)
    store.put_many(chunks(100_000, 16))
    usage = store.usage().used
    store.close()
    monkeypatch.delattr(SegmentLog, "recover")
    tracemalloc.start()
    try:
        store = SegmentBlockstore(folder, 2**30)
        assert store.usage().used == usage
        _, peak = tracemalloc.get_traced_memory()
        assert peak < MIB
        steps = Collector(store).steps()
        assert any(step.done == 100_000 for step in steps)
        _, peak = tracemalloc.get_traced_memory()
        assert peak < 2 * MIB
        steps.close()
    finally:
        tracemalloc.stop()
    store.close()


@pytest.mark.slow
def test_many_small_chunks_are_made_durable_long_before_their_bytes_are_many(folder):
    """Each is remembered in memory until then: a million of them took 400 MB."""
    with closing(SegmentBlockstore(folder, 2**32)) as store:
        first = chunk(0, 8)
        held = []

        def come():
            for number in range(2 * FLUSH_CHUNKS):
                yield chunk(number, 8)
                held.append(store.has(first[0]) if number % 1_000 == 0 else False)

        store.put_many(come())
        assert any(held)

"""What nothing names gives its room back, and nothing that anybody counts on goes with it."""

from __future__ import annotations

import random
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from storage import cid as cids
from storage.collection import Collector
from storage.dag import links
from storage.errors import CollectionRunningError, ManifestError
from storage.leases import FILTER_NAMES, Ends, Leases, NameFilter
from storage.marks import Marks
from storage.segments import PREFIX_BYTES
from storage.walk import damaged_below, missing_below
from tests.storage.trees import SEGMENT, accounted, leaf, numbered, open_store, put, tree


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "chunks"


@pytest.fixture
def store(folder):
    store = open_store(folder)
    yield store
    store.close()


def collect(store, **options):
    return Collector(store, **{"dead_share": 0.0} | options).run_once()


def holds_all(store, chunks):
    return all(store.get(cid) == data for cid, data in chunks.items())


class TestWhatLives:
    def test_what_pins_and_holds_reach_stays_and_the_rest_goes(self, store):
        _, pinned = put(store, "pinned", count=20)
        dead, lost = put(store, "dead", count=20)
        duty, held = put(store, "duty", count=20)
        store.hold(duty, "keeper")
        store.unpin(duty)
        store.unpin(dead)
        before = store.usage().used
        collected = collect(store)
        assert holds_all(store, pinned | held)
        assert store.missing(lost) == list(lost)
        assert collected.dropped == len(lost)
        assert collected.pinned == sum(map(len, pinned.values()))
        assert collected.held == sum(map(len, held.values()))
        assert before - store.usage().used == sum(len(data) + 256 for data in lost.values())
        assert accounted(store)
        store.release(duty, "keeper")
        collect(store)
        assert store.missing(held) == list(held)

    def test_a_chunk_that_two_roots_name_stays_until_both_are_gone(self, store):
        shared = leaf("shared")
        first, second = tree("a", [shared, leaf("a")])[0], tree("b", [shared, leaf("b")])[0]
        for root, chunks in (tree("a", [shared, leaf("a")]), tree("b", [shared, leaf("b")])):
            store.put_many(chunks.items())
            store.pin(root, "")
        store.unpin(first)
        collect(store)
        assert store.has(shared[0])
        assert not store.has(leaf("a")[0])
        store.unpin(second)
        collect(store)
        assert not store.has(shared[0])

    def test_what_a_lease_put_stays_until_it_ends(self, store):
        _, chunks = numbered("unpinned")
        with store.lease("publish"):
            store.put_many(chunks.items())
            collect(store)
            assert holds_all(store, chunks)
        collect(store)
        assert store.missing(chunks) == list(chunks)

    @pytest.mark.parametrize("ask", ["has", "missing", "put_many"])
    def test_what_a_lease_found_to_be_held_stays_although_nothing_names_it(self, store, ask):
        _, chunks = numbered("old")
        store.put_many(chunks.items())
        with store.lease("fetch"):
            if ask == "has":
                assert all(store.has(cid) for cid in chunks)
            elif ask == "missing":
                assert store.missing(chunks) == []
            else:
                assert store.put_many(chunks.items()) == 0
            collect(store)
            assert holds_all(store, chunks)
        collect(store)
        assert store.missing(chunks) == list(chunks)

    def test_a_lease_on_a_root_keeps_what_it_reaches(self, store):
        root, chunks = put(store, "fetched")
        store.unpin(root)
        with store.lease("fetch", root):
            collect(store)
            assert holds_all(store, chunks)
        collect(store)
        assert store.missing(chunks) == list(chunks)

    def test_a_lease_that_ends_while_a_collection_runs_may_leave_its_finds_to_a_pin(self, store):
        """The root was walked while its node had not come, and what the node names had been dead before."""
        root, chunks = numbered("late")
        node = chunks.pop(root)
        store.put_many(chunks.items())
        store.hold(root, "duty")
        lease = store.lease("fetch")
        steps = Collector(store, dead_share=0.0).steps()
        while next(steps).phase != "mark":
            pass
        store.put_many([(root, node)])
        assert store.missing(chunks) == []
        lease.close()
        for _ in steps:
            pass
        assert holds_all(store, chunks | {root: node})

    def test_a_pin_that_comes_while_a_collection_runs_is_walked_before_more_is_dropped(self, store):
        root, chunks = put(store, "rescued", count=40)
        other, lost = put(store, "lost", count=40)
        store.unpin(root)
        store.unpin(other)
        steps = Collector(store, dead_share=0.0).steps()
        while next(steps).phase != "compact":
            pass
        store.pin(root, "again")
        held = [cid for cid in chunks if store.index.find(cid)]  # `has` would protect them
        for _ in steps:
            pass
        assert [cid for cid in chunks if store.has(cid)] == held
        assert len(held) > 20
        assert store.missing(lost) == list(lost)

    def test_a_pin_at_the_last_moment_is_walked_too(self, store):
        root, chunks = put(store, "rescued")
        store.unpin(root)
        lock = store.leases.lock

        class PinFirst:
            armed = True

            def __enter__(self):
                if self.armed and sys._getframe(1).f_code.co_name == "_drop":
                    self.armed = False
                    store.leases.lock = lock
                    store.pin(root, "again")
                return lock.__enter__()

            def __exit__(self, *error):
                return lock.__exit__(*error)

        store.leases.lock = PinFirst()
        collect(store)
        assert store.pins() == {root: "again"}
        assert holds_all(store, chunks)

    def test_what_is_not_durable_yet_is_not_taken_away(self, store):
        store.put_many([leaf("dead")])
        cid, data = leaf("under way")
        store.writer.append({cid: data}, None)
        assert collect(store).dropped == 1
        store.writer.flush()
        assert store.get(cid) == data

    def test_what_was_put_after_a_collection_began_is_not_its_business(self, store):
        put(store, "a")
        store.unpin(numbered("a")[0])
        steps = Collector(store, dead_share=0.0).steps()
        next(steps)
        _, chunks = numbered("new")
        store.put_many(chunks.items())
        for _ in steps:
            pass
        assert holds_all(store, chunks)

    def test_a_root_whose_chunks_have_not_come_hides_nothing(self, store):
        root, chunks = numbered("half")
        store.hold(root, "fetch to be")
        _, lost = numbered("lost")
        store.put_many(lost.items())
        assert collect(store).unreadable == []
        assert store.missing(lost) == list(lost)
        assert list(missing_below(root, store, links)) == [root]
        store.put_many([(root, chunks[root])])
        assert set(missing_below(root, store, links)) == chunks.keys() - {root}

    def test_nothing_is_removed_while_a_node_cannot_be_read(self, store, folder):
        root, chunks = put(store, "good", count=3)
        _, lost = numbered("lost")
        store.put_many(lost.items())
        path = folder / "00000001.seg"
        data = bytearray(path.read_bytes())
        data[3 * (PREFIX_BYTES + 300) + PREFIX_BYTES + 5] ^= 1
        path.write_bytes(data)
        for _ in range(2):
            collected = collect(store)
            assert collected.unreadable == [root]
            assert collected.removed == []
            assert store.missing(lost) == []
        assert store.damaged() == {root}
        assert damaged_below(root, store, links) == [root]
        store.put_many([(root, chunks[root])])
        assert store.damaged() == frozenset()
        assert collect(store).unreadable == []
        assert holds_all(store, chunks)
        assert store.missing(lost) == list(lost)

    def test_nothing_is_removed_while_a_node_is_not_understood(self, store):
        put(store, "a")
        store.put_many([leaf("dead")])

        def knows_nothing(cid, block):
            raise ManifestError(cids.text(cid))

        collected = Collector(store, knows_nothing, dead_share=0.0).run_once()
        assert collected.unreadable == [numbered("a")[0]]
        assert store.has(leaf("dead")[0])

    def test_damage_that_nobody_wants_repaired_is_forgotten(self, store, folder):
        store.put_many([leaf("a")])
        path = folder / "00000001.seg"
        path.write_bytes(path.read_bytes()[:-1] + b"?")
        assert store.verify() == [leaf("a")[0]]
        assert store.damaged() == {leaf("a")[0]}
        collect(store)
        assert store.damaged() == frozenset()


class TestCompaction:
    def test_only_segments_that_are_dead_enough_are_copied(self, store, folder):
        roots = [put(store, name, count=11, size=310)[0] for name in "abcdefgh"]
        store.unpin(roots[0])
        collected = collect(store, dead_share=0.5)
        assert 0 < len(collected.removed) <= 2
        assert all(collected.dead[at] >= SEGMENT // 2 for at in collected.removed)
        assert store.usage().reclaimable == sum(
            dead for at, dead in collected.dead.items() if at not in collected.removed
        )

    def test_the_numbers_of_segments_are_never_given_twice(self, store, folder):
        root, _ = put(store, "a", count=40)
        last = max(store.log.sizes())
        store.unpin(root)
        collect(store)
        assert min(store.log.sizes()) > last
        store.put_many([leaf("b")])
        store.close()
        again = open_store(folder)
        assert again.get(leaf("b")[0]) == leaf("b")[1]
        again.close()

    def test_a_full_store_can_still_be_compacted(self, folder):
        store = open_store(folder)
        put(store, "keep", count=15)
        store.unpin(put(store, "dead", count=15)[0])
        store.set_limit(store.usage().used)
        collect(store)
        assert store.usage().free > 0
        assert holds_all(store, numbered("keep", count=15)[1])
        store.close()

    def test_a_reader_finds_a_chunk_that_moves_under_it(self, store):
        store.unpin(put(store, "dead", count=5)[0])
        _, chunks = put(store, "a", count=30)
        places = dict(store.index.rows())
        read = store.log.read

        def read_late(cid, place):
            if place == places[cid]:
                store.log.read = read
                collect(store)
            return read(cid, place)

        cid = next(iter(chunks))
        store.log.read = read_late
        assert store.get(cid) == chunks[cid]
        assert store.damaged() == frozenset()
        assert store.index.find(cid) != places[cid]

    def test_a_damaged_chunk_is_not_copied_and_is_told(self, store, folder):
        root, chunks = put(store, "a", count=3)
        path = folder / "00000001.seg"
        data = bytearray(path.read_bytes())
        data[PREFIX_BYTES + 5] ^= 1
        path.write_bytes(data)
        store.put_many([leaf("dead")])
        collected = collect(store)
        assert collected.damaged == [next(iter(chunks))]
        assert damaged_below(root, store, links) == collected.damaged

    def test_a_collection_can_be_stopped_at_any_step_and_begun_again(self, folder):
        store = open_store(folder)
        _, chunks = put(store, "keep", count=30)
        steps = 0
        while True:
            store.unpin(put(store, "dead", count=30)[0])
            running = Collector(store, dead_share=0.0).steps()
            try:
                for _ in range(steps):
                    next(running)
            except StopIteration:
                break
            running.close()
            assert holds_all(store, chunks)
            assert accounted(store)
            steps += 1
        assert steps > 8
        collect(store)
        assert store.missing(numbered("dead", count=30)[1]) == list(numbered("dead", count=30)[1])
        store.close()

    def test_one_collection_at_a_time(self, store):
        store.put_many([leaf("a")])
        steps = Collector(store).steps()
        next(steps)
        with pytest.raises(CollectionRunningError):
            collect(store)
        steps.close()
        collect(store)

    @pytest.mark.slow
    def test_threads_that_publish_and_read_lose_nothing_to_collections_without_end(self, store):
        _, kept = put(store, "kept", count=30)
        done = threading.Event()

        def publish(number):
            source = random.Random(number)
            for turn in range(15):
                # Half of the leaves are those of an earlier turn, which may be dead or going.
                leaves = [leaf(source.randrange(40)) for _ in range(6)] + [leaf((number, turn, 1))]
                root, chunks = tree((number, turn), leaves)
                with store.lease("publish"):
                    missing = store.missing(chunks)
                    store.put_many((cid, chunks[cid]) for cid in missing)
                    store.pin(root, "")
                assert holds_all(store, chunks)
                store.unpin(root)

        def collect_always():
            count = 0
            while not done.is_set():
                collect(store)
                count += 1
            return count

        with ThreadPoolExecutor(4) as pool:
            collecting = pool.submit(collect_always)
            try:
                for each in [pool.submit(publish, number) for number in range(3)]:
                    each.result()
            finally:
                done.set()
            assert collecting.result() > 3
        assert holds_all(store, kept)
        collect(store)
        assert accounted(store)
        assert store.index.totals()[0] == len(kept)

    def test_a_chunk_that_is_let_go_while_its_segment_is_compacted_does_not_come_back(self, folder):
        store = open_store(folder, segment_bytes=2**20)
        root, chunks = tree("kept", [leaf(("kept", at), 900) for at in range(600)])
        store.put_many([leaf(("dead", at), 2_000) for at in range(300)])
        store.put_many(chunks.items())
        store.pin(root, "kept")
        moved = [cid for cid in chunks if cid != root]
        is_first = True
        for step in Collector(store, dead_share=0.01).steps():
            if step.phase == "compact" and not is_first:
                for cid in moved:  # as of a piece that lies in slots now
                    store.let_go(cid)
            is_first = is_first and step.phase != "compact"
        assert store.index.missing(moved) == moved
        assert accounted(store)
        store.close()


class TestLeases:
    def test_a_filter_knows_what_was_put_in_and_little_else(self):
        names = NameFilter()
        inside = [leaf(at, 10)[0] for at in range(500)]
        for cid in inside:
            names.add(cid)
        assert all(cid in names for cid in inside)
        assert not any(leaf(at, 10)[0] in names for at in range(500, 1_000))

    def test_filters_go_with_the_leases_that_filled_them(self, monkeypatch):
        monkeypatch.setattr("storage.leases.FILTER_NAMES", 10)
        leases = Leases(lambda: Ends(0, 0))
        names = [leaf(at, 10)[0] for at in range(40)]
        leases.touch(names)
        assert not leases.is_touched(names[0]), "nobody had asked for it"
        first = leases.open("first")
        leases.touch(names[:15])
        second = leases.open("second")
        leases.touch(names[15:30])
        first.close()
        assert not leases.is_touched(names[5])
        assert all(leases.is_touched(cid) for cid in names[15:30])
        assert leases.labels() == ["second"]
        second.close()
        second.close()
        assert not any(leases.is_touched(cid) for cid in names)

    def test_filters_are_few_however_much_is_asked_for(self, monkeypatch):
        monkeypatch.setattr("storage.leases.FILTER_NAMES", 10)
        monkeypatch.setattr("storage.leases.MAX_FILTERS", 3)
        leases = Leases(lambda: Ends(0, 0))
        names = [leaf(at, 10)[0] for at in range(100)]
        with leases.open("first"):
            for _ in range(3):
                leases.touch(names[:5])
            assert sum(each.count for each in leases._filters) == 5
            leases.touch(names)
            assert len(leases._filters) == 3
            assert all(leases.is_touched(cid) for cid in names)
            with leases.open("second"):
                leases.touch(names[:5])
        assert leases._filters == []

    def test_what_a_peer_asks_for_is_not_remembered(self, tmp_path):
        store = open_store(tmp_path / "chunks")
        names = [leaf(at, 10)[0] for at in range(10)]
        with store.lease("fetch"):
            assert store.missing(names, count_on=False) == names
            assert store.leases._filters == []
            assert store.missing(names[:4]) == names[:4]
            assert store.leases._filters[0].count == 4
        store.close()

    def test_a_million_finds_take_two_bytes_each(self):
        assert FILTER_NAMES * 2 >= 2**21 * 0.9

    def test_the_floor_is_where_the_oldest_lease_began(self):
        ends = [Ends(0, 0)]
        leases = Leases(lambda: ends[0])
        with leases.open("old"):
            ends[0] = Ends(50, 5)
            with leases.open("new"):
                ends[0] = Ends(90, 9)
                assert leases.floor() == Ends(0, 0)
        with leases.open("later"):
            assert leases.floor() == Ends(90, 9)


def test_marks_are_exact():
    marks = Marks()
    source = random.Random(1)
    numbers = sorted(source.sample(range(10_000), 300))
    marks.extend(numbers[:150])
    marks.extend(numbers[150:])
    chosen = set(source.sample(numbers, 100))
    assert all(marks.mark(number) for number in chosen)
    assert not any(marks.mark(number) for number in chosen)
    assert {number for number in range(10_000) if marks.is_dead(number)} == set(numbers) - chosen
    assert not marks.mark(10_001)

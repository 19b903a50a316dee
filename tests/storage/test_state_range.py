from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage import snapshot_file
from storage.errors import LogError, StorageError
from storage.files import Files
from storage.incoming import Incoming
from storage.snapshot_file import SnapshotFile
from storage.state_range import END, Range, RangeError, cut, gaps
from storage.state_store import StateStore
from storage.state_tree import EMPTY, root_of, update

keys = st.integers(0, 60).map(lambda number: b"key %d" % number)
held = st.dictionaries(keys, st.binary(max_size=40), max_size=60)


class Tree:
    """A state in dicts."""

    def __init__(self, values):
        self.values = values
        self.root, self.nodes = update({}.get, values)
        self.node = self.nodes.get

    def scan(self, prefix):
        return iter(sorted(self.values.items()))

    def count(self):
        return len(self.values)


def commit(store, changes):
    store.commit(store.view().layer(changes), b"block", b"certificate", store.height + 1)


@settings(max_examples=60, deadline=None)
@given(held, st.integers(1, 400), st.integers(1, 40))
def test_the_ranges_of_a_state_are_all_of_it_and_leave_its_tree(values, cut_bytes, slice_records):
    tree = Tree(values)
    parts = list(cut(tree, cut_bytes=cut_bytes, slice_records=slice_records))
    at, found, nodes = 0, {}, {}
    for part in parts:
        assert part.low == at
        at = part.high
        assert Range.decode(part.encode()) == part
        found.update(part.records)
        nodes.update(part.nodes(tree.root))
    assert (at, found, nodes) == (END, values, {k: v for k, v in tree.nodes.items() if v})
    assert root_of(nodes.get) == tree.root


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(keys, st.binary(max_size=9), min_size=2, max_size=60), st.data())
def test_a_range_with_anything_changed_is_refused(values, data):
    tree = Tree(values)
    parts = list(cut(tree, cut_bytes=60))
    part = data.draw(st.sampled_from([one for one in parts if one.records]))
    at = data.draw(st.integers(0, len(part.records) - 1))
    key, value = part.records[at]
    before, after = part.records[:at], part.records[at + 1 :]
    lies = [
        replace(part, records=before + after),
        replace(part, records=(*before, (key, value + b"x"), *after)),
        replace(part, records=(*before, (key + b"x", value), *after)),
        replace(part, records=(*before, (key, value), (key, value), *after)),
        replace(part, records=()),
    ]
    if part.depth:
        lies.append(replace(part, depth=part.depth - 1, siblings=b""))
        last = (END - (1 << 256 - part.depth)).to_bytes(32, "big")
        if last != part.first:
            lies.append(replace(part, first=last))
    for lie in lies:
        with pytest.raises(RangeError):
            lie.nodes(tree.root)
    with pytest.raises(RangeError):
        part.nodes(bytes(31) + b"x")
    with pytest.raises(RangeError):
        replace(part, siblings=part.siblings + b"x").nodes(tree.root)


def test_a_range_that_leaves_out_one_side_of_the_tree_is_refused():
    tree = Tree({b"key %d" % at: b"v" for at in range(9)})
    part = next(iter(cut(tree, cut_bytes=10**6)))
    half = tuple(one for one in part.records[:4])
    with pytest.raises(RangeError):
        Range(1, bytes(32), half, b"\x00").nodes(tree.root)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_range_or_refused(data):
    with contextlib.suppress(RangeError):
        Range.decode(data).nodes(EMPTY)


def test_a_range_that_begins_inside_another_of_its_depth_is_refused():
    with pytest.raises(RangeError, match="no subtree"):
        Range.decode(Range(1, b"\x40" + bytes(31), (), b"\x00").encode())


def test_a_record_that_fits_into_no_range_is_an_error_and_a_large_one_has_its_own():
    tree = Tree({b"large": b"x" * 300_000, **{b"%d" % at: b"v" for at in range(99)}})
    parts = list(cut(tree, cut_bytes=1000))
    assert max(len(part.encode()) for part in parts) > 300_000
    assert all(len(part.records) < 60 for part in parts)
    with pytest.raises(StorageError, match="fits into no range"):
        list(cut(Tree({b"huge": b"x" * 2**20})))


def test_gaps_are_what_is_not_covered():
    assert gaps([]) == [(0, END)]
    assert gaps([(0, 5), (3, 4), (5, 9), (20, 30)]) == [(9, 20), (30, END)]
    assert gaps([(0, END)]) == []


def test_a_state_that_arrived_is_the_store_as_if_it_had_been_committed(tmp_path):
    giver, taker = StateStore(tmp_path / "giver"), StateStore(tmp_path / "taker")
    commit(giver, {b"key %d" % at: os.urandom(30) for at in range(800)})
    snapshot_file.write(tmp_path / "file", giver.view(), 7, cut_bytes=2000)
    commit(taker, {b"old": b"state"})
    commit(taker, {b"old": b"er"})
    old = taker.view()
    file = SnapshotFile(tmp_path / "file")
    assert (file.height, file.root, len(file) > 10) == (7, giver.view().root, True)
    incoming = Incoming(taker)
    incoming.begin(7, file.root)
    for place in reversed(range(len(file))):
        with pytest.raises(StorageError, match="not arrived"):
            incoming.finish(b"", b"")
        incoming.put(Range.decode(file.range(place)))
    incoming.finish(b"block 7", b"certificate 7")
    assert (taker.height, taker.view().root) == (7, file.root)
    assert dict(taker.view().scan(b"")) == dict(giver.view().scan(b""))
    assert old.get(b"old") == b"er", "a view stays what it was"
    assert taker.block(0) == (b"block", b"certificate")
    assert (taker.block(1), taker.block(7)) == (None, (b"block 7", b"certificate 7"))
    assert taker.first_block == 7
    changes = {b"key 5": None, b"new": b"1"}
    commit(taker, changes)
    commit(giver, changes)
    assert taker.view().root == giver.view().root
    assert incoming.missing() == [(0, END)]
    taker.close()
    again = StateStore(tmp_path / "taker")
    assert (again.height, again.view().root) == (8, giver.view().root)
    file.close()
    giver.close()
    again.close()


def test_a_range_cut_deeper_takes_nothing_back_of_the_one_that_has_arrived(tmp_path):
    store = StateStore(tmp_path)
    tree = Tree({b"key %d" % at: bytes(40) for at in range(60)})
    incoming = Incoming(store)
    incoming.begin(1, tree.root)
    for cut_bytes in (2**20, 400, 1, 2**20):  # as peers do that cut otherwise
        incoming.put(next(cut(tree, cut_bytes=cut_bytes)))
        assert incoming.missing() == []
    incoming.finish(b"", b"")
    assert dict(store.view().scan(b"")) == tree.values
    store.close()


def test_a_state_of_another_root_begins_anew(tmp_path):
    store = StateStore(tmp_path)
    incoming = Incoming(store)
    first, second = Tree({b"a": b"1"}), Tree({b"a": b"2", b"b": b"2"})
    incoming.begin(3, first.root)
    incoming.put(next(cut(first)))
    assert Incoming(store).missing() == []
    incoming.begin(3, second.root)
    assert incoming.missing() == [(0, END)]
    with pytest.raises(RangeError):
        incoming.put(next(cut(first)))
    incoming.put(next(cut(second)))
    incoming.finish(b"", b"")
    assert store.view().get(b"a") == b"2"
    store.close()


def test_the_oldest_blocks_are_pruned_with_their_notes_and_genesis_stays(tmp_path):
    store = StateStore(tmp_path)
    for height in range(9):
        layer = store.view().layer({b"at": b"%d" % height})
        store.commit(layer, b"%d" % height, b"c", height, {b"note %d" % height: b"n"})
    notes = lambda block: [b"note " + block]  # noqa: E731
    assert store.prune(6, 3, notes) == 3
    assert store.prune(6, 3, notes) == 2
    assert store.prune(6, 3, notes) == 0
    assert store.prune(99, 99, notes) == 2, "the newest block always stays"
    assert [height for height in range(9) if store.block(height)] == [0, 8]
    assert [height for height in range(9) if store.note(b"note %d" % height)] == [0, 8]
    assert store.first_block == 8
    store.close()
    again = StateStore(tmp_path)
    assert (again.first_block, again.height) == (8, 8)
    again.close()


def test_a_store_of_the_first_format_is_read_and_goes_on(tmp_path):
    store = StateStore(tmp_path)
    commit(store, {b"a": b"1"})
    store.transact(lambda one: store.write_meta(one, b"format", (1).to_bytes(4, "big")), "")
    store.close()
    store = StateStore(tmp_path)
    assert store.view().get(b"a") == b"1"
    assert store.read_meta(b"format") == (2).to_bytes(4, "big")
    store.close()


def test_the_map_grows_under_a_state_that_arrives(tmp_path):
    store = StateStore(tmp_path, map_bytes=2**20)
    tree = Tree({b"key %d" % at: os.urandom(3000) for at in range(700)})
    incoming = Incoming(store)
    incoming.begin(1, tree.root)
    for part in cut(tree):
        incoming.put(part)
    incoming.finish(b"", b"")
    assert dict(store.view().scan(b"")) == tree.values
    store.close()


def test_a_snapshot_that_a_full_disk_cut_short_leaves_nothing_on_it(tmp_path):
    class Full(Files):
        def write(self, descriptor, buffers, offset):
            if offset > 2_000:
                raise OSError(errno.ENOSPC, "no space left")
            return super().write(descriptor, buffers, offset)

    tree = Tree({b"key %d" % at: bytes(100) for at in range(60)})
    with pytest.raises(OSError, match="no space left"):
        snapshot_file.write(tmp_path / "file", tree, 8, cut_bytes=200, files=Full())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("data", [b"", b"\x00" * 8, b"x" * 40, b"\x84\x01" + bytes(8)])
def test_what_is_no_snapshot_is_refused(tmp_path, data):
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(LogError):
        SnapshotFile(tmp_path / "file")


CHILD = """
import sys
from pathlib import Path
from storage.incoming import Incoming
from storage.snapshot_file import SnapshotFile
from storage.state_range import Range
from storage.state_store import StateStore

file = SnapshotFile(Path(sys.argv[1]))
store = StateStore(Path(sys.argv[2]), map_bytes=2**20)
incoming = Incoming(store)
incoming.begin(file.height, file.root)
missing = incoming.missing()
print(sum(high - low for low, high in missing) >> 240, flush=True)
for place in range(len(file)):
    part = Range.decode(file.range(place))
    if any(low <= part.low < high for low, high in missing):
        incoming.put(part)
        print(place, flush=True)
incoming.finish(b"block", b"certificate")
print("done", store.height, flush=True)
"""


@pytest.mark.slow
def test_a_process_killed_while_a_state_arrives_goes_on_where_it_was(tmp_path):
    giver = StateStore(tmp_path / "giver")
    commit(giver, {b"key %d" % at: os.urandom(60) for at in range(3000)})
    snapshot_file.write(tmp_path / "file", giver.view(), 5, cut_bytes=3000)
    told = set()
    for run in range(4):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(tmp_path / "file"), str(tmp_path / "taker")],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        missing = int(child.stdout.readline())
        assert (missing < 2**16) == (run > 0)
        for _ in range(11):
            place = int(child.stdout.readline())
            assert place not in told
            told.add(place)
        if run < 3:
            child.send_signal(signal.SIGKILL)
            child.stdout.read()
        else:
            assert child.stdout.read().endswith(b"done 5\n")
        child.wait()
        child.stdout.close()
    taker = StateStore(tmp_path / "taker")
    assert taker.view().root == giver.view().root
    assert dict(taker.view().scan(b"")) == dict(giver.view().scan(b""))
    taker.close()
    giver.close()

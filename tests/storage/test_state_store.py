from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import lmdb
import pytest

from storage.errors import LogError, StorageError
from storage.state_store import StaleViewError, StateStore
from storage.state_tree import verify_proof


@pytest.fixture
def store(tmp_path):
    made = StateStore(tmp_path / "state", map_bytes=2**20)
    yield made
    made.close()


def commit(store, changes, height=None, over=None):
    layer = (over if over is not None else store.view()).layer(changes)
    height = store.height + 1 if height is None else height
    store.commit(layer, b"block %d" % height, b"certificate %d" % height, height)
    return layer


def test_a_commit_is_read_back_after_the_store_is_opened_again(tmp_path):
    store = StateStore(tmp_path / "state")
    commit(store, {b"a": b"1", b"b": b"2"})
    commit(store, {b"a": None, b"c": b"3"})
    root = store.view().root
    store.close()
    store = StateStore(tmp_path / "state")
    assert (store.height, store.view().root) == (1, root)
    assert [store.view().get(key) for key in (b"a", b"b", b"c")] == [None, b"2", b"3"]
    assert store.block(1) == (b"block 1", b"certificate 1")
    assert store.block(2) is None
    proof = store.prove(b"c")
    assert verify_proof(root, b"c", b"3", proof)
    store.close()


def test_a_layer_is_its_changes_over_its_parent_and_the_store_is_as_it_was(store):
    commit(store, {b"p/1": b"1", b"p/2": b"2", b"q": b"9"})
    first = store.view().layer({b"p/1": None, b"p/3": b"3"})
    second = first.layer({b"p/1": b"again", b"p/2": None})
    assert list(store.view().scan(b"p/")) == [(b"p/1", b"1"), (b"p/2", b"2")]
    assert list(first.scan(b"p/")) == [(b"p/2", b"2"), (b"p/3", b"3")]
    assert list(second.scan(b"p/")) == [(b"p/1", b"again"), (b"p/3", b"3")]
    assert second.get(b"q") == b"9"
    assert second.get(b"p/2") is None
    assert verify_proof(second.root, b"p/1", b"again", second.prove(b"p/1"))
    assert verify_proof(second.root, b"p/2", None, second.prove(b"p/2"))
    assert store.view().layer({b"p/3": b"3", b"p/2": None, b"p/1": b"again"}).root == second.root


def test_committing_a_parent_leaves_its_children_as_they_were(store):
    commit(store, {b"a": b"1", b"b": b"1"})
    parent = store.view().layer({b"a": b"2"})
    child = parent.layer({b"b": b"2"})
    grandchild = child.layer({b"c": b"2"})
    root = grandchild.root
    commit_layer(store, parent)
    assert (child.get(b"a"), child.get(b"b"), grandchild.get(b"a")) == (b"2", b"2", b"2")
    commit_layer(store, child)
    assert dict(grandchild.scan(b"")) == {b"a": b"2", b"b": b"2", b"c": b"2"}
    commit_layer(store, grandchild)
    assert store.view().root == root == grandchild.root
    assert (parent.get(b"b"), parent.get(b"c")) == (b"1", None)  # a view stays what it was


def commit_layer(store, layer):
    store.commit(layer, b"", b"", store.height + 1)


def test_a_layer_over_a_state_that_is_no_longer_newest_is_refused(store):
    commit(store, {b"a": b"1"})
    loser = store.view().layer({b"a": b"2"})
    child = loser.layer({b"b": b"2"})
    commit(store, {b"a": b"3"})
    for layer in (loser, child, store.view()):
        with pytest.raises(StaleViewError):
            commit_layer(store, layer)
    with pytest.raises(StorageError, match="does not follow"):
        commit(store, {b"a": b"4"}, height=7)
    assert loser.get(b"a") == b"2"


def test_a_long_chain_of_layers_does_not_grow_when_it_is_committed_behind(store):
    commit(store, {b"a": b"0"})
    tip = store.view()
    pending = []
    for number in range(50):
        tip = tip.layer({b"k%d" % number: b"v"})
        pending.append(tip)
        if len(pending) > 2:
            commit_layer(store, pending.pop(0))
    depth, source = 0, tip.source
    while hasattr(source, "parent"):
        depth, source = depth + 1, source.parent.source
    assert depth == 2
    assert tip.get(b"k0") == b"v"


def test_the_map_grows_and_views_go_on_reading(store):
    commit(store, {b"first": b"1"})
    view = store.view()
    old_size = store.environment.info()["map_size"]
    layer = view.layer({b"small": b"2"})
    child = layer.layer({b"big %d" % at: os.urandom(2000) for at in range(2000)})
    commit_layer(store, layer)
    commit_layer(store, child)
    assert store.environment.info()["map_size"] > old_size
    assert store.view().get(b"first") == b"1"
    assert len(list(store.view().scan(b"big"))) == 2000
    assert layer.get(b"small") == b"2"


def test_the_scan_is_in_order_across_its_batches(store):
    commit(store, {b"k%05d" % at: b"v" for at in range(1000)} | {b"l": b"no"})
    found = [key for key, _ in store.view().scan(b"k")]
    assert found == [b"k%05d" % at for at in range(1000)]


def test_readers_see_one_height_while_commits_run(store):
    commit(store, {b"a": b"0", b"b": b"0"})
    torn: list[tuple[bytes | None, bytes | None]] = []
    done = threading.Event()

    def read():
        while not done.is_set():
            view = store.view()
            pair = view.get(b"a"), view.get(b"b")
            if pair[0] != pair[1] or not verify_proof(view.root, b"a", pair[0], view.prove(b"a")):
                torn.append(pair)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number in range(40):
        value = b"%d" % number
        commit(store, {b"a": value, b"b": value})
    done.set()
    for thread in threads:
        thread.join()
    assert torn == []


def test_notes_are_found_again_and_are_no_part_of_the_state(store):
    layer = store.view().layer({b"a": b"1"})
    store.commit(layer, b"", b"", 0, {b"tx": b"height 0"})
    assert store.note(b"tx") == b"height 0"
    assert store.note(b"other") is None
    assert store.view().get(b"tx") is None


def test_keys_are_bounded(store):
    for key in (b"", b"k" * 257):
        with pytest.raises(StorageError):
            store.view().layer({key: b"v"})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (b"root", b"r" * 32),
        (b"format", (9).to_bytes(4, "big")),
        (b"format", None),
        (b"in use", b"\x02"),
        (b"height", b"\xff" * 9),
        (b"first", b"\xff" * 9),
    ],
)
def test_what_stands_beside_the_state_is_checked(tmp_path, key, value):
    store = StateStore(tmp_path / "state")
    commit(store, {b"a": b"1"})
    store.close()
    environment = lmdb.open(str(tmp_path / "state"), max_dbs=5)
    with environment.begin(write=True) as transaction:
        meta = environment.open_db(b"meta", txn=transaction)
        transaction.delete(key, db=meta)
        if value is not None:
            transaction.put(key, value, db=meta)
    environment.close()
    with pytest.raises(LogError):
        StateStore(tmp_path / "state")


CHILD = """
import sys
from pathlib import Path
from storage.state_store import StateStore

store = StateStore(Path(sys.argv[1]), map_bytes=2**20)
while True:
    height = store.height + 1
    body = b"%d" % height
    layer = store.view().layer({b"k%d" % (height * 7 % 500 + at): body for at in range(50)} | {b"at": body})
    store.commit(layer, body, layer.root, height)
    print(height, flush=True)
"""


@pytest.mark.slow
def test_a_store_killed_in_the_middle_of_commits_holds_a_whole_height(tmp_path):
    folder = tmp_path / "state"
    told = -1
    for run in range(3):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(folder)],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        for _ in range(20 + 7 * run):
            told = int(child.stdout.readline())
        child.send_signal(signal.SIGKILL)
        child.stdout.read()
        child.wait()
        child.stdout.close()
        store = StateStore(folder)
        assert store.height >= told
        assert store.view().get(b"at") == b"%d" % store.height
        assert store.block(store.height) == (b"%d" % store.height, store.view().root)
        whole = store.view().layer({})
        assert whole.root == store.view().root
        proof = store.prove(b"at")
        assert verify_proof(store.view().root, b"at", b"%d" % store.height, proof)
        rebuilt = dict(store.view().scan(b""))
        fresh = StateStore(tmp_path / f"fresh {run}")
        assert fresh.view().layer(rebuilt).root == store.view().root
        fresh.close()
        store.close()

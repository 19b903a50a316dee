"""A state that came back older than it was, or another: it says so, and takes back only what was there."""

from __future__ import annotations

import pytest

from storage import state_check, state_store
from storage.errors import LogError
from storage.files import Files
from storage.state_store import StateStore
from storage.state_view import View
from storage.state_witness import SLOT_BYTES, Commit, Witness

_PAGE = 4096
_TXNID = 144
"""Where LMDB keeps, in each of its first two pages, the number of the transaction that wrote it."""


def commit(store, height, salt=b""):
    body = b"%d" % height + salt
    layer = store.view().layer({b"k%d" % at: body for at in range(height + 20)})
    store.commit(layer, body, b"certificate", height)


def made(folder, heights=5):
    store = StateStore(folder, map_bytes=2**20)
    for height in range(heights):
        commit(store, height)
    roots = store.view().root
    store.close()
    return roots


def damage_newest_head(folder):
    """LMDB opens with the other one, as if the last commit had never been."""
    file = folder / "data.mdb"
    data = bytearray(file.read_bytes())
    heads = {int.from_bytes(data[at + _TXNID : at + _TXNID + 8], "little"): at for at in (0, _PAGE)}
    at = heads[max(heads)]
    data[at + _TXNID : at + _TXNID + 8] = bytes(8)
    file.write_bytes(data)


def test_a_damaged_newer_head_is_noticed_and_its_height_taken_back(tmp_path):
    made(tmp_path)
    damage_newest_head(tmp_path)
    store = StateStore(tmp_path)
    assert store.height == 3
    assert store.lost is not None
    assert store.lost.height == 4
    commit(store, 4)
    assert store.lost is None
    commit(store, 5)
    store.close()
    again = StateStore(tmp_path)
    assert (again.height, again.lost) == (5, None)
    again.close()


def test_a_height_that_was_lost_does_not_come_back_as_another(tmp_path):
    made(tmp_path)
    damage_newest_head(tmp_path)
    store = StateStore(tmp_path)
    with pytest.raises(LogError, match=r"height 4 was committed with another root.*move it away"):
        commit(store, 4, b"other")
    assert store.height == 3
    store.close()


def test_what_was_lost_is_still_known_after_another_start(tmp_path):
    made(tmp_path)
    damage_newest_head(tmp_path)
    for _ in range(2):
        store = StateStore(tmp_path)
        assert store.lost is not None
        store.close()


def test_a_state_of_the_same_height_with_another_root_is_refused(tmp_path):
    made(tmp_path / "one")
    other = StateStore(tmp_path / "other", map_bytes=2**20)
    for height in range(5):
        commit(other, height, b"x")
    other.close()
    (tmp_path / "one" / "data.mdb").write_bytes((tmp_path / "other" / "data.mdb").read_bytes())
    with pytest.raises(LogError, match="another root when it was committed"):
        StateStore(tmp_path / "one")


def test_a_witness_that_is_behind_or_gone_is_made_anew(tmp_path):
    root = made(tmp_path)
    path = tmp_path / state_store.WITNESS_FILE
    for damage in (path.unlink, lambda: path.write_bytes(b"x" * 2 * SLOT_BYTES)):
        damage()
        store = StateStore(tmp_path)
        assert store.lost is None
        store.close()
        assert Witness(path).newest == Commit(4, root)


def test_a_torn_note_leaves_the_one_before(tmp_path):
    path = tmp_path / "newest"
    for at in range(6):
        witness = Witness(path)
        for height in range(at + 1):
            witness.note(Commit(height, bytes([height]) * 32))
        before = path.read_bytes()
        witness.note(Commit(99, b"n" * 32))
        witness.close()
        after = path.read_bytes()
        changed = [place for place in range(len(before)) if before[place] != after[place]]
        torn = bytearray(before)
        torn[changed[0] : changed[0] + 5] = after[changed[0] : changed[0] + 5]
        path.write_bytes(torn)
        again = Witness(path)
        assert again.newest == Commit(at, bytes([at]) * 32)
        again.close()
        path.unlink()


def test_a_disk_that_takes_no_note_does_not_end_a_commit(tmp_path):
    class Full(Files):
        def write(self, descriptor, buffers, offset):
            raise OSError(28, "no space")

    made(tmp_path)
    witness = Witness(tmp_path / state_store.WITNESS_FILE, Full())
    witness.note(Commit(9, b"n" * 32))
    witness.close()
    store = StateStore(tmp_path)
    assert store.lost is None
    store.close()


# A check while the state is in use


@pytest.fixture
def large(tmp_path, monkeypatch):
    """A store whose state is too large to be read through when it is opened."""
    monkeypatch.setattr(state_check, "CHECKED_RECORDS", 64)
    monkeypatch.setattr(state_check, "STEP_RECORDS", 16)
    store = StateStore(tmp_path, map_bytes=2**22)
    store.commit(store.view().layer(records(0, 600)), b"0", b"", 0)
    store.close()
    again = StateStore(tmp_path, map_bytes=2**22)
    yield again
    again.close()


def records(first, last, salt=b""):
    return {b"key %d" % at: b"value %d" % at + salt for at in range(first, last)}


def overwrite(store, table, key, value):
    """Change the disk behind the ledger's back."""
    with store.environment.begin(write=True) as transaction:
        if value is None:
            transaction.delete(key, db=store.tables[table])
        else:
            transaction.put(key, value, db=store.tables[table])
    height = store.height
    store.commit(store.view().layer({b"moves the view": b"1"}), b"", b"", height + 1)


def test_a_large_state_is_checked_in_steps_while_blocks_are_committed_over_it(large):
    assert not large.is_checked
    steps = 0
    for steps, _ in enumerate(large.check(), 1):
        if steps % 20 == 0:
            changes = {**records(steps, steps + 9, b"!"), b"key %d" % (steps + 50): None}
            large.commit(large.view().layer(changes), b"", b"", large.height + 1)
    assert large.is_checked
    assert steps > 256
    assert large.height > 10


@pytest.mark.parametrize("count", [0, 1, 2, 3, 40])
def test_a_small_state_passes_as_well(tmp_path, count):
    store = StateStore(tmp_path)
    store.commit(store.view().layer(records(0, count)), b"0", b"", 0)
    list(store.check())
    store.close()


def _first_node(store, depth):
    with store.environment.begin() as transaction:
        nodes = transaction.cursor(db=store.tables[1])
        return next((bytes(key), bytes(value)) for key, value in nodes if bytes(key)[-1] == depth)


@pytest.mark.parametrize("what", ["value", "value gone", "value more", "leaf", "node", "top"])
def test_damage_of_a_large_state_is_found_and_refused_from_then_on(large, tmp_path, what):
    match what:
        case "value":
            overwrite(large, 0, b"key 77", b"value 78")
        case "value gone":
            overwrite(large, 0, b"key 77", None)
        case "value more":
            overwrite(large, 0, b"key 7777", b"?")
        case "leaf" | "node" | "top":
            key, node = _first_node(large, {"leaf": 11, "node": 8, "top": 3}[what])
            changed = node[:-1] + bytes([node[-1] ^ 1])
            with large.environment.begin(write=True) as transaction:
                transaction.put(key, changed, db=large.tables[1])
            large._current = View(state_store.Snapshot(large, large.height, large.view().root))
    with pytest.raises(LogError, match="move it away"):
        list(large.check())
    assert not large.is_checked
    large.close()
    with pytest.raises(LogError, match=r"an earlier run found.*move it away"):
        StateStore(tmp_path)


def test_a_check_goes_on_when_the_map_has_to_grow(large):
    steps = large.check()
    for _ in range(40):
        next(steps)
    size = large.environment.info()["map_size"]
    large.commit(large.view().layer({b"big": bytes(3 * 2**22)}), b"", b"", 1)
    assert large.environment.info()["map_size"] > size
    list(steps)
    assert large.is_checked

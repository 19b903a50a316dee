"""A reading of everything that is stopped goes on where it was."""

from __future__ import annotations

import json
import random

import pytest

from storage import dag
from storage.blockstore import SegmentBlockstore
from storage.importer import add_path
from storage.slot_contents import SlotContents
from storage.slots import SlotStore
from swarm.store import reading
from swarm.store.reading import read_everything
from tests.store.nodes import MIB
from tests.store.test_repair import damage


class StopError(Exception):
    """A person pressed Ctrl-C."""


def stopping(after):
    """Told of chunks; ends the reading at one of them."""
    left = [after]

    def tell(_done: int, _total: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise StopError

    return tell


def leaves(store, root):
    return [link.cid for link in dag.links(root, store.get(root))]


@pytest.fixture
def store(tmp_path):
    """With chunks in the user's files, in sealed slots and in segments; two are damaged."""
    store = SegmentBlockstore(tmp_path / "chunks", 2**30, keep_free=0, segment_bytes=MIB)
    slots = SlotStore(tmp_path / "slots", b"k" * 32, b"c" * 32, 4, 1)
    contents = SlotContents(slots, store)
    source = random.Random(5)
    for name in ("own", "sealed", "stored"):
        (tmp_path / name).write_bytes(source.randbytes(3 * MIB + 5))
    add_path(tmp_path / "own", store, in_place=True)
    for _ in range(5):
        slots.append()
    slots.settle(slots.stage().root)
    sealed = add_path(tmp_path / "sealed", store).root
    for cid in contents.waiting(sealed):
        assert contents.put(cid, 5)
    slots.settle(slots.stage().root)
    stored = add_path(tmp_path / "stored", store).root
    damage(store, leaves(store, stored)[1])
    with (tmp_path / "own").open("r+b") as file:
        file.seek(MIB + 7)
        file.write(b"changed")
    yield store
    slots.close()
    store.close()


@pytest.mark.parametrize("after", [0, 1, 2, 3])
def test_a_reading_stopped_anywhere_goes_on_and_comes_to_the_same(store, tmp_path, after):
    note = tmp_path / "verify.json"
    stops = 0
    while True:
        try:
            read = read_everything(store, stopping(after), note)
        except StopError:
            stops += 1
            assert note.exists()
        else:
            break
    assert stops >= 14 // (after + 1)
    assert (read.chunks, read.bad) == (15, 2)
    assert list(read.files.values()) == [str(tmp_path / "own")]
    assert 0 < read.earlier <= read.size
    assert not note.exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 2},
        {"begun": 0},
        {"begun": 2**40},
        {"begun": None},
        {"stage": 7},
        {"stage": 2, "at": "00"},
        {"stage": 1, "at": 5},
        {"files": {"no CID": "a path"}},
        {"files": 5},
        {"chunks": "many"},
    ],
)
def test_a_note_that_is_old_or_damaged_begins_anew(store, tmp_path, changes):
    note = tmp_path / "verify.json"
    with pytest.raises(StopError):
        read_everything(store, stopping(9), note)
    note.write_text(json.dumps(json.loads(note.read_text()) | changes))
    read = read_everything(store, stopping(99), note)
    assert (read.chunks, read.earlier) == (15 - 1, 0)  # what is bad was forgotten by the first


def test_a_note_that_is_cut_begins_anew(store, tmp_path):
    note = tmp_path / "verify.json"
    note.write_bytes(b'{"version": 1, ')
    assert read_everything(store, stopping(99), note).chunks == 15


def test_a_reading_is_noted_while_it_goes_on(store, tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "NOTE_SECONDS", -1)
    note, places = tmp_path / "verify.json", []

    def tell(_done: int, _total: int) -> None:
        if note.exists():
            told = json.loads(note.read_text())
            places.append((told["stage"], told["at"]))

    read_everything(store, tell, note)
    assert len(places) == 14
    assert places == sorted(places, key=lambda place: place[0])
    assert len(set(places)) == len(places)

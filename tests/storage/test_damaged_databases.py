"""A database that a disk has changed: what can be made anew is, what cannot says what to do, and nothing else is raised."""

from __future__ import annotations

import random
import shutil
import zlib

import pytest

from storage import cid as cids
from storage.blockstore import SegmentBlockstore
from storage.errors import CorruptChunkError, LogError, StorageError
from storage.references import FileState, Reference
from storage.slots import SlotStore

CHUNKS = [(cids.of_raw(data), data) for data in (at.to_bytes(4, "big") * 20 for at in range(120))]
SEED = 20261121


def damages(content, count):
    """Contents with a few bytes changed, or the end gone; the same ones in each run."""
    draw = random.Random(SEED)
    written = [at for at, one in enumerate(content) if one]
    for _ in range(count):
        at, length = draw.choice(written), draw.choice((1, 1, 1, 40))
        yield content[:at] + draw.randbytes(length) + content[at + length :]
    for _ in range(count // 8):
        yield content[: draw.randrange(len(content))]


def open_slots(folder):
    return SlotStore(folder, b"k" * 32, b"c" * 32, 4, 1)


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("filled")
    file, parts = folder / "user", [b"%90d" % at for at in range(40)]
    file.write_bytes(b"".join(parts))
    state = FileState.of(file.stat())
    store = SegmentBlockstore(folder / "chunks", 2**30, keep_free=0)
    store.put_many(CHUNKS)
    store.add_references(
        [
            Reference(cids.of_raw(part), file, 90 * at, 90, zlib.crc32(part), state)
            for at, part in enumerate(parts)
        ]
    )
    for cid, _ in CHUNKS[:40]:
        store.pin(cid, "a label")
        store.hold(cid, "a duty")
    store.close()
    return folder / "chunks"


@pytest.mark.slow
def test_an_index_with_any_byte_changed_is_made_anew(filled, tmp_path):
    store = shutil.copytree(filled, tmp_path / "chunks")
    for content in damages((filled / "index.db").read_bytes(), 64):
        (store / "index.db").write_bytes(content)
        with_index = SegmentBlockstore(store, 2**30, keep_free=0)
        try:
            for cid, data in CHUNKS:
                try:
                    assert with_index.get(cid) == data
                except CorruptChunkError:  # a length that is wrong: put again, it is whole
                    with_index.put_many([(cid, data)])
                    assert with_index.get(cid) == data
        finally:
            with_index.close()


def test_a_chunk_whose_row_and_index_differ_is_given_back(filled, tmp_path):
    folder = shutil.copytree(filled, tmp_path / "chunks")
    content = (folder / "index.db").read_bytes()
    cid, data = CHUNKS[7]
    assert content.count(cid) == 2, "in its row, and in the index over them"
    last = content.rindex(cid)
    for at in (content.index(cid), last):
        (folder / "index.db").write_bytes(content[: at + 9] + b"????" + content[at + 13 :])
        store = SegmentBlockstore(folder, 2**30, keep_free=0)
        assert store.get(cid) == data
        store.close()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pins.db", "references.db"])
def test_what_cannot_be_made_anew_says_what_to_do(filled, tmp_path, name):
    folder = shutil.copytree(filled, tmp_path / "chunks")
    told = 0
    for content in damages((filled / name).read_bytes(), 64):
        (folder / name).write_bytes(content)
        try:
            store = SegmentBlockstore(folder, 2**30, keep_free=0)
        except LogError as error:
            told += "restore it from a copy, or move it away" in str(error)
            continue
        for ask in (store.pins, store.holds, store.verify, store.changed_files):
            try:
                ask()
            except StorageError:
                told += 1
        store.close()
    assert told > 8


@pytest.mark.slow
def test_a_damaged_database_of_slots_says_what_to_do(tmp_path):
    store = open_slots(tmp_path)
    for pair in (None, CHUNKS[0], CHUNKS[1]):
        store.append(pair)
    store.settle(store.stage().root)
    store.replace(0, CHUNKS[2])
    store.close()
    told = 0
    for content in damages((tmp_path / "slots.db").read_bytes(), 64):
        (tmp_path / "slots.db").write_bytes(content)
        try:
            store = open_slots(tmp_path)
            try:
                for cid in store.chunks():
                    store.get(cid)
                assert store.bytes_used >= 0 <= store.unstaged
            finally:
                store.close()
        except LogError as error:
            told += "put a copy of that folder back" in str(error)
        except StorageError:
            told += 1
    assert told > 8


def test_a_persons_files_beside_the_chunks_and_the_slots_are_left_alone(tmp_path):
    store = SegmentBlockstore(tmp_path / "chunks", 2**30, keep_free=0)
    store.put_many(CHUNKS[:1])
    store.close()
    slots = open_slots(tmp_path / "slots")
    slots.append(CHUNKS[1])
    slots.close()
    beside = [
        tmp_path / "chunks" / "00000001 (copy).seg",
        tmp_path / "slots" / "000000 (copy).slots",
        tmp_path / "slots" / "pending" / "notes",
    ]
    for path in beside[:2]:
        path.write_bytes(b"mine")
    beside[2].mkdir()
    store = SegmentBlockstore(tmp_path / "chunks", 2**30, keep_free=0)
    assert store.get(CHUNKS[0][0]) == CHUNKS[0][1]
    store.close()
    slots = open_slots(tmp_path / "slots")
    assert slots.get(CHUNKS[1][0]) == CHUNKS[1][1]
    slots.close()
    assert all(path.exists() for path in beside)

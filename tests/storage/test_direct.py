"""Large writes past the system's memory: the file is what an ordinary write makes of it."""

from __future__ import annotations

import os
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage import cid as cids
from storage import direct
from storage.blockstore import SegmentBlockstore
from storage.chunks import MAX_CHUNK_BYTES
from storage.files import DISK
from tests.storage.faulty_disk import FaultyDisk

BLOCK = direct.BLOCK_BYTES


def chunk(seed, size=MAX_CHUNK_BYTES):
    data = random.Random(seed).randbytes(size)
    return cids.of_raw(data), data


@pytest.fixture
def opened(tmp_path):
    descriptor = DISK.create(tmp_path / "file")
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def can_see(opened):
    """Whether the system says what it has in memory, and a large write goes past it."""
    direct.write(opened, [bytes(2 * BLOCK)], 0)
    reading = os.open(f"/proc/self/fd/{opened}", os.O_RDONLY)
    try:
        is_kept = os.preadv(reading, [bytearray(1)], 0, os.RWF_NOWAIT) > 0
    except BlockingIOError:
        is_kept = False
    except OSError:
        is_kept = True
    finally:
        os.close(reading)
    if is_kept:
        pytest.skip("this file system writes through memory, or does not say")


def is_in_memory(path, offset):
    with path.open("rb") as file:
        try:
            return os.preadv(file.fileno(), [bytearray(1)], offset, os.RWF_NOWAIT) == 1
        except BlockingIOError:
            return False


@given(
    offset=st.sampled_from([0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 44]),
    sizes=st.lists(st.sampled_from([0, 1, 44, BLOCK - 44, BLOCK, 70_001]), max_size=5),
    large=st.sampled_from([0, 2**20, 2**20 + 44]),
    seed=st.integers(0, 9),
)
@settings(max_examples=60, deadline=None)
def test_any_buffers_at_any_place_are_written_as_they_are(
    tmp_path_factory, offset, sizes, large, seed
):
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(b"\xff" * (offset + 10))
    buffers = [chunk(at + seed, size)[1] for at, size in enumerate((*sizes, large, *sizes))]
    whole = b"".join(buffers)
    descriptor = os.open(path, os.O_WRONLY)
    try:
        assert direct.write(descriptor, buffers, offset) == len(whole)
    finally:
        os.close(descriptor)
    rest = b"\xff" * (10 - len(whole))
    assert path.read_bytes() == b"\xff" * offset + whole + rest


def test_a_disk_that_refuses_direct_writes_is_written_to_as_ever(opened, tmp_path, monkeypatch):
    # Lengths that are no blocks, which the system refuses of a direct write.
    monkeypatch.setattr(direct, "STAGE_BYTES", 2**20 + 100)
    monkeypatch.setattr(direct, "_stages", [])
    _, data = chunk(1)
    assert direct.write(opened, [data], 0) == len(data)
    assert (tmp_path / "file").read_bytes() == data


class Emptied(list):
    """Buffers of which another thread takes the last one after it was seen."""

    def __len__(self):
        return 1


def test_a_buffer_that_another_thread_took_first_is_made_anew(opened, tmp_path, monkeypatch):
    monkeypatch.setattr(direct, "_stages", Emptied())
    _, data = chunk(1)
    assert direct.write(opened, [data], 0) == len(data)
    assert (tmp_path / "file").read_bytes() == data


def test_what_is_written_after_a_direct_write_is_not_direct(opened, tmp_path):
    _, data = chunk(1)
    assert DISK.write(opened, [data], 0) == len(data)
    assert DISK.write(opened, [b"seven.."], 3) == 7
    assert (tmp_path / "file").read_bytes() == data[:3] + b"seven.." + data[10:]


def test_large_chunks_one_after_the_other_are_read_back_when_the_store_is_opened_again(tmp_path):
    held = dict(chunk(number, MAX_CHUNK_BYTES - 17 * number) for number in range(5))
    store = SegmentBlockstore(tmp_path / "chunks", 2**30, segment_bytes=2 * MAX_CHUNK_BYTES + 100)
    for cid, data in held.items():
        store.put_many([(cid, data), chunk(("small", cid).__repr__(), 300)])
    store.close()
    (tmp_path / "chunks" / "index.db").unlink()
    store = SegmentBlockstore(tmp_path / "chunks", 2**30)
    assert {cid: store.get(cid) for cid in held} == held
    assert store.verify() == []
    store.close()


def test_a_disk_that_takes_half_of_each_large_write_gets_everything(tmp_path):
    held = dict(chunk(number) for number in range(3))
    store = SegmentBlockstore(tmp_path / "chunks", 2**30, files=FaultyDisk(short=True))
    store.put_many(held.items())
    assert {cid: store.get(cid) for cid in held} == held
    store.close()


def test_a_chunk_stays_in_memory_from_the_second_reading_on(tmp_path, can_see):
    store = SegmentBlockstore(tmp_path / "chunks", 2**30)
    cid, data = chunk(1)
    store.put_many([(cid, data)])
    path, middle = tmp_path / "chunks" / "00000001.seg", MAX_CHUNK_BYTES // 2
    found = [is_in_memory(path, middle)]
    for _ in range(2):
        assert store.get(cid) == data
        found.append(is_in_memory(path, middle))
    assert found == [False, False, True]
    store.close()

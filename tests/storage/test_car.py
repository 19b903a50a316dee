"""CAR files: written so that others read them, and read from strangers."""

from __future__ import annotations

import contextlib
import io
import json
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage import car, dag_pb, unixfs
from storage import cid as cids
from storage.dag_pb import Link, varint
from storage.errors import ChunkNotFoundError, CorruptChunkError, ManifestError, QuotaError
from storage.memory import MemoryBlockstore
from storage.unixfs_nodes import Built, file_node, folder_node

VECTORS = Path(__file__).parents[1] / "vectors"
FOREIGN = (VECTORS / "unixfs_foreign.car").read_bytes()
ROOTS = json.loads((VECTORS / "unixfs_foreign.json").read_text())["roots"]


def load(data: bytes, store=None):
    store = store or MemoryBlockstore()
    return car.load(io.BytesIO(data), store), store


def chunk(data: bytes) -> bytes:
    return car.section(cids.of_raw(data), data)


@pytest.fixture
def sample(tmp_path):
    folder = tmp_path / "sample"
    (folder / "inner").mkdir(parents=True)
    (folder / "a").write_bytes(b"a" * 3_000_000)
    (folder / "inner" / "same").write_bytes(b"a" * 3_000_000)
    (folder / "inner" / "other").write_bytes(b"other")
    store = MemoryBlockstore()
    return unixfs.add_path(folder, store).root, store


class TestWriting:
    def test_what_was_written_is_read(self, sample):
        root, store = sample
        seen = []
        data = b"".join(car.export([root], store, lambda *now: seen.append(now)))
        imported, copy = load(data)
        assert imported.roots == (root,)
        assert copy.chunks == store.chunks
        assert imported.new_bytes == imported.size == sum(map(len, store.chunks.values()))
        assert seen[-1][0] == imported.size
        assert load(data, copy)[0].new_bytes == 0

    def test_chunks_come_depth_first_and_once(self, sample):
        root, store = sample
        order = [cid for cid, _ in car.walk([root], store)]
        assert len(order) == len(set(order)) == len(store.chunks)
        file = unixfs.resolve(root, "a", store)
        assert order[:2] == [root, file]
        assert order[-2:] == [unixfs.resolve(root, "inner", store), cids.of_raw(b"other")]

    def test_the_bytes_are_those_of_the_specification(self):
        store = MemoryBlockstore()
        root = cids.of_raw(b"hello")
        store.put_many([(root, b"hello")])
        assert b"".join(car.export([root], store)) == (
            b"\x3a\xa2\x65roots\x81\xd8\x2a\x58\x25\x00" + root + b"\x67version\x01"
            b"\x29" + root + b"hello"
        )

    def test_a_chunk_that_is_missing_is_named(self, sample):
        root, store = sample
        assert car.first_missing(root, store) is None
        gone = cids.of_raw(b"other")
        del store.chunks[gone]
        assert car.first_missing(root, store) == gone
        with pytest.raises(ChunkNotFoundError):
            list(car.export([root], store))
        del store.chunks[root]
        assert car.first_missing(root, store) == root

    def test_links_that_wait_are_bounded(self, monkeypatch):
        monkeypatch.setattr(car, "MAX_PENDING", 3)
        store = MemoryBlockstore()
        built, block = folder_node([Link(cids.of_raw(b"%d" % n), f"{n}", 1) for n in range(4)])
        store.put_many([(built.cid, block)])
        with pytest.raises(car.CarError, match="wait"):
            list(car.walk([built.cid], store))


class TestReading:
    def test_a_file_that_others_wrote_is_read(self):
        imported, store = load(FOREIGN)
        assert imported.roots == tuple(cids.parse(text) for text in ROOTS.values())
        assert imported.blocks == 293
        for root in imported.roots:
            assert car.first_missing(root, store) is None

    def test_the_version_1_within_version_2_is_read(self):
        inner = car.header([cids.of_raw(b"x")]) + chunk(b"x")
        for gap, index in ((0, b""), (100, b"an index, whatever it is")):
            head = bytes(16) + (51 + gap).to_bytes(8, "little") + len(inner).to_bytes(8, "little")
            head += (51 + gap + len(inner)).to_bytes(8, "little")
            data = bytes.fromhex("0aa16776657273696f6e02") + head + bytes(gap) + inner + index
            imported, store = load(data)
            assert imported.roots == (cids.of_raw(b"x"),)
            assert store.chunks == {cids.of_raw(b"x"): b"x"}

    @pytest.mark.parametrize(("offset", "size"), [(51, -1), (51, 1), (50, 0), (2**21, 0)])
    def test_version_2_that_does_not_fit_its_version_1_is_refused(self, offset, size):
        inner = car.header([]) + chunk(b"x")
        fixed = (offset, len(inner) + size, 0)
        head = bytes(16) + b"".join(number.to_bytes(8, "little") for number in fixed)
        with pytest.raises(car.CarError):
            load(bytes.fromhex("0aa16776657273696f6e02") + head + inner)

    def test_a_file_that_is_cut_short_is_refused(self):
        head = car.header([cids.of_raw(b"x")])
        data = head + chunk(b"x")
        for at in set(range(len(data))) - {len(head)}:
            with pytest.raises((car.CarError, CorruptChunkError)):
                load(data[:at])

    @pytest.mark.parametrize(
        "garbage", [b"\0", b"garbage", b"\x26" + bytes(38), b"\xff" * 12, b"\x81\x00", b"\0" * 100]
    )
    def test_what_follows_the_last_chunk_is_refused(self, garbage):
        data = car.header([]) + chunk(b"x")
        load(data)
        with pytest.raises(car.CarError):
            load(data + garbage)

    @pytest.mark.parametrize(
        "head",
        [
            b"",
            b"\0",
            b"\xa1",
            varint(2**21) + bytes(2**21),
            b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
            b"\x01\xa0",
            b"\x0a\xa1\x67version\x03",
            b"\x0a\xa1\x67version\x01",
            b"\x12\xa2\x65roots\x81\x01\x67version\x01",
            car.header([b"\x01\x55\x00\x01a"]),
        ],
        ids=lambda head: head[:8].hex(),
    )
    def test_a_header_that_is_none_is_refused(self, head):
        with pytest.raises(ManifestError):
            load(head)

    def test_a_chunk_of_another_name_is_refused(self):
        data = car.header([]) + car.section(cids.of_raw(b"this"), b"that")
        with pytest.raises(CorruptChunkError):
            load(data)

    def test_a_chunk_named_in_a_way_that_we_do_not_know_is_refused(self):
        blake = b"\x01\x55\xa0\xe4\x02\x20" + bytes(32)
        data = car.header([]) + varint(len(blake) + 1) + blake + b"x"
        with pytest.raises(car.CarError, match="chunk 1 of the CAR file"):
            load(data)

    def test_a_length_is_refused_before_its_bytes_are_read(self):
        class Endless(io.RawIOBase):
            start = io.BytesIO(car.header([]) + varint(10**15))

            def read(self, size=-1):
                return self.start.read(size) or bytes(size)

        tracemalloc.start()
        with pytest.raises(car.CarError, match="1,000,000,000,000,000"):
            car.load(Endless(), MemoryBlockstore())
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 2**20

    def test_chunks_without_number_are_refused(self, monkeypatch):
        monkeypatch.setattr(car, "MAX_BLOCKS", 3)
        data = car.header([]) + b"".join(chunk(b"%d" % number) for number in range(4))
        with pytest.raises(car.CarError, match="more than 3"):
            load(data)

    def test_the_quota_is_kept(self):
        with pytest.raises(QuotaError):
            load(FOREIGN, MemoryBlockstore(10_000))

    @given(st.integers(0, len(FOREIGN[:4_000]) - 1), st.integers(0, 255))
    def test_any_damage_is_refused_or_changes_nothing(self, at, byte):
        data = FOREIGN[:4_000]
        damaged = data[:at] + bytes((byte,)) + data[at + 1 :]
        store = MemoryBlockstore()
        with contextlib.suppress(ManifestError, CorruptChunkError):
            load(damaged, store)
        for cid, block in store.chunks.items():
            assert cids.matches(cid, block)


def test_equal_content_gives_equal_bytes_whoever_holds_it(sample):
    root, store = sample
    data = b"".join(car.export([root], store))
    _, copy = load(data)
    copy.chunks = dict(sorted(copy.chunks.items()))
    assert b"".join(car.export([root], copy)) == data
    shared = file_node([Built(cids.of_raw(b"x"), 1, 1)] * 3)
    copy.put_many([(shared[0].cid, shared[1]), (cids.of_raw(b"x"), b"x")])
    assert [cid for cid, _ in car.walk([shared[0].cid], copy)] == [
        shared[0].cid,
        cids.of_raw(b"x"),
    ]
    assert dag_pb.decode(shared[1]).links[0].cid == cids.of_raw(b"x")

"""What changed inside safetensors and Parquet files."""

from __future__ import annotations

import json
import random

import pytest

from storage import cid as cids
from storage import dag_pb
from storage.dag_pb import Link
from storage.errors import ManifestError
from storage.importer import add_path
from storage.memory import MemoryBlockstore
from storage.unixfs_nodes import Kind
from swarm.versions import rows
from swarm.versions.tensors import MAX_NODES, File, tensor_changes

KIB = 2**10


def safetensors(tensors: dict[str, bytes]) -> bytes:
    at, header = 0, {}
    for name, data in tensors.items():
        header[name] = {"dtype": "U8", "shape": [len(data)], "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + b"".join(tensors.values())


class Files:
    """Files in a store that counts the leaves it gives."""

    def __init__(self, folder):
        self.store = MemoryBlockstore()
        self.read = []
        self._path = folder / "model.safetensors"

    def add(self, content: bytes) -> File:
        self._path.write_bytes(content)
        root = add_path(self._path, self.store).root

        def read(cid, _begin, _size):
            self.read.append(cid)
            return self.store.get(cid)

        return File(root, len(content), self.store.get, read)


@pytest.fixture
def files(tmp_path):
    return Files(tmp_path)


def noise(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def test_tensors_are_told_apart_by_name_shape_and_bytes(files):
    old = files.add(
        safetensors({"a": noise(1, 99), "b": noise(2, 9), "c": noise(3, 70), "gone": b"x"})
    )
    new = files.add(
        safetensors({"new": b"y", "a": noise(1, 99), "b": noise(9, 9), "c": noise(3, 69)})
    )
    found = tensor_changes(old, new)
    assert found is not None
    assert (found.added, found.removed, found.changed, found.same) == (
        ("new",),
        ("gone",),
        ("b", "c"),
        1,
    )


def test_chunks_that_both_versions_share_are_not_read(files):
    large = {name: noise(ord(name), 1_500 * KIB) for name in "abc"}
    old = files.add(safetensors(large))
    new = files.add(safetensors({**large, "b": noise(0, 1_500 * KIB)}))
    files.read.clear()
    found = tensor_changes(old, new)
    assert found is not None
    assert found.changed == ("b",)
    shared = {cid for cid, _ in old.leaves} & {cid for cid, _ in new.leaves}
    assert len(shared) >= 4
    assert shared & set(files.read) <= {
        old.leaves[0][0]
    }  # the header, which is read to be compared


def test_a_tensor_that_moved_within_the_file_is_the_same(files):
    parts = {"a": noise(1, 300 * KIB), "b": noise(2, 1_000)}
    old = files.add(safetensors(parts))
    new = files.add(safetensors({"z": noise(3, 77), **parts}))
    found = tensor_changes(old, new)
    assert found is not None
    assert (found.added, found.changed, found.same) == (("z",), (), 2)


def test_a_file_that_is_not_what_its_header_says_is_not_looked_into(files):
    good = files.add(safetensors({"a": b"1"}))
    for content in (b"", b"no header at all", safetensors({"a": b"1"}) + b"more"):
        assert tensor_changes(good, files.add(content)) is None


@pytest.mark.slow
def levels(depth: int, width: int, leaf: bytes) -> tuple[bytes, dict[bytes, bytes]]:
    """A file of so many levels, each of which names the one below so often, and says of it that it is of one byte."""
    at, blocks = cids.of_dag_pb(leaf), {cids.of_dag_pb(leaf): leaf}
    for _ in range(depth):
        data = dag_pb.varint_field(1, Kind.FILE) + dag_pb.varint_field(3, width)
        data += b"".join(dag_pb.varint_field(4, 1) for _ in range(width))
        block = dag_pb.encode([Link(at, "", 1)] * width, data)
        at = cids.of_dag_pb(block)
        blocks[at] = block
    return at, blocks


def test_a_few_nodes_that_name_each_other_without_a_leaf_are_refused_at_once():
    empty = dag_pb.encode([], dag_pb.varint_field(1, Kind.FILE) + dag_pb.varint_field(3, 0))
    root, blocks = levels(4, 30, empty)
    looked = []

    def get(cid):
        looked.append(cid)
        return blocks[cid]

    with pytest.raises(ManifestError):
        File(root, 30, get, lambda *_: b"")
    assert len(looked) < 10


def test_a_file_of_more_nodes_than_its_leaves_can_want_is_refused():
    leaf = cids.of_raw(b"x")
    blocks: dict[bytes, bytes] = {}

    def node(below, sizes):
        data = dag_pb.varint_field(1, Kind.FILE) + dag_pb.varint_field(3, sum(sizes))
        data += b"".join(dag_pb.varint_field(4, size) for size in sizes)
        block = dag_pb.encode([Link(one, "", 1) for one in below], data)
        blocks[cids.of_dag_pb(block)] = block
        return cids.of_dag_pb(block)

    middle = node([node([leaf], [1])] * 200, [1] * 200)
    root = node([middle] * 200, [200] * 200)
    looked = []

    def get(cid):
        looked.append(cid)
        return blocks[cid]

    with pytest.raises(ManifestError, match="nodes above its leaves"):
        File(root, 200 * 200, get, lambda *_: b"")
    assert len(looked) == MAX_NODES


def test_rows_are_counted_whatever_their_order(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    def write(name, numbers):
        table = pyarrow.table({"n": numbers, "t": [f"row {n}" for n in numbers]})
        parquet.write_table(table, tmp_path / name, row_group_size=7)
        return str(tmp_path / name)

    old = write("old", [*range(50), 3, 3])
    new = write("new", [*range(49, 9, -1), 3, 100, 101])
    assert rows.count(old, new) == {"added": 2, "removed": 11}
    assert rows.count(old, old) == {"added": 0, "removed": 0}


def test_a_leaf_alone_is_a_file_of_one_leaf(files):
    file = files.add(b"short")
    assert [size for _, size in file.leaves] == [5]
    assert cids.codec(file.leaves[0][0]) == cids.RAW
    assert file.read(1, 99) == b"hort"


def test_a_leaf_of_many_small_tensors_is_read_once(files):
    small = {f"t{number}": bytes([number % 256]) * 40 for number in range(500)}
    old = files.add(safetensors(small))
    new = files.add(safetensors(small | {"t0": b"x" * 40}))
    found = tensor_changes(old, new)
    assert (found.changed, found.same) == (("t0",), 499)
    assert len(files.read) <= len(old.leaves) + len(new.leaves)

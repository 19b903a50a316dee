"""Whatever a block, a record or a file holds, a storage decoder reads it or refuses it by name."""

from __future__ import annotations

import base64
import io
import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage import canonical, car, cid, dag, dag_pb, erasure, hamt, merkle, records, state_tree
from storage.car import CarError
from storage.consensus_log import ConsensusLog
from storage.dag_pb import Link
from storage.errors import (
    CanonicalError,
    ChunkNotFoundError,
    CidError,
    LogError,
    ManifestError,
    StorageError,
)
from storage.safetensors_cut import header_length, leaf_sizes
from storage.slot_tree import Label
from storage.snapshot_file import SnapshotFile
from storage.state_range import Range, RangeError
from storage.unixfs_nodes import folder_node, read_node, shard_node, symlink_node
from tests.fuzz.fuzzing import FUZZ, Target, changed, check, strange

RAW, PB = cid.of_raw(b"one"), cid.of_dag_pb(b"two")
COMMIT = cid.of_dag_cbor(b"commit")
FOLDER = folder_node([Link(RAW, "a", 3), Link(PB, "b", 9)], 0o755)[1]
SLOT = hamt.name_hash("a")[0]
SHARD = shard_node([Link(RAW, f"{SLOT:02X}a", 3)], 1 << SLOT)[1]
SYMLINK = symlink_node("a/b")[1]
MANIFESTS = (FOLDER, SHARD, SYMLINK)
DAG_CBOR = (
    bytes.fromhex("a1616101"),
    b"\xa1\x61r\xd8\x2a\x58\x25\x00" + RAW,
    b"\x82\xd8\x2a\x58\x25\x00" + PB + b"\xfb\x3f\xf0" + bytes(6),
)
RECIPE = erasure.Recipe(2, 3, 1000, PB, (RAW, PB, RAW)).encode()
RANGE = Range(8, bytes([7]) + bytes(31), ((b"k", b"v"),), b"\x00").encode()
CAR = car.header([PB]) + car.section(PB, FOLDER) + car.section(RAW, b"one")
CAR_2 = (
    bytes.fromhex("0aa16776657273696f6e02")
    + bytes(16)
    + (51).to_bytes(8, "little")
    + len(CAR).to_bytes(8, "little")
    + bytes(8)
    + CAR
)


def read_car(data: bytes) -> list:
    reader = car.Reader(io.BytesIO(data))
    return [reader.roots, *reader]


def read_folder(block: bytes) -> object:
    """A manifest as far as its own block goes: its links, its size, and the entries of a shard."""
    of = cid.of_dag_pb(block)
    node = read_node(of, block)
    dag.tree_size(of, block)
    if node.kind.name == "SHARD":

        def get(below):
            raise ChunkNotFoundError(cid.text(below))

        list(hamt.entries(node, get))
        hamt.find(node, "a", get)
    return node


def read_text(data: bytes) -> cid.Cid:
    return cid.parse(data.decode("latin-1"))


TARGETS = [
    Target(
        "canonical",
        lambda data: canonical.decode(data, max_bytes=2**16),
        CanonicalError,
        (canonical.encode([1, b"a", "b", None, True, [[], -7, 2**100]]),),
        canonical.encode,
    ),
    Target("cid", cid.from_bytes, CidError, (bytes(RAW), bytes(PB)), bytes),
    Target("text of a cid", read_text, CidError, (cid.text(RAW).encode(), cid.text(PB).encode())),
    Target("link", dag_pb.target, ManifestError, (bytes(RAW), bytes(PB)[2:])),
    Target("dag-pb", dag_pb.decode, ManifestError, MANIFESTS),
    Target("unixfs", read_folder, (ManifestError, ChunkNotFoundError), MANIFESTS),
    Target("dag-cbor", lambda data: dag.links(COMMIT, data), ManifestError, DAG_CBOR),
    Target("car", read_car, CarError, (CAR, CAR_2)),
    Target("recipe", erasure.Recipe.decode, ManifestError, (RECIPE,), erasure.Recipe.encode),
    Target("range", Range.decode, RangeError, (RANGE,), Range.encode),
    Target(
        "label",
        Label.decode,
        StorageError,
        (Label(b"r" * 32).encode(), Label(b"r" * 32, RAW, 7).encode()),
        Label.encode,
    ),
]


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_any_bytes_are_accepted_or_refused_by_name(target):
    check(target)


@FUZZ
@given(strange((RANGE,)))
def test_a_range_of_any_bytes_is_checked_without_another_error(data):
    try:
        Range.decode(data).nodes(b"r" * 32)
    except RangeError:
        return


SHARED = canonical.encode([b"x" * 1000])
AGAIN = bytes.fromhex("d90100990200") + SHARED[1:] + bytes.fromhex("d81900") * 511
"""One text, named 512 times."""


def folded(levels: int) -> bytes:
    """A list that holds a list 24 times, that holds a list 24 times, and so on."""
    data = bytes.fromhex("d81c8100")
    for at in range(levels, 0, -1):
        data = bytes.fromhex("d81c9818") + data + bytes((0xD8, 0x1D, at)) * 23
    return data


@pytest.mark.parametrize("data", [AGAIN, folded(4)], ids=["texts", "lists"])
def test_a_few_bytes_do_not_unfold_to_many(data):
    tracemalloc.start()
    try:
        with pytest.raises(CanonicalError):
            canonical.decode(data, max_bytes=2**16)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_values_as_deep_as_is_allowed_are_read_and_no_deeper():
    deep = 7
    for _ in range(canonical.MAX_DEPTH):
        deep = [deep]
    encoded = canonical.encode(deep)
    assert canonical.decode(encoded, max_bytes=100) == deep
    with pytest.raises(CanonicalError):
        canonical.decode(b"\x81" + encoded, max_bytes=100)


@FUZZ
@given(strange((records.pack(b"one") + records.pack(b"two" * 9),)))
def test_records_of_any_bytes_are_those_that_pack_again_to_what_stood_there(data):
    end = 0
    for at, body in records.scan(data):
        assert data[end : at + len(body)] == records.pack(bytes(body))
        end = at + len(body)


@FUZZ
@given(st.binary(max_size=300), st.binary(max_size=20), st.none() | st.binary(max_size=20))
def test_a_proof_of_any_bytes_is_false_and_no_error(proof, key, value):
    assert not state_tree.verify_proof(b"r" * 32, key, value, proof)


@FUZZ
@given(
    st.integers(-1, 2**33),
    st.integers(-1, 2**33),
    st.lists(st.binary(max_size=33) | st.just(b"h" * 32), max_size=40),
)
def test_a_path_of_any_hashes_is_false_and_no_error(index, count, path):
    assert not merkle.verify(b"r" * 32, b"leaf", index, count, path)


TENSORS = json.dumps(
    {
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
        "b": {"dtype": "F32", "shape": [1], "data_offsets": [16, 20]},
    }
).encode()


@FUZZ
@given(
    changed((TENSORS,)) | st.sampled_from([TENSORS, b"[" * 50_000, b'{"a":' * 20_000, b"\xff"]),
    st.integers(0, 2**64),
)
def test_a_safetensors_header_of_any_bytes_gives_sizes_that_fit_or_none(header, size):
    for file_size in (size, 8 + len(header) + 20):
        sizes = leaf_sizes(header, file_size)
        assert sizes is None or sum(sizes) == file_size
        assert header_length(header, file_size) is None or header_length(header, file_size) > 1


def test_a_consensus_log_of_any_bytes_is_opened_or_refused(tmp_path):
    path = tmp_path / "log"
    with ConsensusLog(path) as log:
        log.append([b"one", b"two"])
        log.append([b"three"])
    whole = path.read_bytes()

    @FUZZ
    @given(changed((whole,)) | st.binary(max_size=60))
    def look(data):
        path.write_bytes(data)
        try:
            with ConsensusLog(path) as log:
                assert log.entries() == [b"one", b"two", b"three"][: len(log.entries())]
        except LogError:
            return

    look()


def test_a_snapshot_file_of_any_bytes_is_opened_or_refused(tmp_path):
    path = tmp_path / "snapshot"
    index = [[bytes(32), 0, 5], [b"\x80" + bytes(31), 5, 4]]
    whole = b"rangemore" + canonical.encode([1, 600, b"r" * 32, index]) + (9).to_bytes(8, "big")

    @FUZZ
    @given(strange((whole,)))
    def look(data):
        path.write_bytes(data)
        try:
            file = SnapshotFile(path)
        except LogError:
            return
        try:
            for place in range(len(file)):
                file.range(place)
            file.at(b"\x81" + bytes(31))
        finally:
            file.close()

    look()


@pytest.mark.parametrize("root", [b"", b"\x00" + bytes(36), b"\x01\x55\x00\x01x", b"\x01" * 36])
def test_a_car_file_whose_root_is_no_cid_of_ours_is_a_car_error(root):
    with pytest.raises(CarError, match="a root of the CAR file"):
        read_car(car.header([root]) + car.section(RAW, b"one"))


def test_a_codec_whose_low_byte_is_one_of_ours_is_not_ours():
    alias = b"\x01\xd5\x02\x12\x20" + bytes(32)  # codec 0x155, as raw is 0x55
    text = "b" + base64.b32encode(alias).decode().lower().rstrip("=")
    with pytest.raises(CidError, match="codec"):
        cid.parse(text)

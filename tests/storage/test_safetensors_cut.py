"""Checkpoints are cut along their tensors, the same on every machine, and versions share what did not change."""

from __future__ import annotations

import json
import random

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from storage import cid as cids
from storage import unixfs
from storage.memory import MemoryBlockstore
from storage.safetensors_cut import MIN_LEAF_BYTES, header_length, leaf_sizes
from storage.unixfs_nodes import LEAF_BYTES

MIB = 2**20
PINNED = "bafybeielnyj6g7fwnokyr3bv5tvivevb4odc5qs47cuinrzatp4f26zizi"


def tensors(seed: int = 1):
    """Forty layers of a weight and a small bias: 41 MB."""
    source = numpy.random.default_rng(seed)
    found = {}
    for layer in range(20):
        found[f"layer.{layer:02}.weight"] = source.random((512, 512), dtype=numpy.float32)
        found[f"layer.{layer:02}.bias"] = source.random(512, dtype=numpy.float32)
    return found


def new_share(tmp_path, before, after, **kwargs) -> float:
    store = MemoryBlockstore()
    save_file(before, tmp_path / "a.safetensors")
    save_file(after, tmp_path / "b.safetensors", **kwargs)
    unixfs.add_path(tmp_path / "a.safetensors", store)
    added = unixfs.add_path(tmp_path / "b.safetensors", store)
    content = b"".join(unixfs.read_file(added.root, store))
    assert content == (tmp_path / "b.safetensors").read_bytes()
    return added.new_bytes / added.size


def made(spans, *, size=None, metadata=None, extra=b""):
    """(header, file size) of a file whose tensors lie at the spans."""
    described = {
        f"t{number}": {"dtype": "U8", "shape": [stop - begin], "data_offsets": [begin, stop]}
        for number, (begin, stop) in enumerate(spans)
    }
    if metadata is not None:
        described["__metadata__"] = metadata
    header = json.dumps(described).encode() + extra
    end = max((stop for _, stop in spans), default=0)
    return header, 8 + len(header) + end if size is None else size


@pytest.mark.slow
def test_only_the_tensors_that_changed_are_new(tmp_path):
    before = tensors()
    after = dict(before)
    for layer in (3, 11):
        after[f"layer.{layer:02}.weight"] = after[f"layer.{layer:02}.weight"] + 1
    assert new_share(tmp_path, before, after) < 0.11


@pytest.mark.slow
def test_a_header_that_grows_makes_only_itself_new(tmp_path):
    before = tensors()
    assert new_share(tmp_path, before, before, metadata={"step": "1" * 5_000}) < 0.01


@pytest.mark.slow
def test_a_tensor_that_is_added_makes_only_itself_new(tmp_path):
    before = tensors()
    after = before | {"layer.07.extra": numpy.ones((100, 512), dtype=numpy.float32)}
    assert new_share(tmp_path, before, after) < 0.06


def test_leaves_have_256_kib_to_1_mib_and_end_with_tensors():
    sizes = [100, 300_000, 5, 2**18 - 1, 7 * MIB + 1, 0, 12, 2**20, 50]
    spans, at = [], 0
    for size in sizes:
        spans.append((at, at + size))
        at += size
    header, total = made(spans, metadata={"format": "pt"})
    cuts = leaf_sizes(header, total)
    assert sum(cuts) == total
    assert cuts[0] == 8 + len(header)
    assert all(MIN_LEAF_BYTES <= size <= LEAF_BYTES for size in cuts[1:-1])
    ends = {sum(cuts[: number + 1]) - cuts[0] for number in range(len(cuts))}
    assert {spans[1][1], spans[4][1], spans[7][1]} <= ends


@given(st.lists(st.integers(0, 3 * MIB), max_size=12))
def test_any_tensors_are_cut_into_leaves_within_bounds(sizes):
    spans = [(sum(sizes[:at]), sum(sizes[: at + 1])) for at in range(len(sizes))]
    header, total = made(spans)
    cuts = leaf_sizes(header, total)
    assert sum(cuts) == total
    assert all(0 < size <= LEAF_BYTES for size in cuts)
    assert all(size >= MIN_LEAF_BYTES for size in cuts[1:-1])


@pytest.mark.parametrize(
    ("header", "size"),
    [
        made([(0, 10), (11, 20)]),
        made([(0, 10), (9, 20)]),
        made([(1, 10)]),
        made([(0, 10)], size=5),
        made([(0, 10)], size=10_000),
        made([(10, 0)]),
        made([(0, 10)], metadata={"a": 1}),
        made([(0, 10)], metadata=[]),
        made([(0, 2**70)]),
        made([(0, 10)], extra=b"}"),
        (b"[" * 100_000, 100_008),
        (b"\xff\xfe", 10),
        (b"[]", 10),
        (b'{"a": 1}', 16),
        (b'{"a": {"dtype": "U8", "shape": [1.0], "data_offsets": [0, 1]}}', 71),
        (b'{"a": {"dtype": "U8", "shape": [true], "data_offsets": [0, 1]}}', 72),
        (b'{"a": {"dtype": "U8", "shape": [1], "data_offsets": [0]}}', 66),
        (
            b'{"a": {"dtype": "U8", "shape": [' + b"9" * 5_000 + b'], "data_offsets": [0, 1]}}',
            5_067,
        ),
    ],
    ids=range(18),
)
def test_a_header_that_lies_is_not_followed(header, size):
    assert leaf_sizes(header, size) is None


@pytest.mark.parametrize(
    ("start", "size"),
    [
        (b"", 0),
        (b"short", 5),
        (bytes(8), 100),
        (b"\xff" * 8, 2**40),
        ((2**25).to_bytes(8, "little"), 2**30),
    ],
)
def test_a_length_of_header_that_cannot_be_is_refused(start, size):
    assert header_length(start, size) is None


def test_a_file_that_only_has_the_suffix_is_cut_at_each_mib(tmp_path):
    data = random.Random(1).randbytes(2 * MIB + 7)
    for name in ("x.safetensors", "x.bin"):
        (tmp_path / name).write_bytes(data)
    roots = {unixfs.hash_path(tmp_path / name).root for name in ("x.safetensors", "x.bin")}
    assert len(roots) == 1


def test_the_name_of_a_checkpoint_is_pinned(tmp_path):
    spans = [(0, 300_000), (300_000, 300_050), (300_050, 3_000_000)]
    header, total = made(spans, metadata={"format": "pt"})
    body = (bytes(range(251)) * (3_000_000 // 251 + 1))[:3_000_000]
    data = len(header).to_bytes(8, "little") + header + body
    assert len(data) == total
    (tmp_path / "pinned.safetensors").write_bytes(data)
    assert leaf_sizes(header, total) == [8 + len(header), 300_000, 900_000, 900_000, 900_000]
    assert cids.text(unixfs.hash_path(tmp_path / "pinned.safetensors").root) == PINNED

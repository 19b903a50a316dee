from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load as reference_load
from safetensors.numpy import save as reference_save

from swarm.training import codec, tensors
from swarm.training.errors import (
    MALFORMED,
    NOT_FINITE,
    NOT_FOUND,
    WRONG_BASE,
    WRONG_SHAPES,
    TensorFileError,
    UpdateError,
)

SHAPES = {"a.weight": (100, 130), "b.weight": (3, 5), "n1": (700,), "n2": (4000,)}
LAYOUT = codec.Layout(SHAPES, 74)
ABOUT = codec.About("lm", 74, "bafybase", b"T" * 32, 3, "peer1", b"D" * 32, 300)
EXPECTED = codec.Expected("lm", LAYOUT, "bafybase", b"T" * 32, 3)


def groups(seed: int = 0, layout: codec.Layout = LAYOUT) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    values = {name: random.normal(size=shape) for name, shape in layout.shapes.items()}
    return codec.gather(values, layout)


def packed(seed: int = 0) -> bytes:
    return codec.pack(codec.compress(groups(seed), LAYOUT), LAYOUT, ABOUT)


def refusal(data: bytes, expected: codec.Expected = EXPECTED) -> int:
    with pytest.raises(UpdateError) as caught:
        codec.unpack(data, expected)
    return caught.value.code


def altered(**changes: np.ndarray) -> bytes:
    file = tensors.decode(packed(), max_bytes=10**6)
    return tensors.encode({**file.tensors, **changes}, file.metadata)


@given(
    st.integers(0, 50),
    st.sampled_from([1, 7, 74, 110, 1024]),
    st.integers(1, 9000),
    st.sampled_from([(1, 0), (4, 0), (4, 3), (64, 5)]),
)
def test_what_is_packed_comes_back(seed: int, k: int, size: int, part: tuple[int, int]) -> None:
    layout = codec.Layout({"w": (size, 1), "v": (size % 97,)}, k, *part)
    about = dataclasses.replace(ABOUT, k=k, part=layout.said)
    sparse = codec.compress(groups(seed, layout), layout)
    data = codec.pack(sparse, layout, about)
    assert len(data) <= layout.max_bytes
    update = codec.unpack(data, dataclasses.replace(EXPECTED, layout=layout))
    assert update.about == about
    for sent, found in zip(sparse, update.groups, strict=True):
        assert (sent.positions == found.positions).all()
        assert (sent.negative == found.negative).all()
        assert sent.level == found.level


def test_the_greatest_of_each_chunk_are_kept() -> None:
    flat = groups()[0]
    item = codec.compress([flat, *groups()[1:]], LAYOUT)[0]
    for start in range(0, len(flat), codec.CHUNK):
        chunk = np.abs(flat[start : start + codec.CHUNK])
        kept = item.positions[(item.positions >= start) & (item.positions < start + len(chunk))]
        limit = np.sort(chunk)[-len(kept)]
        assert (chunk[kept - start] >= limit).all()


def test_an_update_of_one_part_names_no_value_of_another() -> None:
    values = groups()
    layout = codec.Layout(SHAPES, 310, 4, 2)
    sparse = codec.compress(values, layout)
    left = [flat.copy() for flat in values]
    codec.subtract(left, sparse, layout)
    for old, new, item in zip(values, left, sparse, strict=True):
        changed = np.flatnonzero(old != new)
        assert len(changed) == len(item.positions)
        assert (changed % 4 == 2).all()


def test_in_as_many_rounds_as_there_are_parts_every_value_has_its_turn() -> None:
    seen = [np.zeros(group.size, np.int64) for group in LAYOUT.groups]
    for part in range(7):
        layout = codec.Layout(SHAPES, 74, 7, part)
        for group, count in zip(layout.groups, seen, strict=True):
            group.part(count)[:] += 1
    assert all((count == 1).all() for count in seen)


def test_a_group_of_fewer_values_than_parts_is_spoken_of_whole() -> None:
    layout = codec.Layout(SHAPES, 74, 16, 15)
    assert [group.said for group in layout.groups] == [812, 15, 293]


def test_the_bytes_of_an_update_of_a_part_are_pinned() -> None:
    layout = codec.Layout({"a": (70, 70), "n": (50,)}, 310, 4, 1)
    words = np.random.Philox(key=3).random_raw(4950)
    flat = ((words >> np.uint64(40)).astype(np.float64) * 2.0**-24 - 0.5).astype(np.float32)
    sparse = codec.compress([flat[:4900], flat[4900:]], layout)
    record = codec.Record(b"R" * 32, "bafkrecord", b"F" * 32)
    found = [
        hashlib.sha256(
            codec.pack(sparse, layout, dataclasses.replace(ABOUT, k=310, part="1/4", record=one))
        ).hexdigest()
        for one in (None, record)
    ]
    assert found == [
        "0e420067dd9de457b31a11dddc5aa0eab94da52fa05245a629b62c20ee52ad48",
        "f8ee6816f7b6c94283b66a34070add6e8a6307b7a0721855b0e9d1ba5458dc70",
    ]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"part": "2/4"}, WRONG_SHAPES),
        ({"part": "1/8"}, WRONG_SHAPES),
        ({"part": "01/4"}, WRONG_SHAPES),
        ({"part": "0/1"}, MALFORMED),
        ({"format": "swarm-update-1"}, MALFORMED),
        ({"transcript": "00" * 32}, MALFORMED),
    ],
)
def test_an_update_of_another_part_than_the_rounds_is_refused(
    change: dict[str, str], code: int
) -> None:
    layout = codec.Layout(SHAPES, 74, 4, 1)
    about = dataclasses.replace(ABOUT, part="1/4")
    expected = dataclasses.replace(EXPECTED, layout=layout)
    data = codec.pack(codec.compress(groups(), layout), layout, about)
    assert codec.unpack(data, expected).about == about
    file = tensors.decode(data, max_bytes=10**6)
    assert refusal(tensors.encode(file.tensors, {**file.metadata, **change}), expected) == code


def test_an_update_without_a_part_is_refused_where_one_is_due() -> None:
    layout = codec.Layout(SHAPES, 74, 4, 1)
    assert refusal(packed(), dataclasses.replace(EXPECTED, layout=layout)) == WRONG_SHAPES


def test_an_update_costs_a_fiftieth_of_a_byte_a_parameter() -> None:
    layout = codec.Layout({"w": (1024, 1024)}, 74)
    data = codec.pack(codec.compress(groups(0, layout), layout), layout, ABOUT)
    assert len(data) / 2**20 < 0.020


def test_error_feedback_keeps_what_was_not_sent() -> None:
    values = groups()
    before = [flat.copy() for flat in values]
    sparse = codec.compress(values, LAYOUT)
    codec.subtract(values, sparse, LAYOUT)
    for old, new, item in zip(before, values, sparse, strict=True):
        sent = np.zeros_like(old)
        sent[item.positions] = np.where(item.negative, -item.level, item.level)
        np.testing.assert_allclose(new + sent, old, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("base", "bafyother", WRONG_BASE),
        ("task", b"U" * 32, WRONG_BASE),
        ("round", 4, WRONG_BASE),
        ("kind", "gan", WRONG_SHAPES),
        ("k", 75, WRONG_SHAPES),
        ("data", b"short", MALFORMED),
        ("peer", "../../etc", MALFORMED),
    ],
)
def test_an_update_for_something_else_is_refused(field: str, value: object, code: int) -> None:
    about = dataclasses.replace(ABOUT, **{field: value})  # type: ignore[arg-type]
    data = codec.pack(codec.compress(groups(), LAYOUT), LAYOUT, about)
    assert refusal(data) == code


def test_an_update_in_the_name_of_another_peer_is_refused() -> None:
    assert refusal(packed(), dataclasses.replace(EXPECTED, peer="peer2")) == WRONG_BASE


def test_an_update_of_another_model_is_refused() -> None:
    layout = codec.Layout({"a.weight": (50, 50)}, 74)
    assert refusal(packed(), dataclasses.replace(EXPECTED, layout=layout)) == WRONG_SHAPES


@pytest.mark.parametrize(
    ("level", "code"),
    [
        (np.nan, NOT_FINITE),
        (np.inf, NOT_FINITE),
        (-1, MALFORMED),
        (-0.0, MALFORMED),
        (1e9, MALFORMED),
    ],
)
def test_a_level_that_is_no_magnitude_is_refused(level: float, code: int) -> None:
    levels = np.array([1, level, 1], np.float32)
    assert refusal(altered(levels=levels)) == code


def test_positions_beyond_their_chunk_are_refused() -> None:
    bits = np.ones(LAYOUT.total * LAYOUT.rice, np.uint8)
    assert refusal(altered(remainders=np.packbits(bits))) == MALFORMED


def test_too_few_or_too_many_positions_are_refused() -> None:
    quotients = tensors.decode(packed(), max_bytes=10**6).tensors["quotients"]
    assert refusal(altered(quotients=quotients[:-1])) == MALFORMED
    assert refusal(altered(quotients=np.append(quotients, np.uint8(0)))) == MALFORMED
    assert refusal(altered(quotients=np.zeros_like(quotients))) == MALFORMED
    assert refusal(altered(quotients=np.zeros(0, np.uint8))) == MALFORMED


def test_bits_after_the_last_sign_must_be_zero() -> None:
    signs = tensors.decode(packed(), max_bytes=10**6).tensors["signs"].copy()
    assert LAYOUT.total % 8
    signs[-1] |= 1
    assert refusal(altered(signs=signs)) == MALFORMED


def test_a_full_update_with_a_value_that_is_not_finite_is_refused() -> None:
    about = dataclasses.replace(ABOUT, kind="gan")
    expected = dataclasses.replace(EXPECTED, kind="gan")
    values = {name: np.zeros(shape, np.float32) for name, shape in SHAPES.items()}
    assert codec.unpack(codec.pack_full(values, about), expected).tensors.keys() == SHAPES.keys()
    values["n1"][5] = np.nan
    assert refusal(codec.pack_full(values, about), expected) == NOT_FINITE
    values["n1"][5] = 1e30
    assert refusal(codec.pack_full(values, about), expected) == MALFORMED
    values["n1"] = np.zeros(701, np.float32)
    assert refusal(codec.pack_full(values, about), expected) == WRONG_SHAPES


def test_a_missing_and_an_endless_file_are_refused_unread(tmp_path: Path) -> None:
    with pytest.raises(UpdateError) as caught:
        codec.read(tmp_path / "none", EXPECTED)
    assert caught.value.code == NOT_FOUND
    big = tmp_path / "big"
    with big.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(UpdateError) as caught:
        codec.read(big, EXPECTED)
    assert caught.value.code == MALFORMED


@given(st.data(), st.sampled_from([LAYOUT, codec.Layout(SHAPES, 74, 4, 1)]))
def test_damaged_bytes_are_an_update_or_an_update_error(
    data: st.DataObject, layout: codec.Layout
) -> None:
    about = dataclasses.replace(ABOUT, part=layout.said)
    content = bytearray(codec.pack(codec.compress(groups(), layout), layout, about))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.sampled_from([len(content), data.draw(st.integers(0, len(content)))]))
    try:
        update = codec.unpack(bytes(content[:cut]), dataclasses.replace(EXPECTED, layout=layout))
    except UpdateError:
        return
    for item, group in zip(update.groups, layout.groups, strict=True):
        assert (np.diff(item.positions) > 0).all()
        assert 0 <= item.positions[0] <= item.positions[-1] < group.said
        assert 0 <= item.level <= codec.MAX_LEVEL


@given(st.binary(max_size=300))
def test_any_bytes_are_a_tensor_file_or_an_error(data: bytes) -> None:
    for content in (data, len(data).to_bytes(8, "little") + data):
        try:
            tensors.decode(content, max_bytes=1000)
        except TensorFileError:
            continue


def header(value: object, body: bytes = b"") -> bytes:
    text = json.dumps(value).encode()
    return len(text).to_bytes(8, "little") + text + body


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2**39, 2**39], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [True, 2], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]},
        {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]},
        {"dtype": "F64", "shape": [1], "data_offsets": [0, 8]},
        {"dtype": ["F32"], "shape": [2], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], "more": 1},
        [],
    ],
)
def test_a_header_that_lies_is_refused(entry: object) -> None:
    with pytest.raises(TensorFileError):
        tensors.decode(header({"w": entry}, b"\0" * 8), max_bytes=1000)


ENDLESS = [[0, 2**39, 2**39], [2**39, 2**39, 0], [0] + [2**39] * 7]


@pytest.mark.parametrize("shape", ENDLESS)
def test_a_shape_of_no_values_that_no_array_has_is_refused_as_any_other(shape: list[int]) -> None:
    entry = {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}
    with pytest.raises(TensorFileError):
        tensors.parse_header(header({"w": entry}))
    assert refusal(header({"w": entry})) == MALFORMED


@pytest.mark.parametrize("shape", [[0], [3, 0], [0] * 8, [0, 2**39]])
def test_a_tensor_of_no_values_is_one(shape: list[int]) -> None:
    entry = {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}
    found = tensors.decode(header({"w": entry}), max_bytes=1000).tensors
    assert found["w"].shape == tuple(shape)


def test_a_header_with_overlaps_gaps_or_twice_the_same_key_is_refused() -> None:
    one = {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}
    with pytest.raises(TensorFileError):
        tensors.decode(header({"a": one, "b": one}, b"\0" * 4), max_bytes=1000)
    with pytest.raises(TensorFileError):
        tensors.decode(header({"a": one}, b"\0" * 5), max_bytes=1000)
    text = b'{"a":%s,"a":%s}' % ((json.dumps(one).encode(),) * 2)
    with pytest.raises(TensorFileError):
        tensors.decode(len(text).to_bytes(8, "little") + text + b"\0" * 4, max_bytes=1000)
    with pytest.raises(TensorFileError):
        tensors.decode((2**60).to_bytes(8, "little") + b"{}", max_bytes=1000)


def test_the_safetensors_package_reads_ours_and_we_read_its() -> None:
    values = {
        "z": np.arange(6, dtype=np.float32).reshape(2, 3),
        "a": np.array([7], np.uint8),
        "e": np.zeros((0, 3), np.float32),
    }
    theirs = reference_load(tensors.encode(values, {"k": "v"}))
    ours = tensors.decode(reference_save(values, {"k": "v"}), max_bytes=10**4)
    assert ours.metadata == {"k": "v"}
    for name, item in values.items():
        np.testing.assert_array_equal(theirs[name], item)
        np.testing.assert_array_equal(ours.tensors[name], item)

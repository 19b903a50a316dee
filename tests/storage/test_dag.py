"""What blocks name: DAG-CBOR walked strictly and within bounds."""

from __future__ import annotations

import contextlib

import libipld
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage import cid as cids
from storage import dag, dag_pb
from storage.dag_pb import Link
from storage.errors import ManifestError

CHUNK = cids.of_raw(b"chunk")
LINK = b"\xd8\x2a\x58\x25\x00" + CHUNK

LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**64), 2**64 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=30),
    st.binary(max_size=30),
    st.binary(max_size=3).map(lambda data: bytes(cids.of_raw(data))),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=20,
)


def links(block: bytes) -> list[Link]:
    return dag.links(cids.of_dag_cbor(block), block)


def cids_inside(value) -> set[bytes]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return {cid for inner in value for cid in cids_inside(inner)}
    return {value} if isinstance(value, bytes) and len(value) == 36 else set()


@given(VALUES)
def test_all_cids_of_what_another_encoder_wrote_are_found(value):
    found = links(libipld.encode_dag_cbor(value))
    assert {link.cid for link in found} == cids_inside(value)
    assert all(link.size is None and not link.name for link in found)


@given(VALUES, st.data())
def test_any_bytes_are_walked_or_refused(value, data):
    block = bytearray(libipld.encode_dag_cbor(value))
    at = data.draw(st.integers(0, len(block) - 1))
    block[at] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ManifestError):
        links(bytes(block))


def test_links_come_in_order_and_as_often_as_they_stand():
    other = cids.of_raw(b"other")
    block = b"\x83" + LINK + b"\xd8\x2a\x58\x25\x00" + other + LINK
    assert [link.cid for link in links(block)] == [CHUNK, other, CHUNK]


def test_bytes_that_look_like_a_cid_are_no_link():
    assert links(b"\x58\x24" + CHUNK) == []


def test_a_link_of_version_0_is_that_of_version_1():
    digest = cids.digest(CHUNK)
    block = b"\xd8\x2a\x58\x23\x00\x12\x20" + digest
    assert [link.cid for link in links(block)] == [b"\x01\x70\x12\x20" + digest]


@pytest.mark.parametrize(
    "block",
    [
        b"",
        b"\x18\x17",  # 23 in two bytes
        b"\x19\x00\xff",
        b"\x1a\x00\x00\xff\xff",
        b"\x1b\x00\x00\x00\x00\xff\xff\xff\xff",
        b"\x58\x01a",
        b"\x9f\x01\xff",  # a list that is not definite
        b"\x82\x01",
        b"\x01\x02",  # two values
        b"\x61\xff",  # not UTF-8
        b"\xa1\x01\x02",  # a key that is no text
        b"\xa2\x61b\x01\x61a\x02",  # keys not sorted
        b"\xa2\x62aa\x01\x61b\x02",  # the longer key first
        b"\xa2\x61a\x01\x61a\x02",  # a key twice
        b"\xf7",  # undefined
        b"\xf8\x14",  # false in two bytes
        b"\xf9\x3c\x00",  # a short float
        b"\xfb\x7f\xf0\x00\x00\x00\x00\x00\x00",  # infinity
        b"\xc1\x01",  # another tag
        b"\xd8\x2a\x01",
        b"\xd8\x2a\x58\x24" + CHUNK,  # without the prefix
        b"\xd8\x2a\x58\x24\x00" + CHUNK[:-1],
        b"\xd8\x2a\x46\x00\x01\x55\x00\x01a",  # an identity hash
        b"\x81" * (dag.MAX_DEPTH + 1) + b"\x01",
        b"\x9b" + b"\xff" * 8,
        b"\x9a" + (dag.MAX_VALUES).to_bytes(4) + b"\x01" * dag.MAX_VALUES,
        b"\x19" + (dag_pb.MAX_LINKS + 1).to_bytes(2) + LINK * (dag_pb.MAX_LINKS + 1),
        b"\x5a\x00\x20\x00\x01" + bytes(2**21 + 1),
    ],
    ids=lambda block: block[:12].hex(),
)
def test_what_is_not_canonical_or_beyond_bounds_is_refused(block):
    with pytest.raises(ManifestError):
        links(block)


def test_the_deepest_that_is_allowed_is_walked():
    assert len(links(b"\x81" * dag.MAX_DEPTH + LINK)) == 1


def test_a_leaf_names_nothing_and_a_node_its_links():
    assert dag.links(CHUNK, b"chunk") == []
    block = dag_pb.encode([Link(CHUNK, "name", 5), Link(CHUNK, "unknown", None)], b"")
    node = cids.of_dag_pb(block)
    assert dag.links(node, block) == [Link(CHUNK, "name", 5), Link(CHUNK, "unknown", None)]
    assert dag.tree_size(node, block) is None
    assert dag.tree_size(CHUNK, b"chunk") == 5

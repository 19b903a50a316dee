from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage import cid as cids
from storage import dag_pb
from storage.dag_pb import Link, bytes_field, varint, varint_field
from storage.errors import ManifestError
from storage.unixfs_nodes import read_node

CID = cids.of_raw(b"x")
LINKS = st.lists(
    st.builds(
        Link,
        st.binary(max_size=5).map(cids.of_raw),
        st.text(max_size=10),
        st.integers(0, dag_pb.MAX_INT),
    ),
    max_size=5,
)


@given(LINKS, st.binary(max_size=40))
def test_what_was_encoded_is_decoded(links, data):
    node = dag_pb.decode(dag_pb.encode(links, data))
    assert node.links == tuple(links)
    assert node.data == data


@given(
    st.one_of(st.binary(max_size=200), LINKS.map(lambda links: dag_pb.encode(links, b"\x08\x01"))),
    st.data(),
)
def test_any_bytes_are_understood_or_refused_as_a_manifest(block, data):
    if block and data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(block) - 1))
        block = block[:at] + bytes((data.draw(st.integers(0, 255)),)) + block[at + 1 :]
    with contextlib.suppress(ManifestError):
        read_node(cids.of_dag_pb(block), block)


@pytest.mark.parametrize(
    "block",
    [
        bytes_field(1, b"data") + bytes_field(2, bytes_field(1, CID)),
        bytes_field(1, b"one") + bytes_field(1, b"two"),
        bytes_field(3, b"unknown"),
        varint_field(1, 5),
        bytes_field(2, bytes_field(2, b"no hash")),
        bytes_field(2, bytes_field(2, b"name first") + bytes_field(1, CID)),
        bytes_field(2, bytes_field(1, CID) + bytes_field(1, CID)),
        bytes_field(2, bytes_field(1, CID[:-1])),
        bytes_field(2, bytes_field(1, CID) + bytes_field(2, b"\xff")),
        bytes_field(2, bytes_field(1, CID) + bytes_field(3, b"size")),
        b"\x0a\x80\x00",
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x0a\x05cut",
        b"\x0a",
        b"\x0d\x00\x00\x00\x00",
    ],
    ids=range(15),
)
def test_a_block_that_is_not_canonical_is_refused(block):
    with pytest.raises(ManifestError):
        dag_pb.decode(block)


def test_a_link_of_version_0_becomes_the_same_of_version_1():
    old = b"\x12\x20" + cids.digest(CID)
    node = dag_pb.decode(bytes_field(2, bytes_field(1, old)))
    assert node.links == (Link(cids.from_bytes(b"\x01\x70" + old), "", None),)


def test_a_node_is_bounded_in_bytes_and_links():
    with pytest.raises(ManifestError, match="bytes where"):
        dag_pb.decode(bytes_field(1, bytes(2**21)))
    with pytest.raises(ManifestError, match="links"):
        dag_pb.decode(bytes_field(2, bytes_field(1, CID)) * (dag_pb.MAX_LINKS + 1))


def test_integers_are_written_as_protobuf_writes_them():
    assert varint(0) == b"\x00"
    assert varint(127) == b"\x7f"
    assert varint(300) == b"\xac\x02"


def file_block(sizes, claimed, inline=b""):
    data = varint_field(1, 2) + bytes_field(2, inline) + varint_field(3, claimed)
    data += b"".join(varint_field(4, size) for size in sizes)
    return dag_pb.encode([Link(CID, "", 1)] * 2, data)


@pytest.mark.parametrize(
    ("sizes", "claimed"),
    [([1], 1), ([1, 1, 1], 3), ([1, 1], 3), ([0, 1], 1), ([2**50, 2**50], 2**51)],
)
def test_a_file_whose_sizes_cannot_be_is_refused(sizes, claimed):
    block = file_block(sizes, claimed)
    with pytest.raises(ManifestError, match="size"):
        read_node(cids.of_dag_pb(block), block)


@pytest.mark.parametrize("kind", [3, 6, 99])
def test_a_type_that_unixfs_does_not_have_is_refused(kind):
    block = dag_pb.encode([], varint_field(1, kind))
    with pytest.raises(ManifestError, match="type"):
        read_node(cids.of_dag_pb(block), block)

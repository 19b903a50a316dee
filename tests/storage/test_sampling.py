from __future__ import annotations

import hashlib
from collections import Counter

import libipld
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage import cid as cids
from storage import dag_pb, sampling
from storage.cid import Cid
from storage.dag_pb import Link
from storage.errors import ChunkNotFoundError
from storage.memory import MemoryBlockstore
from storage.unixfs import add_path


def seeds(count):
    return [number.to_bytes(32, "big") for number in range(count)]


def put(store, block, name=cids.of_raw):
    cid = name(block)
    store.put_many([(cid, block)])
    return cid


def node(store, links):
    return put(store, dag_pb.encode(links, b""), cids.of_dag_pb)


@pytest.fixture
def folder(tmp_path):
    """A folder with a file of three leaves and two small ones."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "large").write_bytes(b"".join(bytes((n,)) * 2**20 for n in (1, 2, 3)))
    (tmp_path / "in" / "small").write_bytes(b"s" * 2**18)
    (tmp_path / "in" / "tiny").write_bytes(b"t")
    store = MemoryBlockstore()
    return store, add_path(tmp_path / "in", store).root


def test_every_seed_draws_one_chunk_and_proves_it(folder):
    store, root = folder
    drawn = Counter()
    for seed in seeds(200):
        blocks = sampling.path(root, seed, store.get)
        assert sampling.check(root, seed, blocks)
        drawn[blocks[-1][:1]] += 1
    assert set(drawn) >= {b"\1", b"\2", b"\3", b"s"}
    assert drawn[b"s"] < min(drawn[one] for one in (b"\1", b"\2", b"\3"))


def test_another_chunk_than_the_drawn_one_is_no_proof(folder):
    store, root = folder
    ways = {
        blocks[-1]: blocks for blocks in (sampling.path(root, one, store.get) for one in seeds(50))
    }
    for seed in seeds(20):
        right = sampling.path(root, seed, store.get)
        for other in ways.values():
            assert sampling.check(root, seed, other) == (other == right)
        for wrong in (
            [],
            right[:-1],
            [*right, right[-1]],
            [*right[:-1], right[-1] + b"x"],
            right[1:],
        ):
            assert not sampling.check(root, seed, wrong)


def test_the_draw_is_what_the_text_says():
    store = MemoryBlockstore()
    leaves = [put(store, bytes((number,))) for number in range(7)]
    root = node(store, [Link(leaf, str(at), at) for at, leaf in enumerate(leaves)])
    weighed = [leaf for at, leaf in enumerate(leaves) for _ in range(max(1, at))]
    for seed in seeds(40):
        hashed = hashlib.sha256(b"swarm/sample/1\0" + seed + bytes(4) + root).digest()
        drawn = weighed[int.from_bytes(hashed, "big") % len(weighed)]
        assert sampling.path(root, seed, store.get) == [store.get(root), store.get(drawn)]


def test_links_without_sizes_weigh_the_same():
    store = MemoryBlockstore()
    leaves = [put(store, bytes((number,))) for number in range(4)]
    block = libipld.encode_dag_cbor({"all": [bytes(leaf) for leaf in leaves]})
    root = Cid(b"\x01\x71\x12\x20" + cids.digest(cids.of_raw(block)))
    store.put_many([(root, block)])
    drawn = Counter(sampling.path(root, seed, store.get)[-1] for seed in seeds(400))
    assert len(drawn) == 4
    assert min(drawn.values()) > 70


def test_sizes_that_lie_do_not_break_the_draw():
    store = MemoryBlockstore()
    leaf = put(store, b"leaf")
    for size in (0, 1, 2**63 - 1):
        root = node(store, [Link(leaf, "", size)] * 3)
        for seed in seeds(5):
            assert sampling.check(root, seed, sampling.path(root, seed, store.get))


def test_a_way_without_end_is_shown_and_checked_up_to_its_last_block():
    store = MemoryBlockstore()
    at = put(store, b"leaf")
    for _ in range(sampling.MAX_BLOCKS):
        at = node(store, [Link(at, "", 1)])
    root, blocks = at, []
    while cids.codec(at) != cids.RAW:
        blocks.append(store.get(at))
        at = dag_pb.decode(blocks[-1]).links[0].cid
    assert len(blocks) == sampling.MAX_BLOCKS
    assert sampling.path(root, bytes(32), store.get) == blocks
    assert sampling.check(root, bytes(32), blocks)
    assert not sampling.check(root, bytes(32), [*blocks, b"leaf"])
    assert not sampling.check(root, bytes(32), blocks[:-1])


def test_a_chunk_that_is_not_held_is_not_proven(folder):
    store, root = folder
    for chunk in [cid for cid, data in store.chunks.items() if data[:1] == b"\2"]:
        del store.chunks[chunk]
    lost = 0
    for seed in seeds(50):
        try:
            sampling.path(root, seed, store.get)
        except ChunkNotFoundError:
            lost += 1
    assert lost > 5


@given(st.lists(st.binary(max_size=200), max_size=4))
def test_a_strangers_blocks_are_refused_and_nothing_else_happens(blocks):
    root = cids.of_dag_pb(blocks[0]) if blocks else cids.of_dag_pb(b"")
    assert sampling.check(root, bytes(32), blocks) in {True, False}

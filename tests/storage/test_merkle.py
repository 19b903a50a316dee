from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage import merkle

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "merkle.json").read_text())


def test_roots_are_those_of_rfc_6962():
    leaves = [bytes.fromhex(leaf) for leaf in VECTORS["leaves"]]
    roots = [merkle.root(leaves[: count + 1]).hex() for count in range(len(leaves))]
    assert roots == VECTORS["roots"]
    assert merkle.root([]).hex().startswith("e3b0c442")


def test_every_leaf_of_every_small_tree_is_proved_at_its_index_only():
    for count in range(1, 34):
        leaves = [bytes((number,)) for number in range(count)]
        root = merkle.root(leaves)
        for index in range(count):
            proof = merkle.prove(leaves, index)
            assert len(proof) <= (count - 1).bit_length()
            accepted = [
                at for at in range(count) if merkle.verify(root, leaves[index], at, count, proof)
            ]
            assert accepted == [index]


@given(st.lists(st.binary(max_size=8), min_size=2, max_size=40), st.data())
def test_a_proof_that_was_changed_is_refused(leaves, data):
    index = data.draw(st.integers(0, len(leaves) - 1))
    root, proof = merkle.root(leaves), merkle.prove(leaves, index)
    assert merkle.verify(root, leaves[index], index, len(leaves), proof)
    assert not merkle.verify(root, leaves[index] + b"x", index, len(leaves), proof)
    assert not merkle.verify(root, leaves[index], index, len(leaves), proof[:-1])
    assert not merkle.verify(root, leaves[index], index, len(leaves), [*proof, bytes(32)])
    at = data.draw(st.integers(0, len(proof) - 1))
    bit = 1 << data.draw(st.integers(0, 255))
    wrong = [*proof]
    wrong[at] = (int.from_bytes(wrong[at], "big") ^ bit).to_bytes(32, "big")
    assert not merkle.verify(root, leaves[index], index, len(leaves), wrong)


def test_a_node_does_not_pass_as_a_leaf():
    leaves = [b"a", b"b", b"c", b"d"]
    root = merkle.root(leaves)
    left = merkle.leaf_hash(b"a") + merkle.leaf_hash(b"b")
    right = merkle.node_hash(merkle.leaf_hash(b"c"), merkle.leaf_hash(b"d"))
    assert not merkle.verify(root, left, 0, 2, [right])


def test_an_index_outside_the_tree_is_refused():
    with pytest.raises(IndexError):
        merkle.prove([b"a"], 1)
    assert not merkle.verify(merkle.root([b"a"]), b"a", 1, 1, [])
    assert not merkle.verify(merkle.root([b"a"]), b"a", -1, 1, [])
    assert not merkle.verify(merkle.root([b"a"]), b"a", 0, 0, [])

from __future__ import annotations

import hashlib
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from storage.state_tree import (
    EMPTY,
    MAX_PROOF_BYTES,
    path_of,
    prove,
    root_of,
    update,
    verify_proof,
)

keys = st.integers(0, 30).map(lambda number: b"key %d" % number)
changes = st.dictionaries(keys, st.none() | st.binary(max_size=3), max_size=8)


def naive(held):
    """The root by its definition, from the whole set."""

    def of(leaves, depth):
        if not leaves:
            return EMPTY
        if len(leaves) == 1:
            return hashlib.sha256(b"\x00" + leaves[0][0] + leaves[0][1]).digest()
        sides = ([], [])
        for leaf in leaves:
            sides[leaf[0][depth // 8] >> (7 - depth % 8) & 1].append(leaf)
        return hashlib.sha256(b"\x01" + of(sides[0], depth + 1) + of(sides[1], depth + 1)).digest()

    return of([(path_of(key), hashlib.sha256(value).digest()) for key, value in held.items()], 0)


class Tree:
    def __init__(self):
        self.nodes, self.held = {}, {}

    def change(self, given):
        root, nodes = update(self.nodes.get, given)
        for store, news in ((self.nodes, nodes), (self.held, given)):
            for key, value in news.items():
                if value is None:
                    store.pop(key, None)
                else:
                    store[key] = value
        return root


@settings(max_examples=80, deadline=None)
@given(st.lists(changes, max_size=6))
def test_the_root_is_that_of_the_definition_whatever_came_before(batches):
    tree = Tree()
    for batch in batches:
        root = tree.change(batch)
        assert root == naive(tree.held) == root_of(tree.nodes.get)
    fresh = Tree()
    assert fresh.change(tree.held) == naive(tree.held)
    assert fresh.nodes == tree.nodes  # no node is left over either


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(keys, st.binary(max_size=3), max_size=20), keys, st.binary(max_size=3))
def test_every_key_has_a_proof_of_what_it_holds_and_of_nothing_else(held, key, lie):
    tree = Tree()
    root = tree.change(held)
    proof = prove(tree.nodes.get, key)
    value = held.get(key)
    assert verify_proof(root, key, value, proof)
    if lie != value:
        assert not verify_proof(root, key, lie, proof)
    if value is not None:
        assert not verify_proof(root, key, None, proof)


def test_a_proof_with_any_bit_changed_fails():
    tree = Tree()
    root = tree.change({b"key %d" % at: b"v" for at in range(50)})
    for key, value in ((b"key 7", b"v"), (b"absent", None), (b"missing", None)):
        proof = prove(tree.nodes.get, key)
        for at in range(len(proof) * 8):
            changed = bytearray(proof)
            changed[at // 8] ^= 1 << at % 8
            assert not verify_proof(root, key, value, bytes(changed))
        assert not verify_proof(root, key, value, proof + b"\x00")
        assert not verify_proof(root, key, value, proof[:-1])


def test_a_proof_has_one_spelling():
    tree = Tree()
    root = tree.change({b"key %d" % at: b"v" for at in range(50)})
    proof = prove(tree.nodes.get, b"key 7")
    depth = int.from_bytes(proof[:2], "big")
    assert 0 < depth < 8
    spare = bytes((proof[3] | 1,))
    assert not verify_proof(root, b"key 7", b"v", proof[:3] + spare + b"x" * 32 + proof[4:])


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.none() | st.binary(max_size=3))
def test_any_bytes_for_a_proof_give_an_answer(proof, value):
    assert not verify_proof(b"r" * 32, b"key", value, proof)


def test_a_proof_is_bounded():
    assert not verify_proof(EMPTY, b"key", None, bytes(MAX_PROOF_BYTES + 1))
    assert verify_proof(EMPTY, b"key", None, b"\x00\x00\x00")
    assert not verify_proof(EMPTY, b"key", None, b"\xff\xff\x00")


def test_a_tree_of_many_keys_has_short_proofs():
    tree = Tree()
    root = tree.change({b"%d" % at: b"v" for at in range(5000)})
    rng = random.Random(1)
    for at in rng.sample(range(6000), 50):
        proof = prove(tree.nodes.get, b"%d" % at)
        assert len(proof) < 32 * 24 + 80
        assert verify_proof(root, b"%d" % at, b"v" if at < 5000 else None, proof)


def test_the_root_of_a_small_tree_is_pinned():
    root = Tree().change({b"a": b"1", b"b": b"2", b"c": b"3"})
    assert root.hex() == "8e2a164a410203f51300d7c6645b7a37f549768457be109acc126c63573a9e0a"

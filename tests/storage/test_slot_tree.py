from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage import cid as cids
from storage import merkle
from storage.errors import StorageError
from storage.slot_tree import Changes, Label, SlotTree, holds


def labels(count, salt=b""):
    return [Label(bytes((number % 256,)) * 32).encode() + salt for number in range(count)]


def tree_of(leaves):
    tree = SlotTree()
    for leaf in leaves:
        tree.append(leaf)
    return tree


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 70), st.data())
def test_roots_and_proofs_are_those_of_the_plain_tree_for_every_number_of_slots(total, data):
    leaves = labels(total)
    tree = tree_of(leaves)
    count = data.draw(st.integers(1, total))
    changed = data.draw(
        st.dictionaries(st.integers(0, count - 1), st.binary(min_size=1, max_size=4))
    )
    overlay = Changes({slot: merkle.leaf_hash(label) for slot, label in changed.items()})
    expected = [changed.get(slot, leaf) for slot, leaf in enumerate(leaves[:count])]
    assert tree.root(count) == merkle.root(leaves[:count])
    assert tree.root(count, overlay) == merkle.root(expected)
    slot = data.draw(st.integers(0, count - 1))
    assert tree.prove(slot, count) == merkle.prove(leaves[:count], slot)
    assert tree.prove(slot, count, overlay) == merkle.prove(expected, slot)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 70), st.data())
def test_a_tree_that_was_changed_and_cut_is_as_if_it_was_made_so(total, data):
    leaves = labels(total)
    tree = tree_of(leaves)
    for slot in data.draw(st.lists(st.integers(0, total - 1), max_size=5)):
        leaves[slot] = b"other"
        tree.replace(slot, b"other")
    assert tree.root(total) == merkle.root(leaves)
    count = data.draw(st.integers(0, total))
    tree.truncate(count)
    leaves = leaves[:count] + labels(9, b"more")
    for leaf in leaves[count:]:
        tree.append(leaf)
    assert len(tree) == len(leaves)
    for slots in range(len(leaves) + 1):
        assert tree.root(slots) == merkle.root(leaves[:slots])


def test_a_slot_outside_is_not_proven():
    tree = tree_of(labels(5))
    for slot, slots in ((5, 5), (-1, 5), (3, 3), (0, 6)):
        with pytest.raises(IndexError):
            tree.prove(slot, slots)


def test_labels_come_back_and_strangers_labels_are_checked():
    chunk = cids.of_raw(b"chunk")
    for label in (
        Label(b"r" * 32),
        Label(b"r" * 32, chunk, 5),
        Label(b"r" * 32, cids.of_raw(b""), 0),
    ):
        assert Label.decode(label.encode()) == label
    good = Label(b"r" * 32, chunk, 5).encode()
    for wrong in (good[:-1], good[:32] + b"\2" + good[33:], good[:68] + b"\0\x20\0\0"):
        with pytest.raises(StorageError):
            Label.decode(wrong)


def test_content_is_what_the_label_names_or_it_is_not():
    label = Label(b"r" * 32, cids.of_raw(b"chunk"), 5)
    assert holds(label, b"chunk" + bytes(10))
    assert not holds(label, b"other" + bytes(10))
    assert not holds(label, b"chunk" + bytes(9) + b"x")
    assert holds(Label(b"r" * 32), bytes(15))
    assert not holds(Label(b"r" * 32), bytes(14) + b"x")

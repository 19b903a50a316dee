"""Differences and merges of trees, against plain dictionaries of files."""

from __future__ import annotations

import random
import shutil

import pytest

from storage.dag_pb import Link
from storage.errors import ManifestError
from storage.unixfs import write_path
from swarm.versions import tree
from swarm.versions.diff import changes
from swarm.versions.merge import Conflict, merge
from tests.versions.world import Trees, read


@pytest.fixture
def trees(tmp_path):
    return Trees(tmp_path / "trees")


def differences(trees, old, new):
    found = changes(old, new, trees.store.get)
    return {(one.kind, one.path) for one in found if not one.is_folder}


def test_what_was_added_removed_and_changed_is_told_apart(trees):
    old = trees.add({"same": "1", "gone": "2", "inner/a": "3", "inner/b": "4"})
    new = trees.add({"same": "1", "fresh": "2", "inner/a": "changed", "inner/b": "4"})
    assert differences(trees, old, new) == {
        ("removed", "gone"),
        ("added", "fresh"),
        ("changed", "inner/a"),
    }
    assert differences(trees, old, old) == set()


def test_a_folder_that_became_a_file_is_removed_file_by_file(trees):
    old = trees.add({"x/a": "1", "x/b/c": "2"})
    new = trees.add({"x": "a file now"})
    assert differences(trees, old, new) == {
        ("added", "x"),
        ("removed", "x/a"),
        ("removed", "x/b/c"),
    }
    folders = [one.path for one in changes(old, new, trees.store.get) if one.is_folder]
    assert folders == ["x", "x/b"]


def test_where_the_cids_are_equal_nothing_is_read(trees):
    old = trees.add({"large/a": "1", "large/b": "2", "x": "3"})
    new = trees.add({"large/a": "1", "large/b": "2", "x": "4"})
    read_blocks = []

    def get(cid):
        read_blocks.append(cid)
        return trees.store.get(cid)

    assert [one.path for one in changes(old, new, get)] == ["x"]
    assert set(read_blocks) == {old, new}


def test_a_tree_built_of_its_entries_is_the_same_tree(trees):
    small = trees.add({"b": "1", "a": "2", "ü": "3"})
    large = trees.add({f"{number:05}-{'x' * 60}": str(number % 7) for number in range(3_000)})
    for root in (small, large):
        links = tree.entries(root, trees.store.get).values()
        assert tree.build(links, trees.emit).cid == root


def test_a_tree_without_a_name_is_the_tree_that_never_had_it(trees):
    with_it, without = trees.add({"a": "1", "b": "2"}), trees.add({"b": "2"})
    assert tree.without(with_it, ["a", "c"], trees.store.get, trees.emit) == without
    assert tree.without(without, ["a"], trees.store.get, trees.emit) == without


@pytest.mark.parametrize("name", ["..", "a/b", "", "a"])
def test_a_folder_with_a_hostile_name_or_one_name_twice_is_refused(trees, name):
    leaf = trees.add({"a": "1"})
    file = tree.entries(leaf, trees.store.get)["a"]
    links = [Link(file.cid, "a", 1), Link(file.cid, name, 1)]
    hostile = tree.build(links, trees.emit).cid
    with pytest.raises(ManifestError):
        list(changes(leaf, hostile, trees.store.get))


def test_what_each_side_changed_is_in_the_merge(trees):
    base = trees.add({"a": "1", "b": "1", "c/d": "1", "c/e": "1", "gone": "1"})
    ours = trees.add({"a": "ours", "b": "1", "c/d": "ours", "c/e": "1", "new": "ours"})
    theirs = trees.add({"a": "1", "b": "theirs", "c/d": "1", "c/e": "theirs", "gone": "1"})
    merged = merge(base, ours, theirs, trees.store.get, trees.emit)
    assert not merged.conflicts
    assert merged.root == trees.add(
        {"a": "ours", "b": "theirs", "c/d": "ours", "c/e": "theirs", "new": "ours"}
    )


def test_what_both_changed_to_the_same_is_no_conflict(trees):
    base = trees.add({"a": "1", "gone": "1"})
    both = trees.add({"a": "2", "new": "3"})
    other = trees.add({"a": "2", "new": "3", "theirs": "4"})
    merged = merge(base, both, other, trees.store.get, trees.emit)
    assert merged.conflicts == ()
    assert merged.root == other


def test_conflicts_are_named_with_what_each_side_did(trees):
    base = trees.add({"both": "1", "x/deep": "1", "removed": "1", "kept": "1"})
    ours = trees.add({"both": "2", "x/deep": "2", "added": "2", "kept": "2"})
    theirs = trees.add({"both": "3", "x/deep": "3", "added": "3", "removed": "3"})
    merged = merge(base, ours, theirs, trees.store.get, trees.emit)
    assert merged.conflicts == (
        Conflict("added", "added on both sides"),
        Conflict("both", "changed on both sides"),
        Conflict("kept", "changed here, removed there"),
        Conflict("removed", "removed here, changed there"),
        Conflict("x/deep", "changed on both sides"),
    )
    assert merged.root == ours
    taken = merge(base, ours, theirs, trees.store.get, trees.emit, "theirs")
    assert taken.conflicts == merged.conflicts
    assert taken.root == theirs


def test_without_a_base_only_what_is_equal_is_no_conflict(trees):
    ours, theirs = trees.add({"a": "1", "b": "2"}), trees.add({"a": "1", "b": "3", "c": "4"})
    merged = merge(None, ours, theirs, trees.store.get, trees.emit)
    assert [one.path for one in merged.conflicts] == ["b"]
    assert merged.root == trees.add({"a": "1", "b": "2", "c": "4"})


@pytest.mark.parametrize("seed", range(8))
def test_a_merge_agrees_with_dictionaries_and_with_itself_mirrored(trees, tmp_path, seed):
    choose = random.Random(seed)
    names = ["a", "b", "c/d", "c/e", "c/f/g", "h/i"]

    def variant(files):
        changed = {name: text for name, text in files.items() if choose.random() > 0.2}
        for name in names:
            if choose.random() < 0.3:
                changed[name] = choose.choice("xyz")
        return changed

    base = {name: "0" for name in names if choose.random() > 0.2}
    ours, theirs = variant(base), variant(base)
    expected, conflicts = {}, set()
    for name in names:
        was, mine, other = base.get(name), ours.get(name), theirs.get(name)
        if mine == other or was == other:
            result = mine
        elif was == mine:
            result = other
        else:
            conflicts.add(name)
            result = mine
        if result is not None:
            expected[name] = result
    roots = [trees.add(files) for files in (base, ours, theirs)]
    merged = merge(*roots, trees.store.get, trees.emit)
    mirrored = merge(roots[0], roots[2], roots[1], trees.store.get, trees.emit, "theirs")
    assert mirrored.root == merged.root
    named = {one.path for one in merged.conflicts}
    assert {one.path for one in mirrored.conflicts} == named
    if all("/" in one or one in {"a", "b"} for one in named):  # no whole folder is in conflict
        assert {one for one in conflicts if not one.startswith(tuple(named))} == set()
    if not conflicts and not named:
        write_path(merged.root, trees.store, tmp_path / "merged")
        assert read(tmp_path / "merged") == expected
        shutil.rmtree(tmp_path / "merged")


def test_one_node_under_many_names_is_looked_at_once(trees):
    old = trees.add({"a": "1"})
    new = trees.add({"a": "1", **{f"deep/{number}/same": "x" for number in range(100)}})
    read_blocks = []

    def get(cid):
        read_blocks.append(cid)
        return trees.store.get(cid)

    assert len(list(changes(old, new, get))) == 201
    # The folder of `same` is asked for what is in it a hundred times, and once more for what it is.
    assert len(read_blocks) == 2 + 1 + 1 + 1 + 100

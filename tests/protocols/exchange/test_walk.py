from __future__ import annotations

import pytest

from protocols.exchange.errors import ContentTooLargeError
from protocols.exchange.walk import MAX_DEPTH, Walk
from storage.cid import of_dag_pb, of_raw
from storage.errors import ManifestError

ROOT = of_dag_pb(b"root")
LEAVES = [of_raw(b"%d" % n) for n in range(4)]
INNER = of_dag_pb(b"inner")


def test_a_walk_counts_what_is_here_what_is_awaited_and_what_there_is():
    walk = Walk(ROOT)
    assert walk.place([ROOT], [ROOT]) == [(ROOT, 2 * 2**20)]
    found = walk.open_manifest(ROOT, 50, [(LEAVES[0], 10), (INNER, 100), (LEAVES[1], 7)], came=True)
    assert found == [LEAVES[0], INNER, LEAVES[1]]
    assert walk.place(found, [INNER, LEAVES[1]]) == [(INNER, 100), (LEAVES[1], 7)]
    assert (walk.done, walk.awaited, walk.total) == (60, 107, 167)
    found = walk.open_manifest(
        INNER, 40, [(LEAVES[0], 10), (LEAVES[1], 7), (LEAVES[2], 20)], came=True
    )
    assert found == [LEAVES[0], LEAVES[2]]
    assert walk.place(found, [LEAVES[2]]) == [(LEAVES[2], 20)]
    walk.settle_leaf(LEAVES[1], 7)
    assert not walk.is_complete
    walk.settle_leaf(LEAVES[2], 20)
    assert walk.is_complete
    assert walk.awaited == 0
    assert walk.done == walk.total


def test_a_manifest_that_is_held_is_opened_and_not_awaited():
    walk = Walk(ROOT)
    assert walk.place([ROOT], []) == []
    assert walk.next_here() == ROOT
    assert walk.next_here() is None
    assert walk.place(walk.open_manifest(ROOT, 50, [(INNER, 90)], came=False), []) == []
    assert walk.next_here() == INNER
    walk.open_manifest(INNER, 90, [], came=False)
    assert walk.is_complete
    assert walk.awaited == 0


def test_a_held_manifest_that_proves_damaged_is_awaited_after_all():
    walk = Walk(ROOT)
    walk.place([ROOT], [ROOT])
    walk.place(walk.open_manifest(ROOT, 50, [(INNER, 90)], came=True), [])
    assert walk.next_here() == INNER
    assert walk.place([INNER], [INNER]) == [(INNER, 90)]
    assert walk.awaited == 90
    walk.open_manifest(INNER, 90, [], came=True)
    assert walk.awaited == 0
    assert walk.is_complete


@pytest.mark.parametrize("actual", [9, 11])
def test_a_chunk_of_another_size_than_promised_is_refused(actual):
    walk = Walk(ROOT)
    walk.place([ROOT], [ROOT])
    walk.place(walk.open_manifest(ROOT, 50, [(LEAVES[0], 10)], came=True), LEAVES)
    with pytest.raises(ManifestError):
        walk.settle_leaf(LEAVES[0], actual)


def test_a_manifest_with_more_below_it_than_promised_is_refused():
    walk = Walk(ROOT)
    walk.place([ROOT], [ROOT])
    walk.place(walk.open_manifest(ROOT, 50, [(INNER, 59)], came=True), [INNER])
    with pytest.raises(ManifestError):
        walk.open_manifest(INNER, 50, [(LEAVES[0], 10)], came=True)


@pytest.mark.parametrize(
    "link", [(LEAVES[0], 2**21 + 1), (LEAVES[0], -1), (INNER, 2**50 + 1), (INNER, 2**50)]
)
def test_a_size_that_cannot_be_is_refused(link):
    walk = Walk(ROOT)
    walk.place([ROOT], [ROOT])
    with pytest.raises(ManifestError):
        walk.open_manifest(ROOT, 50, [link], came=True)


def test_content_larger_than_the_limit_is_refused_from_its_root():
    walk = Walk(ROOT, 100)
    walk.place([ROOT], [ROOT])
    with pytest.raises(ContentTooLargeError):
        walk.open_manifest(ROOT, 50, [(INNER, 51)], came=True)


def test_a_tower_of_manifests_is_refused():
    walk = Walk(ROOT)
    walk.place([ROOT], [ROOT])
    tower = [ROOT, *(of_dag_pb(b"%d" % level) for level in range(MAX_DEPTH + 1))]

    def climb(level: int) -> None:
        found = walk.open_manifest(tower[level], 1, [(tower[level + 1], 1_000 - level)], came=True)
        walk.place(found, found)

    for level in range(MAX_DEPTH):
        climb(level)
    with pytest.raises(ManifestError, match="levels"):
        climb(MAX_DEPTH)


def test_a_lattice_of_manifests_is_walked_once_a_manifest():
    """Two at each level, each naming both of the next: 2^40 paths, 81 manifests."""
    walk = Walk(ROOT)
    levels = {ROOT: 0}
    waiting = walk.place([ROOT], [ROOT])
    opened = 0
    while waiting:
        cid, _ = waiting.pop()
        opened += 1
        below = levels[cid] + 1
        pair = [of_dag_pb(b"%d %d" % (below, side)) for side in (0, 1)] if below <= 40 else []
        levels.update(dict.fromkeys(pair, below))
        links = [(child, 2 ** (41 - below) - 1) for child in pair]
        found = walk.open_manifest(cid, 1, links, came=True)
        waiting += walk.place(found, found)
    assert opened == 81
    assert walk.is_complete


def test_a_link_of_unknown_size_promises_nothing_and_counts_once_it_is_here():
    walk = Walk(ROOT, 300)
    walk.place([ROOT], [ROOT])
    links = [(LEAVES[0], None), (INNER, None), (LEAVES[1], 7)]
    found = walk.open_manifest(ROOT, 50, links, came=True)
    assert walk.place(found, found) == [(LEAVES[0], 2**21), (INNER, 2**21), (LEAVES[1], 7)]
    assert (walk.done, walk.awaited, walk.total) == (50, 7, 57)
    walk.settle_leaf(LEAVES[0], 100)
    assert (walk.done, walk.awaited, walk.total) == (150, 7, 157)
    walk.open_manifest(INNER, 140, [], came=True)
    walk.settle_leaf(LEAVES[1], 7)
    assert (walk.done, walk.awaited, walk.total) == (297, 0, 297)
    assert walk.is_complete


def test_content_of_unknown_size_is_refused_once_it_is_larger_than_the_limit():
    walk = Walk(ROOT, 100)
    walk.place([ROOT], [ROOT])
    found = walk.open_manifest(ROOT, 50, [(LEAVES[0], None), (INNER, None)], came=True)
    walk.place(found, found)
    walk.settle_leaf(LEAVES[0], 40)
    with pytest.raises(ContentTooLargeError):
        walk.open_manifest(INNER, 11, [], came=True)


@pytest.mark.parametrize("opened_between", [False, True])
def test_a_manifest_that_is_linked_with_two_sizes_is_refused(opened_between):
    first, second = of_dag_pb(b"first"), of_dag_pb(b"second")
    walk = Walk(ROOT)
    walk.place([ROOT], [ROOT])
    found = walk.open_manifest(ROOT, 50, [(first, 1_000), (second, 1_000)], came=True)
    walk.place(found, found)
    walk.place(walk.open_manifest(first, 10, [(INNER, 100)], came=True), [INNER])
    if opened_between:
        walk.open_manifest(INNER, 100, [], came=True)
    with pytest.raises(ManifestError, match="another"):
        walk.open_manifest(second, 10, [(INNER, 99)], came=True)


def test_a_size_that_only_one_manifest_tells_is_no_lie():
    first, second = of_dag_pb(b"first"), of_dag_pb(b"second")
    walk = Walk(ROOT)
    walk.place([ROOT], [ROOT])
    walk.place(walk.open_manifest(ROOT, 50, [(first, None), (second, None)], came=True), [])
    walk.open_manifest(first, 10, [(INNER, 100)], came=False)
    assert walk.open_manifest(second, 10, [(INNER, None)], came=False) == []

"""Histories: their order, their bounds, and where two of them part."""

from __future__ import annotations

import random

import pytest

from storage import cid as cids
from swarm.errors import NotFoundError
from swarm.versions import history
from swarm.versions.commit import Commit, CommitError, encode
from swarm.versions.history import HistoryTooLongError, resolve
from tests.versions.world import ALICE, TREE, Commits


@pytest.fixture
def commits():
    return Commits()


def log(commits, head, limit=history.MAX_COMMITS):
    return [cid for cid, _ in resolve(history.log(head, limit), commits.by_cid.__getitem__)]


def base(commits, ours, theirs, limit=history.MAX_COMMITS):
    return resolve(history.merge_base(ours, theirs, limit), commits.by_cid.__getitem__)


def lying(commits, height, *parents):
    """A commit that is signed and says another height than it has."""
    bare = Commit(TREE, parents, ALICE.public_key, "lie", 0, height)
    cid = cids.of_dag_cbor(encode(bare))
    commits.by_cid[cid] = bare
    return cid


def test_a_log_shows_children_before_their_parents_whatever_the_clocks_say(commits):
    first = commits.add(time_s=900)
    second = commits.add(first, time_s=5)
    third = commits.add(second, time_s=700)
    assert log(commits, third) == [third, second, first]


def test_of_two_branches_of_one_height_the_later_comes_first(commits):
    first = commits.add()
    old, new = commits.add(first, time_s=1), commits.add(first, time_s=2)
    merged = commits.add(old, new)
    assert log(commits, merged) == [merged, new, old, first]


def test_a_log_reads_no_more_than_it_shows(commits):
    head = commits.add()
    for _ in range(50):
        head = commits.add(head)
    read = []

    def reading(cid):
        read.append(cid)
        return commits.by_cid[cid]

    assert len(resolve(history.log(head, 3), reading)) == 3
    assert len(read) == 3


@pytest.mark.parametrize("height", [1, 2, 4, 9])
def test_a_commit_that_lies_about_its_height_is_named(commits, height):
    second = commits.add(commits.add())
    liar = lying(commits, height, second)
    with pytest.raises(CommitError, match=cids.text(liar)):
        log(commits, liar)
    with pytest.raises(CommitError, match=cids.text(liar)):
        base(commits, liar, commits.add(message="another"))


def test_back_follows_first_parents_and_ends_at_the_first_commit(commits):
    first = commits.add()
    second = commits.add(first)
    side = commits.add(message="side")
    merged = commits.add(second, side)
    read = commits.by_cid.__getitem__
    assert resolve(history.back(merged, 0), read) == merged
    assert resolve(history.back(merged, 2), read) == first
    with pytest.raises(NotFoundError, match="2 commits before it, not 3"):
        resolve(history.back(merged, 3), read)


def test_the_base_of_a_commit_and_its_ancestor_is_the_ancestor(commits):
    first = commits.add()
    head = commits.add(commits.add(first))
    assert base(commits, head, first) == first
    assert base(commits, first, head) == first
    assert base(commits, head, head) == head


def test_histories_that_share_nothing_have_no_base(commits):
    ours = commits.add(commits.add(message="a"), message="b")
    theirs = commits.add(message="c")
    assert base(commits, ours, theirs) is None


def test_the_base_is_looked_for_within_a_bound(commits):
    ours = theirs = commits.add()
    for number in range(20):
        ours, theirs = commits.add(ours, message=f"o{number}"), commits.add(theirs, message="t")
    with pytest.raises(HistoryTooLongError, match="10 commits"):
        base(commits, ours, theirs, limit=10)


@pytest.mark.parametrize("seed", range(20))
def test_the_base_is_a_common_ancestor_that_no_other_comes_from(commits, seed):
    choose = random.Random(seed)
    made = [commits.add(message="first")]
    for number in range(30):
        parents = choose.sample(made[-6:], min(len(made), choose.choice([1, 1, 2])))
        made.append(commits.add(*parents, message=str(number)))

    def above(cid):
        found, front = {cid}, [cid]
        while front:
            for parent in commits.by_cid[front.pop()].parents:
                if parent not in found:
                    found.add(parent)
                    front.append(parent)
        return found

    ours, theirs = made[-1], choose.choice(made[-8:-1])
    common = above(ours) & above(theirs)
    found = base(commits, ours, theirs)
    assert found in common
    assert not any(found in above(other) for other in common - {found})
    assert base(commits, theirs, ours) == found
    order = log(commits, ours)
    assert set(order) == above(ours)
    assert all(
        order.index(parent) > order.index(cid)
        for cid in order
        for parent in commits.by_cid[cid].parents
    )


def wide(commits, rows):
    """A history in which every commit comes from the one before and from fifteen first ones; the newest."""

    def add(name, height, *parents):
        cid = cids.of_dag_cbor(name.encode())
        commits.by_cid[cid] = Commit(TREE, parents, b"", "m" * 100, 0, height)
        return cid

    head = add("0", 1)
    for row in range(1, rows):
        firsts = [add(f"{row} {number}", 1) for number in range(15)]
        head = add(str(row), row + 1, head, *firsts)
    return head


def test_a_history_of_many_parents_is_read_no_further_than_one_of_few(commits):
    head, most = wide(commits, 1_000), history.MAX_COMMITS + 16
    assert len(commits.by_cid) > most
    for question in (history.log(head), history.count(head)):
        read = []
        resolve(question, lambda cid: read.append(cid) or commits.by_cid[cid])  # noqa: B023
        assert history.MAX_COMMITS <= len(read) <= most
    read = []
    with pytest.raises(HistoryTooLongError):
        resolve(
            history.merge_base(head, commits.add(message="alone")),
            lambda cid: read.append(cid) or commits.by_cid[cid],
        )
    assert len(read) <= most


def test_a_history_is_counted_as_it_is_listed(commits):
    head = wide(commits, 20)
    assert resolve(history.count(head), commits.by_cid.__getitem__) == len(log(commits, head))
    lying_head = lying(commits, 9, head)
    with pytest.raises(CommitError, match="height"):
        resolve(history.count(lying_head), commits.by_cid.__getitem__)

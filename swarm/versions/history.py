"""Which commit comes from which: a log, ancestry, and where two histories part.

Every function here is a generator that asks for commits by name and is told them, so that it does no I/O:
`steps.send(commit)` answers the CID that it yielded last, and its return value is the result. `resolve` runs one over a map.

A commit's height is one above its highest parent's. It is the author's word, so it is checked wherever a parent is read;
by it a history is walked from the newest down without ever showing a parent before its child, and without reading
more of it than is asked for. A history cannot loop: a commit's name is the hash of its parents' names.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Generator
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from storage import cid as cids
from swarm.errors import NotFoundError, RefusedError
from swarm.sizes import counted
from swarm.versions.commit import CommitError

if TYPE_CHECKING:
    from storage.cid import Cid
    from swarm.versions.commit import Commit

T = TypeVar("T")
Steps: TypeAlias = Generator["Cid", "Commit", T]

MAX_COMMITS = 10_000
"""Commits that one question reads; the parents of the last may be a few more."""
_OURS, _THEIRS = 1, 2


class HistoryTooLongError(RefusedError):
    """A question would read more commits than allowed."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the history has more than {limit:,} commits before an answer is found")
        self.limit = limit


def resolve(steps: Steps[T], read: Callable[[Cid], Commit]) -> T:
    """Run a question to its answer where every commit is at hand."""
    try:
        wanted = next(steps)
        while True:
            wanted = steps.send(read(wanted))
    except StopIteration as done:
        value: T = done.value
        return value


def log(head: Cid, limit: int = MAX_COMMITS) -> Steps[list[tuple[Cid, Commit]]]:
    """The newest commits of a history, children before their parents.

    Args:
        head: Where it starts.
        limit: How many at most; there are more where the last of them has parents that are not among them.

    Returns:
        By height from the top; of one height the later first, then by name.

    Raises:
        CommitError: A commit's height is not one above its parents'.
    """
    found: list[tuple[Cid, Commit]] = []
    walk = _Walk()
    yield from walk.start(head, 0)
    while walk and len(found) < limit:
        cid, commit, _ = walk.pop()
        found.append((cid, commit))
        if len(found) < limit and walk.read < MAX_COMMITS:
            yield from walk.parents_of(cid, commit, 0)
    return found


def count(head: Cid) -> Steps[int]:
    """How many commits a history has, as far as `log` reads it; what they say is not kept in memory.

    Raises:
        CommitError: A commit's height is not one above its parents'.
    """
    walk = _Walk(with_messages=False)
    yield from walk.start(head, 0)
    while walk and walk.read < MAX_COMMITS:
        cid, commit, _ = walk.pop()
        yield from walk.parents_of(cid, commit, 0)
    return walk.read


def back(head: Cid, steps: int) -> Steps[Cid]:
    """The commit so many steps before, each to the first parent.

    Raises:
        NotFoundError: The history is shorter.
    """
    at = head
    for done in range(steps):
        commit = yield at
        if not commit.parents:
            message = f"{cids.text(head)} has {counted(done, 'commit')} before it, not {steps}"
            raise NotFoundError(message)
        at = commit.parents[0]
    return at


def merge_base(ours: Cid, theirs: Cid, limit: int = MAX_COMMITS) -> Steps[Cid | None]:
    """The newest commit that both come from, which may be one of them; None where they share nothing.

    Of several of one height the one with the smallest name, on every machine.

    Raises:
        HistoryTooLongError: It is not among the `limit` newest commits of both.
        CommitError: A commit's height is not one above its parents'.
    """
    walk = _Walk(with_messages=False)
    yield from walk.start(ours, _OURS)
    yield from walk.start(theirs, _THEIRS)
    for _ in range(limit):
        if not walk:
            return None
        cid, commit, sides = walk.pop()
        if sides == _OURS | _THEIRS:  # all that come from it were taken before: they are higher
            return cid
        if commit.parents and walk.read >= MAX_COMMITS:
            raise HistoryTooLongError(MAX_COMMITS)
        yield from walk.parents_of(cid, commit, sides)
    if not walk:
        return None
    raise HistoryTooLongError(limit)


class _Walk:
    """A front that moves down a history; each commit is taken once, after all its children.

    Args:
        with_messages: Keep what the commits of the front say.

    Attributes:
        read: Commits so far.
    """

    def __init__(self, *, with_messages: bool = True) -> None:
        self.read = 0
        self._with_messages = with_messages
        self._front: list[tuple[int, int, Cid]] = []
        self._read: dict[Cid, Commit] = {}
        self._sides: dict[Cid, int] = {}

    def __bool__(self) -> bool:
        return bool(self._front)

    def start(self, cid: Cid, side: int) -> Steps[None]:
        """Put a commit on the front."""
        if cid not in self._sides:
            commit = yield cid
            self.read += 1
            self._read[cid] = commit if self._with_messages else replace(commit, message="")
            self._sides[cid] = 0
            heapq.heappush(self._front, (-commit.height, -commit.time_s, cid))
        self._sides[cid] |= side

    def pop(self) -> tuple[Cid, Commit, int]:
        """Take the highest commit: its name, itself, and from which sides it was reached."""
        cid = heapq.heappop(self._front)[2]
        return cid, self._read.pop(cid), self._sides[cid]

    def parents_of(self, cid: Cid, commit: Commit, sides: int) -> Steps[None]:
        """Put the parents of a commit on the front.

        Raises:
            CommitError: Its height is not one above theirs.
        """
        highest = 0
        for parent in commit.parents:
            yield from self.start(parent, sides)
            # One that was taken already is not below this one, as it should be.
            highest = max(highest, self._height(parent, commit.height))
        if highest + 1 != commit.height:
            message = f"commit {cids.text(cid)} says that its height is {commit.height:,}, but it is {highest + 1:,}"
            raise CommitError(message)

    def _height(self, parent: Cid, unless_read: int) -> int:
        read = self._read.get(parent)
        return unless_read if read is None else read.height

"""The two ends of one exchange stream: what was asked on it and what is still to be answered. No I/O.

The rule of both: a want is answered exactly once, by BLOCK or by DONT_HAVE, cancelled or not.
So each side always knows how much the other still owes, and anything beyond that is refused.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from protocols.exchange.messages import Answer, Block, Cancel, DontHave, Query, Request, Want
from protocols.transport import RemoteProtocolError
from storage import cid as cids

if TYPE_CHECKING:
    from collections.abc import Iterable

    from storage.cid import Cid

MAX_WANTS = 1_024
"""Wants of one peer that are not answered yet."""
MAX_QUERIES = 16
"""Queries of one peer that are not answered yet."""


class Asking:
    """The end that asks: refuses answers that nobody asked for."""

    def __init__(self) -> None:
        self._wants: set[Cid] = set()
        self._queries: deque[tuple[Cid, ...]] = deque()

    @property
    def is_owed(self) -> bool:
        """Whether an answer is still to come."""
        return bool(self._wants or self._queries)

    @property
    def room(self) -> int:
        """Wants that may still be sent."""
        return MAX_WANTS - len(self._wants)

    @property
    def can_query(self) -> bool:
        """Whether another query may be sent."""
        return len(self._queries) < MAX_QUERIES

    def is_wanted(self, cid: Cid) -> bool:
        """Whether a want of that chunk is not answered yet."""
        return cid in self._wants

    def want(self, wanted: Iterable[Cid]) -> None:
        """Note wants that are sent; none of them may be waiting already."""
        self._wants.update(wanted)

    def query(self, asked: tuple[Cid, ...]) -> None:
        """Note a query that is sent."""
        self._queries.append(asked)

    def answered(self, answer: Answer) -> tuple[Cid, ...]:
        """Check an answer against what was asked.

        Returns:
            The CIDs of the query that a HAVE answers; nothing otherwise.

        Raises:
            RemoteProtocolError: It answers no question.
        """
        if isinstance(answer, Block):
            self._strike(answer.cid)
            return ()
        if isinstance(answer, DontHave):
            for cid in answer.cids:
                self._strike(cid)
            return ()
        if not self._queries:
            message = "an answer to a query that nobody sent"
            raise RemoteProtocolError(message)
        asked = self._queries.popleft()
        if not set(answer.cids) <= set(asked):
            message = "the answer to a query names what was not in it"
            raise RemoteProtocolError(message)
        return asked

    def _strike(self, cid: Cid) -> None:
        if cid not in self._wants:
            message = f"{cids.text(cid)} was not wanted"
            raise RemoteProtocolError(message)
        self._wants.remove(cid)


class Answering:
    """The end that answers: what the other side is owed, in the order in which it is sent."""

    def __init__(self) -> None:
        self._wants: dict[Cid, None] = {}
        self._loading: set[Cid] = set()
        self._dropped: list[Cid] = []
        self._queries: deque[tuple[Cid, ...]] = deque()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is owed that is not being read from the store already."""
        return not self._dropped and not self._queries and len(self._wants) == len(self._loading)

    def handle(self, request: Request) -> None:
        """Take a request.

        Raises:
            RemoteProtocolError: More is asked than may wait, or a chunk is wanted twice.
        """
        if isinstance(request, Want):
            self._take(request.cids)
        elif isinstance(request, Cancel):
            for cid in request.cids:
                if cid in self._wants and cid not in self._loading:
                    del self._wants[cid]
                    self._dropped.append(cid)
        elif isinstance(request, Query):
            if len(self._queries) >= MAX_QUERIES:
                message = f"more than {MAX_QUERIES} queries wait"
                raise RemoteProtocolError(message)
            self._queries.append(request.cids)

    def take_query(self) -> tuple[Cid, ...] | None:
        """The oldest query; it counts as answered."""
        return self._queries.popleft() if self._queries else None

    def take_dropped(self) -> tuple[Cid, ...]:
        """Cancelled wants, to be answered by DONT_HAVE; they count as answered."""
        dropped, self._dropped = tuple(self._dropped), []
        return dropped

    def start(self, most: int) -> tuple[Cid, ...]:
        """The oldest wants; they can no longer be cancelled until `finish`."""
        taken: list[Cid] = []
        for cid in self._wants:
            if len(taken) == most:
                break
            if cid not in self._loading:
                taken.append(cid)
        self._loading.update(taken)
        return tuple(taken)

    def finish(self, answered: Iterable[Cid], put_back: Iterable[Cid]) -> None:
        """End what `start` gave: some are about to be answered, the others wait again."""
        for cid in answered:
            del self._wants[cid]
            self._loading.remove(cid)
        self._loading.difference_update(put_back)

    def _take(self, wanted: tuple[Cid, ...]) -> None:
        if len(self._wants) + len(self._dropped) + len(wanted) > MAX_WANTS:
            message = f"more than {MAX_WANTS:,} wants wait"
            raise RemoteProtocolError(message)
        dropped = set(self._dropped)
        for cid in wanted:
            if cid in self._wants or cid in dropped:
                message = f"{cids.text(cid)} is wanted twice"
                raise RemoteProtocolError(message)
            self._wants[cid] = None

"""Whom to ask for blocks that are missing, and how often others are answered: pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

LONG_AGO = -(10**9)


class Asking:
    """Questions and answers of one epoch; what is kept of a peer is a few numbers.

    Args:
        others: The other validators, by key: nobody else is asked or answered.
        delta_ms: D.
    """

    def __init__(self, others: Sequence[bytes], delta_ms: int) -> None:
        self._others = others
        self._known = frozenset(others)
        self._delta_ms = delta_ms
        self._asking: dict[bytes, tuple[int, int]] = {}
        self._helped: dict[bytes, int] = {}
        self._given: dict[bytes, tuple[bytes, int]] = {}
        self._told: dict[bytes, int] = {}

    def came(self, block_id: bytes) -> None:
        """A block is here."""
        self._asking.pop(block_id, None)

    def due(self) -> list[int]:
        """When the questions that are open are asked again."""
        return [at for at, _ in self._asking.values()]

    def questions(self, missing: set[bytes], tick: int) -> list[tuple[bytes, bytes]]:
        """Whom to ask for which block or skipped views now: first after a quarter of D, then one validator after another, each D."""
        self._asking = {key: value for key, value in self._asking.items() if key in missing}
        found = []
        for block_id in sorted(missing) if self._others else ():
            at, tries = self._asking.get(block_id, (tick + self._delta_ms // 4, 0))
            if tick >= at:
                # A question for skipped views begins with zeros; one who tells of few is not asked first again.
                first = block_id[0] or block_id[-1]
                found.append((self._others[(first + tries) % len(self._others)], block_id))
                at, tries = tick + self._delta_ms, tries + 1
            self._asking[block_id] = (at, tries)
        return found

    def may_help(self, peer: bytes, tick: int) -> bool:
        """Whether a laggard is told where the others are: once in D."""
        if peer not in self._known or tick - self._helped.get(peer, LONG_AGO) < self._delta_ms:
            return False
        self._helped[peer] = tick
        return True

    def may_give(self, peer: bytes, block_id: bytes, tick: int) -> bool:
        """Whether a block is given: not the same one to the same peer twice in a quarter of D."""
        last_id, at = self._given.get(peer, (b"", LONG_AGO))
        again = last_id == block_id and tick - at < self._delta_ms // 4
        if again or peer not in self._known:
            return False
        self._given[peer] = (block_id, tick)
        return True

    def may_tell(self, peer: bytes, tick: int) -> bool:
        """Whether one who was away is told which views came to nothing: once in D."""
        if peer not in self._known or tick - self._told.get(peer, LONG_AGO) < self._delta_ms:
            return False
        self._told[peer] = tick
        return True

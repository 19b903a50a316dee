"""What is counted while a simulation runs: only numbers, none of which the run depends on."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from protocols.consensus.messages import Block


@dataclass(slots=True)
class Measures:
    """Times in virtual milliseconds."""

    proposals: dict[bytes, int] = field(default_factory=dict)  # block id -> first sent
    final: dict[int, tuple[bytes, int]] = field(default_factory=dict)  # height -> id, first commit
    finality: list[tuple[int, int]] = field(default_factory=list)  # (time, from proposal to commit)
    submitted: dict[bytes, int] = field(default_factory=dict)  # transaction -> when
    paid: list[int] = field(default_factory=list)  # from submission to commit, a transaction each
    failed: int = 0  # transactions that are final and failed
    messages: Counter[str] = field(default_factory=Counter)  # sent, by kind
    lost: int = 0
    crashes: int = 0
    blamed: Counter[str] = field(default_factory=Counter)
    halts: list[str] = field(default_factory=list)
    forks: dict[int, set[bytes]] = field(default_factory=dict)  # height -> what honest nodes hold
    accused: dict[bytes, bytes] = field(default_factory=dict)  # public key -> evidence

    def proposed(self, now: int, block: Block) -> None:
        """A leader sends a block."""
        self.proposals.setdefault(block.id, now)

    def committed(self, now: int, block: Block) -> bool:
        """An honest node holds a block final; whether it is the first to."""
        begun = self.proposals.get(block.id)
        if begun is not None:
            self.finality.append((now, now - begun))
        known = self.final.get(block.height)
        if known is None:
            self.final[block.height] = (block.id, now)
            return True
        if known[0] != block.id:
            self.forks.setdefault(block.height, {known[0]}).add(block.id)
        return False

    def intervals(self) -> list[int]:
        """Between the proposals of one final block and the next."""
        times = [
            self.proposals[block_id]
            for _, (block_id, _) in sorted(self.final.items())
            if block_id in self.proposals
        ]
        return [later - earlier for earlier, later in pairwise(times)]


def quantile(values: Sequence[int], percent: int) -> int | None:
    """The least value that so many of a hundred do not exceed; None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]

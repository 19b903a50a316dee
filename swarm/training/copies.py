"""Updates that say what an earlier one says: a cluster of them counts once, as its earliest commit.

    likeness(a, b) = (weights that both name with one sign - weights that both name with opposite signs) / weights named

Levels are left out, so that scaling a copy changes nothing. Honest updates are like each other too, most of all in the
first round (0.4 of the demo's GPT, under 0.1 from the fourth on), so a copy is one that is far more alike than a
round's updates usually are: halfway from the lower quartile of all pairs to 1, or `SURE`, if that is less.

All of it is integers: who holds the same files finds the same copies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swarm.training.codec import Sparse

WHOLE: Final = 10**6
"""Likeness is counted in parts of this."""
SURE: Final = 850_000
"""No two workers that really trained are so much alike."""


def copies(updates: Sequence[Sequence[Sparse] | None], order: Sequence[int]) -> set[int]:
    """Which updates are copies of an earlier one.

    Args:
        updates: Groups of each, of one layout; None where there is nothing to compare.
        order: When each was committed: its place among the commits.

    Returns:
        Places in `updates`.
    """
    known = sorted((at for at, one in enumerate(updates) if one is not None), key=order.__getitem__)
    alike = _likenesses([updates[at] or () for at in known])
    if not alike:
        return set()
    usual = sorted(alike.values())[(len(alike) - 1) // 4]
    limit = min(SURE, (max(0, usual) + WHOLE + 1) // 2)
    found: set[int] = set()
    for (earlier, later), likeness in sorted(alike.items()):
        if likeness >= limit and known[earlier] not in found:
            found.add(known[later])
    return found


def _likenesses(updates: Sequence[Sequence[Sparse]]) -> dict[tuple[int, int], int]:
    """Of each pair, the earlier first, in parts of `WHOLE`."""
    found = {}
    for first, one in enumerate(updates):
        signs = [_dense(item) for item in one]
        named = max(1, sum(len(item.positions) for item in one))
        for second in range(first + 1, len(updates)):
            both = sum(
                _agreed(flat, item) for flat, item in zip(signs, updates[second], strict=True)
            )
            found[first, second] = both * WHOLE // named
    return found


def _dense(item: Sparse) -> np.ndarray:
    flat = np.zeros(int(item.positions[-1]) + 1, np.int8)
    flat[item.positions] = np.where(item.negative, -1, 1)
    return flat


def _agreed(flat: np.ndarray, item: Sparse) -> int:
    """Weights named with one sign less those named with opposite signs."""
    end = int(np.searchsorted(item.positions, len(flat)))
    signs = flat[item.positions[:end]].astype(np.int64)
    return int(np.where(item.negative[:end], -signs, signs).sum())

"""Updates that say what an earlier one says: a cluster of them counts once, as its earliest commit.

    likeness(a, b) = (weights that both name with one sign - weights that both name with opposite signs) / weights named

Levels are left out, so that scaling a copy changes nothing. Honest updates are like each other too, most of all in the
first round (0.4 of the demo's GPT, under 0.1 from the fourth on), so a copy is one that is far more alike than a
round's updates usually are: halfway from the lower quartile of all pairs to 1, or `SURE`, if that is less.
When a part of the weights is spoken of for the first time they are more alike still (0.59 was seen, 0.9 in groups), and
hostile updates that are like nothing pull the quartile down: then a copy is at least `FIRST` alike, and groups tell nothing.
Who puts a file together out of several is like none of them as a whole, but its groups are: an update is a copy as well
where `SPLICED` of its weights lie in groups that are `SURE` to be those of earlier updates. Groups of which the round's
updates are usually more than half alike do not count.
Of a few weights honest work often names the same by chance: a group tells from `LEAST_GROUP` weights on, and updates of
fewer than `LEAST` are not compared.

All of it is integers: who holds the same files finds the same copies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from swarm.training.codec import Sparse

WHOLE: Final = 10**6
"""Likeness is counted in parts of this."""
SURE: Final = 850_000
"""No two workers that really trained are so much alike."""
FIRST: Final = 700_000
"""The least likeness of a copy when its part of the weights is spoken of for the first time."""
SPLICED: Final = 250_000
"""The part of an update's weights, in parts of `WHOLE`, that makes it a copy when it is taken from others."""
LEAST_GROUP: Final = 32
"""Weights that an update names of a group that tells."""
LEAST: Final = 100
"""Weights that an update names, for copies of it to be looked for."""


def copies(
    updates: Sequence[Sequence[Sparse] | None],
    order: Sequence[int],
    *,
    is_first: bool = False,
    alive: Callable[[], None] = lambda: None,
) -> set[int]:
    """Which updates are copies of an earlier one.

    Args:
        updates: Groups of each, of one layout; None where there is nothing to compare.
        order: When each was committed: its place among the commits.
        is_first: Whether nobody has spoken of this part of the weights before, in a task of several parts.
        alive: Called for each update, before it is compared with all later ones.

    Returns:
        Places in `updates`.
    """
    known = sorted((at for at, one in enumerate(updates) if one is not None), key=order.__getitem__)
    held = [updates[at] or () for at in known]
    sizes = [[len(item.positions) for item in one] for one in held]
    if len(held) < 2 or sum(sizes[0]) < LEAST:
        return set()
    agreed = _agreements(held, alive)
    alike = {pair: sum(both) * WHOLE // sum(sizes[pair[0]]) for pair, both in agreed.items()}
    halfway = (max(0, _quartile(list(alike.values()))) + WHOLE + 1) // 2
    limit = max(FIRST if is_first else 0, min(SURE, halfway))
    telling = [
        not is_first
        and sizes[0][at] >= LEAST_GROUP
        and _quartile([both[at] * WHOLE // sizes[first][at] for (first, _), both in agreed.items()])
        <= WHOLE // 2
        for at in range(len(sizes[0]))
    ]
    found: set[int] = set()
    for later in range(1, len(held)):
        earlier = [at for at in range(later) if known[at] not in found]
        taken = sum(
            sizes[later][group]
            for group, tells in enumerate(telling)
            if tells
            and any(agreed[at, later][group] * WHOLE >= SURE * sizes[at][group] for at in earlier)
        )
        if any(alike[at, later] >= limit for at in earlier) or taken * WHOLE >= SPLICED * sum(
            sizes[later]
        ):
            found.add(known[later])
    return found


def _quartile(values: list[int]) -> int:
    """The lower one."""
    return sorted(values)[(len(values) - 1) // 4]


def _agreements(
    updates: Sequence[Sequence[Sparse]], alive: Callable[[], None]
) -> dict[tuple[int, int], list[int]]:
    """Of each pair, the earlier first, and of each group: weights named alike less those named with opposite signs."""
    found = {}
    for first, one in enumerate(updates):
        alive()
        signs = [_dense(item) for item in one]
        for second in range(first + 1, len(updates)):
            found[first, second] = [
                _agreed(flat, item) for flat, item in zip(signs, updates[second], strict=True)
            ]
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

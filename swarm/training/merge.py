"""The merge: accepted updates and the base give the next checkpoint, the same bytes on every machine.

    theta' = theta - sum over i of clip(U_i) * min(a / n, 1 / m),   m = how many of the n updates name the weight

The clip is to the median norm of the n updates. The amplification `a` makes up for a mean of sparse updates that
hardly overlap; `1 / m` keeps any weight from moving further than the mean of those who name it. (Without it, rounds
in which all updates name the same weights overshoot: the loss of the demo's GPT rose again in its third round.)

All of it is integers. A value is an int64 in units of 2^-40; a group of an update is one level and signs:

    level   = floor(level * 2^40)                       (exact: a float32 times a power of two)
    norm_i  = isqrt(sum over groups of picks * level^2)
    median  = the middle norm, or the floor of the mean of the middle two
    step    = level * min(norm_i, median) // max(1, norm_i)
    total   = sum of signed steps of a weight
    move    = |total| // m                          where a_milli * m > 1000 * n
              floor(|total| * a_milli / (1000 * n))  elsewhere, with total's sign

A weight becomes round-half-even(theta * 2^40); its move is taken away, the result is rounded to float64, clipped to
-2^20 to 2^20 and rounded to float32, both half to even. A weight whose move is zero keeps its bits.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

from swarm.training import codec
from swarm.training.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from swarm.training.codec import Layout, Sparse
    from swarm.training.tensors import Array

SCALE_BITS: Final = 40
MAX_WEIGHT: Final = 2.0**20
MAX_UPDATES: Final = 1024


def norm(update: Sequence[Sparse]) -> int:
    """An update's Euclidean norm in units of 2^-40, rounded down."""
    return math.isqrt(sum(len(item.positions) * _fixed(item.level) ** 2 for item in update))


def median_norm(norms: Sequence[int]) -> int:
    """The middle of the norms; of an even number, the floor of the mean of the middle two."""
    ordered = sorted(norms)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) // 2


def steps(updates: Sequence[Sequence[Sparse]]) -> list[list[int]]:
    """What each update asks of the weights that it names, clipped: one integer a group, units of 2^-40."""
    norms = [norm(update) for update in updates]
    median = median_norm(norms) if norms else 0
    return [
        [_fixed(item.level) * min(own, median) // max(1, own) for item in update]
        for update, own in zip(updates, norms, strict=True)
    ]


def merge(
    base: Mapping[str, Array],
    updates: Sequence[Sequence[Sparse]],
    layout: Layout,
    amplify_milli: int,
) -> dict[str, Array]:
    """The next checkpoint's tensors.

    Args:
        base: float32 tensors by name.
        updates: The accepted updates' groups; integer sums make their order irrelevant.
        layout: The base's layout.
        amplify_milli: `a` in thousandths.

    Raises:
        CheckpointError: A weight is not finite or too great, or there are too many updates.
    """
    if len(updates) > MAX_UPDATES:
        message = f"{len(updates):,} updates where at most {MAX_UPDATES:,} can be merged"
        raise CheckpointError(message)
    groups = codec.gather(base, layout)
    moves = steps(updates)
    for at, (group, flat) in enumerate(zip(layout.groups, groups, strict=True)):
        if not np.isfinite(flat).all() or (len(flat) and np.abs(flat).max() > MAX_WEIGHT):
            message = f"the base holds a weight that is not finite or above {MAX_WEIGHT:,.0f}"
            raise CheckpointError(message)
        if updates:
            positions, total, named = _sums(
                [update[at] for update in updates], [m[at] for m in moves]
            )
            share = _share(total, named, len(updates), amplify_milli)
            _apply(group.part(flat), positions, share)
    return codec.scatter(groups, layout)


def _sums(updates: Sequence[Sparse], moves: Sequence[int]) -> tuple[Array, Array, Array]:
    """The weights that a group's updates name: position, sum of the signed steps, and how many name it."""
    positions = np.concatenate([item.positions for item in updates])
    signed = [
        np.where(item.negative, -move, move) for item, move in zip(updates, moves, strict=True)
    ]
    order = np.argsort(positions, kind="stable")  # runs that are sorted are merged
    positions = positions[order]
    firsts = np.flatnonzero(np.diff(positions, prepend=-1))
    total = np.add.reduceat(np.concatenate(signed).astype(np.int64)[order], firsts)
    return positions[firsts], total, np.diff(firsts, append=len(positions))


def _share(total: Array, named: Array, count: int, amplify_milli: int) -> Array:
    """The moves: see the module's text."""
    over = amplify_milli * named > 1000 * count
    # Quotient and remainder are scaled apart: the product itself could pass 2^63. Equal to the floor of it.
    size = np.abs(total)
    divisor = 1000 * max(1, count)
    amplified = size // divisor * amplify_milli + size % divisor * amplify_milli // divisor
    moved = np.where(over, size // np.maximum(named, 1), amplified)
    return np.where(total < 0, -moved, moved)


def _apply(flat: Array, positions: Array, moves: Array) -> None:
    """Move these weights; one whose move is zero keeps its bits."""
    moved = np.flatnonzero(moves)
    at = positions[moved]
    fixed = np.rint(flat[at].astype(np.float64) * 2.0**SCALE_BITS).astype(np.int64)
    value = (fixed - moves[moved]).astype(np.float64) * 2.0**-SCALE_BITS
    flat[at] = np.clip(value, -MAX_WEIGHT, MAX_WEIGHT).astype(np.float32)


def _fixed(level: float) -> int:
    return math.floor(level * 2.0**SCALE_BITS)

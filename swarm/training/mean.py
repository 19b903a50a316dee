"""The mean of pairs: of accepted whole checkpoints and the base comes the next one, the same bytes on every machine.

    theta' = theta + sum over i of clip(theta_i - theta) / n

All pairs of a round begin at the same weights, and a few hundred steps leave them in one basin, so their mean is at
least as good as they are, and carries the work of all. The distance of each from the base is clipped to the median of
the n, of generators and of discriminators apart: a score sees only what a generator makes.

All of it is integers. A value is an int64 in units of 2^-40, and

    d_i     = round(theta_i * 2^40) - round(theta * 2^40)             both half to even
    norm_i  = isqrt(sum over a network's weights of floor(d_i / 2^20)^2)
    median  = the middle norm, or the floor of the mean of the middle two
    share_i = min(norm_i, median) * 2^30 // norm_i
    move    = sum over i of floor(floor(d_i * share_i / 2^30) / n)

A weight becomes round(theta * 2^40) plus its move, rounded to float64 and then to float32, both half to even. A weight
whose move is zero keeps its bits; of one pair alone its own bits are taken.

Source: McMahan et al., "Communication-efficient learning of deep networks from decentralized data" (2017); Rasouli et
al., "FedGAN" (2020); Wortsman et al., "Model soups" (2022). The clip is ours.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

from swarm.training.errors import CheckpointError
from swarm.training.merge import MAX_UPDATES, MAX_WEIGHT, SCALE_BITS, median_norm

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from swarm.training.tensors import Array

SHARE_BITS: Final = 30
_NORM_BITS: Final = 20
"""What a distance is rounded by before it is squared."""
_HALF_BITS: Final = 21
_PART: Final = 2**20
"""Squares are added up so many at a time: each is below 2^42, so their sum fits into 63 bits."""


def mean(base: Mapping[str, Array], pairs: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """The next checkpoint's tensors.

    Args:
        base: float32 tensors by name; what stands before the first dot is the network.
        pairs: Tensors of the same names and shapes, finite and at most `MAX_WEIGHT`; integer sums make their order
            irrelevant.

    Raises:
        CheckpointError: A weight of the base is not finite or too great, or there are too many pairs.
    """
    if len(pairs) > MAX_UPDATES:
        message = f"{len(pairs):,} pairs where at most {MAX_UPDATES:,} can be merged"
        raise CheckpointError(message)
    for item in base.values():
        if not np.isfinite(item).all() or (item.size and np.abs(item).max() > MAX_WEIGHT):
            message = f"the base holds a weight that is not finite or above {MAX_WEIGHT:,.0f}"
            raise CheckpointError(message)
    if len(pairs) < 2:
        return dict(pairs[0] if pairs else base)
    merged = dict(base)
    for network in sorted({name.partition(".")[0] for name in base}):
        names = [name for name in base if name.partition(".")[0] == network]
        shares = _shares([_norm(pair, base, names) for pair in pairs])
        for name in names:
            move = np.zeros(base[name].shape, np.int64)
            for pair, share in zip(pairs, shares, strict=True):
                move += _clipped(_distance(pair, base, name), share) // len(pairs)
            value = (_fixed(base[name]) + move).astype(np.float64) * 2.0**-SCALE_BITS
            merged[name] = np.where(move == 0, base[name], value.astype(np.float32))
    return merged


def _norm(pair: Mapping[str, Array], base: Mapping[str, Array], names: Sequence[str]) -> int:
    """Of a pair's distance; that of one tensor is held at a time."""
    return math.isqrt(sum(squared(_distance(pair, base, name)) for name in names))


def _shares(norms: Sequence[int]) -> list[int]:
    """How much of each distance is taken, in units of 2^-30."""
    median = median_norm(norms)
    return [(min(norm, median) << SHARE_BITS) // max(1, norm) for norm in norms]


def squared(distance: Array) -> int:
    """The sum of the squares of a distance, each rounded down to units of 2^-20 before: exact, of any size."""
    flat = distance.ravel() >> _NORM_BITS
    total = 0
    for at in range(0, flat.size, _PART):
        high = flat[at : at + _PART] >> _HALF_BITS
        low = flat[at : at + _PART] & (2**_HALF_BITS - 1)
        total += int(high @ high) << 2 * _HALF_BITS
        total += (int(high @ low) << _HALF_BITS + 1) + int(low @ low)
    return total


def _clipped(distance: Array, share: int) -> Array:
    """`floor(distance * share / 2^30)`: quotient and remainder are scaled apart, since the product could pass 2^63."""
    quotient, rest = distance >> SHARE_BITS, distance & (2**SHARE_BITS - 1)
    result: Array = quotient * share + (rest * share >> SHARE_BITS)
    return result


def _distance(pair: Mapping[str, Array], base: Mapping[str, Array], name: str) -> Array:
    result: Array = _fixed(pair[name]) - _fixed(base[name])
    return result


def _fixed(values: Array) -> Array:
    return np.rint(values.astype(np.float64) * 2.0**SCALE_BITS).astype(np.int64)

"""Random arrays that are equal on every machine, from a 64-bit seed.

Only the raw words of numpy's Philox are used: they are pinned by its definition (Salmon et al., "Parallel
random numbers: as easy as 1, 2, 3", 2011), while numpy's and torch's distributions may change.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from swarm.training.tensors import Array


def unit(seed: int, count: int) -> Array:
    """Shape (count,) float64 in [0, 1), with 53 bits each."""
    words: Array = np.random.Philox(key=seed).random_raw(count)
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


def uniform(seed: int, shape: tuple[int, ...], deviation: float) -> Array:
    """float32 between plus and minus sqrt(3) deviations: mean 0 and that standard deviation."""
    values = (unit(seed, math.prod(shape)) * 2 - 1) * (math.sqrt(3) * deviation)
    shaped: Array = values.astype(np.float32).reshape(shape)
    return shaped


def normal(seed: int, shape: tuple[int, ...]) -> Array:
    """float32 of a standard normal distribution (Box and Muller); equal up to the last bit of log and cos."""
    count = math.prod(shape)
    first, second = unit(seed, 2 * count).reshape(2, count)
    values = np.sqrt(-2 * np.log(1 - first)) * np.cos(2 * math.pi * second)
    shaped: Array = values.astype(np.float32).reshape(shape)
    return shaped

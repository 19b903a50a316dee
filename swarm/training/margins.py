"""How clearly each update of a round gains more on its own worker's samples than on others of the dataset.

    t = (mean(r on own) - mean(r on others)) / sqrt(var(r on own) / own + var(r on others) / others)
    r = d - beta * c

`d` is what an update gains on a sequence, `c` what the merge of a half of the round's updates gains there that it is not
in, and `beta` the slope of `d` over `c` on the others. Most of what makes gains differ is the sequence, and `c` has it
too, so `r` differs far less: so `t` is larger for the same work, and the draw of the others, which is one for all,
moves nobody's. With one update only there is no `c`; one that has a gain that is not finite takes nothing from anybody.

Source of the slope: Deng et al., "Improving the sensitivity of online controlled experiments by utilizing
pre-experiment data" (2013).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from swarm.training.codec import Sparse
    from swarm.training.tensors import Array


def margins(
    merged: Callable[[Sequence[Sequence[Sparse]]], Mapping[str, Array]],
    gains: Callable[[Mapping[str, Array], Array], Array],
    updates: Mapping[int, Sequence[Sparse]],
    own: Sequence[Array],
    others: Array,
) -> dict[int, float]:
    """`t` of each update.

    Args:
        merged: Weights from the base and updates.
        gains: Of weights on sequences, shape (N,), over those of the base.
        updates: By place, those that are looked at.
        own: By place, some of the samples that the worker had to train on.
        others: The dataset's sequences of the score.
    """
    places = sorted(updates)
    halves = [places[0::2], places[1::2]]
    controls = [merged([updates[at] for at in half]) if half else None for half in halves]
    beside = [None if one is None else gains(one, others) for one in controls]
    found = {}
    for which, half in enumerate(halves):
        control, other_gains = controls[1 - which], beside[1 - which]
        for at in half:
            moved = merged([updates[at]])
            mine, theirs = gains(moved, own[at]), gains(moved, others)
            if control is not None and other_gains is not None:
                own_gains, slope = gains(control, own[at]), _slope(theirs, other_gains)
                if np.isfinite(np.concatenate([own_gains, other_gains])).all():
                    mine, theirs = mine - slope * own_gains, theirs - slope * other_gains
            found[at] = margin(mine, theirs)
    return found


def margin(own: Array, others: Array) -> float:
    """How many of its standard errors the mean of the one is above that of the other; 0 where there is no telling."""
    if min(len(own), len(others)) < 2 or not np.isfinite(np.concatenate([own, others])).all():
        return 0.0
    error = math.sqrt(own.var(ddof=1) / len(own) + others.var(ddof=1) / len(others))
    return float(own.mean() - others.mean()) / error if error else 0.0


def _slope(gains: Array, control: Array) -> float:
    """Of `gains` over `control`, by least squares; 0 where there is none."""
    if len(control) < 3 or not np.isfinite(np.concatenate([gains, control])).all():
        return 0.0
    spread = control - control.mean()
    square = float(spread @ spread)
    return float(spread @ (gains - gains.mean())) / square if square else 0.0

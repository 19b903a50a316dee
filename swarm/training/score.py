"""Scores of a task of kind lm: how much each update alone would improve the checkpoint.

    d_j = L_j(theta) - L_j(merge of U alone)       paired, over beacon-drawn sequences j
    s   = (mean(d) - z * standard error(d)) / mean(L(theta)),   score = floor(10^5 * s)

Batches have a fixed size and composition and sums are float64, so that scorers agree within 10^-5.
An update is scored by itself and unclipped: a file that one scorer could not fetch must not change the
score that this scorer gives to another file.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from swarm.training import assignment, codec, merge, models
from swarm.training.errors import REFUSED, UpdateError
from swarm.training.local import sequence_losses

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from torch import nn

    from swarm.training import data
    from swarm.training.checkpoint import Checkpoint
    from swarm.training.codec import Expected
    from swarm.training.spec import TaskSpec
    from swarm.training.tensors import Array

UNITS: Final = 100_000
"""Score units in one; losses on chain are nats times this."""
BATCH: Final = 16
"""Sequences evaluated at once; part of the definition of a score."""


def batches(
    spec: TaskSpec,
    task: bytes,
    round_: int,
    beacon: bytes,
    held: data.TextData,
    seen: data.TextData,
) -> Array:
    """The sequences of a round, shape (sequences, context + 1): the pool's half, then the dataset's."""
    pool_ids, data_ids = assignment.scoring_ids(
        task,
        round_,
        beacon,
        sequences=spec.score.sequences,
        pool_total=held.total,
        data_total=seen.total,
    )
    return np.concatenate([held.samples(pool_ids), seen.samples(data_ids)])


def losses(model: nn.Module, sequences: Array, device: torch.device) -> Array:
    """Shape (N,), float64: the mean loss of each sequence in nats."""
    found = []
    with torch.inference_mode():
        for at in range(0, len(sequences), BATCH):
            batch = torch.from_numpy(sequences[at : at + BATCH].astype(np.int64)).to(device)
            found.append(sequence_losses(model, batch).double().cpu().numpy())
    return np.concatenate(found)


def model_losses(
    base: Checkpoint, values: Mapping[str, Array], sequences: Array, device: torch.device
) -> Array:
    """`losses` of a checkpoint's model with other weights."""
    return losses(models.fill(models.build(base.config.model), values, device), sequences, device)


def score(
    spec: TaskSpec,
    base: Checkpoint,
    sequences: Array,
    updates: Sequence[Path | None],
    expected: Sequence[Expected],
    device: torch.device,
    report: Callable[[int, int, float], None],
) -> tuple[int, list[int]]:
    """Score updates.

    Args:
        spec: The task.
        base: The agreed checkpoint.
        sequences: From `batches`.
        updates: Files; None for one that could not be fetched.
        expected: What each must be.
        device: Where to compute.
        report: Called after each update with (done, all, its loss).

    Returns:
        (the base's loss in units, one score an update: floor(10^5 * s), or a refusal).
    """
    before = model_losses(base, base.tensors, sequences, device)
    scores = []
    for done, (path, wanted) in enumerate(zip(updates, expected, strict=True), 1):
        try:
            update = codec.read(path, wanted)
            moved = merge.merge(base.tensors, [update.groups], wanted.layout, spec.amplify_milli)
        except UpdateError as error:
            scores.append(REFUSED - error.code)
            continue
        after = model_losses(base, moved, sequences, device)
        scores.append(units(lower_bound(before, after, spec.score.z)))
        report(done, len(updates), float(after.mean()))
    return units(float(before.mean())), scores


def lower_bound(before: Array, after: Array, z: float) -> float:
    """The relative improvement less z standard errors, over paired losses."""
    gains = before - after
    bound = gains.mean()
    if z and len(gains) > 1:
        bound -= z * gains.std(ddof=1) / math.sqrt(len(gains))
    return float(bound / before.mean())


def units(value: float) -> int:
    """A number in score units, rounded down; what is not finite is the worst that still counts."""
    limit = 10**6 * UNITS
    if not math.isfinite(value):
        return -limit
    return max(-limit, min(limit, math.floor(value * UNITS)))

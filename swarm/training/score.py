"""Scores of tasks of every kind but gan: how much each update alone would improve the checkpoint.

    d_j = L_j(theta) - L_j(half-way to the merge of U alone)       paired, over beacon-drawn sequences j
    s   = (mean(d) - z * standard error(d)) / mean(L(theta)),   score = floor(10^5 * s)

Batches have a fixed size and composition and sums are float64, so that scorers agree within 10^-5.
An update is scored by itself and unclipped: a file that one scorer could not fetch must not change the
score that this scorer gives to another file.
It is scored at half of its step: beside others a merge takes less than the whole of any one update, and honest work
whose whole step is too long by itself leads downhill all the same.

Two refusals look at the others of the round. A copy of an earlier update is refused (`copies`). And work on one's own
samples shows: an update gains more on what its worker had to train on than on other samples of the dataset
(`margins`). What comes of it over rounds, and who is refused for it, is in `sequential`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from swarm.training import (
    assignment,
    codec,
    copies,
    margins,
    merge,
    models,
    objectives,
    sequential,
)
from swarm.training.errors import DUPLICATE, NOT_OWN_DATA, REFUSED, UpdateError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from torch import nn

    from swarm.training import data
    from swarm.training.checkpoint import Checkpoint
    from swarm.training.codec import Expected, Layout
    from swarm.training.sequential import Evidence
    from swarm.training.spec import TaskSpec
    from swarm.training.tensors import Array

UNITS: Final = 100_000
"""Score units in one; losses on chain are nats times this."""
LIMIT: Final = 10**6 * UNITS
"""The greatest score, loss or distance."""
BATCH: Final = 16
"""Sequences evaluated at once; part of the definition of a score."""
STEP: Final = 0.5
"""The part of its step that an update is scored at; part of the definition of a score."""


def batches(
    spec: TaskSpec,
    task: bytes,
    round_: int,
    beacon: bytes,
    held: data.Samples,
    seen: data.Samples,
) -> Array:
    """The samples of a round, shape (sequences, …): the pool's half, then the dataset's."""
    pool_ids, data_ids = assignment.scoring_ids(
        task,
        round_,
        beacon,
        sequences=spec.score.sequences,
        pool_total=held.total,
        data_total=seen.total,
        rounds=spec.rounds,
    )
    return np.concatenate([held.samples(pool_ids), seen.samples(data_ids)])


def losses(model: nn.Module, sequences: Array, device: torch.device) -> Array:
    """Shape (N,), float64: the mean loss of each sequence in nats."""
    found = []
    with torch.inference_mode():
        for at in range(0, len(sequences), BATCH):
            batch = sequences[at : at + BATCH]
            found.append(objectives.losses(model, batch, device).cpu().double().numpy())
    return np.concatenate(found)


def model_losses(
    base: Checkpoint, values: Mapping[str, Array], sequences: Array, device: torch.device
) -> Array:
    """`losses` of a checkpoint's model with other weights."""
    return losses(models.fill(models.build(base.config.model), values, device), sequences, device)


def alone(
    base: Checkpoint, update: Sequence[codec.Sparse], layout: Layout, amplify_milli: int
) -> dict[str, Array]:
    """The weights by which an update is scored: on the way to the merge of it alone."""
    whole = merge.merge(base.tensors, [update], layout, amplify_milli)
    return {name: item + STEP * (whole[name] - item) for name, item in base.tensors.items()}


def score(
    spec: TaskSpec,
    base: Checkpoint,
    sequences: Array,
    updates: Sequence[Path | None],
    expected: Sequence[Expected],
    device: torch.device,
    report: Callable[[int, int, float], None],
    *,
    order: Sequence[int] = (),
    own: Sequence[Array] = (),
    evidence: Evidence | None = None,
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
        order: The place of each update's commit among all; without it, copies count.
        own: For each update, some of the samples that its worker had to train on; without them, nobody asks.
        evidence: Of the rounds before; this one is added to it. Without it, this round alone decides.

    Returns:
        (the base's loss in units, one score an update: floor(10^5 * s), or a refusal).
    """
    before = model_losses(base, base.tensors, sequences, device)
    read = [_read(path, wanted) for path, wanted in zip(updates, expected, strict=True)]
    groups = [None if isinstance(one, int) else one for one in read]

    def alive() -> None:
        report(0, len(updates), float(before.mean()))

    copied: set[int] = set()
    if order:
        first_turn = expected[0].is_first_turn
        copied = copies.copies(groups, order, is_first=first_turn, alive=alive)
    scores: list[int] = []
    worked: dict[int, list[codec.Sparse]] = {}

    def merged(chosen: Sequence[Sequence[codec.Sparse]]) -> Mapping[str, Array]:
        groups = [list(one) for one in chosen]
        return merge.merge(base.tensors, groups, expected[0].layout, spec.amplify_milli)

    for at, one in enumerate(read):
        if isinstance(one, int) or at in copied:
            scores.append(REFUSED - (one if isinstance(one, int) else DUPLICATE))
            continue
        values = alone(base, one, expected[0].layout, spec.amplify_milli)
        after = model_losses(base, values, sequences, device)
        scores.append(units(lower_bound(before, after, spec.score.z)))
        if own:
            worked[at] = one
        report(at + 1, len(updates), float(after.mean()))

    def gains(values: Mapping[str, Array], asked: Array) -> Array:
        key = asked.tobytes()
        if key not in known:
            known[key] = model_losses(base, base.tensors, asked, device)
        report(len(updates), len(updates), float(before.mean()))
        return known[key] - model_losses(base, values, asked, device)

    known: dict[bytes, Array] = {}
    others = sequences[spec.score.sequences - spec.score.sequences // 2 :]  # after the pool's half
    found = margins.margins(merged, gains, worked, own, others)
    names = {expected[at].peer or str(at): at for at in worked}
    shown = {name: sequential.parts(found[at]) for name, at in names.items()}
    gaining = [shown[name] for name, at in names.items() if scores[at] > spec.score.tolerance]
    round_ = expected[0].round if expected else 0
    for name in (evidence or sequential.Evidence()).judge(round_, shown, gaining):
        scores[names[name]] = REFUSED - NOT_OWN_DATA
    return loss_units(float(before.mean())), scores


def _read(path: Path | None, wanted: Expected) -> list[codec.Sparse] | int:
    """An update's groups, or the code of its refusal."""
    try:
        return codec.read(path, wanted).groups
    except UpdateError as error:
        return error.code


def lower_bound(before: Array, after: Array, z: float) -> float:
    """The relative improvement less z standard errors, over paired losses."""
    gains = before - after
    bound = gains.mean()
    if z and len(gains) > 1:
        bound -= z * gains.std(ddof=1) / math.sqrt(len(gains))
    return float(bound / before.mean())


def units(value: float) -> int:
    """A number in score units, rounded down; what is not finite is the worst score that still counts."""
    if not math.isfinite(value):
        return -LIMIT
    return max(-LIMIT, min(LIMIT, math.floor(value * UNITS)))


def loss_units(value: float) -> int:
    """A loss or distance in score units, rounded down; what is not finite is the worst, which is the greatest."""
    return units(value) if math.isfinite(value) else LIMIT

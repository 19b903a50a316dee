"""A population of gan pairs: who tries which hyper-parameters, and how good a pair is.

The peer id and the round choose each peer's hyper-parameters from the task's ranges (`[population]`), so that no two
peers try the same and nobody chooses for another:

    s = (D(base) - D(pair)) / D(base),   score = floor(10^5 * s)

`D` is the evaluator's distance to the pool, over latents from the beacon. A pair that gives training images back scores
-10^5, as if it had doubled the distance (`evaluator.Evaluator.is_copying`).

The pair with the best score seeds the next round, or, where the task says so, the mean of all that are accepted does
(`mean`). Then a pair is scored a quarter of the way from the base to itself: of its noise, too, the mean takes a part.

Source: Jaderberg et al., "Population based training of neural networks" (2017).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from swarm.training import assignment, codec
from swarm.training.errors import REFUSED, UpdateError
from swarm.training.score import UNITS, loss_units, units

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from swarm.training.codec import Expected
    from swarm.training.evaluator import Evaluator
    from swarm.training.local import Place
    from swarm.training.spec import TaskSpec
    from swarm.training.tensors import Array

COPYING: Final = -UNITS
"""The score of a pair that gives training images back."""
STEP: Final = 0.25
"""The part of the way to a pair at which it is scored where the mean is taken; part of the definition of a score."""
ASKED: Final = 512
"""Images of a pair by which is told whether it copies, where it is scored by other images than its own."""
PENALTY: Final = 0.3
"""About which peers draw how much a discriminator's slope weighs."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One peer's hyper-parameters in one round."""

    generator_rate: float
    discriminator_rate: float
    beta: float
    ema: float
    critic_steps: int  # of the discriminator for one of the generator
    penalty: float  # on the discriminator's slope at real images


def choose(spec: TaskSpec, place: Place) -> Choice:
    """Draw hyper-parameters from the task's ranges: rates and the penalty evenly by their logarithm, others from short lists."""
    draw = assignment.Generator("population", place.task, place.round, place.peer)
    train, ranges = spec.train, spec.population
    return Choice(
        generator_rate=train.learning_rate * ranges.spread ** (2 * draw.unit() - 1),
        discriminator_rate=train.learning_rate * ranges.spread ** (2 * draw.unit() - 1),
        beta=(0.0, ranges.beta)[draw.below(2)],
        ema=(train.ema, 1 - (1 - train.ema) / 2)[draw.below(2)],
        critic_steps=1 + draw.below(ranges.critic_steps),
        penalty=PENALTY * ranges.spread ** (2 * draw.unit() - 1),
    )


def score(
    spec: TaskSpec,
    judge: Evaluator,
    base: Mapping[str, Array],
    held: Array,
    seen: Array | None,
    updates: Sequence[Path | None],
    expected: Sequence[Expected],
    seed: int,
    report: Callable[[int, int, float], None],
) -> tuple[int, list[int]]:
    """Score pairs.

    Args:
        spec: The task.
        judge: Its evaluator.
        base: Tensors of the agreed checkpoint.
        held: Images of the pool, uint8.
        seen: Training images, against which pairs are held; None: nobody asks whether they are copied.
        updates: Files; None for one that could not be fetched.
        expected: What each must be.
        seed: Of the latents.
        report: Called after each pair with (done, all, its distance).

    Returns:
        (the base's distance in units, one score a pair or a refusal).
    """
    reference = judge.moments(held)
    known = None if seen is None else judge.nearness(seen, held)
    count = spec.score.sequences
    before = judge.distance(judge.images(base, count, seed), reference)
    scores = []
    for done, (path, wanted) in enumerate(zip(updates, expected, strict=True), 1):
        try:
            update = codec.read(path, wanted)
        except UpdateError as error:
            scores.append(REFUSED - error.code)
            continue
        images = judge.images(_judged(spec, base, update.tensors), count, seed)
        after = judge.distance(images, reference)
        found = units((before - after) / max(before, 1e-9))
        if found > spec.score.tolerance and known is not None:
            own = images
            if spec.is_mean:
                own = judge.images(update.tensors, min(count, ASKED), seed)
            found = COPYING if judge.is_copying(own, known) else found
        scores.append(found)
        report(done, len(updates), after)
    return loss_units(before), scores


def _judged(
    spec: TaskSpec, base: Mapping[str, Array], pair: Mapping[str, Array]
) -> Mapping[str, Array]:
    """The weights by which a pair is scored."""
    if not spec.is_mean:
        return pair
    return {name: item + STEP * (pair[name] - item) for name, item in base.items()}

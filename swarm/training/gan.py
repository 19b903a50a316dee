"""Tasks of kind gan: a worker's round. It trains a DCGAN pair from the agreed checkpoint.

The peer id and the round choose its hyper-parameters (`population`). It submits its averaged generator and its
discriminator whole, and `evaluator` judges them.

A discriminator that grows ever steeper makes the generator run in circles, and rounds stop getting better. So its slope
at real images is held down, once in `PENALTY_EVERY` steps with so many times the weight.

Source: Radford et al., "DCGAN" (2015); Yazici et al., "The unusual effectiveness of averaging in GAN training" (2019);
Mescheder et al., "Which training methods for GANs do actually converge?" (2018) for the penalty, and Karras et al.,
"Analyzing and improving the image quality of StyleGAN" (2020) for taking it only now and then.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import torch
from torch.nn import functional

from swarm.training import assignment, codec, data, models, philox
from swarm.training.evaluator import Evaluator, scaled
from swarm.training.local import Outcome, Place, check_loss, check_weights, rate, write_file
from swarm.training.optimizers import AdamW
from swarm.training.population import choose

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor

    from swarm.training.checkpoint import Checkpoint
    from swarm.training.spec import TaskSpec
    from swarm.training.tensors import Array

CHECK_SAMPLES: Final = 512
"""Generated images by which a worker reports its own progress."""
WARMUP: Final = 10
"""Steps until the fresh moments of a round may move the weights at the full rate."""
PENALTY_EVERY: Final = 8
"""Steps of the discriminator for one that holds its slope down."""


def train(
    spec: TaskSpec,
    place: Place,
    base: Checkpoint,
    evaluator: Path,
    images: data.ImageData,
    out: Path,
    device: torch.device,
    report: Callable[[int, int, float], None],
) -> Outcome:
    """Train the pair for one round and write the update file; losses are distances to the dataset.

    Args:
        spec: The task.
        place: Task, round, peer, beacon and roots.
        base: The agreed checkpoint.
        evaluator: The checkpoint's evaluator file.
        images: To train on.
        out: The update file to write.
        device: Where to compute.
        report: Called after each step with (step, steps, the discriminator's loss).

    Raises:
        TrainingError: A loss is no number, or a weight after the last step.
    """
    started = time.monotonic()
    sizes, settings = spec.gan, spec.train
    ids = assignment.sample_ids(
        place.task,
        place.dataset_root,
        place.round,
        place.peer,
        place.beacon,
        count=settings.steps * settings.batch,
        total=images.total,
    )
    judge = Evaluator.load(evaluator, sizes, spec.score.evaluator, device)
    judge.check(images.pixels)
    reference = judge.moments(images.pixels[: CHECK_SAMPLES * 4])
    check = assignment.torch_seed("check", place.task, place.round)
    first = judge.distance(judge.images(base.tensors, CHECK_SAMPLES, check), reference)
    values = _adversarial(spec, place, base, images, ids, device, report)
    check_weights(values.values(), spec.train.steps)
    last = judge.distance(judge.images(values, CHECK_SAMPLES, check), reference)
    about = codec.About(
        kind="gan",
        k=spec.update.top_k,
        base=place.base_root,
        task=place.task,
        round=place.round,
        peer=place.peer,
        data=data.digest(ids, images.samples(ids)),
        samples=len(ids),
    )
    packed = codec.pack_full(values, about)
    write_file(out, packed)
    count = sum(item.size for item in values.values())
    return Outcome(first, last, len(ids), len(packed), count, time.monotonic() - started)


def _adversarial(
    spec: TaskSpec,
    place: Place,
    base: Checkpoint,
    images: data.ImageData,
    ids: list[int],
    device: torch.device,
    report: Callable[[int, int, float], None],
) -> dict[str, Array]:
    sizes, settings = spec.gan, spec.train
    choice = choose(spec, place)
    pair = models.fill(models.build(sizes), base.tensors, device)
    assert isinstance(pair, models.Pair)  # noqa: S101 - narrows the type; `build` chose the class
    averaged = {name: item.detach().clone() for name, item in pair.generator.state_dict().items()}
    betas = (choice.beta, 0.99)
    generator = AdamW(dict(pair.generator.named_parameters()), betas=betas)
    discriminator = AdamW(dict(pair.discriminator.named_parameters()), betas=betas)
    seed = assignment.torch_seed("latents", place.task, place.round, place.peer, place.beacon)
    latents = torch.from_numpy(
        philox.normal(seed, (settings.steps, 2 * settings.batch, sizes.latent))
    ).to(device)
    for step in range(settings.steps):
        chosen = ids[step * settings.batch : (step + 1) * settings.batch]
        real = scaled(images.samples(chosen), device)
        done = (place.round - 1) * settings.steps + step
        share = min(1.0, (step + 1) / WARMUP) * rate(settings, done, spec.rounds * settings.steps)
        fake = pair.generator(latents[step, : settings.batch]).detach()
        loss = functional.softplus(-pair.discriminator(real)).mean()
        loss = loss + functional.softplus(pair.discriminator(fake)).mean()
        if step % PENALTY_EVERY == 0:
            loss = loss + PENALTY_EVERY / 2 * choice.penalty * _steepness(pair, real)
        told = float(loss.detach())
        check_loss(told, step + 1, settings.steps)
        _zero(pair)
        loss.backward()  # type: ignore[no-untyped-call]  # torch
        discriminator.step(choice.discriminator_rate * share)
        if (step + 1) % choice.critic_steps:
            report(step + 1, settings.steps, told)
            continue
        _zero(pair)
        fooled = functional.softplus(
            -pair.discriminator(pair.generator(latents[step, settings.batch :]))
        )
        fooled.mean().backward()  # type: ignore[no-untyped-call]  # torch
        generator.step(choice.generator_rate * share)
        with torch.no_grad():
            for name, item in pair.generator.state_dict().items():
                averaged[name].lerp_(item, 1 - choice.ema)
        report(step + 1, settings.steps, told)
    pair.generator.load_state_dict(averaged)
    return models.values(pair)


def _steepness(pair: models.Pair, real: Tensor) -> Tensor:
    """The mean squared slope of the discriminator at real images."""
    at = real.detach().requires_grad_()
    (slope,) = torch.autograd.grad(pair.discriminator(at).sum(), at, create_graph=True)
    return slope.square().sum((1, 2, 3)).mean()


def _zero(pair: models.Pair) -> None:
    for item in pair.parameters():
        item.grad = None

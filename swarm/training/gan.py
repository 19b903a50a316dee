"""Tasks of kind gan: a population of DCGAN pairs, the best of which seeds the next round.

The peer id and the round choose each peer's hyper-parameters around the task's. A peer submits its averaged
generator and its discriminator whole. They are judged by two Fréchet distances between generated and held-out
images, on features of an autoencoder that was trained before the first round and travels with the checkpoint,
and on pooled pixels; each dimension is divided by its deviation in the dataset, and the two distances, each a
mean over its dimensions, are added.

Source: Radford et al., "DCGAN" (2015); Heusel et al., "GANs trained by a two time-scale update rule" (2017) for
the distance; Jaderberg et al., "Population based training" (2017).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch.nn import functional

from swarm.training import assignment, checkpoint, codec, data, models, philox, tensors
from swarm.training.errors import CheckpointError, TensorFileError
from swarm.training.local import Outcome, Place, rate, write_file
from swarm.training.optimizers import AdamW

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from torch import Tensor

    from swarm.training.checkpoint import Checkpoint
    from swarm.training.sizes import GanModel
    from swarm.training.spec import TaskSpec
    from swarm.training.tensors import Array

FEATURES: Final = 32
POOLED: Final = 4
"""Pixels a side after pooling."""
EVALUATOR_STEPS: Final = 400
EVALUATOR_BATCH: Final = 64
EVALUATOR_RATE: Final = 2e-3
MAX_REFERENCE: Final = 10_000
"""Images of a pool that a distance uses."""
CHECK_SAMPLES: Final = 512
"""Generated images by which a worker reports its own progress."""
BATCH: Final = 128
WARMUP: Final = 10
"""Steps until the fresh moments of a round may move the weights at the full rate."""
_FORMAT: Final = "swarm-evaluator-1"


@dataclass(frozen=True, slots=True)
class Choice:
    """One peer's hyper-parameters in one round."""

    generator_rate: float
    discriminator_rate: float
    beta: float
    ema: float


def choose(spec: TaskSpec, place: Place) -> Choice:
    """Draw hyper-parameters around the task's: rates between half and twice, other values from short lists."""
    draw = assignment.Generator("population", place.task, place.round, place.peer)
    return Choice(
        generator_rate=spec.train.learning_rate * 2.0 ** (2 * draw.unit() - 1),
        discriminator_rate=spec.train.learning_rate * 2.0 ** (2 * draw.unit() - 1),
        beta=(0.0, 0.5)[draw.below(2)],
        ema=(spec.train.ema, 1 - (1 - spec.train.ema) / 2)[draw.below(2)],
    )


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
    judge = Evaluator.load(evaluator, sizes, device)
    reference = judge.moments(images.pixels[: CHECK_SAMPLES * 4])
    check = assignment.torch_seed("check", place.task, place.round)
    first = judge.distance(base.tensors, reference, CHECK_SAMPLES, check)
    values = _adversarial(spec, place, base, images, ids, device, report)
    last = judge.distance(values, reference, CHECK_SAMPLES, check)
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
        _zero(pair)
        loss.backward()  # type: ignore[no-untyped-call]  # torch
        discriminator.step(choice.discriminator_rate * share)
        _zero(pair)
        fooled = functional.softplus(
            -pair.discriminator(pair.generator(latents[step, settings.batch :]))
        )
        fooled.mean().backward()  # type: ignore[no-untyped-call]  # torch
        generator.step(choice.generator_rate * share)
        with torch.no_grad():
            for name, item in pair.generator.state_dict().items():
                averaged[name].lerp_(item, 1 - choice.ema)
        report(step + 1, settings.steps, float(loss.detach()))
    pair.generator.load_state_dict(averaged)
    return models.values(pair)


def _zero(pair: models.Pair) -> None:
    for item in pair.parameters():
        item.grad = None


def scaled(pixels: Array, device: torch.device) -> Tensor:
    """uint8 images to floats in -1 to 1."""
    return torch.from_numpy(pixels.astype(np.float32)).to(device) / 127.5 - 1


@dataclass(frozen=True, slots=True)
class Moments:
    """Mean and covariance of features and of pooled pixels, float64."""

    means: tuple[Array, Array]
    covariances: tuple[Array, Array]


class Evaluator:
    """Judges generators; the same for all peers of a task.

    Args:
        sizes: The task's.
        network: The trained autoencoder.
        deviations: Of each feature and each pooled pixel in the dataset.
        device: Where to compute.
    """

    def __init__(
        self,
        sizes: GanModel,
        network: models.Autoencoder,
        deviations: tuple[Array, Array],
        device: torch.device,
    ) -> None:
        self._sizes = sizes
        self._network = network
        self._deviations = deviations
        self._device = device

    @classmethod
    def train(
        cls,
        sizes: GanModel,
        seed: int,
        images: data.ImageData,
        device: torch.device,
        report: Callable[[int, int, float], None],
    ) -> Evaluator:
        """Train the autoencoder on a dataset; equal seeds on one machine give equal weights."""
        with torch.device("meta"):
            shell = models.Autoencoder(sizes, FEATURES)
        network = models.fill(shell, models.initial(shell, seed), device)
        assert isinstance(network, models.Autoencoder)  # noqa: S101 - narrows the type
        optimizer = AdamW(dict(network.named_parameters()))
        draw = assignment.Generator("evaluator", seed)
        for step in range(EVALUATOR_STEPS):
            ids = [draw.below(images.total) for _ in range(EVALUATOR_BATCH)]
            batch = scaled(images.samples(ids), device)
            loss = functional.mse_loss(network(batch), batch)
            loss.backward()  # type: ignore[no-untyped-call]  # torch
            optimizer.step(EVALUATOR_RATE * (1 - step / EVALUATOR_STEPS))
            for item in network.parameters():
                item.grad = None
            report(step + 1, EVALUATOR_STEPS, float(loss.detach()))
        plain = cls(sizes, network, (np.ones(1), np.ones(1)), device)
        spread = [
            plain.features(scaled(images.pixels[:MAX_REFERENCE], device))[at].std(0)
            for at in (0, 1)
        ]
        deviations = (np.maximum(spread[0], 1e-3), np.maximum(spread[1], 1e-2))
        return cls(sizes, network, deviations, device)

    @classmethod
    def load(cls, path: Path, sizes: GanModel, device: torch.device) -> Evaluator:
        """Read an evaluator file.

        Raises:
            CheckpointError: Missing, malformed or of other sizes.
        """
        with torch.device("meta"):
            shell = models.Autoencoder(sizes, FEATURES)
        try:
            file = tensors.read(path, max_bytes=64 * 2**20)
        except TensorFileError as error:
            message = f"{checkpoint.EVALUATOR} {error}"
            raise CheckpointError(message) from error
        values = dict(file.tensors)
        deviations = tuple(values.pop(f"deviation.{at}", np.zeros(0, np.float32)) for at in (0, 1))
        wanted = (FEATURES, sizes.channels * POOLED * POOLED)
        if (
            file.metadata.get("format") != _FORMAT
            or any(
                item.dtype != np.dtype("<f4") or not np.isfinite(item).all()
                for item in values.values()
            )
            or tuple(item.shape for item in deviations) != tuple((size,) for size in wanted)
            or not all((np.isfinite(item) & (item > 0)).all() for item in deviations)
        ):
            message = f"{checkpoint.EVALUATOR} is not the evaluator of a model of these sizes"
            raise CheckpointError(message)
        network = models.fill(shell, values, device)
        assert isinstance(network, models.Autoencoder)  # noqa: S101 - narrows the type
        exact = (deviations[0].astype(np.float64), deviations[1].astype(np.float64))
        return cls(sizes, network, exact, device)

    def save(self, path: Path) -> None:
        """Write the evaluator file."""
        values = models.values(self._network)
        values |= {
            f"deviation.{at}": item.astype(np.float32) for at, item in enumerate(self._deviations)
        }
        tensors.write(path, values, {"format": _FORMAT})

    def features(self, images: Tensor) -> tuple[Array, Array]:
        """(N, FEATURES) and (N, pooled pixels), float64, divided by their deviations."""
        learned, pooled = [], []
        with torch.inference_mode():
            for at in range(0, len(images), BATCH):
                part = images[at : at + BATCH]
                learned.append(self._network.encoder(part).double().cpu().numpy())
                small = functional.avg_pool2d(part, self._sizes.size // POOLED).flatten(1)
                pooled.append(small.double().cpu().numpy())
        return (
            np.concatenate(learned) / self._deviations[0],
            np.concatenate(pooled) / self._deviations[1],
        )

    def moments(self, pixels: Array) -> Moments:
        """What generated images are compared with."""
        return self._moments(scaled(pixels[:MAX_REFERENCE], self._device))

    def distance(
        self, values: Mapping[str, Array], reference: Moments, count: int, seed: int
    ) -> float:
        """How far a pair's generated images are from the reference; latents come from the seed."""
        pair = models.fill(models.build(self._sizes), values, self._device)
        assert isinstance(pair, models.Pair)  # noqa: S101 - narrows the type; `build` chose the class
        images = generate(
            pair.generator, philox.normal(seed, (count, self._sizes.latent)), self._device
        )
        found = self._moments(images)
        return sum(
            frechet(
                found.means[at],
                found.covariances[at],
                reference.means[at],
                reference.covariances[at],
            )
            / len(found.means[at])
            for at in (0, 1)
        )

    def _moments(self, images: Tensor) -> Moments:
        first, second = self.features(images)
        return Moments(
            (first.mean(0), second.mean(0)),
            (np.cov(first, rowvar=False), np.cov(second, rowvar=False)),
        )


def generate(generator: models.Generator, latents: Array, device: torch.device) -> Tensor:
    """Images in batches of a fixed size."""
    with torch.inference_mode():
        parts = [
            generator(torch.from_numpy(latents[at : at + BATCH]).to(device))
            for at in range(0, len(latents), BATCH)
        ]
    return torch.cat(parts)


def frechet(mean1: Array, covariance1: Array, mean2: Array, covariance2: Array) -> float:
    """The squared Fréchet distance of two normal distributions; symmetric eigenvalues in float64."""
    values, vectors = np.linalg.eigh(covariance1)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    cross = np.linalg.eigvalsh(root @ covariance2 @ root)
    shift = mean1 - mean2
    trace = np.trace(covariance1) + np.trace(covariance2)
    return float(shift @ shift + trace - 2 * np.sqrt(np.maximum(cross, 0)).sum())

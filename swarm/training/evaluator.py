"""What generated images are judged by: two Fréchet distances to held-out images, and whether they are learnt by heart.

One distance is on features of a network that the task names, the other on pooled pixels. Each dimension is divided by
its deviation in the dataset, and the two, each a mean over its dimensions, are added. The network is made once, by
whoever posts the task, and travels with the checkpoint as plain tensors, so that its CID pins it:

    autoencoder         trained on the task's own dataset before the first round
    efficientnet-lite0  features learnt from ImageNet, of a package that only the poster needs (`features`)

A network that is blind, or deviations that hide a dimension, would let every pair win; `Evaluator.check` finds both.

A pair that gives the training images back comes nearest of all. So a score also asks how near generated images are to
training images, against how near held-out ones are: see `Evaluator.is_copying`.

Source: Heusel et al., "GANs trained by a two time-scale update rule" (2017) for the distance; Meehan et al., "A
non-parametric test to detect data-copying in generative models" (2020) for the comparison with held-out images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from swarm.training import assignment, checkpoint, features, models, philox, tensors
from swarm.training.errors import CheckpointError, DataError, TensorFileError
from swarm.training.optimizers import AdamW
from swarm.training.spec import AUTOENCODER

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from torch import Tensor

    from swarm.training.data import ImageData
    from swarm.training.sizes import GanModel
    from swarm.training.tensors import Array

MIN_IMAGES: Final = 2
"""A spread needs so many."""
FEATURES: Final = 32
POOLED: Final = 4
"""Pixels a side after pooling."""
STEPS: Final = 400
TRAIN_BATCH: Final = 64
RATE: Final = 2e-3
MAX_REFERENCE: Final = 10_000
"""Images of a set that are compared with."""
CHECKED: Final = 2_048
"""Images by which an evaluator is checked."""
LEAST_EXPLAINED: Final = 0.1
"""Of the variance of images, what an autoencoder has to give back."""
DEVIATION_FACTOR: Final = 4.0
"""A stored deviation may be so many times as large or small as it is found."""
FLOORS: Final = (1e-3, 1e-2)
"""The least deviations, of features and of pooled pixels."""
NEAR_QUANTILE: Final = 0.05
"""So many of the held-out images are nearer to a training image than what counts as near."""
COPIED_SHARE: Final = 0.25
"""A pair is copying if more of its images than this are near."""
BATCH: Final = 128
_MAX_BYTES: Final = 64 * 2**20
_FORMAT: Final = "swarm-evaluator-1"
_NETWORK: Final = "network"


@dataclass(frozen=True, slots=True)
class Moments:
    """Mean and covariance of features and of pooled pixels, float64."""

    means: tuple[Array, Array]
    covariances: tuple[Array, Array]


@dataclass(frozen=True, slots=True)
class Nearness:
    """Features of training images, (N, F), and the squared distance that counts as near."""

    seen: Array
    near: float


class Evaluator:
    """Judges generators; the same for all peers of a task.

    Args:
        sizes: The task's.
        kind: Which network.
        network: It.
        deviations: Of each feature and each pooled pixel in the dataset.
        device: Where to compute.
    """

    def __init__(
        self,
        sizes: GanModel,
        kind: str,
        network: nn.Module,
        deviations: tuple[Array, Array],
        device: torch.device,
    ) -> None:
        self._sizes = sizes
        self._kind = kind
        self._network = network
        self._deviations = deviations
        self._device = device

    @classmethod
    def make(
        cls,
        sizes: GanModel,
        kind: str,
        seed: int,
        images: ImageData,
        device: torch.device,
        report: Callable[[int, int, float], None],
    ) -> Evaluator:
        """The evaluator of a new task.

        Args:
            sizes: The task's.
            kind: Which network.
            seed: Of an autoencoder; equal seeds on one machine give equal weights.
            images: The dataset.
            device: Where to compute.
            report: Called after each step of training.

        Raises:
            TrainingError: The network's package is not installed.
        """
        network = _shell(kind, sizes)
        if kind == AUTOENCODER:
            models.fill(network, models.initial(network, seed), device)
            _train(network, seed, images, device, report)
        else:
            models.fill(network, features.published(), device)
        made = cls(sizes, kind, network.eval(), (np.ones(1), np.ones(1)), device)
        spread = made.spread(images.pixels[:MAX_REFERENCE])
        deviations = (np.maximum(spread[0], FLOORS[0]), np.maximum(spread[1], FLOORS[1]))
        return cls(sizes, kind, network, deviations, device)

    @classmethod
    def load(cls, path: Path, sizes: GanModel, kind: str, device: torch.device) -> Evaluator:
        """Read an evaluator file.

        Raises:
            CheckpointError: Missing, malformed, or of another kind or other sizes.
        """
        try:
            file = tensors.read(path, max_bytes=_MAX_BYTES)
        except TensorFileError as error:
            message = f"{checkpoint.EVALUATOR} {error}"
            raise CheckpointError(message) from error
        values = dict(file.tensors)
        deviations = tuple(values.pop(f"deviation.{at}", np.zeros(0, np.float32)) for at in (0, 1))
        wanted = (_width(kind), sizes.channels * POOLED * POOLED)
        if (
            file.metadata != _metadata(kind)
            or any(
                item.dtype != np.dtype("<f4") or not np.isfinite(item).all()
                for item in values.values()
            )
            or tuple(item.shape for item in deviations) != tuple((size,) for size in wanted)
            or not all((np.isfinite(item) & (item > 0)).all() for item in deviations)
        ):
            message = f"{checkpoint.EVALUATOR} is not the evaluator of a model of these sizes"
            raise CheckpointError(message)
        network = models.fill(_shell(kind, sizes), values, device).eval()
        exact = (deviations[0].astype(np.float64), deviations[1].astype(np.float64))
        return cls(sizes, kind, network, exact, device)

    def save(self, path: Path) -> None:
        """Write the evaluator file."""
        values = models.values(self._network)
        values |= {
            f"deviation.{at}": item.astype(np.float32) for at, item in enumerate(self._deviations)
        }
        tensors.write(path, values, _metadata(self._kind))

    def check(self, pixels: Array) -> None:
        """Refuse an evaluator that sees nothing in the dataset's images.

        Raises:
            CheckpointError: Its features do not tell images apart, or its deviations are not those of the dataset.
        """
        part = pixels[:CHECKED]
        found = self.spread(part, divided=True)
        least, most = 1 / DEVIATION_FACTOR, DEVIATION_FACTOR
        # A dimension at its floor may move less than that.
        floors = [self._deviations[at] > 2 * FLOORS[at] for at in (0, 1)]
        if any(
            (item > most).any() or (item[above] < least).any()
            for item, above in zip(found, floors, strict=True)
        ):
            message = f"{checkpoint.EVALUATOR} has deviations that are not those of the dataset"
            raise CheckpointError(message)
        if not floors[0].any() or (
            self._kind == AUTOENCODER and self._explained(part) < LEAST_EXPLAINED
        ):
            message = f"{checkpoint.EVALUATOR} does not tell the dataset's images apart"
            raise CheckpointError(message)

    def spread(self, pixels: Array, *, divided: bool = False) -> list[Array]:
        """The deviation of each feature and pooled pixel; over the stored ones, where `divided`."""
        found = self.features(scaled(pixels, self._device))
        factors = (1.0, 1.0) if divided else self._deviations
        return [item.std(0) * by for item, by in zip(found, factors, strict=True)]

    def features(self, images: Tensor) -> tuple[Array, Array]:
        """(N, features) and (N, pooled pixels), float64, divided by their deviations."""
        learned, pooled = [], []
        encode = getattr(self._network, "encoder", self._network)
        with torch.inference_mode():
            for at in range(0, len(images), BATCH):
                part = images[at : at + BATCH]
                learned.append(encode(part).cpu().double().numpy())
                small = functional.avg_pool2d(part, self._sizes.size // POOLED).flatten(1)
                pooled.append(small.cpu().double().numpy())
        return (
            np.concatenate(learned) / self._deviations[0],
            np.concatenate(pooled) / self._deviations[1],
        )

    def moments(self, pixels: Array) -> Moments:
        """What generated images are compared with.

        Raises:
            DataError: So few that they have no spread.
        """
        if len(pixels) < MIN_IMAGES:
            message = (
                f"{len(pixels)} held-out image to compare with, at least {MIN_IMAGES} are needed"
            )
            raise DataError(message)
        return self._moments(scaled(pixels[:MAX_REFERENCE], self._device))

    def images(self, values: Mapping[str, Array], count: int, seed: int) -> Tensor:
        """What a pair's generator makes of the latents of a seed."""
        pair = models.fill(models.build(self._sizes), values, self._device)
        assert isinstance(pair, models.Pair)  # noqa: S101 - narrows the type; `build` chose the class
        latents = philox.normal(seed, (count, self._sizes.latent))
        return generate(pair.generator, latents, self._device)

    def distance(self, images: Tensor, reference: Moments) -> float:
        """How far images are from the reference."""
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

    def nearness(self, seen: Array, held: Array) -> Nearness:
        """What counts as near to a training image.

        Args:
            seen: Training images, uint8.
            held: Held-out images, uint8.
        """
        learned, other = (
            self.features(scaled(item[:MAX_REFERENCE], self._device))[0] for item in (seen, held)
        )
        return Nearness(learned, float(np.quantile(nearest(other, learned), NEAR_QUANTILE)))

    def is_copying(self, images: Tensor, known: Nearness) -> bool:
        """Whether many images are nearer to a training image than almost all held-out ones are."""
        found = nearest(self.features(images)[0], known.seen)
        return float((found < known.near).mean()) > COPIED_SHARE

    def _moments(self, images: Tensor) -> Moments:
        first, second = self.features(images)
        return Moments(
            (first.mean(0), second.mean(0)),
            (np.cov(first, rowvar=False), np.cov(second, rowvar=False)),
        )

    def _explained(self, pixels: Array) -> float:
        """The share of the variance of images that comes back."""
        images = scaled(pixels, self._device)
        with torch.inference_mode():
            parts = [
                self._network(images[at : at + BATCH]).cpu() for at in range(0, len(images), BATCH)
            ]
        exact = images.cpu()
        lost = functional.mse_loss(torch.cat(parts), exact)
        return 1 - float(lost / (exact - exact.mean(0)).square().mean().clamp_min(1e-12))


def scaled(pixels: Array, device: torch.device) -> Tensor:
    """uint8 images to floats in -1 to 1."""
    return torch.from_numpy(pixels.astype(np.float32)).to(device) / 127.5 - 1


def generate(generator: models.Generator, latents: Array, device: torch.device) -> Tensor:
    """Images in batches of a fixed size."""
    with torch.inference_mode():
        parts = [
            generator(torch.from_numpy(latents[at : at + BATCH]).to(device))
            for at in range(0, len(latents), BATCH)
        ]
    return torch.cat(parts)


def nearest(points: Array, others: Array) -> Array:
    """Shape (N,): the squared distance of each of N points to the nearest of others, float64."""
    lengths = np.square(others).sum(1)
    found = []
    for at in range(0, len(points), BATCH):
        part = points[at : at + BATCH]
        squares = np.square(part).sum(1)[:, None] + lengths - 2 * part @ others.T
        found.append(np.maximum(squares.min(1), 0))
    return np.concatenate(found)


def frechet(mean1: Array, covariance1: Array, mean2: Array, covariance2: Array) -> float:
    """The squared Fréchet distance of two normal distributions; symmetric eigenvalues in float64."""
    values, vectors = np.linalg.eigh(covariance1)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    cross = np.linalg.eigvalsh(root @ covariance2 @ root)
    shift = mean1 - mean2
    trace = np.trace(covariance1) + np.trace(covariance2)
    return float(shift @ shift + trace - 2 * np.sqrt(np.maximum(cross, 0)).sum())


def _train(
    network: nn.Module,
    seed: int,
    images: ImageData,
    device: torch.device,
    report: Callable[[int, int, float], None],
) -> None:
    """Train an autoencoder on a dataset.

    The loss is cross-entropy on what goes into the last tanh: a squared error behind it has no slope where images are
    nearly all black, and nothing is learnt.
    """
    encoder, decoder = network.get_submodule("encoder"), network.get_submodule("decoder")
    assert isinstance(decoder, nn.Sequential)  # noqa: S101 - narrows the type
    optimizer = AdamW(dict(network.named_parameters()))
    draw = assignment.Generator("evaluator", seed)
    for step in range(STEPS):
        ids = [draw.below(images.total) for _ in range(TRAIN_BATCH)]
        batch = scaled(images.samples(ids), device)
        logits = 2 * decoder[:-1](encoder(batch))  # tanh(x) = 2 sigmoid(2 x) - 1
        loss = functional.binary_cross_entropy_with_logits(logits, (batch + 1) / 2)
        loss.backward()  # type: ignore[no-untyped-call]  # torch
        optimizer.step(RATE * (1 - step / STEPS))
        for item in network.parameters():
            item.grad = None
        report(step + 1, STEPS, float(loss.detach()))


def _shell(kind: str, sizes: GanModel) -> nn.Module:
    """A network without storage: the registry of what can judge."""
    with torch.device("meta"):
        if kind == AUTOENCODER:
            return models.Autoencoder(sizes, FEATURES)
        return features.EfficientNetLite0(sizes.channels)


def _width(kind: str) -> int:
    return FEATURES if kind == AUTOENCODER else features.WIDTH


def _metadata(kind: str) -> dict[str, str]:
    named = {} if kind == AUTOENCODER else {_NETWORK: kind}
    return {"format": _FORMAT, **named}

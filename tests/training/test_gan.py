"""A worker's round of a gan: what holds its discriminator down, and that other values are other work."""

from __future__ import annotations

import types

import numpy as np
import pytest
import torch

from swarm.training import gan, models
from swarm.training.errors import TrainingError
from swarm.training.local import Place
from swarm.training.sizes import GanModel
from swarm.training.spec import parse_spec

CPU = torch.device("cpu")
SIZES = GanModel(size=16, channels=1, latent=4, base=4)
SPEC = b"""
[task]
name = "t"
kind = "gan"
rounds = 2
budget = "1"
[data]
dataset = "d"
pool = "p"
[model]
latent = 4
base = 4
[train]
steps = 10
batch = 4
"""


def pair() -> models.Pair:
    shell = models.build(SIZES)
    return models.fill(shell, models.initial(shell, 1), CPU)


def test_the_steepness_is_the_mean_squared_slope_of_each_image_and_teaches_the_discriminator_alone() -> (
    None
):
    made, images = pair(), torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    found = gan._steepness(made, images)
    slopes = []
    for image in images:
        at = image[None].requires_grad_()
        made.discriminator(at).sum().backward()
        slopes.append(at.grad.square().sum())
    torch.testing.assert_close(found, torch.stack(slopes).mean())
    gan._zero(made)
    found.backward()
    assert all(item.grad is None for item in made.generator.parameters())
    assert any(
        item.grad.abs().sum() > 0
        for item in made.discriminator.parameters()
        if item.grad is not None
    )


def test_the_penalty_changes_the_work_and_equal_values_repeat_it(monkeypatch) -> None:
    spec = parse_spec(SPEC)
    place = Place(b"T" * 32, 1, "p", b"B" * 32, "bafyb", "bafyd")
    pixels = np.random.default_rng(1).integers(0, 256, (20, 1, 16, 16)).astype(np.uint8)
    images = types.SimpleNamespace(samples=lambda ids: pixels[[at % 20 for at in ids]], total=20)
    base = types.SimpleNamespace(tensors=models.values(pair()))

    def work() -> dict[str, np.ndarray]:
        steps = range(spec.train.steps * spec.train.batch)
        return gan._adversarial(spec, place, base, images, list(steps), CPU, lambda *_: None)

    first, again = work(), work()
    assert all(np.array_equal(item, again[name]) for name, item in first.items())
    monkeypatch.setattr(gan, "PENALTY_EVERY", 2)
    other = work()
    assert not all(np.array_equal(item, other[name]) for name, item in first.items())


def test_a_round_whose_loss_is_no_number_fails() -> None:
    place = Place(b"T" * 32, 1, "p", b"B" * 32, "bafyb", "bafyd")
    pixels = np.zeros((40, 1, 16, 16), np.uint8)
    images = types.SimpleNamespace(samples=lambda ids: pixels[ids], total=40)
    values = models.values(pair())
    name = next(one for one in values if one.startswith("discriminator"))
    values[name] = np.full_like(values[name], 3e38)
    base = types.SimpleNamespace(tensors=values)
    told = []
    with pytest.raises(TrainingError, match="the loss is no number at step 1 of 10"):
        gan._adversarial(
            parse_spec(SPEC),
            place,
            base,
            images,
            list(range(40)),
            CPU,
            lambda *one: told.append(one),
        )
    assert told == []

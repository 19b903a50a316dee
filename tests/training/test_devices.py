"""Gradients in parts, in processes and after an allocation that failed: always those of the whole batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from swarm.training import checkpoint, devices, models, objectives, team
from swarm.training.devices import Batches
from swarm.training.spec import parse_spec

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor, nn

    from tests.training.conftest import Room

CPU = torch.device("cpu")


def model_of(room: Room) -> nn.Module:
    spec = parse_spec(room.spec)
    shell = models.build(spec.model)
    return models.fill(shell, models.initial(shell, 1), CPU)


def batch(count: int = 7) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, 17)).astype(np.uint8)


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: item.grad.clone() for name, item in model.named_parameters()}


def whole(room: Room) -> tuple[float, dict[str, Tensor]]:
    model = model_of(room)
    loss = objectives.losses(model, batch(), CPU).mean()
    loss.backward()
    return float(loss.detach()), gradients(model)


def small_memory(
    limit: int, asked: list[int]
) -> Callable[[nn.Module, np.ndarray, torch.device], Tensor]:
    """Losses on a device on which more than `limit` samples at once do not fit."""

    def losses(model: nn.Module, samples: np.ndarray, device: torch.device) -> Tensor:
        asked.append(len(samples))
        if len(samples) > limit:
            message = "CUDA out of memory. Tried to allocate 2.00 GiB"
            raise torch.OutOfMemoryError(message)
        return objectives.losses(model, samples, device)

    return losses


def check(
    found: tuple[float, dict[str, Tensor]], expected: tuple[float, dict[str, Tensor]]
) -> None:
    assert found[0] == pytest.approx(expected[0], abs=1e-6)
    for name, item in expected[1].items():
        torch.testing.assert_close(found[1][name], item, rtol=1e-5, atol=1e-7)


def test_a_batch_that_does_not_fit_is_halved_and_gives_the_same_gradients(room: Room) -> None:
    asked: list[int] = []
    model = model_of(room)
    batches = Batches(CPU, losses=small_memory(2, asked))
    check((batches.backward(model, batch()), gradients(model)), whole(room))
    assert asked == [7, 4, 2, 2, 2, 1]
    asked.clear()
    model = model_of(room)
    check((batches.backward(model, batch()), gradients(model)), whole(room))
    assert asked == [2, 2, 2, 1]  # what fits is remembered


def test_a_sample_that_does_not_fit_by_itself_is_out_of_memory(room: Room) -> None:
    with pytest.raises(torch.OutOfMemoryError):
        Batches(CPU, losses=small_memory(0, [])).backward(model_of(room), batch())


def test_another_error_is_not_taken_for_a_lack_of_memory(room: Room) -> None:
    def broken(*_: object) -> Tensor:
        message = "shapes do not match"
        raise RuntimeError(message)

    with pytest.raises(RuntimeError, match="shapes"):
        Batches(CPU, losses=broken).backward(model_of(room), batch())
    assert devices.is_out_of_memory(MemoryError())
    assert devices.is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: 1"))


def test_a_batch_that_fits_has_the_bits_that_it_always_had(room: Room) -> None:
    model = model_of(room)
    loss = Batches(CPU, most=16).backward(model, batch())
    expected = whole(room)
    assert loss == expected[0]
    assert all(torch.equal(item, expected[1][name]) for name, item in gradients(model).items())


@pytest.mark.slow
def test_two_processes_make_the_gradients_of_one(room: Room, tmp_path: Path) -> None:
    spec = parse_spec(room.spec)
    config = checkpoint.Config("lm", "tiny", 0, "bytes", spec.model)
    values = models.initial(models.build(spec.model), 1)
    checkpoint.write(tmp_path / "v0", config, values, "")
    model = model_of(room)
    with team.Team(tmp_path / "v0", 2, CPU) as both:
        batches = Batches(CPU, team=both)
        for _ in range(2):  # the second after weights that moved
            found = batches.backward(model, batch()), gradients(model)
            alone = model_of(room)
            alone.load_state_dict(model.state_dict())
            check(found, (Batches(CPU).backward(alone, batch()), gradients(alone)))
            with torch.no_grad():
                for item in model.parameters():
                    item.add_(item.grad, alpha=-1.0)
                    item.grad = None
        # Fewer samples than members: the others have an empty share.
        found = batches.backward(model, batch(1)), gradients(model)
        alone = model_of(room)
        alone.load_state_dict(model.state_dict())
        check(found, (Batches(CPU).backward(alone, batch(1)), gradients(alone)))
        others = list(both._others)
    assert [other.returncode for other in others] == [0]


def test_without_a_second_accelerator_there_is_no_team(tmp_path: Path) -> None:
    with team.of(tmp_path, CPU, is_mixed=True) as nobody:
        assert nobody is None
    assert devices.choose("cpu") == CPU

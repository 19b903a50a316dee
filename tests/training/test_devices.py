"""Gradients in parts, in processes and after an allocation that failed: always those of the whole batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from swarm.training import checkpoint, codec, devices, jobs, models, objectives, team
from swarm.training.devices import Batches
from swarm.training.spec import parse_spec
from tests.training.conftest import TASK

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


@pytest.mark.parametrize(
    ("words", "is_memory"),
    [
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", True),
        ("cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `f(x)`", True),
        ("cuDNN error: CUDNN_STATUS_ALLOC_FAILED", True),
        ("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED", True),
        ("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED", False),
        ("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `f(x)`", False),
    ],
)
def test_a_library_of_cuda_that_finds_no_memory_is_told_from_one_that_fails(
    words: str, *, is_memory: bool
) -> None:
    assert devices.is_out_of_memory(RuntimeError(words)) is is_memory


def test_a_batch_that_fits_has_the_bits_that_it_always_had(room: Room) -> None:
    model = model_of(room)
    loss = Batches(CPU, most=16).backward(model, batch())
    expected = whole(room)
    assert loss == expected[0]
    assert all(torch.equal(item, expected[1][name]) for name, item in gradients(model).items())


@pytest.mark.slow
def test_two_processes_make_the_gradients_of_one(
    room: Room, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(team, "END_SECONDS", 60.0)  # a machine under load ends them late
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


def test_an_accelerator_is_taken_only_where_it_was_asked_for_and_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for cuda, mps, expected in (
        (True, True, "cuda"),
        (False, True, "mps"),
        (False, False, "cpu"),
    ):
        monkeypatch.setattr(torch.cuda, "is_available", lambda found=cuda: found)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda found=mps: found)
        assert devices.choose("auto").type == expected
        assert devices.choose("cpu") == CPU


def test_on_cuda_the_forward_pass_alone_is_bfloat16_and_only_where_no_replay_compares(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, asked = torch.autocast, []

    def autocast(kind: str, dtype: torch.dtype) -> torch.autocast:
        asked.append((kind, dtype))
        return real("cpu", dtype)  # what CUDA does, on the machine that there is

    def here(model: nn.Module, samples: np.ndarray, _device: torch.device) -> Tensor:
        return objectives.losses(model, samples, CPU)

    monkeypatch.setattr(torch, "autocast", autocast)
    cuda, expected = torch.device("cuda"), whole(room)
    for device, mixed in ((cuda, False), (CPU, True)):
        model = model_of(room)
        loss = Batches(device, is_mixed=mixed, losses=here).backward(model, batch())
        assert (loss, asked) == (expected[0], [])
        assert all(torch.equal(item, expected[1][name]) for name, item in gradients(model).items())
    model = model_of(room)
    loss = Batches(cuda, most=4, is_mixed=True, losses=here).backward(model, batch())
    assert asked == [("cuda", torch.bfloat16)] * 2
    assert loss != expected[0]
    assert loss == pytest.approx(expected[0], rel=1e-2)
    for name, item in gradients(model).items():
        assert item.dtype == torch.float32
        gap = (item - expected[1][name]).norm()
        assert gap <= 0.05 * expected[1][name].norm() + 1e-6


def test_a_round_on_a_device_with_little_memory_ends_with_the_same_losses_and_says_the_same(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = type(models.build(parse_spec(room.spec).model))

    def run(**job: object) -> dict[str, object]:
        return jobs.run(job, jobs.Bench(CPU, lambda *_: None))

    run(
        job="initial",
        spec=room.spec,
        dataset=str(room.train),
        out=str(room.folder / "v0"),
        tokenizer=None,
    )
    forward = kind.forward
    sizes: list[int] = []

    def small(self: nn.Module, tokens: Tensor, *rest: object) -> Tensor:
        sizes.append(len(tokens))
        if len(tokens) > 1:
            message = "CUDA out of memory. Tried to allocate 2.00 GiB"
            raise torch.OutOfMemoryError(message)
        return forward(self, tokens, *rest)

    found = []
    for name in ("plenty", "little"):
        if name == "little":
            monkeypatch.setattr(kind, "forward", small)
        place = {"peer": "a", "dataset_root": "bafyd", "state": str(room.folder / name)}
        out = room.folder / f"update-{name}"
        result = run(job="train", **room.fields(), **place, out=str(out))
        layout = codec.Layout(checkpoint.load(room.folder / "v0").shapes, 74)
        wanted = codec.Expected("lm", layout, "bafyv0", TASK, 1)
        sparse = codec.read(out, wanted).groups
        found.append((result, sparse))
    assert sizes[:3] == [4, 2, 1]
    assert set(sizes[3:]) == {1}
    (plenty, many), (little, few) = found
    for key in ("loss_first", "loss_last"):
        assert little[key] == pytest.approx(plenty[key], abs=1e-5)
    for one, other in zip(many, few, strict=True):
        same = np.isin(one.positions, other.positions).mean()
        assert same > 0.98  # values of equal greatness may change places in the last bit

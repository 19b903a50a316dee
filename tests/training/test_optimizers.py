"""Muon's steps do not depend on which way a matrix lies, nor on what it is joined with."""

from __future__ import annotations

import pytest
import torch

from swarm.training import models
from swarm.training.local import Optimizers
from swarm.training.optimizers import Muon
from swarm.training.sizes import LmModel
from swarm.training.spec import Train


def stepped(
    weight: torch.Tensor, gradient: torch.Tensor, name: str, **options: bool
) -> torch.Tensor:
    item = weight.clone().requires_grad_(True)
    optimizer = Muon({name: item}, **options)
    for at in range(2):
        item.grad = gradient * (at + 1)
        optimizer.step(0.1)
    return item.detach()


def test_a_matrix_that_lies_the_other_way_takes_the_same_steps() -> None:
    torch.manual_seed(1)
    for rows, columns in ((8, 24), (24, 8)):
        weight, gradient = torch.randn(rows, columns), torch.randn(rows, columns)
        plain = stepped(weight, gradient, "w")
        turned = stepped(weight.T.contiguous(), gradient.T.contiguous(), "w", transposed=True)
        torch.testing.assert_close(turned.T, plain)
        assert (plain - weight).norm() > 0.1


def test_q_k_and_v_in_one_matrix_take_the_steps_of_three() -> None:
    torch.manual_seed(2)
    weight, gradient = torch.randn(8, 24), torch.randn(8, 24)
    joined = stepped(weight, gradient, "h.0.attn.c_attn.weight", transposed=True)
    parts = [
        stepped(one.contiguous(), move.contiguous(), "w", transposed=True)
        for one, move in zip(weight.chunk(3, 1), gradient.chunk(3, 1), strict=True)
    ]
    torch.testing.assert_close(joined, torch.cat(parts, 1))


@pytest.mark.parametrize("shape", ["gpt", "llama"])
def test_a_matrix_that_widens_moves_further_whichever_way_the_shape_lays_it(shape: str) -> None:
    sizes = LmModel(layers=1, heads=2, width=16, context=8, shape=shape, kv_heads=2, hidden=64)
    module = models.build(sizes)
    model = models.fill(module, models.initial(module, 1), torch.device("cpu"))
    before = {name: item.detach().clone() for name, item in model.named_parameters()}
    torch.manual_seed(3)
    for item in model.parameters():
        item.grad = torch.randn_like(item)
    Optimizers(model, Train(clip=1e9, muon_learning_rate=0.1)).step(1.0)
    moved = {name: item.detach() - before[name] for name, item in model.named_parameters()}
    widening, narrowing = (
        next(move for name, move in moved.items() if name.endswith(end))
        for end in (
            ("mlp.c_fc.weight", "mlp.c_proj.weight")
            if shape == "gpt"
            else ("up_proj.weight", "down_proj.weight")
        )
    )
    assert torch.linalg.matrix_norm(widening, 2) == pytest.approx(0.2, rel=0.3)
    assert torch.linalg.matrix_norm(narrowing, 2) == pytest.approx(0.1, rel=0.3)

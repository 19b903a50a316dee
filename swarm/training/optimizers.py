"""Muon and AdamW with their state in plain tensors by name.

Why not torch.optim: its state would have to be unpickled or taken apart by position, its Muon runs
Newton-Schulz in bfloat16 and takes q, k and v as one matrix, and using it loads the compiler (1 s and 80 MB
in each worker).

Source: Jordan et al., "Muon" (2024); Loshchilov and Hutter, "Decoupled weight decay" (2017).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

_A, _B, _C = 3.4445, -4.7750, 2.0315


class AdamW:
    """AdamW over named parameters.

    Args:
        parameters: By name.
        betas: Decay of the first and second moment.
        weight_decay: Applied to matrices.
    """

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        *,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        self._parameters = dict(parameters)
        self._betas = betas
        self._decay = weight_decay
        self._count = 0
        self._first = {name: torch.zeros_like(item) for name, item in self._parameters.items()}
        self._second = {name: torch.zeros_like(item) for name, item in self._parameters.items()}

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Move each parameter that has a gradient."""
        self._count += 1
        beta1, beta2 = self._betas
        scale1 = 1 - beta1**self._count
        scale2 = (1 - beta2**self._count) ** 0.5
        for name, item in self._parameters.items():
            if item.grad is None:
                continue
            first, second = self._first[name], self._second[name]
            first.lerp_(item.grad, 1 - beta1)
            second.mul_(beta2).addcmul_(item.grad, item.grad, value=1 - beta2)
            if self._decay and item.ndim >= 2:
                item.mul_(1 - rate * self._decay)
            item.addcdiv_(first, second.sqrt().div_(scale2).add_(1e-8), value=-rate / scale1)

    def state(self) -> dict[str, Tensor]:
        """Everything that the next round needs."""
        return {
            "adamw.count": torch.tensor([self._count], dtype=torch.int64),
            **{f"adamw.first.{name}": item for name, item in self._first.items()},
            **{f"adamw.second.{name}": item for name, item in self._second.items()},
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take up a state from `state`; the caller has checked names and shapes."""
        self._count = int(state["adamw.count"][0])
        for name in self._parameters:
            self._first[name].copy_(state[f"adamw.first.{name}"])
            self._second[name].copy_(state[f"adamw.second.{name}"])


class Muon:
    """Momentum, made orthogonal by five steps of Newton-Schulz; matrices of one shape go together.

    Args:
        parameters: Matrices by name; those whose name ends in `c_attn.weight` count as three.
        momentum: Decay of the momentum, applied as Nesterov's.
        weight_decay: Decoupled.
        transposed: The matrices are (in, out), as GPT-2 has them.
    """

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        *,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        transposed: bool = False,
    ) -> None:
        self._parameters = dict(parameters)
        self._momentum = momentum
        self._decay = weight_decay
        self._transposed = transposed
        self._buffers = {name: torch.zeros_like(item) for name, item in self._parameters.items()}

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Move each parameter that has a gradient."""
        families: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = {}
        for name, item in self._parameters.items():
            if item.grad is None:
                continue
            buffer = self._buffers[name].lerp_(item.grad, 1 - self._momentum)
            ahead = item.grad.lerp(buffer, self._momentum)
            if self._decay:
                item.mul_(1 - rate * self._decay)
            parts = 3 if name.endswith("c_attn.weight") else 1
            if self._transposed:
                item, ahead = item.T, ahead.T
            for weight, move in zip(item.chunk(parts), ahead.chunk(parts), strict=True):
                families.setdefault((weight.shape[0], weight.shape[1]), []).append((weight, move))
        for (rows, columns), family in families.items():
            moves = orthogonal(torch.stack([move for _, move in family]))
            scale = max(1.0, rows / columns) ** 0.5
            for (weight, _), move in zip(family, moves, strict=True):
                weight.add_(move, alpha=-rate * scale)

    def state(self) -> dict[str, Tensor]:
        """Everything that the next round needs."""
        return {f"muon.{name}": item for name, item in self._buffers.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take up a state from `state`; the caller has checked names and shapes."""
        for name, item in self._buffers.items():
            item.copy_(state[f"muon.{name}"])


def orthogonal(matrices: Tensor) -> Tensor:
    """Shape (N, rows, columns): each with its singular values pushed to about one, in float32."""
    x = matrices
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.transpose(1, 2)
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.transpose(1, 2)
        x = _A * x + (_B * gram + _C * (gram @ gram)) @ x
    result: Tensor = x.transpose(1, 2) if tall else x
    return result

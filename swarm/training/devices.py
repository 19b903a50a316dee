"""Where a worker computes, and how it makes a batch's gradients with the memory that there is.

A batch that does not fit is cut in half until it does, and its parts' gradients are added up: the same step, to the
last bits of a float. Several accelerators of one host take a share each of every batch (`team`).
On CUDA the forward pass runs in bfloat16 where no record of the round is asked for: a replay compares float32. Weights,
moments, gradients and every score stay float32 everywhere.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Final

import torch

from swarm.training import objectives

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from torch import Tensor, nn

    from swarm.training.team import Team
    from swarm.training.tensors import Array

CPU: Final = "cpu"
AUTO: Final = "auto"
_NO_MEMORY: Final = (
    "can't allocate memory",
    "out of memory",
    "ALLOC_FAILED",  # of cuBLAS and cuSOLVER
    "ALLOCATION_FAILED",  # of cuDNN since its version 9
)


def prepare(asked: str, threads: int) -> torch.device:
    """Pin what makes results repeatable, and choose where to compute.

    Args:
        asked: "cpu"; or "auto", an accelerator where there is one: CUDA, else Apple's MPS.
        threads: Of the CPU.
    """
    torch.set_num_threads(threads)
    torch.set_num_interop_threads(1)
    device = choose(asked)
    pin(device)
    return device


def pin(device: torch.device) -> None:
    """Take the forms of operations that are repeatable and compute float32 in float32, in this process.

    Args:
        device: Where it computes.
    """
    # MPS has no deterministic form of some operations, and says so.
    torch.use_deterministic_algorithms(True, warn_only=device.type == "mps")
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.enable_flash_sdp(False)
        torch.backends.cuda.enable_mem_efficient_sdp(False)
        torch.backends.cuda.enable_cudnn_sdp(False)


def choose(asked: str) -> torch.device:
    """The device that was asked for, or the CPU where there is no accelerator."""
    if asked == AUTO:
        if torch.cuda.is_available():
            return torch.device("cuda", 0)
        if torch.backends.mps.is_available():
            return torch.device("mps")
    return torch.device(CPU)


def is_out_of_memory(error: Exception) -> bool:
    """Whether an allocation failed; torch's allocators for the CPU and MPS, and CUDA's libraries, say it in words only."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)


class Batches:
    """Makes the gradients of batches, in parts that fit.

    Args:
        device: Where the model is.
        most: Samples that are computed at once, at most; None: a whole batch.
        is_mixed: The forward pass may run in bfloat16.
        team: Takes a share of each batch; None: nobody does.
        losses: The loss of each sample.
    """

    def __init__(
        self,
        device: torch.device,
        *,
        most: int | None = None,
        is_mixed: bool = False,
        team: Team | None = None,
        losses: Callable[[nn.Module, Array, torch.device], Tensor] = objectives.losses,
    ) -> None:
        self._device = device
        self._most = most
        self._mixed = is_mixed and device.type == "cuda"
        self._team = team
        self._losses = losses

    @property
    def most(self) -> int | None:
        """Samples that are computed at once: what was found to fit, for the batches after it."""
        return self._most

    def backward(self, model: nn.Module, samples: Array) -> float:
        """Leave the gradients of the mean loss in a model that has none, and give that loss.

        Raises:
            MemoryError: Not even one sample fits; or `torch.OutOfMemoryError`.
        """
        if self._team is not None:
            return self._team.backward(model, samples, self)
        return self.share(model, samples, len(samples))

    def share(self, model: nn.Module, samples: Array, whole: int) -> float:
        """The part that some samples have in the gradients and the mean loss of a batch of `whole`."""
        while True:
            size = min(self._most or len(samples), len(samples))
            try:
                return self._in_parts(model, samples, whole, max(1, size))
            except (RuntimeError, MemoryError) as error:
                if size <= 1 or not is_out_of_memory(error):
                    raise
            self._most = -(-size // 2)
            for item in model.parameters():
                item.grad = None
            if self._device.type == "cuda":
                torch.cuda.empty_cache()

    def _in_parts(self, model: nn.Module, samples: Array, whole: int, size: int) -> float:
        total = 0.0
        for at in range(0, len(samples), size):
            part = samples[at : at + size]
            with self._precision():
                loss = self._losses(model, part, self._device).float().mean()
            if len(part) != whole:
                loss = loss * (len(part) / whole)
            loss.backward()  # type: ignore[no-untyped-call]  # torch
            total += float(loss.detach())
        return total

    def _precision(self) -> AbstractContextManager[object]:
        if self._mixed:
            return torch.autocast("cuda", torch.bfloat16)
        return nullcontext()

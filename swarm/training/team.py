"""Several accelerators of one host, a process each: every batch is shared out, and gradients are added up.

    python -m swarm.training.team RANK MEMBERS STORE BASE DEVICE MIXED

The worker is member 0 and starts the others for a job, over `torch.distributed`: gloo between CPUs, NCCL between GPUs. For
each batch it sends, in order: how many bytes the samples have (0 ends the others), the samples as an `.npy` file, and the
weights; each member computes the gradients of its share, and they are summed. The others keep no state, so what the
optimisers do is done once. When the worker ends, so do they: their end of the connection closes.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import numpy as np
import torch
from torch import Tensor, distributed

from swarm.training import checkpoint, devices, models

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from swarm.training.devices import Batches
    from swarm.training.tensors import Array

MAX_MEMBERS: Final = 64
WAIT: Final = timedelta(minutes=30)
"""For the slowest member's share of a batch."""
END_SECONDS: Final = 5.0
MAX_SAMPLES_BYTES: Final = 2**34
"""Of one batch, as a file."""


@contextmanager
def of(base: Path, device: torch.device, *, is_mixed: bool) -> Iterator[Team | None]:
    """All accelerators of this host for one job; None where there is one or none.

    Args:
        base: Folder of the agreed checkpoint, which says what model it is.
        device: The worker's own.
        is_mixed: The forward pass may run in bfloat16.
    """
    members = min(torch.cuda.device_count(), MAX_MEMBERS) if device.type == "cuda" else 1
    if members < 2:
        yield None
        return
    with Team(base, members, device, is_mixed=is_mixed) as team:
        yield team


class Team:
    """The worker's end. Used as a context: the others live as long as it.

    Args:
        base: Folder of the agreed checkpoint.
        members: How many there are, the worker among them.
        device: The worker's own; CUDA's members take one each, in order.
        is_mixed: The forward pass may run in bfloat16.
    """

    def __init__(
        self, base: Path, members: int, device: torch.device, *, is_mixed: bool = False
    ) -> None:
        self._base = base
        self._members = members
        self._device = device
        self._mixed = is_mixed
        self._others: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="swarm-team-")
        store = Path(self._folder.name) / "store"
        command = [sys.executable, "-m", "swarm.training.team"]
        for rank in range(1, self._members):
            rest = [rank, self._members, store, self._base, self._device.type, int(self._mixed)]
            self._others.append(
                subprocess.Popen(  # noqa: S603 - our own interpreter and module
                    command + [str(item) for item in rest], stdin=subprocess.DEVNULL
                )
            )
        try:
            _meet(0, self._members, store, self._device)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if distributed.is_initialized():
            try:
                distributed.broadcast(torch.zeros(1, dtype=torch.int64), 0)
            except RuntimeError:  # one of them is gone already
                pass
            finally:
                distributed.destroy_process_group()
        self._end()

    def backward(self, model: nn.Module, samples: Array, batches: Batches) -> float:
        """Leave the gradients of the mean loss of a batch in a model, and give that loss.

        Raises:
            RuntimeError: A member is gone.
        """
        file = io.BytesIO()
        np.save(file, samples, allow_pickle=False)
        content = torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8)
        distributed.broadcast(torch.tensor([len(content)], dtype=torch.int64), 0)
        distributed.broadcast(content, 0)
        return _share(model, samples, batches, 0, self._members)

    def _end(self) -> None:
        for other in self._others:
            try:
                other.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                other.kill()
                other.wait()
        self._folder.cleanup()


def main(arguments: list[str]) -> None:
    """A member that is not the worker."""
    rank, members = int(arguments[0]), int(arguments[1])
    store, base = Path(arguments[2]), Path(arguments[3])
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    device = torch.device(arguments[4], rank) if arguments[4] == "cuda" else torch.device("cpu")
    loaded = checkpoint.load(base)
    model = models.fill(models.build(loaded.config.model), loaded.tensors, device)
    batches = devices.Batches(device, is_mixed=arguments[5] == "1")
    _meet(rank, members, store, device)
    try:
        while samples := _next():
            _share(model, samples[0], batches, rank, members)
    except RuntimeError as error:
        if not _is_gone(error):
            raise
    distributed.destroy_process_group()


def _meet(rank: int, members: int, store: Path, device: torch.device) -> None:
    """Join the group; all members are on this host, so nothing leaves it."""
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")
    backend = "gloo"
    if device.type == "cuda":
        backend = "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(device)
    distributed.init_process_group(
        backend, init_method=f"file://{store}", rank=rank, world_size=members, timeout=WAIT
    )


def _next() -> list[Array]:
    """The next batch, in a list; an empty one ends the member."""
    size = torch.zeros(1, dtype=torch.int64)
    distributed.broadcast(size, 0)
    count = int(size[0])
    if not 0 < count <= MAX_SAMPLES_BYTES:
        return []
    content = torch.zeros(count, dtype=torch.uint8)
    distributed.broadcast(content, 0)
    return [np.load(io.BytesIO(content.numpy().tobytes()), allow_pickle=False)]


def _share(model: nn.Module, samples: Array, batches: Batches, rank: int, members: int) -> float:
    """Take up the worker's weights, compute one's share, and sum the gradients."""
    parameters = list(model.parameters())
    weights = torch.cat([item.detach().flatten() for item in parameters])
    distributed.broadcast(weights, 0)
    if rank:
        _spread(weights, [item.detach() for item in parameters])
    for item in parameters:
        item.grad = None
    # Rows in turn, so that shares are even.
    mine = samples[rank::members]
    loss = batches.share(model, mine, len(samples)) if len(mine) else 0.0
    gradients = torch.cat(
        [
            (torch.zeros_like(item) if item.grad is None else item.grad).flatten()
            for item in parameters
        ]
    )
    distributed.all_reduce(gradients)
    total = torch.tensor([loss], dtype=torch.float64)
    distributed.all_reduce(total)
    for item in parameters:
        item.grad = torch.empty_like(item)
    _spread(gradients, [item.grad for item in parameters if item.grad is not None])
    return float(total[0])


def _spread(flat: Tensor, into: list[Tensor]) -> None:
    start = 0
    with torch.no_grad():
        for item in into:
            item.copy_(flat[start : start + item.numel()].view_as(item))
            start += item.numel()


def _is_gone(error: RuntimeError) -> bool:
    """Whether the worker's end closed, which ends a member without more words."""
    return any(words in str(error) for words in ("onnection", "closed", "eset by peer"))


if __name__ == "__main__":
    main(sys.argv[1:])

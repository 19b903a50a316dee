"""Several accelerators of one host, a process each: every batch is shared out, and gradients are added up.

    python -m swarm.training.team RANK MEMBERS STORE BASE DEVICE MIXED

The worker is member 0 and starts the others for a job, over `torch.distributed`: gloo between CPUs, NCCL between GPUs. For
each batch it sends, in order: how many bytes the samples have (0 ends the others), the samples as an `.npy` file, and the
weights; each member computes the gradients of its share, and they are summed. The others keep no state, so what the
optimisers do is done once. When the worker ends, so do they: the pipe that is their stdin closes.

A member writes `ready-RANK` beside the store when it has loaded the model. The worker waits for all of these before it
joins the group itself, since nothing gives up a group that one never joins: where a member ends before, or takes too long,
there is no team.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import numpy as np
import torch
from torch import Tensor, distributed
from torch.distributed import distributed_c10d

from swarm.training import checkpoint, devices, models

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from swarm.training.devices import Batches
    from swarm.training.tensors import Array

MAX_MEMBERS: Final = 64
WAIT: Final = timedelta(minutes=30)
"""For the slowest member's share of a batch."""
READY_SECONDS: Final = 300.0
"""Until all members have loaded torch and the model: well below the silence after which a node gives a worker up."""
POLL_SECONDS: Final = 0.05
END_SECONDS: Final = 5.0
MAX_SAMPLES_BYTES: Final = 2**34
"""Of one batch, as a file."""


@contextmanager
def of(base: Path, device: torch.device, *, is_mixed: bool) -> Iterator[Team | None]:
    """All accelerators of this host for one job; None where there is one or none, or the others cannot be had.

    Args:
        base: Folder of the agreed checkpoint, which says what model it is.
        device: The worker's own.
        is_mixed: The forward pass may run in bfloat16.
    """
    members = min(torch.cuda.device_count(), MAX_MEMBERS) if device.type == "cuda" else 1
    if members < 2:
        yield None
        return
    with ExitStack() as stack:
        team = None
        try:
            team = stack.enter_context(Team(base, members, device, is_mixed=is_mixed))
        except (OSError, RuntimeError) as error:
            sys.stderr.write(f"computing on one accelerator of {members}: {error}\n")
        yield team


class Team:
    """The worker's end. Used as a context: the others live as long as it.

    Entering it raises RuntimeError where a member is not there in time, or torch cannot make them a group.

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
        rest = [self._members, store, self._base, self._device.type, int(self._mixed)]
        try:
            for rank in range(1, self._members):
                self._others.append(
                    subprocess.Popen(  # noqa: S603 - our own interpreter and module
                        command + [str(item) for item in (rank, *rest)], stdin=subprocess.PIPE
                    )
                )
            self._await(store)
            _meet(0, self._members, store, self._device)
        except BaseException:
            self._kill()
            self._end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._dismiss()
            else:  # the others may stand in a sum that the worker takes no part in: no word would reach them
                self._kill()
                distributed_c10d._abort_process_group()  # the public way waits for what is under way
        finally:
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

    def _await(self, store: Path) -> None:
        """Until all others are about to join the group."""
        until = time.monotonic() + READY_SECONDS
        while True:
            missing = [at for at in range(1, self._members) if not _ready(store, at).exists()]
            for rank, other in enumerate(self._others, 1):
                if (code := other.poll()) is not None:
                    message = f"member {rank} ended with status {code} before it was ready"
                    raise RuntimeError(message)
            if not missing:
                return
            if time.monotonic() > until:
                message = f"member {missing[0]} was not ready after {READY_SECONDS:.0f} seconds"
                raise RuntimeError(message)
            with suppress(subprocess.TimeoutExpired):
                self._others[0].wait(POLL_SECONDS)

    def _dismiss(self) -> None:
        try:
            with suppress(RuntimeError):  # one of them is gone already
                distributed.broadcast(torch.zeros(1, dtype=torch.int64), 0)
        finally:
            distributed.destroy_process_group()

    def _kill(self) -> None:
        for other in self._others:
            other.kill()

    def _end(self) -> None:
        for other in self._others:
            try:
                other.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                other.kill()
                other.wait()
            if other.stdin is not None:
                other.stdin.close()
        self._folder.cleanup()


def main(arguments: list[str]) -> None:
    """A member that is not the worker."""
    rank, members = int(arguments[0]), int(arguments[1])
    store, base = Path(arguments[2]), Path(arguments[3])
    device = torch.device(arguments[4], rank) if arguments[4] == "cuda" else torch.device("cpu")
    torch.set_num_threads(1)
    devices.pin(device)
    loaded = checkpoint.load(base)
    model = models.fill(models.build(loaded.config.model), loaded.tensors, device)
    batches = devices.Batches(device, is_mixed=arguments[5] == "1")
    _ready(store, rank).touch()
    _meet(rank, members, store, device)
    try:
        while samples := _next():
            _share(model, samples[0], batches, rank, members)
    except RuntimeError as error:
        if not _is_gone(error):
            raise
    distributed.destroy_process_group()


def _ready(store: Path, rank: int) -> Path:
    """The file of a member that has all that it needs."""
    return store.with_name(f"ready-{rank}")


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
    # The losses first: gloo notices a member that is gone, and NCCL would wait for it.
    total = torch.tensor([loss], dtype=torch.float64)
    distributed.all_reduce(total)
    distributed.all_reduce(gradients)
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


def _follow() -> None:
    """End this process when the worker's has ended, whatever it waits for."""
    os.read(0, 1)
    os._exit(0)


if __name__ == "__main__":
    threading.Thread(target=_follow, daemon=True).start()
    main(sys.argv[1:])

"""Members that do not come, a worker that fails, and what every member pins."""

from __future__ import annotations

import signal
import subprocess
import sys
from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from swarm.training import checkpoint, devices, models, recorder, team
from swarm.training.devices import Batches
from swarm.training.errors import CheckpointError
from swarm.training.spec import parse_spec

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import Tensor, nn

    from tests.training.conftest import Room

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture
def flags() -> Iterator[None]:
    """What is pinned for CUDA, as torch has it by itself, and so again after the test."""
    cuda, cudnn = torch.backends.cuda, torch.backends.cudnn
    switches = (cuda.enable_flash_sdp, cuda.enable_mem_efficient_sdp, cuda.enable_cudnn_sdp)
    before = cuda.matmul.allow_tf32, cudnn.allow_tf32
    threads = torch.get_num_threads()
    cuda.matmul.allow_tf32 = cudnn.allow_tf32 = True
    for switch in switches:
        switch(True)
    yield
    cuda.matmul.allow_tf32, cudnn.allow_tf32 = before
    for switch in switches:
        switch(True)
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


def pinned() -> list[bool]:
    cuda = torch.backends.cuda
    return [
        torch.are_deterministic_algorithms_enabled(),
        not cuda.matmul.allow_tf32,
        not torch.backends.cudnn.allow_tf32,
        not cuda.flash_sdp_enabled(),
        not cuda.mem_efficient_sdp_enabled(),
        not cuda.cudnn_sdp_enabled(),
    ]


@pytest.mark.slow
@pytest.mark.usefixtures("flags")
def test_a_member_pins_on_cuda_what_the_worker_pins(tmp_path: Path) -> None:
    devices.pin(CPU)
    assert pinned() == [True] + [False] * 5
    with pytest.raises(CheckpointError):  # a member goes no further than its model
        team.main(["1", "2", str(tmp_path / "store"), str(tmp_path / "nowhere"), "cuda", "0"])
    assert all(pinned())


@pytest.mark.usefixtures("flags")
def test_the_fingerprint_tells_tf32_of_products_and_of_convolutions() -> None:
    found = {}
    for matmul in (True, False):
        for cudnn in (True, False):
            torch.backends.cuda.matmul.allow_tf32 = matmul
            torch.backends.cudnn.allow_tf32 = cudnn
            found[matmul, cudnn] = dict(recorder.fingerprint(CPU))["tf32"]
    assert len(set(found.values())) == 4


@pytest.mark.slow
def test_where_a_member_ends_before_it_is_ready_the_worker_computes_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(team, "WAIT", timedelta(seconds=30))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with team.of(tmp_path / "nowhere", CUDA, is_mixed=False) as nobody:
        assert nobody is None
    told = capfd.readouterr().err
    assert "computing on one accelerator of 2: member 1 ended with status 1" in told
    assert not torch.distributed.is_initialized()


def written(room: Room) -> Path:
    """The task's first checkpoint."""
    spec = parse_spec(room.spec)
    values = models.initial(models.build(spec.model), 1)
    config = checkpoint.Config("lm", "tiny", 0, "bytes", spec.model)
    checkpoint.write(room.folder / "v0", config, values, "")
    return room.folder / "v0"


@pytest.mark.slow
def test_a_member_ends_with_its_worker_though_nobody_has_joined_it_yet(room: Room) -> None:
    places = [str(room.folder / "store"), str(written(room))]
    command = [sys.executable, "-m", "swarm.training.team", "1", "2", *places, "cpu", "0"]
    assert subprocess.run(command, input=b"", timeout=60, check=False).returncode == 0


@pytest.mark.slow
def test_a_worker_that_fails_in_its_own_share_leaves_no_member_and_no_group(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(team, "WAIT", timedelta(seconds=30))
    monkeypatch.setattr(team, "END_SECONDS", 60.0)
    base = written(room)
    model = models.build(parse_spec(room.spec).model)
    samples = np.zeros((4, 17), np.uint8)

    def full(*_: object) -> Tensor:
        raise MemoryError

    def fail(of: team.Team, shell: nn.Module) -> None:
        Batches(CPU, team=of, losses=full).backward(shell, samples)

    both = team.Team(base, 2, CPU)
    with pytest.raises(MemoryError), both:
        fail(both, model)
    # Killed, and not told to end: it stood in a sum.
    assert [other.returncode for other in both._others] == [-signal.SIGKILL]
    assert not torch.distributed.is_initialized()

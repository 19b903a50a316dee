"""A record is written beside the training, and a job that ends early leaves nothing of it behind."""

from __future__ import annotations

import errno
import shutil
import threading
from typing import TYPE_CHECKING

import pytest
import torch

from swarm.training import jobs

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.training.conftest import Room

EVERY = 2  # of six steps: a state is written after the second, the fourth and the last


def train(room: Room, report: Callable[[int], None] = lambda _: None) -> dict[str, bytes]:
    """Record a round; gives the record's files."""
    fields = room.fields() | {"peer": "peer1", "dataset_root": "bafyd", "every": EVERY}
    fields |= {"state": str(room.folder / "state"), "out": str(room.folder / "u1")}
    record = room.folder / "record"
    bench = jobs.Bench(torch.device("cpu"), lambda step, _steps, _loss: report(step))
    jobs.run({"job": "train", "record": str(record), **fields}, bench)
    return {path.name: path.read_bytes() for path in record.iterdir()}


def part(room: Room) -> Path:
    return room.folder / "record.part"


def writers() -> list[str]:
    return [one.name for one in threading.enumerate() if one.name.startswith("swarm-record")]


@pytest.fixture
def begun(room: Room) -> Room:
    out = str(room.folder / "v0")
    job = {"job": "initial", "spec": room.spec, "dataset": str(room.train), "out": out}
    jobs.run(job, jobs.Bench(torch.device("cpu"), lambda *_: None))
    return room


def test_a_round_that_fails_in_its_third_step_leaves_no_thread_and_no_part_and_is_recorded_again(
    begun: Room,
) -> None:
    class GivenUpError(Exception):
        """What the worker raises where the node gives a job up."""

    def give_up(step: int) -> None:
        if step == 3:
            raise GivenUpError

    whole = train(begun)
    assert writers() == []
    for name in ("record", "state"):
        shutil.rmtree(begun.folder / name)
    with pytest.raises(GivenUpError):
        train(begun, give_up)
    assert writers() == []
    assert not part(begun).exists()
    assert not (begun.folder / "record").exists()
    assert train(begun) == whole


@pytest.mark.parametrize("state", [1, 3])
def test_a_disk_that_is_full_while_a_state_is_written_fails_the_job_with_that_error(
    begun: Room, state: int
) -> None:
    def fill(step: int) -> None:
        if step == 1:
            path = part(begun) / f"state-{state:04d}.safetensors.part"
            path.symlink_to("/dev/full")

    with pytest.raises(OSError, match="No space") as caught:
        train(begun, fill)
    assert caught.value.errno == errno.ENOSPC
    assert writers() == []
    assert not part(begun).exists()
    assert not (begun.folder / "record").exists()
    assert set(train(begun)) >= {f"state-{at:04d}.safetensors" for at in range(4)}

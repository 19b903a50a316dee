"""A task that could not be trained is refused with its field, and a doubtful one is told."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from swarm.training import jobs, memory
from swarm.training.difference import difference
from swarm.training.errors import SpecError
from tests.training.conftest import Room, text
from tests.training.test_images import bomb
from tests.training.test_jobs import GAN

if TYPE_CHECKING:
    from pathlib import Path

BENCH = jobs.Bench(torch.device("cpu"), lambda *_: None)


def check(room: Room) -> dict[str, Any]:
    fields = {"spec": room.spec, "dataset": str(room.train), "pool": str(room.pool)}
    return jobs.run({"job": "check", **fields, "tokenizer": None}, BENCH)


def lines(folder: Path, start: int, count: int) -> None:
    shutil.rmtree(folder)
    folder.mkdir()
    told = "".join(
        f"line number {at} of a text that nobody has read yet\n"
        for at in range(start, start + count)
    )
    (folder / "a.txt").write_text(told)


def test_a_good_task_is_counted_and_not_doubted(room: Room) -> None:
    lines(room.train, 0, 300)
    lines(room.pool, 1000, 100)
    found = check(room)
    assert found["doubts"] == []
    assert found["samples"] == ((room.train / "a.txt").stat().st_size - 1) // 16
    assert (found["pool_samples"], found["bytes_per_token"]) == (
        ((room.pool / "a.txt").stat().st_size - 1) // 16,
        1.0,
    )
    assert 0 < found["memory_bytes"] < 2**30


@pytest.mark.parametrize("field", ["data.dataset", "data.pool"])
def test_a_folder_without_a_sample_is_refused_with_its_field(room: Room, field: str) -> None:
    folder = room.train if field == "data.dataset" else room.pool
    for file in folder.iterdir():
        file.unlink()
    with pytest.raises(SpecError, match="holds no files") as caught:
        check(room)
    assert caught.value.field == field
    (folder / "short.txt").write_bytes(b"seventeen")
    with pytest.raises(SpecError, match="fewer than one sample") as caught:
        check(room)
    assert caught.value.field == field


def test_a_bomb_in_the_pool_is_refused_with_its_field_and_file(room: Room) -> None:
    room.spec = GAN
    for folder in (room.train, room.pool):
        np.save(folder / "a.npy", np.zeros((4, 16, 16), np.uint8))
    (room.pool / "x.png").write_bytes(bomb(2**14, 2**14))
    with pytest.raises(SpecError, match=r"x\.png") as caught:
        check(room)
    assert caught.value.field == "data.pool"


def test_a_pool_that_was_trained_on_is_doubted(room: Room) -> None:
    lines(room.train, 0, 300)
    lines(room.pool, 200, 200)
    assert ["50 %" in one for one in check(room)["doubts"]] == [True]
    room.spec = GAN
    pictures = np.arange(8, dtype=np.uint8)[:, None, None] * np.ones((1, 16, 16), np.uint8)
    np.save(room.train / "a.npy", pictures)
    np.save(room.pool / "a.npy", pictures[4:])
    assert ["100 %" in one for one in check(room)["doubts"]] == [True]


def test_a_pool_of_few_samples_is_doubted(room: Room) -> None:
    (room.pool / "0.txt").write_bytes(text(5, 4))
    assert any("fewer than the 4" in one for one in check(room)["doubts"])


def test_a_dataset_of_no_more_than_one_batch_is_refused_with_its_field(room: Room) -> None:
    for file in room.train.iterdir():
        file.unlink()
    (room.train / "a.txt").write_bytes(text(1, 100)[: 16 * 5 + 1])
    check(room)
    room.spec = room.spec.replace(b"batch = 4", b"batch = 5")
    with pytest.raises(SpecError, match="take a smaller batch or more data") as caught:
        check(room)
    assert caught.value.field == "train.batch"


def test_a_model_beyond_the_memory_is_refused_before_it_is_built(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    room.spec = room.spec.replace(b"width = 16", b"width = 4096\nhidden = 16384")
    room.spec = room.spec.replace(b"layers = 1", b"layers = 9")
    monkeypatch.setattr(memory, "machine_bytes", lambda: 2**34)
    with pytest.raises(SpecError, match="this machine has") as caught:
        check(room)
    assert caught.value.field == "model"


def test_a_batch_beyond_any_memory_is_refused_and_one_beyond_this_machine_doubted(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = room.spec.replace(b"context = 16", b"context = 32768")
    room.spec = wide.replace(b"batch = 4", b"batch = 16384")
    with pytest.raises(SpecError, match="a peer") as caught:
        check(room)
    assert caught.value.field == "train.batch"
    monkeypatch.setattr(memory, "machine_bytes", lambda: 2**24)
    room.spec = wide.replace(b"context = 32768", b"context = 1024")
    assert any("this machine has 16.0 MiB" in one for one in check(room)["doubts"])
    fields = {**room.fields(), "peer": "a", "dataset_root": "d", "state": "s", "out": "o"}
    with pytest.raises(SpecError, match="this machine has"):
        jobs.run({"job": "train", **fields}, BENCH)


def test_a_difference_tells_which_tensors_moved_and_how_far() -> None:
    old = {
        "a": np.array([3, 4], np.float32),
        "b": np.ones(2, np.float32),
        "c": np.ones(1, np.float32),
    }
    new = {
        "a": np.array([3, 5], np.float32),
        "b": np.ones(2, np.float32),
        "d": np.ones(3, np.float32),
    }
    found = difference(old, new)
    assert [(one["name"], one["change"], one["values"]) for one in found["tensors"]] == [
        ("a", "changed", 1),
        ("c", "removed", 1),
        ("d", "added", 3),
    ]
    assert found["tensors"][0]["norm"] == 1.0
    assert found["tensors"][0]["relative"] == pytest.approx(0.2)
    assert (found["same"], found["norm"]) == (1, 1.0)

"""Recorded rounds of classifiers and of final layers, and of several units of work: the same recorder, run again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from swarm.ledger.replaying import KINDS
from swarm.training import assignment, jobs, local, tensors, transcript
from tests.training import test_classifier, test_finetune
from tests.training.conftest import SPEC, Room
from tests.training.test_finetune import bench as bench  # a fixture
from tests.training.test_replay import EVERY, KEY, TOLERANCE
from tests.training.test_replay import repeatable as repeatable  # a fixture

if TYPE_CHECKING:
    from collections.abc import Iterator


def prepare(kind: str, room: Room, bench: jobs.Bench) -> None:
    """A task of a kind, and its first checkpoint."""
    if kind == "finetune":
        test_finetune.prepare(room, "gpt", bench)
        return
    if kind == "classifier":
        for at, folder in enumerate(("images", "held")):
            test_classifier.npy(room.folder / folder, *test_classifier.shapes(at, 200))
        room.spec = test_classifier.SPEC.replace(b'"train"', b'"images"')
        room.spec = room.spec.replace(b"steps = 12", b"steps = 6")
    fields = {
        "spec": room.spec,
        "dataset": str(data_of(kind, room)),
        "out": str(room.folder / "v0"),
    }
    jobs.run({"job": "initial", **fields}, bench)


def data_of(kind: str, room: Room) -> Any:
    return room.folder / "images" if kind == "classifier" else room.train


def train(kind: str, room: Room, bench: jobs.Bench, units: int = 1) -> None:
    fields = {**room.fields(), "peer": "a", "dataset_root": "bafyd", "units": units}
    fields |= {"dataset": str(data_of(kind, room)), "state": str(room.folder / "state")}
    fields |= {"out": str(room.folder / "u1"), "record": str(room.folder / "record")}
    jobs.run({"job": "train", **fields, "every": EVERY}, bench)


def replay(kind: str, room: Room, bench: jobs.Bench, segment: int) -> dict[str, Any]:
    record = room.folder / "record"
    fields = {**room.fields(), "peer": "a", "dataset_root": "bafyd", "segment": segment}
    fields |= {"dataset": str(data_of(kind, room)), "update": str(room.folder / "u1")}
    fields |= {"record": str(record / transcript.NAME), "trace": str(record / transcript.TRACE)}
    fields |= {"start": str(record / f"state-{segment:04d}.safetensors")}
    fields |= {"end": str(record / f"state-{segment + 1:04d}.safetensors")}
    fields |= {"every": EVERY, "tolerance": TOLERANCE, "proof_key": KEY}
    return jobs.run({"job": "replay", **fields}, bench)


def skipping(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each fourth step is said and not taken."""
    honest = local.steps

    def steps(
        spec: Any, round_: int, model: Any, moving: Any, samples: Any, device: Any, **rest: Any
    ) -> Iterator[float]:
        rows, loss = spec.train.batch * rest.get("units", 1), 0.0
        for at in range(len(samples) // rows):
            if at != 3:
                part = samples[at * rows : (at + 1) * rows]
                (loss,) = honest(spec, round_, model, moving, part, device, at, **rest)
            yield loss

    monkeypatch.setattr(local, "steps", steps)


@pytest.mark.parametrize("kind", KINDS)
def test_a_recorded_round_of_every_kind_comes_out_bit_for_bit_and_a_skipped_step_does_not(
    room: Room, bench: jobs.Bench, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    prepare(kind, room, bench)
    train(kind, room, bench)
    for segment in range(3):
        found = replay(kind, room, bench, segment)
        assert (found["outcome"], found["distance"], found["step"]) == ("match", 0, None)
        assert len(found["proof"]) == 16
    with monkeypatch.context() as patched:
        skipping(patched)
        train(kind, room, bench)
    found = replay(kind, room, bench, 1)
    assert (found["outcome"], found["step"]) == ("mismatch", 4)
    assert found["step_distance"] > 3 * TOLERANCE / 10**6
    assert replay(kind, room, bench, 2)["outcome"] == "match"


def test_who_takes_several_units_of_work_is_run_again_with_as_many(
    room: Room, bench: jobs.Bench
) -> None:
    room.spec = SPEC.replace(b"batch = 4", b"batch = 4\nunits = 3")
    prepare("lm", room, bench)
    train("lm", room, bench, units=3)
    found = [replay("lm", room, bench, segment) for segment in range(3)]
    assert [one["outcome"] for one in found] == ["match"] * 3
    room.spec = SPEC.replace(b"batch = 4", b"batch = 4\nunits = 2")
    assert replay("lm", room, bench, 0)["outcome"] == "unfit"


@pytest.mark.parametrize("parts", [4, 64])
def test_who_speaks_of_a_part_is_run_again_in_every_segment_and_who_says_something_else_is_found(
    room: Room, bench: jobs.Bench, parts: int
) -> None:
    room.spec = SPEC + b"[update]\nparts = %d\n" % parts
    prepare("lm", room, bench)
    train("lm", room, bench)
    found = [replay("lm", room, bench, segment) for segment in range(3)]
    assert [(one["outcome"], one["distance"]) for one in found] == [("match", 0)] * 3
    said = room.folder / "u1"
    file = tensors.read(said, max_bytes=2**20)
    turned = {**file.tensors, "levels": np.array(file.tensors["levels"]) * 2}
    tensors.write(said, turned, file.metadata)
    found = [replay("lm", room, bench, segment) for segment in range(3)]
    assert [one["outcome"] for one in found] == ["match", "match", "mismatch"]


def test_samples_of_steps_are_those_that_each_unit_has_for_them() -> None:
    ids = list(range(24))  # three units of four steps of two
    assert assignment.of_steps(ids, 4, 2, 3, 0, 1) == [0, 1, 8, 9, 16, 17]
    assert assignment.of_steps(ids, 4, 2, 3, 3, 4) == [6, 7, 14, 15, 22, 23]
    assert assignment.of_steps(ids[:8], 4, 2, 1, 1, 3) == [2, 3, 4, 5]
    assert [assignment.units_of(count, 4, 2, 2) for count in (8, 16, 24, 12, 0)] == [
        1,
        2,
        None,
        None,
        None,
    ]

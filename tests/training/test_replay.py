from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from storage.importer import hash_path
from swarm.training import codec, jobs, local, recorder, tensors, transcript
from swarm.training.checkpoint import Checkpoint, Config
from swarm.training.errors import TranscriptError
from swarm.training.optimizers import Muon
from swarm.training.replay import FAR, PARTS, unsaid
from swarm.training.sizes import LmModel
from swarm.training.transcript import Transcript
from tests.training.conftest import BEACON, TASK

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.training.conftest import Room

BENCH = jobs.Bench(torch.device("cpu"), lambda *_: None)
EVERY = 2  # of six steps: three segments
TOLERANCE = 10_000
KEY = b"k" * 32


@pytest.fixture(autouse=True)
def repeatable() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


@pytest.fixture
def recorded(room: Room) -> Room:
    """A task whose first round one peer trained and recorded."""
    jobs.run(
        {
            "job": "initial",
            "spec": room.spec,
            "dataset": str(room.train),
            "out": str(room.folder / "v0"),
        },
        BENCH,
    )
    return room


def train(room: Room, round_: int = 1) -> Path:
    """Record a round; gives the folder."""
    fields = room.fields(round_)
    record = room.folder / f"record-{round_}"
    fields |= {"peer": "peer1", "dataset_root": "bafyd", "state": str(room.folder / "state")}
    fields |= {"out": str(room.folder / f"u{round_}"), "record": str(record), "every": EVERY}
    jobs.run({"job": "train", **fields}, BENCH)
    return record


def replay(room: Room, segment: int, round_: int = 1, **changes: Any) -> dict[str, Any]:
    """Run a segment again; with the trace, and a key for a proof."""
    record = room.folder / f"record-{round_}"
    fields = room.fields(round_) | {
        "peer": "peer1",
        "dataset_root": "bafyd",
        "update": str(room.folder / f"u{round_}"),
        "record": str(record / transcript.NAME),
        "segment": segment,
        "start": str(record / f"state-{segment:04d}.safetensors"),
        "end": str(record / f"state-{segment + 1:04d}.safetensors"),
        "every": EVERY,
        "tolerance": TOLERANCE,
        "trace": str(record / transcript.TRACE),
        "proof_key": KEY,
    }
    return jobs.run({"job": "replay", **fields, **changes}, BENCH)


def outcomes(room: Room, round_: int = 1) -> list[str]:
    return [replay(room, segment, round_)["outcome"] for segment in range(3)]


def test_honest_work_comes_out_bit_for_bit_in_every_segment_of_every_round(recorded: Room) -> None:
    for round_ in (1, 2):
        train(recorded, round_)
        found = [replay(recorded, segment, round_) for segment in range(3)]
        assert [one["outcome"] for one in found] == ["match"] * 3
        assert all(one["distance"] == 0 and one["same_machine"] for one in found)


def test_an_update_is_the_same_with_and_without_a_record(recorded: Room) -> None:
    train(recorded)
    fields = recorded.fields() | {"peer": "peer1", "dataset_root": "bafyd"}
    fields |= {"state": str(recorded.folder / "other"), "out": str(recorded.folder / "plain")}
    jobs.run({"job": "train", **fields}, BENCH)
    with_, without = (
        tensors.read(recorded.folder / name, max_bytes=2**20) for name in ("u1", "plain")
    )
    assert (with_.metadata["format"], without.metadata["format"]) == (
        "swarm-update-2",
        "swarm-update-1",
    )
    for name, item in without.tensors.items():
        assert item.tobytes() == with_.tensors[name].tobytes()


@pytest.mark.parametrize("cheat", ["skips a step", "another rate", "other data"])
def test_who_skips_a_step_or_takes_another_rate_or_other_data_is_told_apart(
    recorded: Room, monkeypatch: pytest.MonkeyPatch, cheat: str
) -> None:
    honest = local.steps

    def cheating(
        spec: Any,
        round_: int,
        model: Any,
        optimizers: Any,
        samples: Any,
        *rest: Any,
        **options: Any,
    ) -> Iterator[float]:
        if cheat == "another rate":
            optimizers._settings = replace(
                spec.train, learning_rate=0.011, muon_learning_rate=0.022
            )
        if cheat == "other data":
            samples = samples.copy()
            samples[8:16] = samples[:8]
        weights = [item.detach().clone() for item in model.parameters()]
        for at, loss in enumerate(
            honest(spec, round_, model, optimizers, samples, *rest, **options)
        ):
            if cheat == "skips a step" and at == 3:
                for item, old in zip(model.parameters(), weights, strict=True):
                    item.data.copy_(old)
            yield loss
            weights = [item.detach().clone() for item in model.parameters()]

    with monkeypatch.context() as patched:
        patched.setattr(local, "steps", cheating)
        train(recorded)
    found = outcomes(recorded)
    assert found[1] == "mismatch"
    if cheat != "another rate":  # the other segments are honest work
        assert [found[0], found[2]] == ["match", "match"]
    assert replay(recorded, 1)["distance"] > 3 * TOLERANCE / PARTS


def test_another_kernel_is_within_the_tolerance(recorded: Room) -> None:
    train(recorded)
    torch.set_num_threads(2)
    found = replay(recorded, 1)
    assert not found["same_machine"]
    assert found["outcome"] in ("match", "within")


def test_an_update_that_says_something_else_than_what_was_learnt_is_told_apart(
    recorded: Room,
) -> None:
    record = train(recorded)
    said = recorded.folder / "u1"
    file = tensors.read(said, max_bytes=2**20)
    turned = {**file.tensors, "signs": np.array(file.tensors["signs"])}
    turned["signs"][: len(turned["signs"]) // 2] ^= 0xFF
    tensors.write(said, turned, file.metadata)
    assert outcomes(recorded) == ["match", "match", "mismatch"]
    assert record.is_dir()


@pytest.mark.parametrize("parts", [1, 4, 64])  # more than some groups have values
def test_who_says_the_greatest_of_what_its_part_learnt_says_all_of_it(parts: int) -> None:
    shapes = {"a": (64, 80), "b": (3, 4), "c": (5,)}
    base = base_of({name: np.zeros(shape, np.float32) for name, shape in shapes.items()})
    chance = np.random.default_rng(parts)
    learnt = {name: chance.standard_normal(shape) for name, shape in shapes.items()}
    end = {f"weight.{name}": item.astype(np.float32) for name, item in learnt.items()}
    for part in range(min(parts, 5)):
        layout = codec.Layout(shapes, 1024, parts, part)
        groups = codec.gather({name: -item for name, item in learnt.items()}, layout)
        said = codec.compress(groups, layout)
        assert unsaid(base, end, said, layout) == 0
        for at, item in enumerate(said):
            for wrong in (replace(item, negative=~item.negative), replace(item, level=0.0)):
                found = unsaid(base, end, [*said[:at], wrong, *said[at + 1 :]], layout)
                assert found >= 1


def test_what_was_learnt_and_is_too_little_for_any_level_is_said_by_a_level_of_nothing() -> None:
    shapes = {"a": (8, 8)}
    base, layout = base_of({"a": np.zeros((8, 8), np.float32)}), codec.Layout(shapes, 1024)
    learnt = np.zeros((8, 8), np.float32)
    learnt[0, 0] = 1e-45  # the mean of the group's kept values is none of float32
    end = {"weight.a": learnt}
    said = codec.compress(codec.gather({"a": -learnt}, layout), layout)
    assert (said[0].level, unsaid(base, end, said, layout)) == (0, 0)
    assert unsaid(base, end, [replace(said[0], level=1e-3)], layout) == FAR


def test_what_was_learnt_without_an_end_is_said_by_nobody() -> None:
    shapes, endless = {"a": (8, 8)}, np.full((8, 8), 3e38, np.float32)
    layout = codec.Layout(shapes, 1024)
    said = codec.compress([endless.reshape(-1)], layout)
    with np.errstate(over="ignore"):
        assert unsaid(base_of({"a": -endless}), {"weight.a": endless}, said, layout) == FAR


def base_of(values: dict[str, np.ndarray]) -> Checkpoint:
    return Checkpoint(Config("lm", "x", 0, "bytes", LmModel()), values)


def test_a_state_that_is_none_of_the_model_ends_no_worker(recorded: Room) -> None:
    record = train(recorded)
    start = record / "state-0001.safetensors"
    whole = tensors.read(start, max_bytes=2**20)
    values = {name: np.array(item) for name, item in whole.tensors.items()}
    name = "weight.transformer.wte.weight"
    endless = {**values, name: np.full_like(values[name], np.nan)}
    counted = {**values, "adamw.count": np.array([-1])}
    lacking = {key: item for key, item in values.items() if key != name}
    for wrong in (endless, counted, lacking):
        tensors.write(start, wrong, {})
        assert replay(recorded, 1)["outcome"] == "unfit"
    shape = {"dtype": "F32", "shape": [0, 2**39, 2**39], "data_offsets": [0, 0]}
    text = json.dumps({name: shape}).encode()
    start.write_bytes(len(text).to_bytes(8, "little") + text)
    assert replay(recorded, 1)["outcome"] == "unfit"
    start.write_bytes(b"not a state")
    assert "recorded state" in replay(recorded, 1)["why"]


def test_a_record_of_another_round_or_cut_is_unfit(recorded: Room) -> None:
    train(recorded)
    train(recorded, 2)
    other = str(recorded.folder / "record-2" / transcript.NAME)
    assert replay(recorded, 1, record=other)["outcome"] == "unfit"
    assert replay(recorded, 1, every=3)["outcome"] == "unfit"
    assert replay(recorded, 1, beacon=b"x" * 32)["outcome"] == "unfit"


def test_a_transcript_names_its_files_and_its_root_changes_with_each_field(recorded: Room) -> None:
    record = train(recorded)
    made = Transcript.decode((record / transcript.NAME).read_bytes())
    assert (made.task, made.round, made.peer, made.beacon) == (TASK, 1, "peer1", BEACON)
    states = sorted(record.glob("state-*"))
    assert [hash_path(one).root for one in states] == [
        made.start,
        *(one.state for one in made.segments),
    ]
    update = codec.unpack(
        (recorded.folder / "u1").read_bytes(),
        codec.Expected("lm", codec.Layout(_shapes(recorded), 74), "bafyv0", TASK, 1),
    )
    assert update.about.record is not None
    assert update.about.record.transcript == made.root
    first, *others = made.segments
    changed = [
        replace(made, segments=(replace(first, loss=b"1234"), *others)),
        replace(made, segments=(replace(first, samples=b"s" * 32), *others)),
        replace(made, segments=(replace(first, state=made.start), *others)),
        replace(made, segments=(replace(first, link=b"l" * 32), *others)),
        replace(made, start=first.state),
        replace(made, peer="peer2"),
        replace(made, fingerprint=()),
    ]
    assert len({made.root, *(one.root for one in changed)}) == 1 + len(changed)


def _shapes(room: Room) -> dict[str, tuple[int, ...]]:
    file = tensors.read(room.folder / "v0" / "model.safetensors", max_bytes=2**20)
    return {name: item.shape for name, item in file.tensors.items()}


def test_a_strangers_transcript_is_read_within_bounds(recorded: Room) -> None:
    made = Transcript.decode((train(recorded) / transcript.NAME).read_bytes())
    wrong = [
        replace(made, steps=7),
        replace(made, every=0),
        replace(made, beacon=b"short"),
        replace(made, segments=made.segments[:-1]),
        replace(made, fingerprint=(("b", "1"), ("a", "2"))),
        replace(made, fingerprint=(("a", "x" * 300),)),
    ]
    for one in wrong:
        with pytest.raises(TranscriptError):
            Transcript.decode(one.encode())
    for data in (b"", b"\x80", made.encode() + b"\x00", b"\xff" * 100):
        with pytest.raises(TranscriptError):
            Transcript.decode(data)


def test_a_record_that_was_begun_and_not_finished_is_not_there(recorded: Room) -> None:
    record = train(recorded)
    before = sorted(path.name for path in record.iterdir())
    place = local.Place(TASK, 1, "peer1", BEACON, "bafyv0", "bafyd")
    spec = jobs.parse_spec(recorded.spec)
    half = recorder.Recorder(record, place, spec.train, EVERY, BENCH.device)
    model = torch.nn.Linear(2, 2)
    half.begin(model, _Still(), list(range(24)))
    assert sorted(path.name for path in record.iterdir()) == before
    assert record.with_name(record.name + ".part").is_dir()


class _Still:
    """An optimiser without a state."""

    def state(self) -> dict[str, torch.Tensor]:
        return Muon({}).state()


def test_no_round_has_more_segments_than_are_kept() -> None:
    for steps in (1, 10, 15, 1024, 10**5):
        every = transcript.length(steps, 10)
        assert every >= 10
        assert transcript.count(steps, every) <= transcript.MAX_SEGMENTS

from __future__ import annotations

import resource
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from swarm.training import checkpoint, codec, hf, jobs, local, tensors
from swarm.training.errors import WRONG_BASE, WRONG_SHAPES, TrainingError, UpdateError
from swarm.training.spec import parse_spec

if TYPE_CHECKING:
    from tests.training.conftest import Room

BENCH = jobs.Bench(torch.device("cpu"), lambda *_: None)
PARTED = b"[update]\nparts = 2\nfeedback = 0.5\nfeedback_end = 0.9\n"
STILL = b"learning_rate = 1e-7\nmuon_learning_rate = 1e-7"


def run(kind: str, **fields: Any) -> dict[str, Any]:
    return jobs.run({"job": kind, **fields}, BENCH)


def train(room: Room, peer: str, round_: int, base: str) -> Path:
    out = room.folder / f"u{round_}-{peer}"
    run(
        "train",
        **room.fields(round_, base),
        peer=peer,
        dataset_root="bafyd",
        state=str(room.folder / f"state-{peer}"),
        out=str(out),
        units=1,
    )
    return out


def merge(room: Room, round_: int, base: str, files: list[Path], out: str) -> None:
    run(
        "merge",
        **room.fields(round_, base),
        name="tiny",
        version=round_,
        updates=[str(file) for file in files],
        scores=[],
        out=str(room.folder / out),
    )


def expected(room: Room, round_: int, base: str) -> codec.Expected:
    before = checkpoint.load(room.folder / base)
    return jobs._expected(parse_spec(room.spec), room.fields(round_, base), before, None)


def values(room: Room, base: str) -> dict[str, np.ndarray]:
    return checkpoint.load(room.folder / base).tensors


def state(room: Room, peer: str, round_: int, kind: str) -> list[np.ndarray]:
    file = tensors.read(
        room.folder / f"state-{peer}" / f"round-{round_:010d}.safetensors", max_bytes=10**6
    )
    return [
        file.tensors[f"{kind}.{at}"] for at in range(sum(kind in name for name in file.tensors))
    ]


@pytest.fixture
def parted(room: Room) -> Room:
    room.spec += PARTED
    run("initial", spec=room.spec, dataset=str(room.train), out=str(room.folder / "v0"))
    return room


def test_what_the_agreed_weights_moved_its_way_is_taken_out_of_what_is_unsaid() -> None:
    error = np.array([3, 3, 3, -3, -3, 0, 2], np.float32)
    moved = np.array([1, 5, -1, -2, 2, 4, 0], np.float32)
    assert local.unheard(error, moved).tolist() == [2, 0, 3, -1, -3, 0, 2]


def test_the_feedback_goes_evenly_from_its_first_to_its_last(parted: Room) -> None:
    spec = parse_spec(parted.spec)
    found = [local.feedback(spec, round_) for round_ in range(1, spec.rounds + 1)]
    assert found[0] == 0.5
    np.testing.assert_allclose(np.diff(found), 0.4 / spec.rounds)
    assert local.feedback(parse_spec(parted.spec[: -len(PARTED)]), spec.rounds) == 0.8


def test_rounds_speak_of_the_parts_in_turn(parted: Room) -> None:
    for round_, base in ((1, "v0"), (2, "v1"), (3, "v2")):
        out = train(parted, "a", round_, base)
        merge(parted, round_, base, [out], f"v{round_}")
        layout = expected(parted, round_, base).layout
        old, new = (codec.gather(values(parted, at), layout) for at in (base, f"v{round_}"))
        for one, other in zip(old, new, strict=True):
            changed = np.flatnonzero(one != other)
            assert len(changed)
            assert (changed % 2 == (round_ - 1) % 2).all()


def test_an_update_of_another_rounds_part_is_refused(parted: Room) -> None:
    out = train(parted, "a", 1, "v0")
    wanted = expected(parted, 2, "v0")
    with pytest.raises(UpdateError) as caught:
        codec.read(out, wanted)
    assert caught.value.code == WRONG_BASE
    data = tensors.decode(out.read_bytes(), max_bytes=10**6)
    renamed = tensors.encode(data.tensors, {**data.metadata, "round": "2"})
    with pytest.raises(UpdateError) as caught:
        codec.unpack(renamed, wanted)
    assert caught.value.code == WRONG_SHAPES


def test_a_worker_keeps_its_place_where_others_have_come_to_it(parted: Room) -> None:
    files = [train(parted, peer, 1, "v0") for peer in "ab"]
    merge(parted, 1, "v0", files, "v1")
    left, before = state(parted, "a", 1, "feedback"), state(parted, "a", 1, "agreed")
    parted.spec = parted.spec.replace(b"learning_rate = 0.01", STILL)
    out = train(parted, "a", 2, "v1")
    wanted_of = expected(parted, 2, "v1")
    layout = wanted_of.layout
    now = codec.gather(values(parted, "v1"), layout)
    said = codec.read(out, wanted_of).groups
    share = np.float32(local.feedback(parse_spec(parted.spec), 2))
    heard = 0
    for group, old, new, error, kept, item in zip(
        layout.groups, before, now, left, state(parted, "a", 2, "feedback"), said, strict=True
    ):
        whole = kept.copy()
        group.part(whole)[item.positions] += np.where(item.negative, -item.level, item.level)
        wanted = share * local.unheard(error, old - new)
        np.testing.assert_allclose(whole, wanted, rtol=0, atol=1e-5)
        heard += int((np.abs(wanted - share * error) > 1e-4).sum())
    assert heard > 10


def test_a_round_whose_last_step_leaves_no_numbers_fails_and_leaves_no_update(room: Room) -> None:
    room.spec = (
        room.spec.replace(b"layers = 1", b"layers = 8")
        .replace(b"steps = 6", b"steps = 1")
        .replace(b"learning_rate = 0.01", b"learning_rate = 1.0\nmuon_learning_rate = 1.0")
    )
    run("initial", spec=room.spec, dataset=str(room.train), out=str(room.folder / "v0"))
    draw = np.random.default_rng(3)
    huge = {
        name: (draw.normal(size=item.shape) * 256).astype(np.float32)
        for name, item in values(room, "v0").items()
    }
    tensors.write(room.folder / "v0" / "model.safetensors", huge, hf.TENSOR_METADATA)
    with pytest.raises(TrainingError, match="a weight is no number after step 1 of 1"):
        train(room, "a", 1, "v0")
    assert not (room.folder / "u1-a").exists()
    assert not (room.folder / "state-a").exists()


def test_a_disk_that_is_full_is_not_filled_further_by_what_is_half_written(room: Room) -> None:
    run("initial", spec=room.spec, dataset=str(room.train), out=str(room.folder / "v0"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = {path for path in room.folder.rglob("*") if path.is_file()}
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**14, hard))  # the state has 30 kB
    try:
        with pytest.raises(OSError, match="large"):
            train(room, "a", 1, "v0")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {path for path in room.folder.rglob("*") if path.is_file()} == before


def test_what_a_killed_process_left_half_written_goes_with_the_next_round(room: Room) -> None:
    run("initial", spec=room.spec, dataset=str(room.train), out=str(room.folder / "v0"))
    state = room.folder / "state-a"
    state.mkdir()
    (state / "round-0000000001.safetensors.part").write_bytes(b"half")
    train(room, "a", 2, "v0")
    assert [path.name for path in state.iterdir()] == ["round-0000000002.safetensors"]


def test_nothing_that_another_release_left_is_part_of_a_merged_checkpoint(room: Room) -> None:
    run("initial", spec=room.spec, dataset=str(room.train), out=str(room.folder / "v0"))
    file = train(room, "a", 1, "v0")
    (room.folder / "v1").mkdir()
    (room.folder / "v1" / "old.json").write_bytes(b"{}")
    merge(room, 1, "v0", [file], "v1")
    assert not (room.folder / "v1" / "old.json").exists()

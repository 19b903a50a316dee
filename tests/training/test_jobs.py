from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from swarm.training import checkpoint, data, evaluator, jobs, mean, score, tensors
from swarm.training.errors import (
    DUPLICATE,
    MALFORMED,
    NOT_FOUND,
    NOT_OWN_DATA,
    REFUSED,
    WRONG_BASE,
    CheckpointError,
)
from swarm.training.sequential import Evidence

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.training.conftest import Room

BENCH = jobs.Bench(torch.device("cpu"), lambda *_: None)


@pytest.fixture(autouse=True)
def repeatable() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


def run(kind: str, **fields: Any) -> dict[str, Any]:
    return jobs.run({"job": kind, **fields}, BENCH)


def initial(room: Room, name: str = "v0") -> Path:
    run("initial", spec=room.spec, dataset=str(room.train), out=str(room.folder / name))
    return room.folder / name


def train(
    room: Room, peer: str, round_: int = 1, base: str = "v0", state: str = "", units: int = 1
) -> dict[str, Any]:
    return run(
        "train",
        **room.fields(round_, base),
        peer=peer,
        dataset_root="bafyd",
        state=str(room.folder / f"state-{state or peer}"),
        out=str(room.folder / f"u{round_}-{peer}"),
        units=units,
    )


def updates(room: Room, *peers: str, round_: int = 1) -> list[str]:
    return [str(room.folder / f"u{round_}-{peer}") for peer in peers]


def merge(room: Room, files: list[str], out: str, **more: Any) -> int:
    fields = {"name": "tiny", "version": 1, "updates": files, "scores": [], **more}
    return run("merge", **room.fields(), **fields, out=str(room.folder / out))["loss"]


def content(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_fresh_weights_are_the_same_bytes_on_every_machine(room: Room) -> None:
    first = initial(room)
    assert content(first) == content(initial(room, "again"))
    assert content(first)["model.safetensors"][:16] == "1c9033a8b7e13414"


def test_training_improves_and_its_update_merges_to_a_better_checkpoint(room: Room) -> None:
    initial(room)
    before = run(
        "evaluate",
        spec=room.spec,
        checkpoint=str(room.folder / "v0"),
        pool=str(room.pool),
        limit=None,
    )
    for peer in ("a", "b"):
        result = train(room, peer)
        assert result["loss_last"] < result["loss_first"]
        assert result["bytes"] == Path(updates(room, peer)[0]).stat().st_size
    scored = run("score", **room.fields(), updates=updates(room, "a", "b"), peers=["a", "b"])
    assert min(scored["scores"]) > 0
    merge(room, updates(room, "a", "b"), "v1")
    after = run(
        "evaluate",
        spec=room.spec,
        checkpoint=str(room.folder / "v1"),
        pool=str(room.pool),
        limit=None,
    )
    assert after["loss"] < before["loss"]
    assert checkpoint.load_config(room.folder / "v1").version == 1


def test_a_round_done_again_gives_the_same_update(room: Room) -> None:
    initial(room)
    first = train(room, "a")
    data = Path(updates(room, "a")[0]).read_bytes()
    assert {**train(room, "a"), "seconds": 0} == {**first, "seconds": 0}
    assert Path(updates(room, "a")[0]).read_bytes() == data
    # The same with the state of an earlier round in place, although this round's own state was written too.
    train(room, "a", round_=2)
    data = Path(updates(room, "a", round_=2)[0]).read_bytes()
    train(room, "a", round_=2)
    assert Path(updates(room, "a", round_=2)[0]).read_bytes() == data
    train(room, "a", round_=2, state="none")
    assert Path(updates(room, "a", round_=2)[0]).read_bytes() != data


def test_what_an_update_says_is_taken_out_of_the_error_that_is_fed_back(room: Room) -> None:
    initial(room)
    train(room, "a")
    state = tensors.read(room.folder / "state-a" / "round-0000000001.safetensors", max_bytes=10**6)
    base = checkpoint.load(room.folder / "v0")
    expected = jobs._expected(jobs.parse_spec(room.spec), room.fields(), base, None)
    sent = jobs.codec.read(Path(updates(room, "a")[0]), expected)
    for at, item in enumerate(sent.groups):
        # The level is the mean magnitude, so that along the signs nothing is left.
        left = state.tensors[f"feedback.{at}"][item.positions]
        assert abs(np.where(item.negative, -left, left).mean()) < 1e-3 * item.level


def test_a_peer_starts_a_round_from_all_that_it_has_learnt_not_only_from_what_was_agreed(
    room: Room,
) -> None:
    initial(room)
    train(room, "a")
    fresh = train(room, "a", round_=2, state="none")
    assert train(room, "a", round_=2)["loss_first"] < fresh["loss_first"]


@pytest.mark.parametrize("round_", [2, 4])
def test_what_was_not_said_fades_with_every_round_also_with_a_missed_one(
    room: Room, round_: int
) -> None:
    initial(room)
    train(room, "a")
    still = b"learning_rate = 1e-7\nmuon_learning_rate = 1e-7"
    room.spec = room.spec.replace(b"learning_rate = 0.01", still)
    train(room, "a", round_=round_)
    base = checkpoint.load(room.folder / "v0")
    expected = jobs._expected(jobs.parse_spec(room.spec), room.fields(round_), base, None)
    sent = jobs.codec.read(Path(updates(room, "a", round_=round_)[0]), expected)
    kept = {
        at: tensors.read(
            room.folder / "state-a" / f"round-{at:010d}.safetensors", max_bytes=10**6
        ).tensors
        for at in (1, round_)
    }
    for at, item in enumerate(sent.groups):
        whole = kept[round_][f"feedback.{at}"].copy()
        whole[item.positions] += np.where(item.negative, -item.level, item.level)
        wanted = kept[1][f"feedback.{at}"] * 0.8 ** (round_ - 1)
        np.testing.assert_allclose(whole, wanted, rtol=0, atol=1e-5)


def test_scores_agree_across_thread_counts(room: Room) -> None:
    initial(room)
    train(room, "a")
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append(run("score", **room.fields(), updates=updates(room, "a"), peers=[]))
    assert abs(found[0]["scores"][0] - found[1]["scores"][0]) <= 1
    assert abs(found[0]["base_loss"] - found[1]["base_loss"]) <= 1


def test_a_refused_update_says_why_and_leaves_the_other_scores_alone(room: Room) -> None:
    initial(room)
    train(room, "a")
    train(room, "b", round_=2)
    (room.folder / "bad").write_bytes(b"no tensors")
    good, late = updates(room, "a")[0], updates(room, "b", round_=2)[0]
    files = [None, str(room.folder / "bad"), late, good]
    alone = run("score", **room.fields(), updates=[good], peers=[])
    scored = run("score", **room.fields(), updates=files, peers=[])
    refused = [REFUSED - code for code in (NOT_FOUND, MALFORMED, WRONG_BASE)]
    assert scored["scores"] == [*refused, alone["scores"][0]]


def test_an_update_with_flipped_signs_scores_below_zero(room: Room) -> None:
    initial(room)
    train(room, "a")
    path = Path(updates(room, "a")[0])
    file = tensors.decode(path.read_bytes(), max_bytes=10**6)
    signs = np.unpackbits(file.tensors["signs"])
    base = checkpoint.load(room.folder / "v0")
    signs[: jobs.codec.Layout(base.shapes, 74).total] ^= 1
    tensors.write(path, {**file.tensors, "signs": np.packbits(signs)}, file.metadata)
    assert run("score", **room.fields(), updates=[str(path)], peers=[])["scores"][0] < 0


def test_a_round_of_more_units_is_scored_and_merged_like_any(room: Room) -> None:
    room.spec = room.spec.replace(b"batch = 4", b"batch = 4\nunits = 3")
    initial(room)
    for peer, asked, samples in (("a", 1, 24), ("b", 2, 48), ("c", 8, 72)):
        assert train(room, peer, units=asked)["samples"] == samples
    scored = run("score", **room.fields(), updates=updates(room, "a", "b", "c"), peers=[])
    assert min(scored["scores"]) > 0
    assert merge(room, updates(room, "a", "b", "c"), "v1") < scored["base_loss"]


def test_evidence_of_a_round_is_kept_in_its_file(room: Room) -> None:
    room.spec = room.spec.replace(b"sequences = 8", b"sequences = 64")
    initial(room)
    for peer in ("a", "b"):
        train(room, peer)
    path = room.folder / "evidence"
    job = {**room.fields(), "updates": updates(room, "a", "b"), "peers": ["a", "b"]}
    asked = {"start_beacon": b"B" * 32, "dataset_root": "bafyd", "evidence": str(path)}
    first = run("score", **job, **asked)
    kept = Evidence.read(path, job["task"])
    assert set(kept._known) == {"a", "b"}
    assert run("score", **job, **asked) == first
    assert Evidence.read(path, job["task"])._known == kept._known


def test_a_copy_in_another_name_is_refused_and_the_earlier_commit_is_not(room: Room) -> None:
    initial(room)
    for peer in ("a", "b"):
        train(room, peer)
    file = tensors.read(Path(updates(room, "a")[0]), max_bytes=10**6)
    tensors.write(room.folder / "u1-c", file.tensors, {**file.metadata, "peer": "c"})
    peers = ["c", "a", "b"]
    job = {**room.fields(), "updates": updates(room, *peers), "peers": peers}
    alone = run("score", **job)["scores"]
    assert run("score", **job, order=[2, 0, 1])["scores"] == [REFUSED - DUPLICATE, *alone[1:]]
    assert run("score", **job, order=[0, 2, 1])["scores"][:2] == [alone[0], REFUSED - DUPLICATE]


@pytest.mark.parametrize("threads", [1, 2])
def test_who_gains_no_more_on_its_own_samples_than_on_others_is_refused(
    room: Room, threads: int
) -> None:
    initial(room)
    peers = ["a", "b", "c"]
    for peer in peers:
        train(room, peer)
    torch.set_num_threads(threads)
    spec = jobs.parse_spec(room.spec)
    base = checkpoint.load(room.folder / "v0")
    seen = data.TextData(room.train, 16)
    # What they worked on is text, what the score shows of the dataset is not: only b's own samples are such too.
    text, junk = seen.samples(range(16)), np.full((16, 17), 200, np.uint8)
    found = score.score(
        spec,
        base,
        np.concatenate([text[:4], junk[:3], junk[:1] + 1]),
        [Path(name) for name in updates(room, *peers)],
        [jobs._expected(spec, room.fields(), base, peer) for peer in peers],
        torch.device("cpu"),
        lambda *_: None,
        own=[text, np.concatenate([junk, junk[:2] + 1]), text],
        evidence=Evidence(usual=[(0, 5000)]),
    )[1]
    assert found[1] == REFUSED - NOT_OWN_DATA
    assert min(found[0], found[2]) > 0


def test_own_samples_are_looked_at_only_by_scores_of_enough_sequences(room: Room) -> None:
    initial(room)
    train(room, "a")
    job = {**room.fields(), "peers": ["a"], "dataset_root": "bafyd", "start_beacon": b"S" * 32}
    seen = data.TextData(room.train, 16)
    assert jobs._own(jobs.parse_spec(room.spec), job, seen) == []
    many = jobs.parse_spec(room.spec.replace(b"sequences = 8", b"sequences = 64"))
    (own,) = jobs._own(many, job, seen)
    assert own.shape == (24, 17)
    assert jobs._own(many, {**job, "start_beacon": b""}, seen) == []


def test_every_merger_writes_the_same_folder(room: Room) -> None:
    initial(room)
    for peer in ("a", "b", "c"):
        train(room, peer)
    files = updates(room, "a", "b", "c")
    merge(room, files, "v1")
    torch.set_num_threads(2)
    merge(room, files, "again")
    assert content(room.folder / "v1") == content(room.folder / "again")
    merge(room, files[::-1], "reversed")
    assert (
        content(room.folder / "reversed")["model.safetensors"]
        == content(room.folder / "v1")["model.safetensors"]
    )


def test_a_lower_bound_needs_an_improvement_that_is_not_noise() -> None:
    before = np.full(8, 2.0)
    after = before - np.array([0.3, -0.2] * 4)
    assert score.lower_bound(before, after, 0.0) > 0 > score.lower_bound(before, after, 1.64)
    assert score.units(float("nan")) < -(10**9)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("layers", 10**9),
        ("layers", 200),
        ("heads", 3),
        ("width", "16"),
        ("code", "x"),
        ("vocabulary", 10**12),
    ],
)
def test_a_config_of_a_peer_that_asks_for_too_much_is_refused(
    room: Room, key: str, value: object
) -> None:
    folder = initial(room)
    config = json.loads((folder / "config.json").read_bytes())
    config["swarm"]["model"][key] = value
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError):
        run(
            "sample", checkpoint=str(folder), prompt="", out=None, length=1, temperature=0.0, seed=0
        )


def test_a_sample_depends_on_nothing_but_checkpoint_prompt_and_seed(room: Room) -> None:
    folder = str(initial(room))
    ask = {"checkpoint": folder, "prompt": "the", "out": None, "length": 9, "temperature": 1.0}
    assert (
        run("sample", **ask, seed=1) == run("sample", **ask, seed=1) != run("sample", **ask, seed=2)
    )


GAN = b"""
[task]
name = "tiny"
kind = "gan"
rounds = 2
budget = "1"
[data]
dataset = "train"
pool = "pool"
[model]
base = 4
latent = 4
[train]
steps = 40
batch = 16
learning_rate = 0.002
ema = 0.8
[population]
spread = 1.0
critic_steps = 1
[score]
sequences = 128
"""


def two_pairs(room: Room, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The first checkpoint of a gan that draws bars, and a round's work of two peers beside it."""
    monkeypatch.setattr(evaluator, "STEPS", 80)
    room.spec = GAN
    chance = np.random.default_rng(1)
    for folder in (room.train, room.pool):
        bars = np.zeros((200, 8, 8), np.uint8)
        for image in bars:
            top, left = chance.integers(0, 5, 2)
            image[top : top + 3, left : left + 4] = chance.integers(100, 256)
        np.save(folder / "images.npy", bars)
    base = initial(room)
    for peer in ("a", "b"):
        train(room, peer)
    return base


@pytest.mark.slow
def test_a_pair_is_trained_scored_and_its_winner_is_the_next_checkpoint(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = two_pairs(room, monkeypatch)
    files = [*updates(room, "a", "b"), None]
    scored = run("score", **room.fields(), updates=files, peers=[])
    assert scored == run("score", **room.fields(), updates=files, peers=[])
    assert min(scored["scores"][:2]) > 0
    assert scored["scores"][2] == REFUSED - NOT_FOUND
    best = max((0, 1), key=lambda at: scored["scores"][at])
    agreed = merge(room, files[:2], "v1", scores=scored["scores"][:2])
    assert merge(room, files[:2], "own") == agreed
    assert merge(room, [files[best]], "alone") == agreed < scored["base_loss"]
    assert (
        content(room.folder / "v1")
        == content(room.folder / "alone")
        == content(room.folder / "own")
    )
    assert (
        content(room.folder / "v1")["evaluator.safetensors"]
        == content(base)["evaluator.safetensors"]
    )
    grid = room.folder / "grid.png"
    run("sample", checkpoint=str(base), prompt="", out=str(grid), length=0, temperature=1.0, seed=0)
    assert grid.read_bytes()[:4] == b"\x89PNG"


@pytest.mark.slow
def test_where_the_mean_is_taken_a_pair_is_scored_on_the_way_and_all_pairs_are_in_the_next_checkpoint(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = checkpoint.load(two_pairs(room, monkeypatch)).tensors
    files, parts, pairs = updates(room, "a", "b"), [], []
    for path in files:
        packed = tensors.decode(Path(path).read_bytes(), max_bytes=2**24)
        pairs.append(packed.tensors)
        part = {
            name: item + np.float32(0.25) * (packed.tensors[name] - item)
            for name, item in base.items()
        }
        parts.append(f"{path}-part")
        Path(parts[-1]).write_bytes(tensors.encode(part, packed.metadata))
    alone = run("score", **room.fields(), updates=parts, peers=[])
    room.spec = GAN.replace(b"[population]", b"[population]\nmerge = 'mean'")
    assert run("score", **room.fields(), updates=files, peers=[]) == alone
    merge(room, files, "v1", scores=alone["scores"])
    merge(room, files[::-1], "turned", scores=alone["scores"][::-1])
    merged = checkpoint.load(room.folder / "v1").tensors
    wanted = mean.mean(base, pairs)
    assert all(item.tobytes() == wanted[name].tobytes() for name, item in merged.items())
    weights = "model.safetensors"
    assert content(room.folder / "v1")[weights] == content(room.folder / "turned")[weights]


def test_the_distance_of_a_distribution_to_itself_is_zero_and_grows_with_a_shift() -> None:
    random = np.random.default_rng(0)
    values = random.normal(size=(500, 5))
    mean, covariance = values.mean(0), np.cov(values, rowvar=False)
    assert abs(evaluator.frechet(mean, covariance, mean, covariance)) < 1e-9
    assert evaluator.frechet(mean + 2, covariance, mean, covariance) == pytest.approx(20)
    assert evaluator.frechet(mean, 4 * covariance, mean, covariance) == pytest.approx(
        np.trace(covariance)
    )

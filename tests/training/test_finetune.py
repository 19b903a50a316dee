"""Final layers on a frozen base: split from a published model, trained on kept or published encodings, put together."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from storage.unixfs import hash_path
from swarm.training import bases, checkpoint, encodings, finetune, jobs, models, shards, tensors
from swarm.training.drawers import Drawers
from swarm.training.errors import DataError, SpecError
from swarm.training.sizes import FinetuneModel, parameters
from swarm.training.spec import parse_spec, with_base, write_spec
from tests.training.conftest import TASK, Room, text
from tests.training.test_hf import SHAPES, write_checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi"
SPEC = b"""
[task]
name = "tuned"
kind = "finetune"
rounds = 4
budget = "1"
[data]
dataset = "train"
pool = "pool"
[model]
base = "tiny@3"
trained_blocks = 1
context = 16
[train]
steps = 6
batch = 4
learning_rate = 0.01
muon_learning_rate = 0.02
[score]
sequences = 8
"""


@pytest.fixture(autouse=True)
def repeatable() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


@pytest.fixture
def bench(tmp_path: Path) -> jobs.Bench:
    encoders = finetune.Encoders(Drawers(tmp_path / "drawers"))
    return jobs.Bench(torch.device("cpu"), lambda *_: None, encoders=encoders)


def prepare(room: Room, shape: str, bench: jobs.Bench, spec: bytes = SPEC) -> None:
    """Write a base, complete the task with it, and write its first checkpoint."""
    write_checkpoint(room.folder / "base", shape)
    start = str(room.folder / "base")
    found = jobs.run({"job": "base", "spec": spec, "start": start}, bench)
    model = dataclasses.replace(FinetuneModel(**found["model"]), base=ROOT)
    assert found["over_bytes"]
    room.spec = write_spec(with_base(parse_spec(spec), model, "bytes"))
    fields = {"spec": room.spec, "dataset": str(room.train), "start": start}
    jobs.run({"job": "initial", **fields, "out": str(room.folder / "v0")}, bench)


def train(room: Room, bench: jobs.Bench, peer: str = "a", round_: int = 1) -> dict[str, Any]:
    fields = {**room.fields(round_), "peer": peer, "dataset_root": "bafyd"}
    fields |= {"state": str(room.folder / f"s-{peer}"), "out": str(room.folder / f"u-{peer}")}
    return jobs.run({"job": "train", **fields}, bench)


def merge(room: Room, bench: jobs.Bench, peers: list[str]) -> Path:
    files = [str(room.folder / f"u-{peer}") for peer in peers]
    fields = {"name": "tuned", "version": 1, "updates": files, "scores": []}
    out = room.folder / "v1"
    jobs.run({"job": "merge", **room.fields(), **fields, "out": str(out)}, bench)
    return out


def evaluate(room: Room, bench: jobs.Bench, name: str) -> int:
    fields = {"spec": room.spec, "pool": str(room.pool), "limit": None}
    return jobs.run({"job": "evaluate", **fields, "checkpoint": str(room.folder / name)}, bench)[
        "loss"
    ]


@pytest.mark.parametrize("shape", SHAPES)
def test_front_and_tail_together_are_the_base(room: Room, bench: jobs.Bench, shape: str) -> None:
    prepare(room, shape, bench)
    base = checkpoint.load(room.folder / "base")
    first = checkpoint.load(room.folder / "v0")
    sizes = parse_spec(room.spec).finetune
    whole = models.fill(models.build(base.config.model), base.tensors, bench.device)
    tail = models.fill(models.build(sizes), first.tensors, bench.device)
    front = bench.encoders.of(room.folder / "v0", sizes, bench.device).front
    tokens = torch.tensor([[*range(30, 46)]])
    with torch.inference_mode():
        found = finetune.Whole(front, tail)(tokens)
        np.testing.assert_allclose(found, whole(tokens), rtol=0, atol=1e-5)
    assert sum(item.size for item in first.tensors.values()) == parameters(sizes)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_round_improves_the_tail_and_leaves_the_front_as_it_was(
    room: Room, bench: jobs.Bench, shape: str
) -> None:
    prepare(room, shape, bench)
    before = evaluate(room, bench, "v0")
    for peer in ("a", "b"):
        result = train(room, bench, peer)
        assert result["loss_last"] < result["loss_first"]
        assert result["parameters"] == parameters(parse_spec(room.spec).model)
    updates = [str(room.folder / f"u-{peer}") for peer in ("a", "b")]
    scored = jobs.run(
        {"job": "score", **room.fields(), "updates": updates, "peers": ["a", "b"]}, bench
    )
    assert min(scored["scores"]) > 0
    after = merge(room, bench, ["a", "b"])
    assert evaluate(room, bench, "v1") < before
    frozen = [(room.folder / name / shards.name(1, 2)).read_bytes() for name in ("v0", "v1")]
    assert frozen[0] == frozen[1]
    assert checkpoint.load_config(after).version == 1


def test_the_frozen_file_shares_the_chunks_of_the_base_and_every_tensor_is_in_the_index(
    room: Room, bench: jobs.Bench
) -> None:
    prepare(room, "gpt", bench)
    folder = room.folder / "v0"
    places = json.loads((folder / checkpoint.INDEX).read_bytes())["weight_map"]
    files = {
        name: tensors.read(folder / name, max_bytes=2**30).tensors
        for name in (shards.name(1, 2), shards.name(2, 2))
    }
    assert {name: file for file, held in files.items() for name in held} == places
    base = checkpoint.load(room.folder / "base").tensors
    for name, item in files[shards.name(1, 2)].items():
        assert item.tobytes() == base[name].tobytes()
    assert set(places) == {*base, "lm_head.weight"}
    assert json.loads((folder / "config.json").read_bytes())["tie_word_embeddings"] is False
    assert hash_path(folder).root  # a folder that can be published


def test_an_encoding_that_was_made_is_read_by_the_next_process(
    room: Room, bench: jobs.Bench
) -> None:
    prepare(room, "gpt", bench)
    spec, base = parse_spec(room.spec), checkpoint.load(room.folder / "v0")

    def made(ids: list[int]) -> int:
        kept = finetune.Encoders(Drawers(room.folder / "drawers"))
        one = dataclasses.replace(bench, encoders=kept)
        seen = jobs.sources.of(spec, base, "dataset", str(room.train), one)
        assert isinstance(seen, encodings.EncodedText)
        seen.samples(ids)
        return seen.made

    assert made([5, 1, 5]) == 2
    assert made([1, 2, 5]) == 1
    # The same place with other text in it is made again: the tokens stand in the record.
    for path in room.train.iterdir():
        path.write_bytes(text(9, 200))
    assert made([1, 2, 5]) > 0


def test_training_and_scoring_read_the_same_encodings(room: Room, bench: jobs.Bench) -> None:
    prepare(room, "gpt", bench)
    spec, base = parse_spec(room.spec), checkpoint.load(room.folder / "v0")
    seen = jobs.sources.of(spec, base, "dataset", str(room.train), bench)
    once, again = seen.samples([3, 1]), seen.samples([1, 3])
    assert once[0] == again[1]
    assert once.dtype == again.dtype == encodings.record(16, 16)


def published(room: Room, bench: jobs.Bench) -> None:
    """A task of which the dataset and the pool are encodings."""
    prepare(
        room,
        "gpt",
        bench,
        SPEC.replace(b'pool = "pool"', b'pool = "pool"\nencodings = "published"'),
    )
    for name in ("train", "pool"):
        fields = {"spec": room.spec, "start": str(room.folder / "base"), "name": "dataset"}
        fields |= {"dataset": str(room.folder / name), "out": str(room.folder / f"{name}-encoded")}
        assert jobs.run({"job": "encode", **fields}, bench)["samples"] > 0
    for name in ("train", "pool"):
        (room.folder / name).rename(room.folder / f"{name}-text")
        (room.folder / f"{name}-encoded").rename(room.folder / name)


def test_published_encodings_train_as_those_that_a_peer_makes(
    room: Room, bench: jobs.Bench
) -> None:
    prepare(room, "gpt", bench)
    plain = train(room, bench)
    published(room, bench)
    found = train(room, bench)
    assert found["loss_last"] == plain["loss_last"]
    merge(room, bench, ["a"])
    fields = {"spec": room.spec, "dataset": str(room.train), "pool": str(room.pool)}
    checked = jobs.run(
        {"job": "check", **fields, "tokenizer": None, "start": str(room.folder / "base")}, bench
    )
    assert checked["bytes_per_token"] == 1.0


@pytest.mark.parametrize("lie", ["other layers", "larger scales", "what is kept apart"])
def test_a_wrong_encoder_is_found_by_encoding_one_in_a_hundred_again(
    room: Room, bench: jobs.Bench, lie: str
) -> None:
    published(room, bench)
    (path,) = room.train.glob("*.records")
    records = np.fromfile(path, encodings.record(16, 16))
    if lie == "other layers":
        records["levels"] = np.roll(records["levels"], 1, axis=2)
    elif lie == "larger scales":
        records["scales"] *= 3
    else:
        records["values"] *= 0.5
    records.tofile(path)
    with pytest.raises(DataError, match="is not the encoding of its tokens"):
        train(room, bench)
    jobs_fields = {**room.fields(), "updates": [], "peers": []}
    with pytest.raises(DataError, match="is not the encoding of its tokens"):
        jobs.run({"job": "score", **jobs_fields}, bench)
    fields = {"spec": room.spec, "dataset": str(room.train), "pool": str(room.pool)}
    with pytest.raises(SpecError, match="is not the encoding") as caught:
        jobs.run(
            {"job": "check", **fields, "tokenizer": None, "start": str(room.folder / "base")},
            bench,
        )
    assert caught.value.field == "data.dataset"


def test_a_lie_in_a_few_records_is_found_within_some_rounds(room: Room, bench: jobs.Bench) -> None:
    published(room, bench)
    (path,) = room.train.glob("*.records")
    records = np.fromfile(path, encodings.record(16, 16))
    records["levels"][: len(records) // 5] *= -1
    records.tofile(path)
    spec = parse_spec(room.spec)
    found = encodings.PublishedEncodings(room.train, spec.finetune)
    encoder = bench.encoders.of(room.folder / "v0", spec.finetune, bench.device)
    caught = 0
    for round_ in range(20):
        try:
            encodings.check(found, encoder, [TASK, round_], "data.dataset", lambda: None)
        except DataError:
            caught += 1
    assert 0 < caught < 20


def test_a_greater_dimension_does_not_take_the_levels_of_the_others() -> None:
    states = np.random.default_rng(1).standard_normal((8, 200)).astype(np.float32)
    states[:, 17] *= 1000
    record = np.zeros(1, encodings.record(200, 8))
    encodings.encode(states, record[0])
    found = encodings.decode(record)[0]
    assert np.abs(found - states).max() < 0.02
    np.testing.assert_array_equal(found[:, 17], states[:, 17])
    assert encodings.off_share(record[0], states) == 0


def test_a_slot_that_is_torn_or_damaged_is_made_again(tmp_path: Path) -> None:
    kind = encodings.record(16, 8)
    drawer = Drawers(tmp_path).open("a" * 64, kind)
    assert drawer is not None
    record = np.zeros(1, kind)[0]
    record["scales"] = 2
    drawer.put(3, record)
    assert drawer.get(2) is None
    assert drawer.get(3) == record
    (path,) = tmp_path.iterdir()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert drawer.get(3) is None
    path.write_bytes(data[:-5])
    assert drawer.get(3) is None


def test_drawers_keep_to_their_limit_and_give_up_the_oldest_first(tmp_path: Path) -> None:
    kind = encodings.record(512, 8)
    drawers = Drawers(tmp_path, limit=200 * kind.itemsize)
    record = np.zeros(1, kind)[0]
    record["scales"] = 1
    for key in ("a", "b"):
        drawer = drawers.open(key * 64, kind)
        assert drawer is not None
        for at in range(1000):
            drawer.put(at, record)
        room = drawers.used
        assert room < 200 * kind.itemsize + 65 * 2 * (kind.itemsize + 4096)
    assert [path.name[0] for path in tmp_path.iterdir()] == ["b"]


def half(item: np.ndarray) -> np.ndarray:
    return (np.ascontiguousarray(item).view(np.uint32) >> 16).astype("<u2")


def test_a_base_of_bfloat16_keeps_its_bytes_and_one_without_the_prefix_gets_it(
    room: Room, bench: jobs.Bench
) -> None:
    write_checkpoint(room.folder / "base", "gpt")
    values = checkpoint.load(room.folder / "base").tensors
    short = {name.removeprefix("transformer."): half(item) for name, item in values.items()}
    short["h.0.attn.bias"] = np.ones((1, 1, 24, 24), np.float32)
    (room.folder / "base" / "model.safetensors").unlink()
    tensors.write(room.folder / "base" / "model-00001.safetensors", short, {"format": "pt"})
    asked = FinetuneModel("base", 1, context=16)
    sizes = bases.sizes_of(room.folder / "base", asked)
    frozen, trained = finetune.split(room.folder / "base", sizes)
    assert frozen["transformer.wte.weight"].dtype == np.dtype("<u2")
    assert frozen["transformer.wte.weight"].tobytes() == short["wte.weight"].tobytes()
    np.testing.assert_allclose(
        trained["lm_head.weight"], values["transformer.wte.weight"], rtol=0.01
    )


def refused(folder: Path, **asked: int) -> SpecError:
    with pytest.raises(SpecError) as caught:
        finetune.split(
            folder, bases.sizes_of(folder, FinetuneModel("base", **{"trained_blocks": 1, **asked}))
        )
    return caught.value


def test_a_base_that_cannot_be_trained_so_is_refused_with_its_field(tmp_path: Path) -> None:
    folder = tmp_path / "base"
    assert "is no folder of a model" in str(refused(folder))
    write_checkpoint(folder, "llama")
    assert refused(folder, trained_blocks=3).field == "model.trained_blocks"
    assert refused(folder, context=25).field == "model.context"
    plain = json.loads((folder / "config.json").read_bytes())
    for change, why in (
        ({"model_type": "bert"}, "is of type 'bert'"),
        ({"rope_scaling": {"rope_type": "llama3"}}, "rotary"),
        ({"attention_bias": True}, "attention_bias"),
        ({"head_dim": 5}, "head_dim"),
        ({"hidden_size": 32, "head_dim": 8}, "has to hold model.embed_tokens.weight"),
        ({"num_hidden_layers": 3}, "has to hold model.layers.2"),
        ({"vocab_size": -1}, "vocab_size"),
        (
            {
                "hidden_size": 2**14,
                "intermediate_size": 2**16,
                "head_dim": None,
                "num_hidden_layers": 200,
            },
            "parameters",
        ),
    ):
        (folder / "config.json").write_text(json.dumps({**plain, **change}))
        assert why in str(refused(folder)), change
    (folder / "config.json").write_text(json.dumps(plain))
    (folder / "model.safetensors").write_bytes(b"\xff" * 64)
    assert "its header has" in str(refused(folder))


def test_a_sample_continues_a_prompt_with_the_whole_model(room: Room, bench: jobs.Bench) -> None:
    prepare(room, "llama", bench)
    fields = {"checkpoint": str(room.folder / "v0"), "prompt": "the ", "out": None}
    found = jobs.run({"job": "sample", **fields, "length": 8, "temperature": 0.0, "seed": 1}, bench)
    plain = jobs.run(
        {
            "job": "sample",
            **fields,
            "checkpoint": str(room.folder / "base"),
            "length": 8,
            "temperature": 0.0,
            "seed": 1,
        },
        bench,
    )
    assert found == plain


def test_a_file_of_the_base_that_another_front_wrote_is_refused(
    room: Room, bench: jobs.Bench
) -> None:
    prepare(room, "gpt", bench)
    values = tensors.read(room.folder / "v0" / shards.name(1, 2), max_bytes=2**30).tensors
    fewer = dict(list(values.items())[1:])
    tensors.write(room.folder / "v0" / shards.name(1, 2), fewer, {})
    with pytest.raises(checkpoint.CheckpointError, match="frozen part"):
        train(room, bench)


def test_a_pool_without_a_sample_is_refused_with_its_field(room: Room, bench: jobs.Bench) -> None:
    prepare(room, "gpt", bench)
    for path in room.pool.iterdir():
        path.write_bytes(text(1, 1))
    fields = {"spec": room.spec, "dataset": str(room.train), "pool": str(room.pool)}
    with pytest.raises(SpecError, match="fewer than one sample") as caught:
        jobs.run(
            {"job": "check", **fields, "tokenizer": None, "start": str(room.folder / "base")},
            bench,
        )
    assert caught.value.field == "data.pool"

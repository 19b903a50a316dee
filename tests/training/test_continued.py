"""Language models that go on from a published one, in one file or in shards, and models that are written in shards."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from swarm.training import bases, checkpoint, finetune, hf, jobs, models, shards, tensors
from swarm.training.errors import CheckpointError, SpecError
from swarm.training.sizes import LmModel, parameters
from swarm.training.spec import check_model, parse_spec, with_base, write_spec
from tests.training.conftest import Room
from tests.training.test_finetune import ROOT, bench, evaluate, merge, prepare, repeatable, train
from tests.training.test_hf import SHAPES, weights, write_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["bench", "repeatable"]  # fixtures
SPEC = b"""
[task]
name = "further"
kind = "lm"
rounds = 4
budget = "1"
[data]
dataset = "train"
pool = "pool"
[model]
base = "tiny@3"
context = 16
[train]
steps = 6
batch = 4
learning_rate = 0.01
[score]
sequences = 8
"""
UNTIED = dataclasses.replace(SHAPES["llama"], tied=False, base=ROOT, reads=24, rotary=500.0)


def write_base(folder: Path, sizes: LmModel) -> None:
    """A folder as it is published: the library's config, and tensors of bfloat16."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_bytes(hf.text(hf.config(sizes)))
    (folder / "tokenizer.json").write_bytes(hf.byte_tokenizer())
    halves = {
        name: (np.ascontiguousarray(item, np.float32).view(np.uint32) >> 16).astype("<u2")
        for name, item in weights(sizes).items()
    }
    tensors.write(folder / "model.safetensors", halves, {})


def begin(room: Room, bench: jobs.Bench) -> LmModel:
    start = str(room.folder / "base")
    found = jobs.run({"job": "base", "spec": SPEC, "start": start}, bench)
    model = dataclasses.replace(LmModel(**found["model"]), base=ROOT)
    room.spec = write_spec(with_base(parse_spec(SPEC), model, "bytes"))
    fields = {"spec": room.spec, "dataset": str(room.train), "start": start}
    checked = jobs.run({"job": "check", **fields, "pool": str(room.pool), "tokenizer": None}, bench)
    assert checked["parameters"] == parameters(model)
    jobs.run({"job": "initial", **fields, "out": str(room.folder / "v0")}, bench)
    return model


@pytest.mark.parametrize("sizes", [SHAPES["gpt"], UNTIED], ids=["gpt", "untied-llama"])
def test_a_task_goes_on_from_a_published_model_with_all_of_its_weights(
    room: Room, bench: jobs.Bench, sizes: LmModel
) -> None:
    write_base(room.folder / "base", sizes)
    model = begin(room, bench)
    assert (model.tied, model.rope_base, model.positions) == (sizes.tied, sizes.rope_base, 24)
    assert parse_spec(room.spec).model == model
    first = checkpoint.load(room.folder / "v0")
    published = bases.weights(room.folder / "base", model)
    for name, item in first.tensors.items():
        np.testing.assert_array_equal(item, bases.as_float(published[name]))
    assert first.tensors.keys() == published.keys() - (
        set() if "lm_head.weight" in first.tensors else {"lm_head.weight"}
    )
    before = evaluate(room, bench, "v0")
    for peer in ("a", "b"):
        train(room, bench, peer)
    merge(room, bench, ["a", "b"])
    assert evaluate(room, bench, "v1") < before
    said = json.loads((room.folder / "v1" / "config.json").read_bytes())
    assert said["tie_word_embeddings"] is sizes.tied


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_model_that_went_on_is_still_one_that_transformers_loads(
    room: Room, bench: jobs.Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    transformers = pytest.importorskip("transformers")
    write_base(room.folder / "base", UNTIED)
    begin(room, bench)
    monkeypatch.setattr(shards, "MAX_SHARD_BYTES", 4096)
    out = room.folder / "sharded"
    loaded = checkpoint.load(room.folder / "v0")
    checkpoint.write(out, loaded.config, loaded.tensors, "a card\n")
    assert not (out / "model.safetensors").exists()
    theirs = transformers.AutoModelForCausalLM.from_pretrained(out, local_files_only=True)
    module = models.fill(models.build(loaded.config.model), loaded.tensors, bench.device)
    ids = torch.tensor([[*range(40, 60)]])
    with torch.inference_mode():
        np.testing.assert_allclose(theirs(ids).logits, module(ids), rtol=0, atol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_large_model_is_written_in_shards_and_read_as_one(
    tmp_path: Path, shape: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_checkpoint(tmp_path / "one", shape)
    monkeypatch.setattr(shards, "MAX_SHARD_BYTES", 6_000)
    write_checkpoint(tmp_path / "many", shape)
    files = sorted(path.name for path in (tmp_path / "many").glob("*.safetensors"))
    count = len(files)
    assert count > 2
    assert files == [shards.name(number, count) for number in range(1, count + 1)]
    one, many = (checkpoint.load(tmp_path / name) for name in ("one", "many"))
    assert one.tensors.keys() == many.tensors.keys()
    for name, item in one.tensors.items():
        np.testing.assert_array_equal(many.tensors[name], item)
    for file in files:
        held = tensors.read(tmp_path / "many" / file, max_bytes=2**30).tensors
        assert len(held) == 1 or sum(item.nbytes for item in held.values()) <= 6_000
    (tmp_path / "many" / files[1]).unlink()
    with pytest.raises(CheckpointError, match=files[1]):
        checkpoint.load(tmp_path / "many")


def test_a_finetune_in_shards_gives_the_same_rounds_and_keeps_its_frozen_files(
    room: Room, bench: jobs.Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(room, "gpt", bench)
    train(room, bench)
    plain = checkpoint.load(merge(room, bench, ["a"])).tensors
    monkeypatch.setattr(shards, "MAX_SHARD_BYTES", 6_000)
    out = room.folder / "v0"
    for path in out.glob("model*"):
        path.unlink()
    fields = {"spec": room.spec, "dataset": str(room.train), "start": str(room.folder / "base")}
    jobs.run({"job": "initial", **fields, "out": str(out)}, bench)
    frozen = checkpoint.frozen_files(out)
    assert len(frozen) > 1
    result = train(room, bench, "b")
    after = merge(room, bench, ["b"])
    assert result["loss_last"] < result["loss_first"]
    for path in frozen:
        assert (after / path.name).read_bytes() == path.read_bytes()
    assert checkpoint.load(after).shapes == {name: item.shape for name, item in plain.items()}
    jobs.run(
        {
            "job": "sample",
            "checkpoint": str(after),
            "prompt": "a",
            "out": None,
            "length": 3,
            "temperature": 0.0,
            "seed": 1,
        },
        bench,
    )


def test_a_sharded_base_is_read_by_its_index_and_a_lie_in_it_is_named(
    room: Room, bench: jobs.Bench
) -> None:
    base = room.folder / "base"
    write_base(base, SHAPES["gpt"])
    held = tensors.read(base / "model.safetensors", max_bytes=2**30, types=tensors.WIDE).tensors
    (base / "model.safetensors").unlink()
    names = sorted(held)
    parts = [
        (shards.name(number, 3), {name: held[name] for name in names[number - 1 :: 3]})
        for number in (1, 2, 3)
    ]
    for file, some in parts:
        tensors.write(base / file, some, {})
    (base / "model-old.safetensors").write_bytes(b"not a part of it")
    made: Any = shards.index(parts)
    (base / shards.INDEX).write_text(json.dumps(made))
    model = begin(room, bench)
    whole = finetune.whole(base, model, models.build(model))
    assert whole.keys() == held.keys()
    for wrong in ("../escaped.safetensors", "/etc/passwd", 7):
        made["weight_map"][names[0]] = wrong
        (base / shards.INDEX).write_text(json.dumps(made))
        with pytest.raises(SpecError, match="no file beside it") as caught:
            bases.weights(base, model)
        assert caught.value.field == "model.base"
    made["weight_map"][names[0]] = shards.name(9, 9)
    (base / shards.INDEX).write_text(json.dumps(made))
    with pytest.raises(SpecError, match=r"which its .* names"):
        bases.weights(base, model)
    made["weight_map"][names[0]] = parts[1][0]
    (base / shards.INDEX).write_text(json.dumps(made))
    with pytest.raises(SpecError, match="puts it"):
        bases.weights(base, model)


def test_a_task_without_a_base_is_spelled_as_before_there_were_any() -> None:
    plain = parse_spec(SPEC.replace(b'base = "tiny@3"\n', b""))
    assert b"tied" not in write_spec(plain)
    assert (
        "reads"
        not in checkpoint._as_json(checkpoint.Config("lm", "x", 0, "bytes", plain.model))["swarm"][
            "model"
        ]
    )
    based = check_model("lm", {"base": ROOT, "context": 0}, "base")
    assert not based.layers


@pytest.mark.parametrize("kind", ["lm", "finetune"])
def test_a_base_that_is_not_looked_at_yet_has_no_sizes_to_count(kind: str) -> None:
    """A shape without heads would divide by nothing."""
    entries = {"base": ROOT, "shape": "llama"}
    entries |= {"trained_blocks": 1} if kind == "finetune" else {}
    assert check_model(kind, entries, "base").base == ROOT

"""What is refused where a task is posted, before anybody pays, and what those that are posted are fetched as."""

from __future__ import annotations

import json
import random
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from swarm.errors import UsageError
from swarm.training import checkpoint, models, shards, tensors
from swarm.training.sizes import LmModel
from tests.process.cluster import Cluster
from tests.training import test_classifier, test_hf
from tests.training.test_images import bomb

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

HEAD = """
[task]
name = "{name}"
kind = "{kind}"
rounds = 1
budget = "5"
[data]
dataset = "{dataset}"
pool = "{pool}"
{data}
[phases]
train = 100000
"""
TRANSFORMERS_WARN = "ignore::DeprecationWarning"
TEXT = "it was the best of times, 7 times 7 is 49\n"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    started = Cluster(tmp_path_factory.mktemp("door"), count=1)
    try:
        make_data(started.folder)
        yield started
    finally:
        started.end()


def make_data(folder: Path) -> None:
    for name, seed in (("text", 1), ("held", 2)):
        (folder / name).mkdir()
        draw = random.Random(seed)
        lines = [f"{draw.random()} times {draw.random()} is not {seed}\n" for _ in range(400)]
        (folder / name / "a.txt").write_text("".join(lines))
    (folder / "empty").mkdir()
    (folder / "empty" / "README.md").write_text("nothing but a card\n")
    (folder / "few").mkdir()
    (folder / "few" / "a.txt").write_text("short")
    for name, seed in (("pictures", 1), ("others", 2)):
        test_classifier.idx(folder / name, *test_classifier.shapes(seed, 90))
    shutil.copytree(folder / "others", folder / "bombed")
    (folder / "bombed" / "0").mkdir()
    (folder / "bombed" / "0" / "x.png").write_bytes(bomb(2**13, 2**13))


def spec(name: str, kind: str = "lm", model: str = "", **data: str) -> str:
    fields = {"dataset": "text", "pool": "held", "data": ""} | data
    return HEAD.format(name=name, kind=kind, **fields) + f"[model]\n{model}\n"


def post(cluster: Cluster, text: str) -> dict[str, Any]:
    return cluster.nodes[0].ask(lambda client: client.post_task(text, cluster.folder))


def refused(cluster: Cluster, text: str) -> str:
    """Why a task is not posted; its budget is paid by the transaction that posts it, and there may be none."""
    node = cluster.nodes[0]
    before = node.ask(lambda client: len(client.tasks()))
    with pytest.raises(UsageError) as caught:
        post(cluster, text)
    assert node.ask(lambda client: len(client.tasks())) == before
    assert caught.value.exit_code == 2
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "field", "why"),
    [
        (spec("no-samples", dataset="empty"), "data.dataset", "holds no files"),
        (spec("short", dataset="few"), "data.dataset", "fewer than one sample"),
        (spec("no-pool", pool="empty"), "data.pool", "holds no files"),
        (spec("short-pool", pool="few"), "data.pool", "fewer than one sample"),
        (
            spec("huge", model="layers = 200\nwidth = 16384\nhidden = 65536\nheads = 64"),
            "model",
            "parameters, at most 2,000,000,000",
        ),
        (spec("missing", dataset="nowhere"), "data.dataset", "neither a CID nor a path"),
        (
            spec(
                "bomb",
                "classifier",
                "classes = 3\nsize = 8\nwidth = 8",
                dataset="pictures",
                pool="bombed",
            ),
            "data.pool",
            "x.png asks for 8,192 x 8,192 pixels",
        ),
        (
            spec("images-of-text", "gan", dataset="text", pool="held"),
            "data.dataset",
            "holds no images",
        ),
        (
            spec("no-labels", "classifier", "classes = 3", dataset="text"),
            "data.dataset",
            "holds no images with labels",
        ),
    ],
    ids=lambda one: one.split('"')[1] if one.startswith("\n") else "",
)
def test_a_task_that_cannot_be_trained_is_refused_before_it_is_paid_for(
    cluster: Cluster, text: str, field: str, why: str
) -> None:
    said = refused(cluster, text)
    assert f"{field}: " in said
    assert why in said


def base(folder: Path, shape: str = "gpt") -> Path:
    if not folder.exists():
        test_hf.write_checkpoint(folder, shape)
    return folder


@pytest.mark.parametrize("kind", ["lm", "finetune"])
def test_a_base_that_lies_is_refused_before_it_is_paid_for(cluster: Cluster, kind: str) -> None:
    model = 'base = "lying"\ncontext = 16'
    model += "\ntrained_blocks = 1" if kind == "finetune" else ""
    text = spec(f"lies-{kind}", kind, model)
    folder = cluster.folder / "lying"
    honest = base(cluster.folder / "honest")

    def told(change: Any) -> str:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(honest, folder)
        change(folder)
        said = refused(cluster, text)
        assert "model.base: " in said
        return said

    def header(place: Path) -> None:
        """A header of which the first tensor claims a million times what is there."""
        path = place / "model.safetensors"
        data = path.read_bytes()
        size = int.from_bytes(data[:8], "little")
        about = json.loads(data[8 : 8 + size])
        first = next(name for name in about if name != "__metadata__")
        about[first]["shape"][0] *= 10**6
        made = json.dumps(about).encode()
        path.write_bytes(len(made).to_bytes(8, "little") + made + data[8 + size :])

    def config(place: Path, **values: Any) -> None:
        path = place / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    def values(place: Path) -> None:
        """A weight that is no number."""
        path = place / "model.safetensors"
        held = tensors.read(path, max_bytes=2**30).tensors
        held["transformer.h.1.ln_1.weight"] = np.full(16, np.nan, np.float32)
        tensors.write(path, held, {})

    def index(place: Path) -> None:
        """Shards of which the index puts a tensor where it is not."""
        held = tensors.read(place / "model.safetensors", max_bytes=2**30).tensors
        (place / "model.safetensors").unlink()
        names = sorted(held)
        parts = []
        for number, some in enumerate((names[::2], names[1::2]), 1):
            parts.append((shards.name(number, 2), {one: held[one] for one in some}))
            tensors.write(place / parts[-1][0], parts[-1][1], {})
        made: Any = shards.index(parts)
        made["weight_map"][names[0]] = parts[1][0]
        (place / shards.INDEX).write_text(json.dumps(made))

    assert "malformed entry" in told(header)
    assert "10000000000000" in told(lambda place: config(place, n_embd=10**13))
    assert "has to hold" in told(lambda place: config(place, n_layer=3))
    assert "not done here" in told(lambda place: config(place, activation_function="relu"))
    assert "not finite" in told(values)
    assert f"its {shards.INDEX} puts it" in told(index)
    assert "no folder of a model" in told(lambda place: (place / "config.json").unlink())


def test_a_config_of_too_many_parameters_is_refused_by_arithmetic(cluster: Cluster) -> None:
    """Each size within its bounds, 10^13 parameters together; nothing is built."""
    folder = cluster.folder / "wide"
    shutil.copytree(base(cluster.folder / "honest"), folder)
    path = folder / "config.json"
    sizes = {"n_layer": 200, "n_embd": 16384, "n_head": 64, "n_inner": 65536}
    sizes |= {"vocab_size": 2**18, "n_positions": 2**20}
    path.write_text(json.dumps(json.loads(path.read_text()) | sizes))
    said = refused(cluster, spec("wide", "lm", 'base = "wide"'))
    assert "parameters, at most 2,000,000,000" in said


def test_a_tokenizer_that_does_not_fit_is_refused_before_it_is_paid_for(cluster: Cluster) -> None:
    path = cluster.folder / "tokenizer.json"
    path.write_bytes((base(cluster.folder / "honest") / "tokenizer.json").read_bytes())
    line = 'tokenizer = "tokenizer.json"'
    said = refused(cluster, spec("tokens", "lm", "vocabulary = 300", data=line))
    assert "model.vocabulary: is 300, and the tokenizer has 256 tokens" in said
    path.write_text(json.dumps({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a b"]}}))
    assert "tokenizer" in refused(cluster, spec("tokens", data=line))
    small = LmModel(layers=1, heads=2, width=16, context=16, kv_heads=2, hidden=32, vocabulary=200)
    values = models.initial(models.build(small), 1)
    config = checkpoint.Config("lm", "small", 0, "bytes", small)
    checkpoint.write(cluster.folder / "small", config, values, "a card\n")
    said = refused(cluster, spec("small", "lm", 'base = "small"'))
    assert "data.tokenizer: " in said


SHAPES = {
    "gpt": "layers = 2\nheads = 2\nwidth = 16\ncontext = 24",
    "llama": 'shape = "llama"\nlayers = 2\nheads = 4\nkv_heads = 2\nwidth = 16\ncontext = 24',
}


@pytest.mark.filterwarnings(TRANSFORMERS_WARN)
@pytest.mark.parametrize("shape", SHAPES)
def test_what_fetch_writes_is_loaded_by_transformers_and_computes_the_same(
    cluster: Cluster, shape: str
) -> None:
    transformers = pytest.importorskip("transformers")
    import torch

    name = f"loaded-{shape}"
    post(cluster, spec(name, model=SHAPES[shape]))
    place = cluster.folder / name
    fetched = cluster.nodes[0].ask(lambda client: client.fetch(name, 0, place))
    assert not fetched["card"]  # it has its own
    theirs = transformers.AutoModelForCausalLM.from_pretrained(place, local_files_only=True)
    assert type(theirs).__name__ == {"gpt": "GPT2LMHeadModel", "llama": "LlamaForCausalLM"}[shape]
    tokenizer = transformers.AutoTokenizer.from_pretrained(place, local_files_only=True)
    ids = tokenizer("times 7")["input_ids"]
    assert ids == list(b"times 7")
    assert tokenizer.decode(ids) == "times 7"
    loaded = checkpoint.load(place)
    ours = models.fill(models.build(loaded.config.model), loaded.tensors, torch.device("cpu"))
    with torch.inference_mode():
        found = theirs(torch.tensor([ids])).logits
        np.testing.assert_allclose(found, ours(torch.tensor([ids])), rtol=0, atol=1e-4)

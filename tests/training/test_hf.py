"""A checkpoint folder is one that `transformers` loads; what that library made of two of them is pinned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from tokenizers import Tokenizer as Library

from swarm.training import checkpoint, hf, models, philox
from swarm.training.errors import CheckpointError, SpecError
from swarm.training.sizes import LmModel, parameters
from swarm.training.spec import parse_spec

VECTORS = Path(__file__).parents[1] / "vectors" / "transformers.json"
SHAPES = {
    "gpt": LmModel(layers=2, heads=2, width=16, context=24, kv_heads=2, hidden=40),
    "llama": LmModel(layers=2, heads=4, width=16, context=24, shape="llama", kv_heads=2, hidden=40),
}
PROMPT = [*range(7, 251, 13)]
TEXT = "héllo \n\t wörld 漢字 <|endoftext|>  x"


def weights(sizes: LmModel) -> dict[str, np.ndarray]:
    """Weights of which every one matters, biases and norms too."""
    module = models.build(sizes)
    return {
        name: philox.uniform(at + 1, tuple(item.shape), 0.3)
        + (item.ndim == 1 and not name.endswith("bias"))
        for at, (name, item) in enumerate(sorted(module.state_dict().items()))
    }


def write_checkpoint(folder: Path, shape: str) -> None:
    sizes = SHAPES[shape]
    config = checkpoint.Config("lm", "tiny", 3, "bytes", sizes)
    values = {name: item.astype(np.float32) for name, item in weights(sizes).items()}
    checkpoint.write(folder, config, values, "a card\n")


@pytest.fixture(params=SHAPES)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    write_checkpoint(tmp_path / "v3", request.param)
    return request.param, tmp_path / "v3"


def pinned(shape: str) -> dict[str, Any]:
    return json.loads(VECTORS.read_bytes())[shape]


def test_our_logits_are_those_of_transformers(case: tuple[str, Path]) -> None:
    shape, folder = case
    loaded = checkpoint.load(folder)
    model = models.fill(models.build(loaded.config.model), loaded.tensors, torch.device("cpu"))
    with torch.inference_mode():
        logits = model(torch.tensor([PROMPT]))[0, -1].numpy()
    np.testing.assert_allclose(logits, pinned(shape)["logits"], rtol=0, atol=1e-4)


def test_tensors_and_architecture_are_named_as_transformers_names_them(
    case: tuple[str, Path],
) -> None:
    shape, folder = case
    values = safetensors.numpy.load_file(folder / "model.safetensors")
    assert {name: list(item.shape) for name, item in values.items()} == pinned(shape)["tensors"]
    config = json.loads((folder / "config.json").read_bytes())
    assert config["architectures"] == [pinned(shape)["class"]]
    with safetensors.safe_open(folder / "model.safetensors", "np") as file:
        assert file.metadata() == {"format": "pt"}


def test_the_count_of_parameters_needs_no_model(case: tuple[str, Path]) -> None:
    shape, folder = case
    held = sum(item.size for item in checkpoint.load(folder).tensors.values())
    assert parameters(SHAPES[shape]) == held


def test_bytes_are_tokens_in_the_tokenizer_of_a_checkpoint_over_bytes(
    case: tuple[str, Path],
) -> None:
    shape, folder = case
    library = Library.from_file(str(folder / "tokenizer.json"))
    assert library.encode(TEXT).ids == list(TEXT.encode()) == pinned(shape)["ids"]
    assert library.decode(list(TEXT.encode())) == TEXT == pinned(shape)["text"]
    assert library.get_vocab_size() == 256


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("n_embd", 8),
        ("auto_map", {"AutoModelForCausalLM": "evil.Model"}),
        ("activation_function", "relu"),
    ],
)
def test_a_config_that_tells_transformers_something_else_is_refused(
    tmp_path: Path, key: str, value: object
) -> None:
    write_checkpoint(tmp_path, "gpt")
    config = json.loads((tmp_path / "config.json").read_bytes())
    config[key] = value
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="something else"):
        checkpoint.load(tmp_path)


def spec(model: str) -> bytes:
    head = '[task]\nname = "t"\nkind = "lm"\nrounds = 1\nbudget = "1"\n'
    return f'{head}[data]\ndataset = "d"\npool = "p"\n[model]\n{model}\n'.encode()


def test_the_width_of_a_perceptron_follows_the_shape_unless_it_is_given() -> None:
    assert parse_spec(spec("width = 64")).lm.hidden == 256
    assert parse_spec(spec('width = 64\nshape = "llama"')).lm.hidden == 176
    assert parse_spec(spec('width = 64\nshape = "llama"\nhidden = 72')).lm.hidden == 72


@pytest.mark.parametrize(
    ("field", "model"),
    [
        ("model.shape", 'shape = "bert"'),
        ("model.kv_heads", "kv_heads = 2"),
        ("model.kv_heads", 'shape = "llama"\nkv_heads = 3'),
        ("model.width", 'shape = "llama"\nwidth = 12\nheads = 4'),
    ],
)
def test_a_shape_that_cannot_be_is_refused_with_its_field(field: str, model: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_spec(spec(model))
    assert caught.value.field == field


def test_no_position_of_a_llama_sees_a_later_one() -> None:
    sizes = SHAPES["llama"]
    model = models.fill(models.build(sizes), weights(sizes), torch.device("cpu"))
    with torch.inference_mode():
        whole, changed = (model(torch.tensor([[*PROMPT[:8], last]])) for last in (1, 2))
    torch.testing.assert_close(whole[0, :8], changed[0, :8])
    assert hf.config(sizes)["num_key_value_heads"] == 2

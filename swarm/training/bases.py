"""Published base models: folders that `transformers` loads, ours or anybody's, of the shapes GPT-2 and Llama.

A base comes from a stranger: its config is read for the keys below and refused where it asks for anything that our
decoders do not do; its tensors are held against its config, and keep their bytes and types.
"""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from swarm.training import shards, sizes, tensors
from swarm.training.errors import SpecError, TensorFileError
from swarm.training.sizes import Decoder, FinetuneModel, LmModel
from swarm.training.spec import check_model

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from swarm.training.tensors import Array

CONFIG: Final = "config.json"
TOKENIZER: Final = "tokenizer.json"
MAX_CONFIG_BYTES: Final = 2**18
MAX_FILE_BYTES: Final = 2**34
USUAL_CONTEXT: Final = 1024
"""Tokens of a sample at most, where the task does not say."""
FIELD: Final = "model.base"
HEAD: Final = "lm_head.weight"
BUFFERS: Final = (".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq")
"""Ends of names that old files have beside the weights."""


def sizes_of(folder: Path, asked: Decoder) -> Decoder:
    """A base's sizes, with what the task asks of it.

    Args:
        folder: The base.
        asked: Names the base, the context where the task says one, and of a finetune the trained blocks.

    Raises:
        SpecError: It is no base that can be trained so; it names the field.
    """
    config = _config(folder)
    kind = config.get("model_type")
    read = _READERS.get(kind) if isinstance(kind, str) else None
    if read is None:
        raise _refused(
            why=f"is of type {kind!r}; those that can be trained are {', '.join(_READERS)}"
        )
    found = read(config)
    positions = found["positions"]
    context = asked.context or min(positions, USUAL_CONTEXT)
    if not 8 <= context <= positions:
        raise SpecError(
            field="model.context",
            why=f"is {context:,}; a sample has 8 to the {positions:,} tokens that the base reads",
        )
    if isinstance(asked, FinetuneModel) and asked.trained_blocks > found["layers"]:
        raise SpecError(
            field="model.trained_blocks",
            why=f"is {asked.trained_blocks}, and the base has {found['layers']} blocks",
        )
    if isinstance(asked, LmModel):
        found = {_OF_LM.get(name, name): value for name, value in found.items()}
        found["tied"] = _flag(config, "tie_word_embeddings", default=kind == "gpt2")
    whole = dataclasses.replace(asked, context=context, **found)
    check_model("lm" if isinstance(asked, LmModel) else "finetune", sizes.entries(whole), "base")
    return whole


def is_over_bytes(folder: Path) -> bool:
    """Whether a base of ours has bytes for tokens."""
    ours = _config(folder).get("swarm")
    return isinstance(ours, dict) and ours.get("tokenizer") == "bytes"


def weights(folder: Path, sizes: Decoder) -> dict[str, Array]:
    """All tensors of a base as they are stored, views of its files; the head is there even where it is tied.

    Raises:
        SpecError: A tensor is missing, of another shape or type, or a file is malformed.
    """
    found: dict[str, Array] = {}
    try:
        files = shards.files(folder)
    except TensorFileError as error:
        raise _refused(why=str(error)) from error
    for path, due in files:
        try:
            file = tensors.read(path, max_bytes=MAX_FILE_BYTES, types=tensors.WIDE)
        except TensorFileError as error:
            raise _refused(why=f"{path.name} {error}") from error
        if missing := (due or set()) - file.tensors.keys():
            wrong = min(missing)[:80]
            raise _refused(why=f"has no {wrong} in {path.name}, where its {shards.INDEX} puts it")
        for name, item in file.tensors.items():
            if not name.endswith(BUFFERS):
                found[_named(name, sizes)] = item
    embeddings = "transformer.wte.weight" if sizes.shape == "gpt" else "model.embed_tokens.weight"
    if embeddings in found:
        found.setdefault(HEAD, found[embeddings])
    return found


def take(found: Mapping[str, Array], wanted: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
    """Those of a base's tensors that a part of it has.

    Raises:
        SpecError: One is missing, or of another shape or type.
    """
    taken = {}
    for name, shape in wanted.items():
        item = found.get(name)
        if item is None or item.shape != shape or item.dtype not in _FLOATS:
            held = "it has none" if item is None else f"it has {item.dtype} of {item.shape}"
            raise _refused(why=f"has to hold {name} of {shape}, and {held}")
        taken[name] = item
    return taken


def floats(taken: Mapping[str, Array]) -> dict[str, Array]:
    """Stored tensors as float32.

    Raises:
        SpecError: One holds a value that is not finite.
    """
    found = {}
    for name, item in taken.items():
        found[name] = as_float(item)
        if not np.isfinite(found[name]).all():
            raise _refused(why=f"holds a value in {name} that is not finite")
    return found


def as_float(item: Array) -> Array:
    """A stored tensor as float32."""
    if item.dtype == np.dtype("<u2"):  # bfloat16: the upper half of a float32
        return (item.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return item.astype(np.float32)


_FLOATS: Final = (np.dtype("<f4"), np.dtype("<f2"), np.dtype("<u2"))


_OF_LM: Final = {"positions": "reads", "norm_epsilon": "epsilon", "rope_base": "rotary"}
"""What a base's sizes are called in a task of kind lm."""


def _named(name: str, sizes: Decoder) -> str:
    """GPT-2's first files leave out what stands before every name."""
    prefix = "transformer." if sizes.shape == "gpt" else "model."
    return name if name.startswith((prefix, "lm_head.")) else prefix + name


def _config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise _refused(why=f"has a {CONFIG} of more than {MAX_CONFIG_BYTES:,} bytes")
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise _refused(
            why=f"is no folder of a model: {CONFIG} cannot be read: {error.strerror}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise _refused(why=f"has a {CONFIG} that is not JSON: {str(error)[:200]}") from error
    if not isinstance(value, dict):
        raise _refused(why=f"has a {CONFIG} that is no object")
    return value


def _gpt2(config: dict[str, Any]) -> dict[str, Any]:
    _must(config, "activation_function", ("gelu_new", "gelu_pytorch_tanh"), "gelu_new")
    _must(config, "scale_attn_weights", (True,), True)
    for key in (
        "scale_attn_by_inverse_layer_idx",
        "reorder_and_upcast_attn",
        "add_cross_attention",
    ):
        _must(config, key, (False,), False)
    heads, width = _whole(config, "n_head", 256), _whole(config, "n_embd", 2**14)
    return {
        "shape": "gpt",
        "layers": _whole(config, "n_layer", 200),
        "heads": heads,
        "kv_heads": heads,
        "width": width,
        "hidden": _whole(config, "n_inner", 2**16, 4 * width),
        "positions": _whole(config, "n_positions", 2**20),
        "vocabulary": _whole(config, "vocab_size", 2**18),
        "norm_epsilon": _number(config, "layer_norm_epsilon", 1e-5),
    }


def _llama(config: dict[str, Any]) -> dict[str, Any]:
    _must(config, "hidden_act", ("silu",), "silu")
    for key in ("attention_bias", "mlp_bias"):
        _must(config, key, (False,), False)
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(rope, dict) or rope.get("rope_type", rope.get("type", "default")) not in (
        "default",
        None,
    ):
        raise _refused(why="scales its rotary positions, which is not done here")
    heads, width = (
        _whole(config, "num_attention_heads", 256),
        _whole(config, "hidden_size", 2**14),
    )
    _must(config, "head_dim", (None, width // heads), None)
    return {
        "shape": "llama",
        "layers": _whole(config, "num_hidden_layers", 200),
        "heads": heads,
        "kv_heads": _whole(config, "num_key_value_heads", 256, heads),
        "width": width,
        "hidden": _whole(config, "intermediate_size", 2**16),
        "positions": _whole(config, "max_position_embeddings", 2**20),
        "vocabulary": _whole(config, "vocab_size", 2**18),
        "norm_epsilon": _number(config, "rms_norm_eps", 1e-6),
        "rope_base": _number({**config, **rope}, "rope_theta", 10_000.0),
    }


_READERS: Final[dict[str, Callable[[dict[str, Any]], dict[str, Any]]]] = {
    "gpt2": _gpt2,
    "llama": _llama,
}


def _whole(config: dict[str, Any], key: str, high: int, default: int | None = None) -> int:
    value = config.get(key)
    if value is None:
        value = default
    if type(value) is not int or not 1 <= value <= high:
        raise _refused(
            why=f"has {key} = {str(value)[:40]} in its {CONFIG}; 1 to {high:,} are allowed"
        )
    return value


def _number(config: dict[str, Any], key: str, default: float) -> float:
    value = config.get(key, default)
    if type(value) not in (int, float) or not 1e-12 <= value <= 1e9:
        raise _refused(why=f"has {key} = {str(value)[:40]} in its {CONFIG}")
    return float(value)


def _flag(config: dict[str, Any], key: str, *, default: bool) -> bool:
    value = config.get(key, default)
    if not isinstance(value, bool):
        raise _refused(why=f"has {key} = {str(value)[:40]} in its {CONFIG}")
    return value


def _must(config: dict[str, Any], key: str, allowed: tuple[Any, ...], default: Any) -> None:  # noqa: ANN401 - JSON gives anything
    value = config.get(key, default)
    if value not in allowed:
        raise _refused(why=f"has {key} = {str(value)[:40]}, which is not done here")


def _refused(why: str) -> SpecError:
    return SpecError(FIELD, why)

"""The models that a task may name: the entries of its table `[model]`, by the kind of task.

The same check reads what a task's author says and what a checkpoint of a peer says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from swarm.training import sizes
from swarm.training.errors import SpecError
from swarm.training.sizes import (
    BYTE_VALUES,
    ClassifierModel,
    Decoder,
    FinetuneModel,
    GanModel,
    LmModel,
    Model,
)
from swarm.training.tables import Table

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_PARAMETERS = 2 * 10**9
MAX_VOCABULARY = 2**17
BYTES, NONE, OF_BASE = "bytes", "none", "base"
"""The tokenizers that are no published file: of kind lm, of kinds without text, and of a finetune before it is posted."""
MAX_CLASSES = 10_000
MAX_LABELS = 8192
"""Characters of a classifier's labels in all."""
SHAPES = ("gpt", "llama")

Kind: TypeAlias = Literal["lm", "gan", "finetune", "classifier"]
KINDS: tuple[Kind, ...] = get_args(Kind)


def check_model(kind: Kind, entries: Any, tokenizer: str) -> Model:  # noqa: ANN401 - JSON or TOML gives anything
    """A model's sizes from a table, checked; used for task files and for checkpoints of peers.

    Raises:
        SpecError: It names the entry.
    """
    model = _MODELS[kind]({"model": entries}, tokenizer)
    if not getattr(model, "layers", True):  # of a base that was not looked at yet
        return model
    count = sizes.parameters(model) + (
        sizes.frozen(model) if isinstance(model, FinetuneModel) else 0
    )
    if count > MAX_PARAMETERS:
        raise SpecError(
            field="model", why=f"has {count:,} parameters, at most {MAX_PARAMETERS:,} are allowed"
        )
    return model


def base_of(tables: dict[str, Any]) -> object:
    """The base that a task's model names; nothing where it names none."""
    model = tables.get("model")
    return model.get("base") if isinstance(model, dict) else None


def _lm(tables: dict[str, Any], tokenizer: str) -> LmModel:
    if base_of(tables):
        return _continued(tables, tokenizer)
    low, high = (BYTE_VALUES, BYTE_VALUES) if tokenizer == BYTES else (0, MAX_VOCABULARY)
    table = Table("model", tables.get("model", {}))
    shape = table.choice("shape", SHAPES, SHAPES[0])
    heads = table.integer("heads", 1, 256, 4)
    width = table.integer("width", 8, 2**14, 64)
    # Of Llama, three matrices of two thirds hold as much as two of one.
    hidden = 4 * width if shape == "gpt" else -(-8 * width // 24) * 8
    model = LmModel(
        layers=table.integer("layers", 1, 200, 4),
        heads=heads,
        width=width,
        context=table.integer("context", 8, 2**15, 64),
        vocabulary=table.integer("vocabulary", low, high, low),
        shape=shape,
        kv_heads=table.integer("kv_heads", 1, 256, heads),
        hidden=table.integer("hidden", 8, 2**16, hidden),
    )
    table.done()
    _check_heads(model)
    return model


def _sizes_of_base(table: Table) -> dict[str, Any]:
    """What every task on a published model says of it; sizes are zeros until it is posted."""
    return {
        "base": table.text("base", maximum=1024),
        "context": table.integer("context", 0, 2**15, 0),
        "layers": table.integer("layers", 0, 200, 0),
        "heads": table.integer("heads", 0, 256, 0),
        "width": table.integer("width", 0, 2**14, 0),
        "vocabulary": table.integer("vocabulary", 0, MAX_VOCABULARY * 2, 0),
        "shape": table.choice("shape", SHAPES, SHAPES[0]),
        "kv_heads": table.integer("kv_heads", 0, 256, 0),
        "hidden": table.integer("hidden", 0, 2**16, 0),
    }


def _continued(tables: dict[str, Any], tokenizer: str) -> LmModel:
    """A language model that goes on from a published one."""
    table = Table("model", tables.get("model", {}))
    model = LmModel(
        **_sizes_of_base(table),
        reads=table.integer("reads", 0, 2**20, 0),
        epsilon=table.number("epsilon", 1e-12, 1e-2, sizes.NORM_EPSILON),
        rotary=table.number("rotary", 1.0, 1e9, sizes.ROPE_BASE),
        tied=table.flag("tied", default=True),
    )
    table.done()
    if model.layers:
        _check_based(model, tokenizer)
    return model


def _finetune(tables: dict[str, Any], tokenizer: str) -> FinetuneModel:
    table = Table("model", tables.get("model", {}))
    model = FinetuneModel(
        trained_blocks=table.integer("trained_blocks", 1, 200),
        **_sizes_of_base(table),
        positions=table.integer("positions", 0, 2**20, 0),
        norm_epsilon=table.number("norm_epsilon", 1e-12, 1e-2, sizes.NORM_EPSILON),
        rope_base=table.number("rope_base", 1.0, 1e9, sizes.ROPE_BASE),
    )
    table.done()
    if not model.layers:  # not posted yet
        return model
    _check_based(model, tokenizer)
    if model.trained_blocks > model.layers:
        raise SpecError(
            field="model.trained_blocks",
            why=f"is {model.trained_blocks}, and the base has {model.layers} blocks",
        )
    return model


def _check_based(model: Decoder, tokenizer: str) -> None:
    """Refuse sizes of a published base that cannot be."""
    whole = (model.heads, model.width, model.vocabulary, model.kv_heads, model.hidden)
    if not all(whole) or not 8 <= model.context <= model.positions:
        raise SpecError(
            field="model.context", why=f"is 8 to the {model.positions:,} tokens that the base reads"
        )
    if tokenizer == BYTES and model.vocabulary < BYTE_VALUES:
        raise SpecError(field="data.tokenizer", why="is bytes, and the base has fewer tokens")
    _check_heads(model)


def _classifier(tables: dict[str, Any], _tokenizer: str) -> ClassifierModel:
    table = Table("model", tables.get("model", {}))
    shape = table.choice("shape", ("cnn", "mlp"), "cnn")
    labels = table.text_or_none("labels", maximum=MAX_LABELS)
    count = len(labels.split(",")) if labels else None
    model = ClassifierModel(
        classes=table.integer("classes", 2, MAX_CLASSES, count),
        labels=labels,
        shape=shape,
        size=table.integer("size", 8, sizes.MAX_IMAGE_SIDE, 28),
        channels=table.integer("channels", 1, 3, 1),
        features=table.integer("features", 0, 2**16, 0),
        width=table.integer("width", 4, 2**12, 32 if shape == "cnn" else 128),
        layers=table.integer("layers", 1, 8, 2),
    )
    table.done()
    if model.shape == "cnn" and model.features:
        raise SpecError(field="model.features", why="is of rows, which a cnn does not read")
    if model.shape == "cnn" and (model.width % 4 or model.side < sizes.FEWEST_PIXELS):
        raise SpecError(
            field="model.layers",
            why=f"halve the image to {model.side} pixels a side, at least {sizes.FEWEST_PIXELS} are needed"
            if model.width % 4 == 0
            else "need a width that is a multiple of 4",
        )
    names = model.names
    if names and (not all(names) or len(set(names)) != len(names)):
        raise SpecError(field="model.labels", why="are different names with commas in between")
    if names and len(names) != model.classes:
        raise SpecError(
            field="model.classes", why=f"is {model.classes}, and model.labels names {len(names)}"
        )
    return model


def _check_heads(model: Decoder) -> None:
    if model.width % model.heads:
        raise SpecError(field="model.width", why=f"is no multiple of model.heads ({model.heads})")
    if model.heads % model.kv_heads or (model.shape == "gpt" and model.kv_heads != model.heads):
        raise SpecError(
            field="model.kv_heads", why=f"divides model.heads ({model.heads}); of a gpt it is that"
        )
    if model.shape == "llama" and model.width // model.heads % 2:
        raise SpecError(field="model.width", why="is no even multiple of model.heads")


def _gan(tables: dict[str, Any], _tokenizer: str = NONE) -> GanModel:
    table = Table("model", tables.get("model", {}))
    model = GanModel(
        size=table.integer("size", 16, 32, 16),
        channels=table.integer("channels", 1, 3, 1),
        latent=table.integer("latent", 2, 512, 32),
        base=table.integer("base", 4, 256, 16),
    )
    table.done()
    if model.size not in (16, 32):
        raise SpecError(field="model.size", why="is 16 or 32")
    if model.base % 4:
        raise SpecError(field="model.base", why="is a multiple of 4")
    return model


_MODELS: dict[Kind, Callable[[dict[str, Any], str], Model]] = {
    "lm": _lm,
    "finetune": _finetune,
    "gan": _gan,
    "classifier": _classifier,
}

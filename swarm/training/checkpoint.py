"""A checkpoint folder: `model.safetensors`, `config.json`, `README.md`; of a gan `evaluator.safetensors`.

Of a finetune the tensors are in two files, as `transformers` writes a large model: the first holds what is frozen and
stays the same, the second what is trained, and an index says which tensor is where.
More than `shards.MAX_SHARD_BYTES` of either are in more such files, and so are those of any other large model.

Of a language model it is a folder that `transformers` loads: `config.json` and the tensors are that library's, and
`tokenizer.json` and `tokenizer_config.json` stand beside them. Over the tokens of a published tokenizer,
`tokenizer.json` has the bytes that were published, and `config.json` names their CID.
What we ask of a folder stands in `config.json` under `swarm`; all else there is a function of it and is held against it.

Everything in the folder is a function of the task, the base and the merged updates, so that its CID is the
same on every machine: no time, no machine, no measured loss.
`config.json` alone says how to build the model; it comes from peers and is checked before anything is built.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from storage import cid as cids
from storage.errors import CidError
from storage.unixfs import hash_path
from swarm.training import hf, shards, tensors
from swarm.training.errors import CheckpointError, SpecError, TensorFileError
from swarm.training.sizes import ClassifierModel, FinetuneModel, LmModel, Model, entries
from swarm.training.spec import (
    BYTES,
    KINDS,
    MAX_PARAMETERS,
    MAX_TOKENIZER_BYTES,
    NONE,
    Kind,
    TaskSpec,
    check_model,
    format_amount,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from swarm.training.tensors import Array

FORMAT: Final = "swarm-checkpoint-2"
MODEL: Final = shards.WHOLE
INDEX: Final = shards.INDEX
CONFIG: Final = "config.json"
CARD: Final = "README.md"
EVALUATOR: Final = "evaluator.safetensors"
TOKENIZER: Final = "tokenizer.json"
TOKENIZER_CONFIG: Final = "tokenizer_config.json"
OURS: Final = "swarm"
"""Our part of `config.json`."""
MAX_CONFIG_BYTES: Final = 16 * 2**10
MAX_MODEL_BYTES: Final = 4 * MAX_PARAMETERS + tensors.MAX_HEADER_BYTES + 8


@dataclass(frozen=True, slots=True)
class Config:
    """What `config.json` says."""

    kind: Kind
    name: str
    version: int
    tokenizer: str  # "bytes", "none", or the CID of tokenizer.json
    model: Model

    def is_trained(self, tensor: str) -> bool:
        """Whether a tensor is one that the task trains, by its name: of a finetune the last blocks, the last norm and the head."""
        if not isinstance(self.model, FinetuneModel):
            return True
        block = _BLOCK.match(tensor)
        if block is not None:
            return int(block[1]) >= self.model.frozen_blocks
        return tensor.startswith(("lm_head.", "transformer.ln_f.", "model.norm."))


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checked checkpoint; the tensors are views of the mapped file."""

    config: Config
    tensors: dict[str, Array]
    tokenizer: bytes | None = None  # content of tokenizer.json, if there is one
    folder: Path | None = None  # where it was read

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape by name."""
        return {name: item.shape for name, item in self.tensors.items()}


def load(folder: Path) -> Checkpoint:
    """Read a checkpoint folder.

    Raises:
        CheckpointError: Something is missing, malformed, too large or not finite.
    """
    config = load_config(folder)
    values: dict[str, Array] = {}
    for path in _files(folder, config)[1]:
        values |= read_tensors(path)
    for name, item in values.items():
        if item.dtype != np.dtype("<f4") or not np.isfinite(item).all():
            message = f"tensor {name[:80]!r} is not float32 or holds a value that is not finite"
            raise CheckpointError(message)
    tokenizer = None
    if config.tokenizer not in (BYTES, NONE):
        tokenizer = read_tokenizer(folder / TOKENIZER, config.tokenizer)
    return Checkpoint(config, values, tokenizer, folder)


def frozen_files(folder: Path) -> list[Path]:
    """Where the tensors of a finetune stand that are not trained, in order.

    Raises:
        CheckpointError: The index is missing or malformed.
    """
    return _files(folder, load_config(folder))[0]


def read_tensors(path: Path, types: Mapping[str, np.dtype[Any]] | None = None) -> dict[str, Array]:
    """The tensors of one file, of those types; float32 and what we write beside it if none are named.

    Raises:
        CheckpointError: It is missing, malformed or too large.
    """
    known = tensors.OWN if types is None else types
    try:
        return tensors.read(path, max_bytes=MAX_MODEL_BYTES, types=known).tensors
    except TensorFileError as error:
        message = f"{path.name} {error}"
        raise CheckpointError(message) from error


def _files(folder: Path, config: Config) -> tuple[list[Path], list[Path]]:
    """The files of what is frozen, and those of what is trained."""
    try:
        found = shards.files(folder)
    except TensorFileError as error:
        message = f"the checkpoint {error}"
        raise CheckpointError(message) from error
    frozen: list[Path] = []
    trained: list[Path] = []
    for path, names in found:
        kinds = {config.is_trained(name) for name in names or ()} or {True}
        if len(kinds) > 1:
            message = f"{path.name} holds what is trained and what is frozen"
            raise CheckpointError(message)
        (trained if kinds.pop() else frozen).append(path)
    return frozen, trained


def read_tokenizer(path: Path, root: str | None = None) -> bytes:
    """A tokenizer's file, not yet parsed.

    Args:
        path: The file.
        root: The CID that it must have; None: any.

    Raises:
        CheckpointError: It is missing, too large, or another than named.
    """
    try:
        if path.stat().st_size > MAX_TOKENIZER_BYTES:
            message = f"{TOKENIZER} is longer than {MAX_TOKENIZER_BYTES:,} bytes"
            raise CheckpointError(message)
        if root is not None and cids.text(hash_path(path).root) != root:
            message = f"{TOKENIZER} is not {root[:80]}, which the config or the task names"
            raise CheckpointError(message)
        return path.read_bytes()
    except OSError as error:
        message = f"{TOKENIZER} cannot be read: {error.strerror}"
        raise CheckpointError(message) from error


def load_config(folder: Path) -> Config:
    """Read and check `config.json`.

    Raises:
        CheckpointError: Missing, malformed, or of a model that is not in the registry or out of bounds.
    """
    path = folder / CONFIG
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            message = f"{CONFIG} is longer than {MAX_CONFIG_BYTES:,} bytes"
            raise CheckpointError(message)
        value = json.loads(path.read_bytes())
    except OSError as error:
        message = f"{CONFIG} cannot be read: {error.strerror}"
        raise CheckpointError(message) from error
    except (ValueError, RecursionError) as error:
        message = f"{CONFIG} is not JSON: {error}"
        raise CheckpointError(message) from error
    ours = value.get(OURS) if isinstance(value, dict) else None
    config = _config(ours)
    if value != _as_json(config):
        message = f"{CONFIG} says something else than its part {OURS!r}"
        raise CheckpointError(message)
    return config


def _config(value: Any) -> Config:  # noqa: ANN401 - JSON gives anything
    keys = {"format", "kind", "name", "version", "tokenizer", "model"}
    if not isinstance(value, dict) or value.keys() != keys or value["format"] != FORMAT:
        message = f"{CONFIG} is not of format {FORMAT}"
        raise CheckpointError(message)
    kind, name, version, tokenizer = (
        value[key] for key in ("kind", "name", "version", "tokenizer")
    )
    if (
        kind not in KINDS
        or not isinstance(name, str)
        or len(name) > 64
        or type(version) is not int
        or not 0 <= version < 2**53
        or not (_is_tokenizer(tokenizer) if kind in _OF_TEXT else tokenizer == NONE)
    ):
        message = f"{CONFIG} holds a kind, name, version or tokenizer that is not known"
        raise CheckpointError(message)
    try:
        model = check_model(kind, value["model"], tokenizer)
    except SpecError as error:
        message = f"{CONFIG}: {error}"
        raise CheckpointError(message) from error
    if isinstance(model, FinetuneModel) and not model.layers:
        message = f"{CONFIG} does not say the sizes of its base"
        raise CheckpointError(message)
    return Config(kind, name, version, tokenizer, model)


def _is_tokenizer(value: Any) -> bool:  # noqa: ANN401 - JSON gives anything
    if not isinstance(value, str):
        return False
    try:
        return value == BYTES or cids.text(cids.parse(value)) == value
    except CidError:
        return False


def write_config(folder: Path, config: Config) -> None:
    """Write `config.json` in its one spelling."""
    (folder / CONFIG).write_bytes(hf.text(_as_json(config)))


def _as_json(config: Config) -> dict[str, Any]:
    ours = {
        "format": FORMAT,
        "kind": config.kind,
        "model": entries(config.model),
        "name": config.name,
        "tokenizer": config.tokenizer,
        "version": config.version,
    }
    theirs = hf.config(config.model) if isinstance(config.model, LmModel | FinetuneModel) else {}
    return {**theirs, OURS: ours}


def write(
    folder: Path,
    config: Config,
    values: Mapping[str, Array],
    card: str,
    *,
    evaluator: Path | None = None,
    tokenizer: bytes | None = None,
    frozen: Sequence[Path] = (),
) -> None:
    """Write a whole checkpoint folder; a folder with the same files is overwritten.

    Args:
        folder: Created when it is missing.
        config: The model's sizes and the version.
        values: float32 tensors by name.
        card: The README's text.
        evaluator: The file to carry along (gan), or None.
        tokenizer: The content of the file to carry along, or None where bytes are the tokens.
        frozen: The files of the frozen part to carry along (finetune), in order.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts = shards.divide(values)
    count = len(frozen) + len(parts)
    held: list[tuple[str, Mapping[str, Array]]] = []
    for number, path in enumerate(frozen, 1):
        _carry(path, folder / shards.name(number, count))
        held.append((shards.name(number, count), read_tensors(path, tensors.WIDE)))
    for number, names in enumerate(parts, len(frozen) + 1):
        file = MODEL if count == 1 else shards.name(number, count)
        held.append((file, {name: values[name] for name in names}))
        tensors.write(folder / file, held[-1][1], hf.TENSOR_METADATA)
    if count > 1:
        (folder / INDEX).write_bytes(hf.text(shards.index(held)))
    write_config(folder, config)
    (folder / CARD).write_bytes(card.encode())
    if evaluator is not None and evaluator != folder / EVALUATOR:
        shutil.copyfile(evaluator, folder / EVALUATOR)
    if isinstance(config.model, LmModel | FinetuneModel):
        (folder / TOKENIZER).write_bytes(tokenizer or hf.byte_tokenizer())
        (folder / TOKENIZER_CONFIG).write_bytes(hf.text(hf.tokenizer_config(config.model)))


def write_frozen(
    folder: Path, values: Mapping[str, Array], trained: Mapping[str, Array]
) -> list[Path]:
    """Write the files of a base's frozen tensors, in the types that they have.

    Args:
        folder: Made if need be.
        values: Those tensors.
        trained: The others, whose files come after them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts = shards.divide(values)
    count = len(parts) + len(shards.divide(trained))
    found = []
    for number, names in enumerate(parts, 1):
        found.append(folder / shards.name(number, count))
        tensors.write(found[-1], {name: values[name] for name in names}, hf.TENSOR_METADATA)
    return found


def _carry(source: Path, target: Path) -> None:
    """The same file in another folder, without its bytes a second time where the file system can."""
    if source == target:
        return
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def card(
    spec: TaskSpec,
    *,
    version: int,
    parameters: int,
    base: str | None,
    round_: int | None,
    peers: Sequence[str],
) -> str:
    """The model card: front matter as model hubs read it, then a few lines for people.

    Args:
        spec: The task.
        version: The checkpoint's.
        parameters: How many the model has.
        base: CID of the version before, or None.
        round_: The round that made it, or None.
        peers: Who made the merged updates, in order.
    """
    of_text = spec.kind in _OF_TEXT
    pipeline, tag, what = _about(spec)
    lines = [
        "---",
        f"license: {json.dumps(spec.data.license)}",
        f"library_name: {'transformers' if of_text else 'swarm'}",
        f"pipeline_tag: {pipeline}",
        "datasets:",
        f"- {json.dumps(spec.data.dataset)}",
        *([f"base_model: {base}"] if base else []),
        "tags:",
        "- swarm",
        f"- {tag}",
        "---",
        f"# {spec.name}, version {version}",
        "",
        f"{what} with {parameters:,} parameters, trained by a swarm of peers.",
        "",
        f"- Dataset: `{spec.data.dataset}`",
        f"- Held-out pool: `{spec.data.pool}`",
        f"- Tokenizer: {_tokenizer_line(spec)}",
        f"- Task: {spec.rounds:,} rounds of {spec.train.steps:,} steps, a budget of {format_amount(spec.budget)} tokens",
    ]
    if base is None:
        lines.append(f"- Made from seed {spec.train.seed}, before any training")
    else:
        lines.append(f"- Version before: `{base}`")
        lines.append(f"- Made in round {round_} from the work of {len(peers)} peers:")
        lines += [f"  - `{peer}`" for peer in peers]
    return "\n".join(lines) + "\n" + (_LOADED if of_text else "")


def _about(spec: TaskSpec) -> tuple[str, str, str]:
    """A model's pipeline as hubs call it, its tag, and what it is."""
    model = spec.model
    match model:
        case LmModel():
            return "text-generation", model.shape, _DECODERS[model.shape]
        case FinetuneModel():
            blocks = f"{model.trained_blocks} of {model.layers} blocks and the head"
            what = f"{_DECODERS[model.shape]}: {blocks} of the base `{model.base}`,"
            return "text-generation", model.shape, what
        case ClassifierModel():
            sort = "tabular" if model.features else "image"
            return f"{sort}-classification", model.shape, _classes(model)
        case _:
            return "unconditional-image-generation", "dcgan", "A pair of DCGAN networks"


def _classes(model: ClassifierModel) -> str:
    network = "A perceptron" if model.shape == "mlp" else "A convolutional network"
    names = f" ({', '.join(model.names)})" if model.labels else ""
    return f"{network} for {model.classes} classes{names}"


_OF_TEXT: Final = ("lm", "finetune")
_BLOCK: Final = re.compile(r"(?:transformer\.h|model\.layers)\.(\d{1,4})\.")
_DECODERS: Final = {"gpt": "A GPT", "llama": "A Llama"}
_LOADED: Final = """
```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("this folder")
tokenizer = AutoTokenizer.from_pretrained("this folder")
```
"""


def _tokenizer_line(spec: TaskSpec) -> str:
    name = spec.data.tokenizer
    if name in (BYTES, NONE):
        return name
    if isinstance(spec.model, FinetuneModel):
        return f"`{name}`, in `{TOKENIZER}`"
    return f"`{name}`, {spec.lm.vocabulary:,} tokens, in `{TOKENIZER}`"

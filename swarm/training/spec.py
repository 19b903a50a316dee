"""The task file: TOML text to frozen dataclasses, with an error that names the field.

`docs/guide/tasks.md` documents every key.
Fractions that enter integer rules (the merge, the ledger) are kept as the floats that TOML reads and
turned into integers of a thousandth where they are used.
"""

from __future__ import annotations

import dataclasses
import re
import tomllib
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from swarm.training import sizes
from swarm.training.errors import SpecError
from swarm.training.sizes import BYTE_VALUES, GanModel, LmModel

MAX_SPEC_BYTES = 16 * 2**10
MAX_PARAMETERS = 2 * 10**9
UPDATE_HEADER_BYTES = 2**20
BYTES_PER_PARAMETER = 5
"""A float32, and a quarter more for the chunks and manifests around it."""
TOKEN = 10**9
"""Units of money in one token."""
MAX_TOKENIZER_BYTES = 16 * 2**20
MAX_VOCABULARY = 2**17
BYTES, NONE = "bytes", "none"
"""The tokenizers that are no published file: of kind lm, and of kind gan."""
SHAPES = ("gpt", "llama")
RESIZES = ("pad", "crop", "stretch")
"""How an image of another size is made to fit; see `images`."""

Kind: TypeAlias = Literal["lm", "gan"]

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")  # what the ledger takes
_AMOUNT = re.compile(r"(\d{1,10})(?:\.(\d{1,9}))?")


@dataclass(frozen=True, slots=True)
class Data:
    """What is trained on, and what is held out."""

    dataset: str  # CID, or a local path until the task is posted
    pool: str  # held-out data, likewise
    tokenizer: str = BYTES  # or a tokenizer.json: CID, or a local path until the task is posted
    license: str = "other"  # goes into the model card
    column: str = "text"  # lm: of Parquet files, the column that is trained on
    resize: str = "pad"  # gan: how images of another size are made to fit


@dataclass(frozen=True, slots=True)
class Train:
    """The inner loop of one peer in one round."""

    optimizer: str = "muon"
    steps: int = 15
    batch: int = 16
    learning_rate: float = 3e-3
    muon_learning_rate: float = 0.02
    warmup: float = 0.05  # share of all steps of the task
    clip: float = 1.0
    weight_decay: float = 0.0
    seed: int = 0
    ema: float = 0.99  # gan: decay of the averaged generator


@dataclass(frozen=True, slots=True)
class Update:
    """How an update is compressed and merged."""

    top_k: int = 74  # of each chunk of 4096
    bits: int = 1
    feedback: float = 0.8
    amplify: float = 4.0


@dataclass(frozen=True, slots=True)
class Score:
    """How submissions are judged."""

    sequences: int = 32  # lm: sequences; gan: generated samples
    z: float = 0.0
    tolerance: int = 0  # score units that an update must exceed


@dataclass(frozen=True, slots=True)
class Phases:
    """Length of each phase of a round, in blocks."""

    train: int = 10
    reveal: int = 3
    score_commit: int = 6
    score_reveal: int = 3
    attest: int = 6


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """A task as posted."""

    name: str
    kind: Kind
    rounds: int
    budget: int  # units of 10^-9 token
    data: Data
    model: LmModel | GanModel
    train: Train = field(default_factory=Train)
    update: Update = field(default_factory=Update)
    score: Score = field(default_factory=Score)
    phases: Phases = field(default_factory=Phases)

    @property
    def lm(self) -> LmModel:
        """The sizes of a task of kind lm."""
        if not isinstance(self.model, LmModel):
            raise SpecError(field="task.kind", why="is not lm")
        return self.model

    @property
    def gan(self) -> GanModel:
        """The sizes of a task of kind gan."""
        if not isinstance(self.model, GanModel):
            raise SpecError(field="task.kind", why="is not gan")
        return self.model

    @property
    def amplify_milli(self) -> int:
        """`update.amplify` in thousandths, for the integer merge."""
        return round(self.update.amplify * 1000)


def parse_spec(data: bytes) -> TaskSpec:
    """Read a task file.

    Args:
        data: UTF-8 TOML, at most `MAX_SPEC_BYTES`.

    Returns:
        The task, with defaults filled in.

    Raises:
        SpecError: Something is missing, unknown, of another type or out of bounds; it names the field.
    """
    if len(data) > MAX_SPEC_BYTES:
        raise SpecError(
            field="task file",
            why=f"has {len(data):,} bytes, at most {MAX_SPEC_BYTES:,} are allowed",
        )
    try:
        tables = tomllib.loads(data.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise SpecError(field="task file", why=f"is not TOML: {error}") from error
    for name in tables:
        if name not in ("task", "data", "model", "train", "update", "score", "phases"):
            raise SpecError(name, "is not a table of a task file")
    task = _Table("task", tables.get("task"))
    name = task.text("name", maximum=63)
    if not _NAME.fullmatch(name):
        raise SpecError(
            field="task.name",
            why="has 1 to 63 of a-z, 0-9 and '-', and does not begin with '-'",
        )
    kind = task.choice("kind", ("lm", "gan"))
    rounds = task.integer("rounds", 1, 10**5)
    budget = _amount("task.budget", task.text("budget", maximum=24))
    task.done()
    checked: Kind = "lm" if kind == "lm" else "gan"
    source = _data(tables, kind)
    model = check_model(checked, tables.get("model", {}), source.tokenizer)
    return TaskSpec(
        name=name,
        kind=checked,
        rounds=rounds,
        budget=budget,
        data=source,
        model=model,
        train=_train(tables, kind),
        update=_update(tables),
        score=_score(tables, kind),
        phases=_phases(tables),
    )


def write_spec(spec: TaskSpec) -> bytes:
    """The one TOML spelling of a task; `parse_spec` gives the same task back."""
    lines = ["[task]"]
    lines += [f"name = {_toml(spec.name)}", f"kind = {_toml(spec.kind)}", f"rounds = {spec.rounds}"]
    lines += [f'budget = "{format_amount(spec.budget)}"']
    for title in ("data", "model", "train", "update", "score", "phases"):
        part = getattr(spec, title)
        lines += ["", f"[{title}]"]
        lines += [
            f"{item.name} = {_toml(getattr(part, item.name))}" for item in dataclasses.fields(part)
        ]
    return ("\n".join(lines) + "\n").encode()


def with_data(spec: TaskSpec, dataset: str, pool: str) -> TaskSpec:
    """The same task with its data named by CID, as it is posted."""
    return dataclasses.replace(
        spec, data=dataclasses.replace(spec.data, dataset=dataset, pool=pool)
    )


def with_tokenizer(spec: TaskSpec, root: str, vocabulary: int) -> TaskSpec:
    """The same task with its tokenizer named by CID and the vocabulary that it has.

    Raises:
        SpecError: The task names another vocabulary.
    """
    if spec.lm.vocabulary not in (0, vocabulary):
        raise SpecError(
            field="model.vocabulary",
            why=f"is {spec.lm.vocabulary:,}, and the tokenizer has {vocabulary:,} tokens; leave it out",
        )
    return dataclasses.replace(
        spec,
        data=dataclasses.replace(spec.data, tokenizer=root),
        model=dataclasses.replace(spec.lm, vocabulary=vocabulary),
    )


def parameters(spec: TaskSpec) -> int:
    """How many parameters a task's model has; see `sizes.parameters`."""
    return sizes.parameters(spec.model)


def check_model(kind: Kind, entries: Any, tokenizer: str) -> LmModel | GanModel:  # noqa: ANN401 - JSON or TOML gives anything
    """A model's sizes from a table, checked; used for task files and for checkpoints of peers.

    Raises:
        SpecError: It names the entry.
    """
    model = _lm({"model": entries}, tokenizer) if kind == "lm" else _gan({"model": entries})
    count = sizes.parameters(model)
    if count > MAX_PARAMETERS:
        raise SpecError(
            field="model", why=f"has {count:,} parameters, at most {MAX_PARAMETERS:,} are allowed"
        )
    return model


def max_update_bytes(spec: TaskSpec) -> int:
    """The largest update file that can be honest: every parameter in full and room for its header."""
    return UPDATE_HEADER_BYTES + BYTES_PER_PARAMETER * parameters(spec)


def format_amount(units: int) -> str:
    """Money as people write it."""
    whole, rest = divmod(units, TOKEN)
    return f"{whole}.{rest:09d}".rstrip("0") if rest else str(whole)


def _amount(name: str, text: str) -> int:
    match = _AMOUNT.fullmatch(text)
    if match is None:
        raise SpecError(name, 'is a number of tokens in quotes, such as "1000" or "0.5"')
    return int(match[1]) * TOKEN + int((match[2] or "").ljust(9, "0"))


def _toml(value: Any) -> str:  # noqa: ANN401 - a field's value is str, int or float
    if isinstance(value, str):
        # TOML's basic strings escape what these characters do not need; parse_spec allows no others.
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return repr(value)


def _data(tables: dict[str, Any], kind: str) -> Data:
    table = _Table("data", tables.get("data"))
    data = Data(
        dataset=table.text("dataset", maximum=1024),
        pool=table.text("pool", maximum=1024),
        tokenizer=table.text("tokenizer", maximum=1024, default=BYTES)
        if kind == "lm"
        else table.choice("tokenizer", (NONE,), NONE),
        license=table.text("license", maximum=64, default="other"),
        column=table.text("column", maximum=256, default="text"),
        resize=table.choice("resize", RESIZES, "pad"),
    )
    table.done()
    return data


def _lm(tables: dict[str, Any], tokenizer: str) -> LmModel:
    low, high = (BYTE_VALUES, BYTE_VALUES) if tokenizer == BYTES else (0, MAX_VOCABULARY)
    table = _Table("model", tables.get("model", {}))
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


def _check_heads(model: LmModel) -> None:
    if model.width % model.heads:
        raise SpecError(field="model.width", why=f"is no multiple of model.heads ({model.heads})")
    if model.heads % model.kv_heads or (model.shape == "gpt" and model.kv_heads != model.heads):
        raise SpecError(
            field="model.kv_heads", why=f"divides model.heads ({model.heads}); of a gpt it is that"
        )
    if model.shape == "llama" and model.width // model.heads % 2:
        raise SpecError(field="model.width", why="is no even multiple of model.heads")


def _gan(tables: dict[str, Any]) -> GanModel:
    table = _Table("model", tables.get("model", {}))
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


def _train(tables: dict[str, Any], kind: str) -> Train:
    table = _Table("train", tables.get("train", {}))
    gan = kind == "gan"
    optimizers = ("adamw",) if gan else ("muon", "adamw")
    train = Train(
        optimizer=table.choice("optimizer", optimizers, optimizers[0]),
        steps=table.integer("steps", 1, 10**5, 200 if gan else 15),
        batch=table.integer("batch", 1, 2**14, 64 if gan else 16),
        learning_rate=table.number("learning_rate", 1e-7, 1.0, 4e-4 if gan else 3e-3),
        muon_learning_rate=table.number("muon_learning_rate", 1e-7, 1.0, 0.02),
        warmup=table.number("warmup", 0.0, 0.5, 0.05),
        clip=table.number("clip", 1e-3, 1e3, 1.0),
        weight_decay=table.number("weight_decay", 0.0, 1.0, 0.0),
        seed=table.integer("seed", 0, 2**62, 0),
        ema=table.number("ema", 0.0, 0.99999, 0.98),
    )
    table.done()
    return train


def _update(tables: dict[str, Any]) -> Update:
    table = _Table("update", tables.get("update", {}))
    update = Update(
        top_k=table.integer("top_k", 1, 1024, 74),
        bits=table.integer("bits", 1, 1, 1),
        feedback=table.number("feedback", 0.0, 1.0, 0.8),
        amplify=table.number("amplify", 0.001, 100.0, 4.0),
    )
    table.done()
    return update


def _score(tables: dict[str, Any], kind: str) -> Score:
    table = _Table("score", tables.get("score", {}))
    gan = kind == "gan"
    score = Score(
        sequences=table.integer("sequences", 64 if gan else 2, 10**5, 2000 if gan else 32),
        z=table.number("z", 0.0, 5.0, 0.0),
        tolerance=table.integer("tolerance", 0, 10**5, 0),
    )
    table.done()
    return score


def _phases(tables: dict[str, Any]) -> Phases:
    table = _Table("phases", tables.get("phases", {}))
    defaults = Phases()
    phases = Phases(
        **{
            item.name: table.integer(item.name, 1, 10**6, getattr(defaults, item.name))
            for item in dataclasses.fields(Phases)
        }
    )
    table.done()
    return phases


class _Table:
    """One table of the file; each read takes an entry out, and `done` refuses what is left."""

    def __init__(self, title: str, entries: Any) -> None:  # noqa: ANN401 - TOML gives anything
        if not isinstance(entries, dict):
            raise SpecError(title, "is missing or is not a table")
        self._title = title
        self._entries = dict(entries)

    def text(self, key: str, *, maximum: int, default: str | None = None) -> str:
        value = self._take(key, default)
        if not isinstance(value, str) or not 0 < len(value) <= maximum or not value.isprintable():
            raise SpecError(self._name(key), f"is text of 1 to {maximum:,} characters in quotes")
        return value

    def choice(self, key: str, allowed: tuple[str, ...], default: str | None = None) -> str:
        value = self._take(key, default)
        if value not in allowed or not isinstance(value, str):
            raise SpecError(
                self._name(key), "is one of " + ", ".join(f'"{item}"' for item in allowed)
            )
        return value

    def integer(self, key: str, low: int, high: int, default: int | None = None) -> int:
        value = self._take(key, default)
        if type(value) is not int or not low <= value <= high:
            raise SpecError(self._name(key), f"is a whole number from {low:,} to {high:,}")
        return value

    def number(self, key: str, low: float, high: float, default: float | None = None) -> float:
        value = self._take(key, default)
        if type(value) not in (int, float) or not low <= value <= high:
            raise SpecError(self._name(key), f"is a number from {low:g} to {high:g}")
        return float(value)

    def done(self) -> None:
        for key in self._entries:
            raise SpecError(self._name(key), "is not a key of a task file")

    def _take(self, key: str, default: Any) -> Any:  # noqa: ANN401 - checked by the caller
        if key not in self._entries and default is None:
            raise SpecError(self._name(key), "is missing")
        return self._entries.pop(key, default)

    def _name(self, key: str) -> str:
        return f"{self._title}.{key}"

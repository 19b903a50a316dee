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
from functools import lru_cache
from typing import Any

from swarm.ledger.payloads import MAX_ROUNDS, MAX_SPEC_BYTES
from swarm.training import sizes
from swarm.training.architectures import BYTES as BYTES
from swarm.training.architectures import KINDS as KINDS
from swarm.training.architectures import MAX_PARAMETERS as MAX_PARAMETERS
from swarm.training.architectures import MAX_VOCABULARY as MAX_VOCABULARY
from swarm.training.architectures import NONE as NONE
from swarm.training.architectures import OF_BASE as OF_BASE
from swarm.training.architectures import SHAPES as SHAPES
from swarm.training.architectures import Kind as Kind
from swarm.training.architectures import base_of
from swarm.training.architectures import check_model as check_model
from swarm.training.errors import SpecError
from swarm.training.sizes import (
    ClassifierModel,
    Decoder,
    FinetuneModel,
    GanModel,
    LmModel,
    Model,
)
from swarm.training.tables import Table

MAX_FILE_BYTES = 16 * 2**10
"""Of a task file, with its comments; as it is posted a task has at most `MAX_SPEC_BYTES`."""
KEPT_SPECS = 64
"""Tasks that are read once: a stranger's can take half a second, and is asked for at every step and message."""
UPDATE_HEADER_BYTES = 2**20
BYTES_PER_PARAMETER = 5
"""A float32, and a quarter more for the chunks and manifests around it."""
TOKEN = 10**9
"""Units of money in one token."""
MAX_TOKENIZER_BYTES = 16 * 2**20
CACHED, PUBLISHED = "cached", "published"
"""Where the encodings of a finetune come from: each peer makes and keeps its own, or the dataset is made of them."""
AUTOENCODER = "autoencoder"
EVALUATORS = (AUTOENCODER, "efficientnet-lite0")
"""Networks by whose features generated images are judged; see `evaluator`."""
MAX_UNITS = 8
MAX_PARTS = 64
WINNER, MEAN = "winner", "mean"
"""What the next checkpoint of a gan is: the best pair, or the mean of all that are accepted; see `mean`."""
RESIZES = ("pad", "crop", "stretch")
"""How an image of another size is made to fit; see `images`."""
POSTED_CID = "b" * 59
"""As long as the CID that takes the place of a path."""

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")  # what the ledger takes
_AMOUNT = re.compile(r"(\d{1,10})(?:\.(\d{1,9}))?")


@dataclass(frozen=True, slots=True)
class Data:
    """What is trained on, and what is held out."""

    dataset: str  # CID, or a local path until the task is posted
    pool: str  # held-out data, likewise
    tokenizer: str = BYTES  # or a tokenizer.json: CID, or a local path until the task is posted
    license: str = "other"  # goes into the model card
    column: str = "text"  # of Parquet files, the column that is trained on
    resize: str = "pad"  # how images of another size are made to fit
    label: str = "label"  # classifier: of Parquet files, the column of labels
    encodings: str = CACHED  # finetune: or "published"


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
    units: int = 1  # of work that a fast peer takes at most in a round; see `assignment`


@dataclass(frozen=True, slots=True)
class Update:
    """How an update is compressed and merged."""

    top_k: int = 74  # of each chunk of 4096
    bits: int = 1
    feedback: float = 0.8
    amplify: float = 4.0
    parts: int = 1  # of the weights: each round speaks of one, in turn
    feedback_end: float = 0.0  # what feedback comes to by the end of the task; 0: it stays


@dataclass(frozen=True, slots=True)
class Score:
    """How submissions are judged."""

    sequences: int = 32  # lm: sequences; gan: generated samples
    z: float = 0.0
    tolerance: int = 0  # score units that an update must exceed
    evaluator: str = AUTOENCODER  # gan: what images are judged by


@dataclass(frozen=True, slots=True)
class Population:
    """gan: the ranges from which each peer's hyper-parameters are drawn in each round."""

    spread: float = 2.0  # rates are the task's, divided or multiplied by up to this
    beta: float = 0.5  # the first moments' decay is 0 or this
    critic_steps: int = 2  # steps of the discriminator for one of the generator, at most
    merge: str = WINNER  # or "mean"


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
    model: Model
    train: Train = field(default_factory=Train)
    update: Update = field(default_factory=Update)
    score: Score = field(default_factory=Score)
    phases: Phases = field(default_factory=Phases)
    population: Population = field(default_factory=Population)

    @property
    def lm(self) -> LmModel:
        """The sizes of a task of kind lm."""
        if not isinstance(self.model, LmModel):
            raise SpecError(field="task.kind", why="is not lm")
        return self.model

    @property
    def decoder(self) -> Decoder:
        """The sizes of a task over tokens: of kind lm or finetune."""
        if not isinstance(self.model, LmModel | FinetuneModel):
            raise SpecError(field="task.kind", why="is neither lm nor finetune")
        return self.model

    @property
    def base(self) -> str:
        """The published model that a task of kind lm or finetune begins with; "" where there is none."""
        return self.model.base if isinstance(self.model, LmModel | FinetuneModel) else ""

    @property
    def finetune(self) -> FinetuneModel:
        """The sizes of a task of kind finetune."""
        if not isinstance(self.model, FinetuneModel):
            raise SpecError(field="task.kind", why="is not finetune")
        return self.model

    @property
    def classifier(self) -> ClassifierModel:
        """The sizes of a task of kind classifier."""
        if not isinstance(self.model, ClassifierModel):
            raise SpecError(field="task.kind", why="is not classifier")
        return self.model

    @property
    def gan(self) -> GanModel:
        """The sizes of a task of kind gan."""
        if not isinstance(self.model, GanModel):
            raise SpecError(field="task.kind", why="is not gan")
        return self.model

    @property
    def is_mean(self) -> bool:
        """Whether a round of a gan takes the mean of all accepted pairs."""
        return self.kind == "gan" and self.population.merge == MEAN

    @property
    def settled_as(self) -> str:
        """The kind that the ledger knows the task by: it says whether a round takes one submission or many."""
        return "gan-mean" if self.is_mean else self.kind

    @property
    def amplify_milli(self) -> int:
        """`update.amplify` in thousandths, for the integer merge."""
        return round(self.update.amplify * 1000)


def parse_spec(data: bytes) -> TaskSpec:
    """Read a task file.

    Args:
        data: UTF-8 TOML, at most `MAX_FILE_BYTES`.

    Returns:
        The task, with defaults filled in.

    Raises:
        SpecError: Something is missing, unknown, of another type or out of bounds; it names the field.
    """
    found = _parsed_once(data)
    if isinstance(found, SpecError):
        raise SpecError(found.field, found.why)
    return found


@lru_cache(KEPT_SPECS)
def _parsed_once(data: bytes) -> TaskSpec | SpecError:
    try:
        return _parsed(data)
    except SpecError as error:
        return SpecError(error.field, error.why)


def _parsed(data: bytes) -> TaskSpec:
    if len(data) > MAX_FILE_BYTES:
        raise SpecError(
            field="task file",
            why=f"has {len(data):,} bytes, at most {MAX_FILE_BYTES:,} are allowed",
        )
    try:
        tables = tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:  # also an integer of too many digits
        raise SpecError(field="task file", why=f"is not TOML: {error}") from error
    for name in tables:
        if name not in ("task", *_TITLES):
            raise SpecError(name, "is not a table of a task file")
    task = Table("task", tables.get("task"))
    name = task.text("name", maximum=63)
    if not _NAME.fullmatch(name):
        raise SpecError(
            field="task.name",
            why="has 1 to 63 of a-z, 0-9 and '-', and does not begin with '-'",
        )
    kind = task.choice("kind", KINDS)
    rounds = task.integer("rounds", 1, MAX_ROUNDS)
    budget = _amount("task.budget", task.text("budget", maximum=24))
    task.done()
    checked = next(one for one in KINDS if one == kind)
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
        population=_population(tables, kind),
    )


def write_spec(spec: TaskSpec) -> bytes:
    """The one TOML spelling of a task; `parse_spec` gives the same task back."""
    lines = ["[task]"]
    lines += [f"name = {_toml(spec.name)}", f"kind = {_toml(spec.kind)}", f"rounds = {spec.rounds}"]
    lines += [f'budget = "{format_amount(spec.budget)}"']
    for title in _TITLES:
        part = getattr(spec, title)
        entries = [
            f"{item.name} = {_toml(getattr(part, item.name))}"
            for item in dataclasses.fields(part)
            if _OF_KIND.get((title, item.name), spec.kind) == spec.kind
            and (title, item.name, getattr(part, item.name)) not in _UNSAID
            and not (title == "model" and sizes.unsaid(spec.model, item.name))
        ]
        if entries:
            lines += ["", f"[{title}]", *entries]
    return ("\n".join(lines) + "\n").encode()


def check_posted(spec: TaskSpec) -> None:
    """Refuse a task that is too long for the ledger as it is posted, with CIDs in place of its paths.

    Raises:
        SpecError: It names the labels: nothing else of a task can be so long.
    """
    size = len(write_spec(with_data(spec, POSTED_CID, POSTED_CID)))
    if size > MAX_SPEC_BYTES:
        raise SpecError(
            field="model.labels",
            why=f"make the task {size:,} bytes as it is posted, and the ledger takes {MAX_SPEC_BYTES:,};"
            " give shorter names, or leave them out and say model.classes",
        )


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
    named = dataclasses.replace(spec, data=dataclasses.replace(spec.data, tokenizer=root))
    if spec.base:  # it may have more tokens than its tokenizer
        if vocabulary > spec.decoder.vocabulary:
            raise SpecError(
                field="data.tokenizer",
                why=f"has {vocabulary:,} tokens, and the base reads {spec.decoder.vocabulary:,}",
            )
        return named
    if spec.lm.vocabulary not in (0, vocabulary):
        raise SpecError(
            field="model.vocabulary",
            why=f"is {spec.lm.vocabulary:,}, and the tokenizer has {vocabulary:,} tokens; leave it out",
        )
    return dataclasses.replace(named, model=dataclasses.replace(spec.lm, vocabulary=vocabulary))


def with_base(spec: TaskSpec, model: Decoder, tokenizer: str) -> TaskSpec:
    """The same task with its base named by CID, the base's sizes, and the tokenizer that it is posted with.

    Raises:
        SpecError: The model is out of bounds.
    """
    check_model(spec.kind, sizes.entries(model), tokenizer)
    return dataclasses.replace(
        spec, data=dataclasses.replace(spec.data, tokenizer=tokenizer), model=model
    )


def parameters(spec: TaskSpec) -> int:
    """How many parameters a task's model has; see `sizes.parameters`."""
    return sizes.parameters(spec.model)


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
    return repr(value).lower() if isinstance(value, bool) else repr(value)


def _data(tables: dict[str, Any], kind: str) -> Data:
    table = Table("data", tables.get("data"))
    of_text = {"lm": OF_BASE if base_of(tables) else BYTES, "finetune": OF_BASE}
    data = Data(
        dataset=table.text("dataset", maximum=1024),
        pool=table.text("pool", maximum=1024),
        tokenizer=table.text("tokenizer", maximum=1024, default=of_text[kind])
        if kind in of_text
        else table.choice("tokenizer", (NONE,), NONE),
        license=table.text("license", maximum=64, default="other"),
        column=table.text("column", maximum=256, default=_COLUMNS.get(kind, "text")),
        resize=table.choice("resize", RESIZES, "pad"),
        label=table.text("label", maximum=256, default="label")
        if kind == "classifier"
        else "label",
        encodings=table.choice("encodings", (CACHED, PUBLISHED), CACHED)
        if kind == "finetune"
        else CACHED,
    )
    table.done()
    return data


def _train(tables: dict[str, Any], kind: str) -> Train:
    table = Table("train", tables.get("train", {}))
    of_text = kind in ("lm", "finetune")
    optimizers = ("muon", "adamw") if of_text else ("adamw",)
    steps, batch, learning_rate, muon_rate = _RATES[kind]
    train = Train(
        optimizer=table.choice("optimizer", optimizers, optimizers[0]),
        steps=table.integer("steps", 1, 10**5, steps),
        batch=table.integer("batch", 1, 2**14, batch),
        learning_rate=table.number("learning_rate", 1e-7, 1.0, learning_rate),
        muon_learning_rate=table.number("muon_learning_rate", 1e-7, 1.0, muon_rate),
        warmup=table.number("warmup", 0.0, 0.5, 0.05),
        clip=table.number("clip", 1e-3, 1e3, 1.0),
        weight_decay=table.number("weight_decay", 0.0, 1.0, 0.0),
        seed=table.integer("seed", 0, 2**62, 0),
        ema=table.number("ema", 0.0, 0.99999, 0.98),
        units=table.integer("units", 1, 1 if kind == "gan" else MAX_UNITS, 1),
    )
    table.done()
    return train


def _population(tables: dict[str, Any], kind: str) -> Population:
    if kind != "gan":
        if "population" in tables:
            raise SpecError(field="population", why="is a table of a gan's task file")
        return Population()
    table = Table("population", tables.get("population", {}))
    population = Population(
        spread=table.number("spread", 1.0, 8.0, 2.0),
        beta=table.number("beta", 0.0, 0.95, 0.5),
        critic_steps=table.integer("critic_steps", 1, 5, 2),
        merge=table.choice("merge", (WINNER, MEAN), WINNER),
    )
    table.done()
    return population


def _update(tables: dict[str, Any]) -> Update:
    table = Table("update", tables.get("update", {}))
    update = Update(
        top_k=table.integer("top_k", 1, 1024, 74),
        bits=table.integer("bits", 1, 1, 1),
        feedback=table.number("feedback", 0.0, 1.0, 0.8),
        feedback_end=table.number("feedback_end", 0.0, 1.0, 0.0),
        amplify=table.number("amplify", 0.001, 100.0, 4.0),
        parts=table.integer("parts", 1, MAX_PARTS, 1),
    )
    table.done()
    return update


def _score(tables: dict[str, Any], kind: str) -> Score:
    table = Table("score", tables.get("score", {}))
    fewest, usual = _SEQUENCES[kind]
    score = Score(
        sequences=table.integer("sequences", fewest, 10**5, usual),
        z=table.number("z", 0.0, 5.0, 0.0),
        tolerance=table.integer("tolerance", 0, 10**5, 0),
        evaluator=table.choice("evaluator", EVALUATORS, AUTOENCODER)
        if kind == "gan"
        else AUTOENCODER,
    )
    table.done()
    return score


_LEAST_BLOCKS = {"score_commit": 2}
"""The first of them draws the batches."""


def _phases(tables: dict[str, Any]) -> Phases:
    table = Table("phases", tables.get("phases", {}))
    defaults = Phases()
    phases = Phases(
        **{
            item.name: table.integer(
                item.name, _LEAST_BLOCKS.get(item.name, 1), 10**6, getattr(defaults, item.name)
            )
            for item in dataclasses.fields(Phases)
        }
    )
    table.done()
    return phases


_OF_KIND: dict[tuple[str, str], str] = {
    ("data", "label"): "classifier",
    ("data", "encodings"): "finetune",
    ("score", "evaluator"): "gan",
    **{("population", item.name): "gan" for item in dataclasses.fields(Population)},
}
"""Keys of a posted task that only one kind has."""
_UNSAID = {
    ("train", "units", 1),
    ("update", "parts", 1),
    ("update", "feedback_end", 0.0),
    ("population", "merge", WINNER),
}
"""Entries that a posted task leaves out: those of tasks from before there was the key."""
_TITLES = ("data", "model", "train", "update", "score", "phases", "population")
_COLUMNS = {"classifier": "image", "gan": "image"}
_RATES = {
    "lm": (15, 16, 3e-3, 0.02),
    "finetune": (15, 16, 1e-3, 2e-3),
    "gan": (200, 64, 4e-4, 0.02),
    "classifier": (15, 32, 3e-3, 0.02),
}
"""By kind: steps, batch, and the learning rates of AdamW and Muon, where a task does not say."""
_SEQUENCES = {"lm": (2, 32), "finetune": (2, 32), "gan": (64, 2000), "classifier": (2, 256)}
"""By kind: the fewest sequences of a score, and those where a task does not say."""

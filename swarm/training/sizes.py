"""Sizes of models: how many parameters they have, and how much memory it takes to train them.

All of it is arithmetic, so that a task or a checkpoint of a stranger is judged before anything is built.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

BYTE_VALUES = 256
WEIGHT_BYTES = 28
"""Of memory for each parameter in training: the base, the weight, its gradient, two moments, what is not said yet, and
a copy while it is compressed; four bytes each."""
HIDDEN_VALUES = 24
"""Values that each token keeps in each block for the way back, in widths, beside those of the perceptron."""
PERCEPTRON_VALUES = 4
LOGIT_VALUES = 4
"""Times the vocabulary, for each token of a batch."""
TOKEN_BYTES = 12
"""Of each token of a round's samples: as it is read, and as the model takes it."""
ID_BYTES = 110
"""Of each sample of a round: its number while it is drawn, and then in the order of the draw and in that of the steps."""
PIECE_BYTES = 290
"""Of each sample of text: the arrays that it is cut into before all are joined."""
LATENT_BYTES = 96
"""Of each latent number of a step's images: those of both networks, 48 each while they are drawn."""
NORM_EPSILON = 1e-5
ROPE_BASE = 10_000.0
"""Of our own models; a published base may have others."""
MAX_IMAGE_SIDE = 256
FEWEST_PIXELS = 2
"""A side of what the last stage of a cnn gives: it sees the image at no less than this."""


@dataclass(frozen=True, slots=True)
class LmModel:
    """Sizes of a decoder over tokens."""

    layers: int = 4
    heads: int = 4
    width: int = 64
    context: int = 64
    vocabulary: int = BYTE_VALUES  # 0 until the task is posted: as many as the tokenizer has
    shape: str = "gpt"  # "gpt" as GPT-2, or "llama"
    kv_heads: int = 4  # heads of keys and values: fewer than `heads` share them (llama)
    hidden: int = 256  # width of the perceptron
    # Of a model that goes on from a published one; what was said of it is then the base's.
    base: str = ""  # CID of that; NAME@version, a CID or a path until the task is posted
    reads: int = 0  # tokens that it can read at most; 0: `context`
    epsilon: float = NORM_EPSILON
    rotary: float = ROPE_BASE
    tied: bool = True  # whether the embeddings are the head

    @property
    def positions(self) -> int:
        """Tokens that the model can read at most."""
        return self.reads or self.context

    @property
    def norm_epsilon(self) -> float:
        """What keeps a norm from dividing by zero."""
        return self.epsilon

    @property
    def rope_base(self) -> float:
        """Of rotary positions (llama)."""
        return self.rotary


@dataclass(frozen=True, slots=True)
class FinetuneModel:
    """A published decoder of which the last blocks, the last norm and the head are trained."""

    base: str  # CID of the published checkpoint; NAME@version, a CID or a path until the task is posted
    trained_blocks: int
    context: int = 0  # tokens of a sample; 0 until the task is posted: as many as the base reads, at most 1,024
    # The rest is the base's; 0 layers until the task is posted.
    layers: int = 0
    heads: int = 0
    width: int = 0
    vocabulary: int = 0
    shape: str = "gpt"
    kv_heads: int = 0
    hidden: int = 0
    positions: int = 0  # tokens that the base can read at most
    norm_epsilon: float = NORM_EPSILON
    rope_base: float = ROPE_BASE

    @property
    def frozen_blocks(self) -> int:
        """How many blocks come before the trained ones."""
        return self.layers - self.trained_blocks


@dataclass(frozen=True, slots=True)
class ClassifierModel:
    """Sizes of a network that gives each image or row one of some labels."""

    classes: int = 0  # 0: as many as labels are named
    labels: str = ""  # their names, with commas in between; "": labels are numbers from 0 on
    shape: str = "cnn"  # or "mlp"
    size: int = 28  # pixels a side
    channels: int = 1
    features: int = 0  # of a row (mlp); 0: images
    width: int = 32  # cnn: channels of the first stage, doubled with each; mlp: of each layer
    layers: int = 2  # cnn: stages, each of half the size before; mlp: layers before the last

    @property
    def names(self) -> list[str]:
        """The labels' names in order; empty where they are numbers."""
        return [name.strip() for name in self.labels.split(",")] if self.labels else []

    @property
    def side(self) -> int:
        """Of what the last stage of a cnn gives."""
        side = self.size
        for _ in range(self.layers):
            side = -(-side // 2)
        return side

    @property
    def inputs(self) -> int:
        """Values of one image or row."""
        return self.features or self.channels * self.size**2


@dataclass(frozen=True, slots=True)
class GanModel:
    """Sizes of a DCGAN pair."""

    size: int = 16  # pixels a side: 16 or 32
    channels: int = 1
    latent: int = 32
    base: int = 16  # channels of the widest images; doubled each time the side is halved


Model: TypeAlias = LmModel | GanModel | FinetuneModel | ClassifierModel
Decoder: TypeAlias = LmModel | FinetuneModel
_OF_BASE = ("base", "reads", "epsilon", "rotary", "tied")


def unsaid(model: Model, name: str) -> bool:
    """Whether an entry is left out where a model is written down: as it was before there was the entry."""
    return isinstance(model, LmModel) and name in _OF_BASE and not model.base


def entries(model: Model) -> dict[str, Any]:
    """A model's sizes by name, as they are written down."""
    return {name: value for name, value in asdict(model).items() if not unsaid(model, name)}


def parameters(model: Model) -> int:
    """How many parameters of a model are trained (of a pair: both); exact, but of a gan an upper bound."""
    match model:
        case GanModel():
            widest = model.base * model.size // 8
            each = (
                16 * widest * (model.latent + 1)
                + 64 * widest * widest
                + 32 * widest * model.channels
            )
            return 2 * each
        case ClassifierModel():
            return _classifier(model)
        case FinetuneModel():
            head = model.vocabulary * model.width
            return model.trained_blocks * block_parameters(model) + _norm(model) + head
        case LmModel():
            positions = model.positions if model.shape == "gpt" else 0
            tables = model.vocabulary * (1 if model.tied else 2) + positions
            embeddings = tables * model.width
            return embeddings + model.layers * block_parameters(model) + _norm(model)


def frozen(model: FinetuneModel) -> int:
    """How many parameters of a base stay as they are."""
    positions = model.positions if model.shape == "gpt" else 0
    embeddings = (model.vocabulary + positions) * model.width
    return embeddings + model.frozen_blocks * block_parameters(model)


def block_parameters(model: Decoder) -> int:
    """How many parameters a block has."""
    if model.shape == "llama":
        shared = model.width // model.heads * model.kv_heads
        return 2 * model.width * (model.width + shared + 1) + 3 * model.width * model.hidden
    attention = 4 * model.width * (model.width + 1)
    perceptron = 2 * model.width * model.hidden + model.hidden + model.width
    return attention + perceptron + 4 * model.width


def _norm(model: Decoder) -> int:
    return model.width if model.shape == "llama" else 2 * model.width


def _classifier(model: ClassifierModel) -> int:
    if model.shape == "mlp":
        layer = model.width * (model.width + 3)  # its matrix, its bias and a norm
        first = model.width * (model.inputs + 3)
        return first + (model.layers - 1) * layer + model.classes * (model.width + 1)
    count, before, width = 0, model.channels, model.width
    for _ in range(model.layers):
        count += 9 * width * before + 9 * width * width + 6 * width  # two of each, and their norms
        before, width = width, 2 * width
    return count + model.classes * (before * model.side**2 + 1)


def encoding_bytes(model: FinetuneModel) -> int:
    """Of the encoding of one token; see `encodings`."""
    return 4 + model.width + 4 + 6 * apart(model.width)


def apart(width: int) -> int:
    """How many of a vector's values are kept apart, as they are: one in a hundred."""
    return -(-width // 100)


def training_bytes(model: Model, *, batch: int, steps: int) -> int:
    """About how much memory one peer's round takes, without the libraries and the dataset.

    Args:
        model: The sizes.
        batch: Sequences or images a step.
        steps: Steps a round, the samples of which are held at once.
    """
    weights = WEIGHT_BYTES * parameters(model)
    if isinstance(model, GanModel):
        # Pixels are hashed when the latents are gone.
        each = ID_BYTES + max(LATENT_BYTES * model.latent, model.channels * model.size**2)
        return weights + 4 * batch * 64 * model.base * model.size**2 + each * steps * batch
    if isinstance(model, ClassifierModel):
        spread = 8 * model.width * (model.size**2 if model.shape == "cnn" else model.layers)
        # As drawn, and in the order of the steps: a label, and pixels or numbers.
        each = ID_BYTES + 2 * (4 + (4 if model.features else 1) * model.inputs)
        return weights + 4 * batch * (spread + model.inputs) + each * steps * batch
    tokens = batch * model.context
    blocks, each = model.layers, TOKEN_BYTES
    if isinstance(model, FinetuneModel):
        weights += 4 * frozen(model)
        blocks, each = model.trained_blocks, 2 * encoding_bytes(model)
    kept = blocks * (HIDDEN_VALUES * model.width + PERCEPTRON_VALUES * model.hidden)
    samples = steps * batch * (ID_BYTES + PIECE_BYTES + each * model.context)
    return weights + 4 * tokens * (kept + LOGIT_VALUES * model.vocabulary) + samples

"""Sizes of models: how many parameters they have, and how much memory it takes to train them.

All of it is arithmetic, so that a task or a checkpoint of a stranger is judged before anything is built.
"""

from __future__ import annotations

from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class GanModel:
    """Sizes of a DCGAN pair."""

    size: int = 16  # pixels a side: 16 or 32
    channels: int = 1
    latent: int = 32
    base: int = 16  # channels of the widest images; doubled each time the side is halved


def parameters(model: LmModel | GanModel) -> int:
    """How many parameters a model has (of a pair: both); exact for lm, an upper bound for gan."""
    if isinstance(model, GanModel):
        widest = model.base * model.size // 8
        each = (
            16 * widest * (model.latent + 1) + 64 * widest * widest + 32 * widest * model.channels
        )
        return 2 * each
    if model.shape == "llama":
        shared = model.width // model.heads * model.kv_heads
        block = 2 * model.width * (model.width + shared + 1) + 3 * model.width * model.hidden
        return model.vocabulary * model.width + model.layers * block + model.width
    attention = 4 * model.width * (model.width + 1)
    perceptron = 2 * model.width * model.hidden + model.hidden + model.width
    block = attention + perceptron + 4 * model.width
    embeddings = (model.vocabulary + model.context) * model.width
    return embeddings + model.layers * block + 2 * model.width


def training_bytes(model: LmModel | GanModel, *, batch: int, steps: int) -> int:
    """About how much memory one peer's round takes, without the libraries and the dataset.

    Args:
        model: The sizes.
        batch: Sequences or images a step.
        steps: Steps a round, the samples of which are held at once (lm).
    """
    weights = WEIGHT_BYTES * parameters(model)
    if isinstance(model, GanModel):
        return weights + 4 * batch * 64 * model.base * model.size**2
    tokens = batch * model.context
    kept = model.layers * (HIDDEN_VALUES * model.width + PERCEPTRON_VALUES * model.hidden)
    return (
        weights
        + 4 * tokens * (kept + LOGIT_VALUES * model.vocabulary)
        + TOKEN_BYTES * steps * tokens
    )

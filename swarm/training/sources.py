"""Datasets as the jobs of a task see them: text, labelled samples, encodings or images, cut into samples."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swarm.training import (
    checkpoint,
    data,
    encodings,
    finetune,
    generation,
    rowgroups,
    text,
    tokens,
)
from swarm.training.errors import CheckpointError, SpecError
from swarm.training.labelled import LabelledData
from swarm.training.sizes import LmModel
from swarm.training.spec import BYTES, OF_BASE, PUBLISHED, TaskSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

    from swarm.training.checkpoint import Checkpoint
    from swarm.training.sizes import Decoder


@dataclass(frozen=True, slots=True)
class Bench:
    """What a job works with."""

    device: torch.device
    report: Callable[[int, int, float], None]
    alive: Callable[[], None] = lambda: None  # called where a job has nothing to report for a while
    cache: tokens.Cache = field(default_factory=tokens.Cache)  # kept from job to job
    texts: text.Texts = field(default_factory=text.Texts)
    encoders: finetune.Encoders = field(default_factory=finetune.Encoders)
    tell: Callable[[str], None] = lambda _: None  # gets text as it is made
    speakers: generation.Keeper = field(default_factory=generation.Keeper)


def of(
    spec: TaskSpec,
    base: Checkpoint,
    name: str,
    folder: str,
    bench: Bench,
    drawn: Sequence[bytes | str | int] = (),
) -> data.Samples:
    """A dataset's samples, of a task of any kind but gan.

    Args:
        spec: The task.
        base: The agreed checkpoint.
        name: "dataset" or "pool".
        folder: Where it lies.
        bench: What the job works with.
        drawn: Of published encodings, what draws those that are made again; empty: none are.
    """
    if spec.kind == "classifier":
        return labelled(spec, folder, bench)
    if spec.kind == "lm":
        return text_of(spec, base.tokenizer, folder, bench)
    if base.folder is None:
        message = "the checkpoint has no folder"
        raise CheckpointError(message)
    sizes, path = spec.finetune, Path(folder)
    if spec.data.encodings == PUBLISHED:
        found = encodings.PublishedEncodings(path, sizes)
        if drawn:
            encoder = bench.encoders.of(base.folder, sizes, bench.device)
            encodings.check(found, encoder, drawn, f"data.{name}", bench.alive)
        return found
    plain = text_of(spec, base.tokenizer, folder, bench)
    return bench.encoders.encoded(plain, base.folder, sizes, path.name, bench.device, bench.alive)


def labelled(spec: TaskSpec, folder: str, bench: Bench) -> LabelledData:
    """Images or rows with labels."""
    return LabelledData(Path(folder), spec.classifier, spec.data, bench.alive)


def images(spec: TaskSpec, folder: str, bench: Bench) -> data.ImageData:
    """Images of a gan."""
    sizes, kept = spec.gan, spec.data
    return data.ImageData(
        Path(folder), sizes.size, sizes.channels, kept.resize, kept.column, bench.alive
    )


def text_of(spec: TaskSpec, content: bytes | None, folder: str, bench: Bench) -> data.TextData:
    """A dataset as the task's tokens; without a tokenizer's content, as bytes."""
    tokenizer = tokenizer_of(content, spec.decoder, bench)
    encode = None
    if tokenizer is not None:
        encode = partial(bench.cache.ids, tokenizer, alive=bench.alive)
    path = Path(folder)
    plain = partial(
        bench.texts.plain,
        column=spec.data.column,
        alive=bench.alive,
        is_partial=rowgroups.is_part(path),
    )
    return data.TextData(path, spec.decoder.context, encode, plain)


def tokenizer_of(content: bytes | None, sizes: Decoder, bench: Bench) -> tokens.Tokenizer | None:
    """The tokenizer of a model of those sizes; None where bytes are the tokens."""
    if content is None:
        return None
    tokenizer = bench.cache.tokenizer(content)
    # A base may read more tokens than its tokenizer has.
    fits = tokenizer.vocabulary == sizes.vocabulary
    is_own = isinstance(sizes, LmModel) and not sizes.base
    if not (fits if is_own else tokenizer.vocabulary <= sizes.vocabulary):
        raise SpecError(
            field="model.vocabulary",
            why=f"is {sizes.vocabulary:,}, and the tokenizer has {tokenizer.vocabulary:,} tokens",
        )
    return tokenizer


def published_tokenizer(spec: TaskSpec, job: dict[str, Any]) -> bytes | None:
    """The content of a task's tokenizer; None where bytes are the tokens."""
    if spec.data.tokenizer == BYTES:
        return None
    if spec.data.tokenizer == OF_BASE:
        raise SpecError(field="data.tokenizer", why="is that of a base that was not looked at yet")
    return checkpoint.read_tokenizer(Path(job["tokenizer"]), spec.data.tokenizer)

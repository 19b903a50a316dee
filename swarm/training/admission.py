"""What is found out about a task before anybody pays for it: the faults that its training would meet, and doubts.

A fault names the field of the task file. A doubt is a sentence: the task can be trained, but perhaps not as meant.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
from typing import TYPE_CHECKING, Final

import numpy as np

from swarm.training import memory, models, sizes
from swarm.training.devices import Batches
from swarm.training.errors import DataError, SpecError
from swarm.training.evaluator import MIN_IMAGES
from swarm.training.sizes import ClassifierModel, FinetuneModel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import torch

    from swarm.training.labelled import LabelledData
    from swarm.training.spec import TaskSpec
    from swarm.training.tensors import Array

MAX_TRAINING_BYTES: Final = 2**40
"""Of memory for one peer's round: more than any machine that is meant to join."""
MAKING_BYTES: Final = 16
"""Of memory for each parameter while the first weights are made."""
MIN_CLASSES: Final = 2
SHOWN_CLASSES: Final = 8
TRIED_ROWS: Final = 64
"""Rows that the first weights are tried on, from those of small numbers to the one of the greatest."""
LINE_BYTES: Final = 32
"""Shorter lines are alike in many texts and say nothing."""
MAX_LINE_BYTES: Final = 2**16
MAX_POOL_LINES: Final = 4_096
MAX_READ_BYTES: Final = 2**28
"""Of a dataset that is searched for lines of the pool."""
OVERLAP: Final = 0.25
"""A pool of which so much stands in the dataset is a doubt: Python's own files share some of their lines."""
ALIVE_LINES: Final = 10_000


@contextlib.contextmanager
def named(field: str) -> Iterator[None]:
    """Let a fault of the data name the field of the task that points to them."""
    try:
        yield
    except DataError as error:
        raise SpecError(field, str(error)) from error


def check_sizes(spec: TaskSpec) -> list[str]:
    """Doubts about the memory that a task takes.

    Raises:
        SpecError: This machine cannot make its first weights, or no machine can train it.
    """
    here = memory.machine_bytes()
    count = sizes.parameters(spec.model)
    if isinstance(spec.model, FinetuneModel):
        count += sizes.frozen(spec.model)
    making = MAKING_BYTES * count
    if making > here:
        raise SpecError(
            field="model",
            why=f"has {count:,} parameters; to make them takes {_size(making)} of memory, and this machine has {_size(here)}",
        )
    training = training_bytes(spec)
    if training > MAX_TRAINING_BYTES:
        raise SpecError(
            field="train.batch",
            why=f"with train.steps and model.context it takes about {_size(training)} of memory a peer,"
            f" at most {_size(MAX_TRAINING_BYTES)} is allowed",
        )
    if training > here:
        return [
            f"a round takes about {_size(training)} of memory a peer; this machine has {_size(here)}"
        ]
    return []


def check_round(spec: TaskSpec) -> None:
    """Refuse a round that this machine's memory cannot hold, before the machine comes to a stop over it.

    Raises:
        SpecError: It names what to make smaller.
    """
    needed, here = training_bytes(spec), memory.machine_bytes()
    if needed > here:
        raise SpecError(
            field="train.batch",
            why=f"a round takes about {_size(needed)} of memory, and this machine has {_size(here)}",
        )


def training_bytes(spec: TaskSpec) -> int:
    """About how much memory a round of a task takes."""
    return sizes.training_bytes(
        spec.model, batch=spec.train.batch, steps=spec.train.steps * spec.train.units
    )


def check_counts(spec: TaskSpec, total: int, pool_total: int) -> list[str]:
    """Doubts about how many samples there are.

    Raises:
        SpecError: So few images that they have no spread; or no more samples than one step takes, so that all workers
            take the same and all updates but one are refused as copies.
    """
    if spec.kind == "gan":
        for field, count in (("data.dataset", total), ("data.pool", pool_total)):
            if count < MIN_IMAGES:
                raise SpecError(field, f"holds {count} image, at least {MIN_IMAGES} are needed")
        return []
    if total <= spec.train.batch:
        raise SpecError(
            field="train.batch",
            why=f"is {spec.train.batch:,}, and the dataset holds {total:,} samples: each step would take all of them,"
            " so that every worker learnt the same; take a smaller batch or more data",
        )
    drawn = spec.score.sequences - spec.score.sequences // 2
    if pool_total < drawn:
        return [f"the pool has {pool_total:,} samples, fewer than the {drawn:,} that a score draws"]
    return []


def text_overlap(
    dataset: Sequence[Path], pool: Sequence[Path], alive: Callable[[], None]
) -> list[str]:
    """A doubt where much of the pool stands in the dataset; whole lines are looked for."""
    wanted = set()
    for line in _lines(pool, alive):
        wanted.add(line)
        if len(wanted) == MAX_POOL_LINES:
            break
    missing = set(wanted)
    for line in _lines(dataset, alive):
        missing.discard(line)
        if not missing:
            break
    return _doubt(len(wanted) - len(missing), len(wanted), "lines")


def sample_overlap(dataset: Array, pool: Array, what: str) -> list[str]:
    """A doubt where many samples of the pool stand in the dataset, (N, …) both; `what` they are."""
    held = {_hash(one) for one in pool}
    return _doubt(len(held & {_hash(one) for one in dataset}), len(held), what)


def check_labels(model: ClassifierModel, labels: Array) -> list[str]:
    """A doubt where the dataset has no sample of some classes.

    Raises:
        SpecError: It has samples of one class only, so that there is nothing to learn.
    """
    counts = np.bincount(labels, minlength=model.classes)
    found = int((counts > 0).sum())
    if found < MIN_CLASSES:
        raise SpecError(
            field="data.dataset",
            why=f"holds samples of {found} class, at least {MIN_CLASSES} are needed",
        )
    missing = [str(at) for at in np.flatnonzero(counts == 0)]
    if not missing:
        return []
    named = [model.names[int(at)] if model.names else at for at in missing[:SHOWN_CLASSES]]
    return [
        f"the dataset has no sample of {len(missing)} of {model.classes} classes: {', '.join(named)}"
    ]


def check_rows(spec: TaskSpec, rows: LabelledData, device: torch.device) -> None:
    """Refuse rows that nothing can be learnt from, because the first weights lose all numbers over them.

    Args:
        spec: A classifier's task.
        rows: Its dataset or pool; of images, which have bounds, nothing is asked.
        device: Where to compute.

    Raises:
        DataError: Over some of them a loss or a gradient is no number.
    """
    if not spec.classifier.features:
        return
    largest = np.maximum(rows.content.max(1), -rows.content.min(1))
    tried = np.linspace(0, rows.total - 1, min(TRIED_ROWS, rows.total)).astype(int)
    ids = [int(at) for at in np.argsort(largest)[tried]]
    model = models.build(spec.model)
    model = models.fill(model, models.initial(model, spec.train.seed), device)
    loss = Batches(device).backward(model, rows.samples(ids))
    gradients = [item.grad for item in model.parameters() if item.grad is not None]
    if not math.isfinite(loss) or not all(bool(one.isfinite().all()) for one in gradients):
        message = f"holds numbers up to {largest.max():.3g}, over which a loss is no number: scale the rows"
        raise DataError(message)


def _doubt(found: int, total: int, what: str) -> list[str]:
    if not total or found < OVERLAP * total:
        return []
    share = 100 * found // total
    return [
        f"{share} % of the pool's {what} stand in the dataset too: a low loss may say no more"
        " than that they were learnt by heart"
    ]


def _lines(paths: Sequence[Path], alive: Callable[[], None]) -> Iterator[bytes]:
    left = MAX_READ_BYTES
    count = 0
    for path in paths:
        with path.open("rb") as file:
            while left > 0 and (line := file.readline(MAX_LINE_BYTES)):
                left -= len(line)
                count += 1
                if count % ALIVE_LINES == 0:
                    alive()
                line = line.strip()
                if len(line) >= LINE_BYTES:
                    yield line


def _hash(image: Array) -> bytes:
    return hashlib.blake2b(image.tobytes(), digest_size=16).digest()


def _size(count: int) -> str:
    value, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB", "PiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.1f} {unit}"

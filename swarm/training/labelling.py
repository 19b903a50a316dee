"""What a classifier says of files that it has not seen: labels with their probabilities.

Pictures are read as those of a dataset are (`images`), rows from `.npy` tables and from `.csv` files of numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from swarm.training import data, images, models, objectives
from swarm.training.errors import DataError, TrainingError
from swarm.training.labelled import numbers
from swarm.training.sizes import ClassifierModel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from torch import nn

    from swarm.training.checkpoint import Checkpoint
    from swarm.training.tensors import Array

MAX_FILES: Final = 1_000
"""Of one request, those of its folders too."""
MAX_SAMPLES: Final = 10_000
"""Of one request: a file may hold many."""
MAX_ANSWERS: Final = 100_000
"""Labels that one request is told in all."""
MAX_TABLE_BYTES: Final = 2**26
"""Of one `.csv` file."""
BATCH: Final = 64


@dataclass(frozen=True, slots=True)
class Found:
    """What was said of one sample."""

    path: str
    index: int  # of the file's samples, from 0
    labels: list[tuple[str, float]]  # the likeliest first, with their probabilities


def classify(
    base: Checkpoint,
    paths: Sequence[Path],
    device: torch.device,
    alive: Callable[[], None],
    *,
    resize: str,
    top: int,
) -> list[Found]:
    """Label the samples of files, in order.

    Args:
        base: A checkpoint of kind classifier.
        paths: Files; of a folder those in it.
        device: Where to compute.
        alive: Called after each batch, so that the job can be given up.
        resize: How pictures of another size are made to fit.
        top: Labels told of each sample; all there are, where these are fewer.

    Raises:
        TrainingError: The checkpoint is no classifier.
        DataError: A file cannot be read, holds no sample or does not fit the model, or there are too many.
    """
    sizes = base.config.model
    if not isinstance(sizes, ClassifierModel):
        message = f"{base.config.name} is no classifier: `swarm sample` uses it"
        raise TrainingError(message)
    model = models.fill(models.build(sizes), base.tensors, device)
    top = min(top, sizes.classes)
    names = sizes.names or [str(at) for at in range(sizes.classes)]
    found: list[Found] = []
    for asked, files in _files(paths):
        begun = len(found)
        for path in files:
            each = _each(model, path, sizes, resize, device, alive, names, top)
            for number, labels in enumerate(each):
                found.append(Found(str(path), number, labels))
                if len(found) > MAX_SAMPLES or top * len(found) > MAX_ANSWERS:
                    most = min(MAX_SAMPLES, MAX_ANSWERS // top)
                    message = f"more than {most:,} samples are asked for at once"
                    raise DataError(message)
        if begun == len(found):
            what = f"row of {sizes.features:,} numbers" if sizes.features else "picture"
            message = f"{asked.name} holds no {what}"
            raise DataError(message)
    return found


def _files(paths: Sequence[Path]) -> list[tuple[Path, list[Path]]]:
    """Each path that was asked for, with its files."""
    found: list[tuple[Path, list[Path]]] = []
    count = 0
    for path in paths:
        if not path.exists():
            message = f"there is no {path}"
            raise DataError(message)
        found.append((path, data.files(path)))
        count += len(found[-1][1])
        if count > MAX_FILES:
            message = f"more than {MAX_FILES:,} files are asked for at once"
            raise DataError(message)
    return found


def _each(
    model: nn.Module,
    path: Path,
    sizes: ClassifierModel,
    resize: str,
    device: torch.device,
    alive: Callable[[], None],
    names: Sequence[str],
    top: int,
) -> Iterator[list[tuple[str, float]]]:
    """The likeliest labels of each sample of a file."""
    for content in _samples(path, sizes, resize):
        for at in range(0, len(content), BATCH):
            with torch.inference_mode():
                read = objectives.readable(content[at : at + BATCH], device)
                shares, places = model(read).cpu().double().softmax(1).topk(top, 1)
            for row in zip(shares.tolist(), places.tolist(), strict=True):
                yield [(names[place], share) for share, place in zip(*row, strict=True)]
            alive()


def _samples(path: Path, sizes: ClassifierModel, resize: str) -> Iterator[Array]:
    """What a file holds, (N, channels, size, size) uint8 or (N, features) float32 at a time."""
    if not sizes.features:
        yield from images.images_of(path, images.Frame(sizes.size, sizes.channels, resize))
        return
    name = path.name.lower()
    if name.endswith((".npy", ".csv")):
        rows = numbers(path) if name.endswith(".npy") else _table(path)
        if rows.shape[1] != sizes.features or not np.isfinite(rows).all():
            message = f"{path.name} does not hold rows of {sizes.features:,} finite numbers"
            raise DataError(message)
        yield rows


def _table(path: Path) -> Array:
    """The rows of a file of numbers with commas in between, shape (N, features), float32."""
    if path.stat().st_size > MAX_TABLE_BYTES:
        message = f"{path.name} has more than {MAX_TABLE_BYTES:,} bytes"
        raise DataError(message)
    try:
        lines = path.read_text().splitlines()
        rows = [[float(one) for one in line.split(",")] for line in lines if line.strip()]
        found: Array = np.array(rows, np.float32)
    except (OSError, ValueError) as error:  # UnicodeDecodeError too, and rows of several lengths
        message = f"{path.name} is no table of numbers: {str(error)[:200]}"
        raise DataError(message) from error
    return found.reshape(len(rows), -1) if rows else np.zeros((0, 0), np.float32)

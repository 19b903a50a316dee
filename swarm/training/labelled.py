"""Images and rows with labels: what a task of kind classifier is trained and scored on.

Where the labels of a dataset's files stand, by file:

    .tar              a WebDataset: `NAME.cls` beside `NAME.png`
    .parquet          the columns `data.column` and `data.label`
    IDX, .npy         a file of labels in the same folder: `…idx1…`, or `.npy` with `label` in its name; the n-th array
                      of the folder has the n-th labels, in order of their names
    others            the name of the folder that the image is in

A label is a number from 0 on, or a name where the task names them (`model.labels`).
"""

from __future__ import annotations

import gzip
import math
import zlib
from collections import defaultdict
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from swarm.sizes import counted
from swarm.training import columns, images
from swarm.training.data import files
from swarm.training.errors import DataError, SpecError
from swarm.training.rowgroups import is_part
from swarm.training.text import members

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path, PurePath

    from swarm.training.sizes import ClassifierModel
    from swarm.training.spec import Data
    from swarm.training.tensors import Array

MAX_LABEL_BYTES: Final = 256
"""Of one label's text."""
MAX_LABELS_BYTES: Final = 2**30
"""Of one file of labels."""
ABSENT: Final = 2**32 - 1
"""In place of the label of a sample that was not fetched: its picture is an empty file, its row group a hole."""
ABSENT_BYTES: Final = 2**24
"""Of such samples that are made at a time, about."""
SHOWN: Final = 8
"""Labels that an error names at most."""

Part: TypeAlias = "tuple[Array, Array]"
"""Contents (N, …) and labels (N,)."""


class LabelledData:
    """A dataset with its labels, all in memory.

    Args:
        folder: The dataset.
        model: The task's.
        data: The task's: how images fit, and names of columns.
        alive: Called every so often, so that the job can be given up.

    Raises:
        DataError: No sample, too many, one without a label, or a file that is malformed; it is named.
        SpecError: A label is not one of the model's classes.
    """

    def __init__(
        self,
        folder: Path,
        model: ClassifierModel,
        data: Data,
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        contents, labels, held = [], [], 0
        for part, named in _Reader(folder, model, data).parts():
            held += part.nbytes
            if held > images.MAX_IMAGE_BYTES:
                message = f"{folder.name} holds more than {images.MAX_IMAGE_BYTES:,} bytes"
                raise DataError(message)
            contents.append(part)
            labels.append(named)
            alive()
        if not held:
            what = "rows of numbers" if model.features else "images"
            message = f"{folder.name} holds no {what} with labels"
            raise DataError(message)
        self.content: Array = np.concatenate(contents)
        """Shape (N, channels, size, size), uint8; of rows (N, features), float32."""
        self.labels: Array = np.concatenate(labels)
        """Shape (N,), uint32."""
        self.total = len(self.content)
        name = "values" if model.features else "pixels"
        self._type = np.dtype(
            [("label", "<u4"), (name, self.content.dtype, self.content.shape[1:])]
        )
        self._name = name

    def samples(self, ids: Sequence[int]) -> Array:
        """Shape (len(ids),), with the fields `label` and `pixels` or `values`.

        Raises:
            DataError: One was not fetched.
        """
        at = np.asarray(ids, np.int64)
        found = np.zeros(len(at), self._type)
        found["label"] = self.labels[at]
        if (found["label"] == ABSENT).any():
            message = (
                f"sample {at[found['label'] == ABSENT][0]:,} is not in this part of the dataset"
            )
            raise DataError(message)
        found[self._name] = self.content[at]
        return found


class _Reader:
    """Files to contents and labels."""

    def __init__(self, folder: Path, model: ClassifierModel, data: Data) -> None:
        self._folder = folder
        self._model = model
        self._data = data
        self._frame = images.Frame(model.size, model.channels, data.resize)
        self._numbers = {name: at for at, name in enumerate(model.names)}
        self._is_partial = is_part(folder)

    def parts(self) -> Iterator[Part]:
        beside: dict[Path, list[Path]] = defaultdict(list)
        for path in files(self._folder):
            beside[path.parent].append(path)
        for paths in beside.values():
            yield from self._of_folder(paths)

    def _of_folder(self, paths: list[Path]) -> Iterator[Part]:
        labels = [path for path in paths if is_labels(path)]
        arrays = [path for path in paths if is_array(path) and path not in labels]
        if labels and len(labels) != len(arrays):
            message = (
                f"{paths[0].parent.name} holds {counted(len(arrays), 'array')}"
                f" and {counted(len(labels), 'file')} of labels"
                f" ({', '.join(path.name for path in labels[:SHOWN])})"
            )
            raise DataError(message)
        pairs = dict(zip(arrays, labels, strict=False))
        for path in paths:
            if path in pairs:
                yield self._pair(path, pairs[path])
            elif path.suffix.lower() == ".tar":
                yield from self._tar(path)
            elif path.suffix.lower() == ".parquet":
                yield from self._parquet(path)
            elif path not in labels:
                yield from self._in_folder(path)

    def _in_folder(self, path: Path) -> Iterator[Part]:
        is_absent = self._is_partial and _is_picture(path) and not path.stat().st_size
        if self._model.features:
            parts = [numbers(path)] if is_array(path) else []
        elif is_absent:
            parts = [part for part, _ in self._absent(1)]
        else:
            parts = list(images.images_of(path, self._frame))
        for part in parts:
            if path.parent == self._folder or path == self._folder:
                message = f"{path.name} has no label: it stands in no folder, and no file of labels beside it"
                raise DataError(message)
            number = self._number(path.parent.name, path)
            label = ABSENT if is_absent else number
            yield self._fit(part, path), np.full(len(part), label, np.uint32)

    def _absent(self, count: int) -> Iterator[Part]:
        """Samples that were not fetched, some at a time, so that too many are refused before they are made."""
        model = self._model
        each = (model.features,) if model.features else (model.channels, model.size, model.size)
        kind = np.float32 if model.features else np.uint8
        step = max(1, ABSENT_BYTES // math.prod(each))
        for at in range(0, count, step):
            some = min(step, count - at)
            yield np.zeros((some, *each), kind), np.full(some, ABSENT, np.uint32)

    def _pair(self, path: Path, labels: Path) -> Part:
        if self._model.features:
            content = self._fit(numbers(path), path)
        else:
            parts = list(images.images_of(path, self._frame))
            if not parts:
                message = f"{path.name} holds no image"
                raise DataError(message)
            content = np.concatenate(parts)
        found = _labels(labels)
        if len(found) != len(content):
            message = f"{path.name} holds {len(content):,} samples, and {labels.name} {len(found):,} labels"
            raise DataError(message)
        return content, self._checked(found, labels)

    def _tar(self, path: Path) -> Iterator[Part]:
        if self._model.features:
            return
        name, picture, label = "", None, None
        for member, content in members(path):
            key, _, ending = member.partition(".")
            if key != name:
                name, picture, label = key, None, None
            where = f"{path.name}: {member[:80]}"
            if member.lower().endswith(images.PICTURES):
                picture = self._frame.picture(content, where)
            elif ending.lower() == "cls":
                label = self._number(_text(content, where), where)
            if picture is not None and label is not None:
                yield picture, np.full(1, label, np.uint32)
                picture, label = None, None

    def _parquet(self, path: Path) -> Iterator[Part]:
        chosen = self._data.column, self._data.label
        for found in columns.pairs(path, *chosen, is_partial=self._is_partial):
            if isinstance(found, int):
                yield from self._absent(found)
                continue
            values, labels = found
            if self._model.features:
                content = self._fit(columns.rows(values, self._model.features, path), path)
            else:
                content = columns.fitted(values, self._frame, path)
            numbers = [self._number(one, path) for one in labels]
            yield content, np.array(numbers, np.uint32)

    def _fit(self, rows: Array, path: Path) -> Array:
        """Rows of as many finite numbers as the model reads; images as they are."""
        if not self._model.features:
            return rows
        if rows.shape[1] != self._model.features:
            message = f"{path.name} holds rows of {rows.shape[1]:,} numbers, and model.features is {self._model.features:,}"
            raise DataError(message)
        if not np.isfinite(rows).all():
            message = f"{path.name} holds a number that is not finite"
            raise DataError(message)
        return rows

    def _checked(self, labels: Array, path: Path) -> Array:
        if labels.size and not 0 <= labels.min() <= labels.max() < self._model.classes:
            wrong = labels.min() if labels.min() < 0 else labels.max()
            raise self._beyond(str(wrong), path)
        return labels.astype(np.uint32)

    def _number(self, label: object, where: Path | str) -> int:
        if isinstance(label, str):
            if label in self._numbers:
                return self._numbers[label]
            if not label.isascii() or not label.isdecimal() or len(label) > 6:
                raise self._unknown(label, where)
        elif type(label) is not int:
            message = f"{_told(where)} holds a label that is neither a number nor a name"
            raise DataError(message)
        number = int(label)
        if not 0 <= number < self._model.classes:
            raise self._beyond(str(number), where)
        return number

    def _unknown(self, label: str, where: Path | str) -> SpecError:
        known = self._model.names
        if known:
            shown = ", ".join(known[:SHOWN])
            return SpecError(
                "model.labels", f"do not name {label[:80]!r} of {_told(where)}; they are {shown}"
            )
        return SpecError(
            "model.labels",
            f"are missing: {_told(where)} has the label {label[:80]!r}, which is no number; name them all, with commas in between",
        )

    def _beyond(self, label: str, where: Path | str) -> SpecError:
        return SpecError(
            "model.classes",
            f"is {self._model.classes}, and {_told(where)} holds the label {label[:20]}; labels are 0 to {self._model.classes - 1}",
        )


def _told(where: Path | str) -> str:
    return where if isinstance(where, str) else where.name


def _is_picture(path: PurePath) -> bool:
    return path.name.lower().endswith(images.PICTURES)


def is_labels(path: PurePath) -> bool:
    """Whether a file holds the labels of the arrays beside it, by its name."""
    name = path.name.lower()
    return "idx1" in name or (name.endswith(".npy") and "label" in name)


def is_array(path: PurePath) -> bool:
    """Whether a file is an array of images or rows, by its name."""
    name = path.name.lower()
    return "idx3" in name or "idx4" in name or name.endswith(".npy")


def _labels(path: Path) -> Array:
    """Shape (N,), of whole numbers."""
    if path.suffix.lower() == ".npy":
        found = images.array(path)
        if found.ndim != 1 or found.dtype.kind not in "iu":
            message = f"{path.name} is no row of whole numbers"
            raise DataError(message)
        return np.asarray(found, np.int64)
    try:
        with path.open("rb") as raw, gzip.open(raw) if path.suffix == ".gz" else raw as file:
            data = file.read(MAX_LABELS_BYTES + 8)
    except (OSError, EOFError, zlib.error) as error:
        message = f"{path.name} cannot be read: {error}"
        raise DataError(message) from error
    if data[:4] != b"\x00\x00\x08\x01" or int.from_bytes(data[4:8], "big") != len(data) - 8:
        message = f"{path.name} is no IDX file of labels"
        raise DataError(message)
    return np.frombuffer(data, np.uint8, offset=8).astype(np.int64)


def numbers(path: Path) -> Array:
    """The table of a `.npy` file, shape (N, features), float32.

    Raises:
        DataError: It is malformed, too large, or no table of numbers.
    """
    found = images.array(path)
    if found.ndim != 2 or found.dtype.kind not in "iuf" or not found.size:
        message = f"{path.name} is no table of numbers"
        raise DataError(message)
    if 4 * found.size > images.MAX_IMAGE_BYTES:
        message = f"{path.name} holds more than {images.MAX_IMAGE_BYTES // 4:,} numbers"
        raise DataError(message)
    return found.astype(np.float32)


def _text(content: bytes, where: str) -> str:
    if len(content) > MAX_LABEL_BYTES:
        message = f"{where} has more than {MAX_LABEL_BYTES} bytes"
        raise DataError(message)
    return content.decode(errors="replace").strip()

"""Columns of Parquet files: pictures or rows, and the labels beside them.

A column of pictures holds their bytes, or structs with `bytes`, as the `datasets` library of Hugging Face writes them.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from swarm.training import rowgroups
from swarm.training.errors import DataError
from swarm.training.images import MAX_FILE_BYTES

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

    from swarm.training.footers import Group
    from swarm.training.images import Frame
    from swarm.training.tensors import Array

BATCH_ROWS: Final = 16
MAX_TABLE_ROWS: Final = 10**7


def pairs(
    path: Path, column: str, label: str, *, is_partial: bool
) -> Generator[tuple[list[Any], list[Any]] | int, None, None]:
    """The values of two columns, some rows at a time; rows without either are left out.

    Of a row group that was not fetched, how many samples it has.

    Raises:
        DataError: The file is malformed, too large, or has no such columns.
    """
    chosen = ((column, "data.column"), (label, "data.label"))
    read = 0
    found = rowgroups.read(path, chosen, BATCH_ROWS, is_partial=is_partial)
    with rowgroups.contained(path), closing(found) as groups:
        for group, batches in groups:
            read += group.rows
            if read > MAX_TABLE_ROWS:
                message = f"{path.name} holds more than {MAX_TABLE_ROWS:,} rows"
                raise DataError(message)
            if batches is None:
                yield _absent(path, group)
                continue
            count = 0
            for batch in batches:
                values, labels = batch.column(column), batch.column(label)
                kept = [
                    (one.as_py(), other.as_py())
                    for one, other in zip(values, labels, strict=True)
                    if one.is_valid and other.is_valid
                ]
                count += len(kept)
                if kept:
                    yield [one for one, _ in kept], [other for _, other in kept]
            rowgroups.contradict(path, group, "samples", count, group.samples)


def images(path: Path, column: str, frame: Frame) -> Generator[Array, None, None]:
    """The pictures of a column, (N, channels, size, size) uint8 at a time; rows without one are left out.

    Raises:
        DataError: The file is malformed or has no such column, or a picture does not fit.
    """
    found = rowgroups.read(path, ((column, "data.column"),), BATCH_ROWS, is_partial=False)
    with rowgroups.contained(path), closing(found) as groups:
        for _, batches in groups:
            for batch in batches or ():
                kept = [one.as_py() for one in batch.column(column) if one.is_valid]
                if kept:
                    yield fitted(kept, frame, path)


def fitted(values: Sequence[Any], frame: Frame, path: Path) -> Array:
    """The pictures of some rows, shape (N, channels, size, size), uint8."""
    return np.concatenate([frame.picture(one, path.name) for one in pictures(values, path)])


def _absent(path: Path, group: Group) -> int:
    if group.samples is None:
        message = f"{path.name} lacks a row group of which the footer counts no samples"
        raise DataError(message)
    return group.samples


def pictures(values: Sequence[Any], path: Path) -> list[bytes]:
    """The files of a column of pictures."""
    found = []
    for value in values:
        one = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(one, bytes) or len(one) > MAX_FILE_BYTES:
            message = f"{path.name}: the column (data.column) holds something that is no picture of at most {MAX_FILE_BYTES:,} bytes"
            raise DataError(message)
        found.append(one)
    return found


def rows(values: Sequence[Any], features: int, path: Path) -> Array:
    """Shape (N, features), float32."""
    message = f"{path.name}: the column (data.column) does not hold lists of {features:,} numbers (model.features)"
    if any(not isinstance(one, list) or len(one) != features for one in values):
        raise DataError(message)
    try:
        found: Array = np.array(values, np.float32)
    except (TypeError, ValueError) as error:
        raise DataError(message) from error
    return found

"""Columns of Parquet files: pictures or rows, and the labels beside them.

A column of pictures holds their bytes, or structs with `bytes`, as the `datasets` library of Hugging Face writes them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from swarm.training.errors import DataError
from swarm.training.images import MAX_FILE_BYTES
from swarm.training.memory import bounded_memory
from swarm.training.text import PARQUET_OPTIONS, contained

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

    from swarm.training.tensors import Array

BATCH_ROWS: Final = 16
MAX_TABLE_ROWS: Final = 10**7


def pairs(
    path: Path, column: str, label: str
) -> Generator[tuple[list[Any], list[Any]], None, None]:
    """The values of two columns, some rows at a time; rows without either are left out.

    Raises:
        DataError: The file is malformed, too large, or has no such columns.
    """
    try:
        import pyarrow  # type: ignore[import-untyped]
        from pyarrow import parquet
    except ImportError as error:
        message = f"{path.name} is a Parquet file, and pyarrow, which reads it, is not installed"
        raise DataError(message) from error
    pyarrow.allocate_buffer(1)  # with the first, its pool reserves addresses beyond the bound below
    faults = (pyarrow.ArrowException, OSError, ValueError, KeyError)
    read = 0
    options = PARQUET_OPTIONS
    with contained(path, faults), bounded_memory(), parquet.ParquetFile(path, **options) as file:
        for name, field in ((column, "data.column"), (label, "data.label")):
            if file.schema_arrow.names.count(name) != 1:
                has = ", ".join(file.schema_arrow.names)[:200]
                message = f"{path.name} has no column {name!r} ({field}): it has {has}"
                raise DataError(message)
        for batch in file.iter_batches(BATCH_ROWS, columns=[column, label], use_threads=False):
            read += batch.num_rows
            if read > MAX_TABLE_ROWS:
                message = f"{path.name} holds more than {MAX_TABLE_ROWS:,} rows"
                raise DataError(message)
            values, labels = batch.column(column), batch.column(label)
            kept = [
                (one.as_py(), other.as_py())
                for one, other in zip(values, labels, strict=True)
                if one.is_valid and other.is_valid
            ]
            if kept:
                yield [one for one, _ in kept], [other for _, other in kept]


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

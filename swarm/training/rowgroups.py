"""Row groups of a Parquet file, read one after the other, each held against what the footer claims of it.

In a dataset of which parts are here only (`is_part`), a row group of which the columns are holes was not fetched. A
page begins with a header, and no header with a zero, so the first byte of a column tells.
"""

from __future__ import annotations

import os
from contextlib import closing, contextmanager
from typing import IO, TYPE_CHECKING, Any, Final

from swarm.training import footers
from swarm.training.errors import DataError
from swarm.training.memory import bounded_memory
from swarm.training.thrift import MAX_ENTRIES

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence
    from pathlib import Path
    from types import ModuleType

    from swarm.training.footers import Group

PARTIAL: Final = ".part"
"""Stands beside a dataset of which the bytes of some samples only are here; not in it, where its author could put it."""
MAX_STRING_BYTES: Final = 2**26
"""Of any text in a Parquet file's header."""
BUFFER_BYTES: Final = 2**20
OPTIONS: Final = {
    "thrift_string_size_limit": MAX_STRING_BYTES,
    "thrift_container_size_limit": MAX_ENTRIES,
    "buffer_size": BUFFER_BYTES,  # else a whole column of a row group
}


def is_part(folder: Path) -> bool:
    """Whether the bytes of some samples only of a dataset are here."""
    return (folder.parent / PARTIAL).is_file()


def read(
    path: Path,
    columns: Sequence[tuple[str, str]],
    rows: int,
    *,
    is_partial: bool,
    encoded: Sequence[str] = (),
    check: Callable[[Any], None] = lambda _: None,
) -> Generator[tuple[Group, Iterator[Any] | None], None, None]:
    """The row groups of a file, each with its batches of so many rows; None in their place where it was not fetched.

    Args:
        path: The file.
        columns: What is read of it, each with the entry of the task that chose it.
        rows: Of a batch, at most.
        is_partial: Whether row groups may be missing.
        encoded: Columns of which a value that stands in every row is held once.
        check: Given the schema before anything is read; may raise.

    Its errors are pyarrow's too, which `contained` makes plain.

    Raises:
        DataError: The file has no such columns, or holds other rows than its footer claims.
    """
    pyarrow, parquet = _library(path)
    pyarrow.allocate_buffer(1)  # with the first, its pool reserves addresses beyond the bound below
    groups = _groups(path, columns)
    options = {**OPTIONS, "read_dictionary": list(encoded)}
    names = [name for name, _ in columns]
    with (
        bounded_memory(),
        parquet.ParquetFile(path, **options) as file,
        path.open("rb") as raw,
    ):
        for name, field in columns:
            if file.schema_arrow.names.count(name) != 1:
                has = ", ".join(file.schema_arrow.names)[:200]
                message = f"{path.name} has no column {name!r} ({field}): it has {has}"
                raise DataError(message)
        check(file.schema_arrow)
        if file.metadata.num_row_groups != len(groups):
            message = f"{path.name} cannot be read: row_groups are counted in two ways"
            raise DataError(message)
        for at, group in enumerate(groups):
            if is_partial and group.rows and _is_hole(raw, group):
                yield group, None
                continue
            batches = file.iter_batches(rows, row_groups=[at], columns=names, use_threads=False)
            with closing(_counted(batches, group.rows, f"{path.name}: row_groups[{at}]")) as found:
                yield group, found


def contradict(path: Path, group: Group, what: str, found: int, claimed: int | None) -> None:
    """Refuse a row group that holds something else than its footer claims.

    Raises:
        DataError: The two differ.
    """
    if claimed is not None and found != claimed:
        start = group.parts[0].start
        message = f"{path.name} cannot be read: its footer claims {claimed:,} {what} of the row group at byte {start:,}, which holds {found:,}"
        raise DataError(message)


def _library(path: Path) -> tuple[ModuleType, ModuleType]:
    try:
        import pyarrow  # type: ignore[import-untyped]
        from pyarrow import parquet
    except ImportError as error:
        message = f"{path.name} is a Parquet file, and pyarrow, which reads it, is not installed"
        raise DataError(message) from error
    return pyarrow, parquet


def _groups(path: Path, columns: Sequence[tuple[str, str]]) -> list[Group]:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - footers.TAIL_BYTES))
        tail = file.read(footers.TAIL_BYTES)
        length = footers.length(tail, size, path.name)
        if length > len(tail):
            file.seek(size - length)
            tail = file.read(length)
    return footers.groups(tail[-length:], size, path.name, columns)


def _is_hole(raw: IO[bytes], group: Group) -> bool:
    for part in group.parts:
        raw.seek(part.start)
        if raw.read(1) != b"\0":
            return False
    return True


def _counted(batches: Iterator[Any], rows: int, where: str) -> Generator[Any, None, None]:
    read = 0
    for batch in batches:
        read += batch.num_rows
        yield batch
        if read > rows:
            break
    if read != rows:
        message = f"{where}.num_rows is {rows:,}, and it holds {read:,}"
        raise DataError(message)


@contextmanager
def contained(path: Path) -> Iterator[None]:
    """Make an error of the library one that names the file."""
    pyarrow, _ = _library(path)
    try:
        yield
    except MemoryError as error:
        message = f"{path.name} takes too much memory to be read"
        raise DataError(message) from error
    except (pyarrow.ArrowException, OSError, ValueError, KeyError) as error:
        message = f"{path.name} cannot be read: {str(error)[:200]}"
        raise DataError(message) from error

"""Text out of files that hold more than text: Parquet tables, and tar archives as WebDataset makes them.

`EXTRACTORS` says which endings these are; the bytes of every other file are text as they stand.
What is extracted goes to a nameless file beside the dataset, since a dataset may be larger than the memory, and is
kept from job to job.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tarfile
import tempfile
from collections import OrderedDict
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, Final, Self

from swarm.training import rowgroups
from swarm.training.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

MAX_TEXT_BYTES: Final = 2**34
"""Of the text that a dataset may hold: Parquet can say a row a billion times in a few bytes."""
MAX_MEMBERS: Final = 10**7
"""Files in an archive."""
MAX_MEMBER_BYTES: Final = 2**26
"""Of one file in an archive."""
MAX_EXTENDED_BYTES: Final = 2**14
"""Of a header that says more of the next one, such as a long name: `tarfile` takes the square of its length to read it."""
BATCH_ROWS: Final = 256
KEPT_FILES: Final = 64
"""Extracted files that are kept for the next job."""
KEPT_BYTES: Final = 2 * MAX_TEXT_BYTES
ALIVE_BYTES: Final = 2**20
"""Of extracted text between two signs of life."""
CARD: Final = "README.md"
"""A dataset's card, which is not data."""
LINE_END: Final = b"\n"
"""Stands after each row and each file of an archive."""


class Texts:
    """Extracted text, kept between jobs; the files that were not used for longest go first."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, tuple[IO[bytes], int]] = OrderedDict()

    def plain(
        self,
        paths: Sequence[Path],
        column: str,
        alive: Callable[[], None],
        *,
        is_partial: bool = False,
    ) -> list[Path]:
        """Files of text in place of files that hold it, in the same order.

        Args:
            paths: A dataset's files.
            column: Of a Parquet file, the one to take.
            alive: Called every so often, so that the job can be given up.
            is_partial: Whether row groups may be missing; a hole stands for what they hold.

        Raises:
            DataError: A file is malformed, too large, or has no such column; it is named.
        """
        found = []
        left = MAX_TEXT_BYTES
        for path in paths:
            if path.suffix.lower() not in EXTRACTORS:
                found.append(path)
                continue
            key = f"{identity([path])}{column}"
            if key not in self._kept:
                self._kept[key] = _extracted(path, column, left, alive, is_partial=is_partial)
            self._kept.move_to_end(key)
            file, size = self._kept[key]
            left -= size
            found.append(_path_of(file))
        return found

    def trim(self) -> None:
        """Give up what is too much; called between jobs, since paths that were given out end with it."""
        while (
            len(self._kept) > KEPT_FILES
            or sum(size for _, size in self._kept.values()) > KEPT_BYTES
        ):
            self._kept.popitem(last=False)[1][0].close()

    def close(self) -> None:
        """Give up everything."""
        while self._kept:
            self._kept.popitem()[1][0].close()


class _Header(tarfile.TarInfo):
    """A header as the library reads it, where that takes neither long nor much memory."""

    @classmethod
    def frombuf(cls, buf: bytes, encoding: str, errors: str) -> Self:  # type: ignore[override]
        """One block, read.

        Raises:
            ReadError: What it begins is too long, or has holes.
        """
        found = super().frombuf(buf, encoding, errors)
        if found.type in _EXTENDED and found.size > MAX_EXTENDED_BYTES:
            message = f"a header has {found.size:,} bytes more"
            raise tarfile.ReadError(message)
        if found.type == tarfile.GNUTYPE_SPARSE:
            message = f"{found.name[:80]} has holes"
            raise tarfile.ReadError(message)
        return found


_EXTENDED: Final = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


def identity(paths: Sequence[Path]) -> str:
    """A text that changes when one of the files does."""
    state = hashlib.sha256()
    for path in paths:
        about = path.stat()
        state.update(f"{path}\0{about.st_size}\0{about.st_mtime_ns}\0{about.st_ino}\0".encode())
    return state.hexdigest()


def members(path: Path) -> Iterator[tuple[str, bytes]]:
    """The files of a tar archive in its order: (name without folders, content).

    Links, folders and hidden files are left out.

    Raises:
        DataError: It is malformed, too large, or has holes.
    """
    try:
        with (
            path.open("rb") as file,
            tarfile.open(fileobj=file, mode="r|", tarinfo=_Header) as archive,
        ):
            for count, one in enumerate(archive):
                archive.members = []  # type: ignore[attr-defined]  # it would keep them all
                name = PurePosixPath(one.name).name
                if count >= MAX_MEMBERS:
                    raise DataError(f"{path.name} holds more than {MAX_MEMBERS:,} files")  # noqa: EM102
                if not one.isreg() or name.startswith("."):
                    continue
                if one.size > MAX_MEMBER_BYTES or one.issparse():
                    raise DataError(f"{path.name}: {name[:80]} has {one.size:,} bytes, or holes")  # noqa: EM102
                content = archive.extractfile(one)
                yield name, b"" if content is None else content.read()
    except (
        tarfile.TarError,
        OSError,
        EOFError,
        ValueError,
        OverflowError,
        RecursionError,  # of headers that each say more of the next one
    ) as error:
        message = f"{path.name} is no tar archive that can be read: {str(error)[:200]}"
        raise DataError(message) from error


def _extracted(
    path: Path, column: str, most: int, alive: Callable[[], None], *, is_partial: bool
) -> tuple[IO[bytes], int]:
    file = _nameless(path.parent)
    try:
        with closing(EXTRACTORS[path.suffix.lower()](path, column, is_partial)) as pieces:
            size = _write(file, pieces, most, alive)
    except BaseException:
        file.close()
        raise
    if size > most:
        file.close()
        message = f"{path.name}: the dataset holds more than {MAX_TEXT_BYTES:,} bytes of text"
        raise DataError(message)
    return file, size


def _write(
    file: IO[bytes], pieces: Iterator[bytes | int], most: int, alive: Callable[[], None]
) -> int:
    """Write pieces, each on a line of its own, until there are more than `most` bytes; how many.

    In place of so many bytes that are not here a hole is left.
    """
    size = told = 0
    for piece in pieces:
        if isinstance(piece, int):
            size += piece
            if size <= most:
                file.seek(size)
        else:
            size += file.write(piece) + file.write(LINE_END)
        if size > most:
            break
        if size - told > ALIVE_BYTES:
            told = size
            alive()
    file.truncate()  # a hole at the end too
    file.flush()
    return size


def _nameless(folder: Path) -> IO[bytes]:
    """A file that is gone with the process, however that ends; off Linux one with a name, gone when it is closed."""
    if sys.platform == "linux":
        return tempfile.TemporaryFile(dir=folder)
    return tempfile.NamedTemporaryFile(prefix="swarm-text-")


def _path_of(file: IO[bytes]) -> Path:
    return Path(
        f"/proc/self/fd/{file.fileno()}" if sys.platform == "linux" else os.fsdecode(file.name)
    )


def _rows(path: Path, column: str, is_partial: bool) -> Generator[bytes | int, None, None]:
    """The rows of a column of text; rows without a value are left out.

    Of a row group that was not fetched, how many bytes its rows have with their line ends.
    """
    chosen = ((column, "data.column"),)
    found = rowgroups.read(
        path,
        chosen,
        BATCH_ROWS,
        is_partial=is_partial,
        encoded=[column],
        check=lambda schema: _check_column(path, schema, column),
    )
    with rowgroups.contained(path), closing(found) as groups:
        for group, batches in groups:
            if batches is None:
                if group.text_bytes is None:
                    message = f"{path.name} lacks a row group of which the footer counts no text"
                    raise DataError(message)
                yield group.text_bytes
                continue
            size = 0
            for batch in batches:
                for value in batch.column(0):
                    if (row := value.as_py()) is not None:
                        yield (piece := row.encode())
                        size += len(piece) + len(LINE_END)
            rowgroups.contradict(path, group, "bytes of text", size, group.text_bytes)


def _check_column(path: Path, schema: Any, column: str) -> None:  # noqa: ANN401 - pyarrow has no types
    from pyarrow import types  # type: ignore[import-untyped]

    kind = schema.field(column).type
    inner = kind.value_type if types.is_dictionary(kind) else kind
    if not (types.is_string(inner) or types.is_large_string(inner)):
        message = f"{path.name}: column {column!r} holds {kind} and no text"
        raise DataError(message)


def _texts_of(path: Path, _column: str, _is_partial: bool) -> Generator[bytes | int, None, None]:
    for name, content in members(path):
        if name.lower().endswith(".txt"):
            yield content


EXTRACTORS: Final[dict[str, Callable[[Path, str, bool], Generator[bytes | int, None, None]]]] = {
    ".parquet": _rows,
    ".tar": _texts_of,
}
"""By ending, what gives the pieces of text of a file."""

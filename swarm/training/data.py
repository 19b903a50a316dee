"""Datasets as training sees them: sequences of tokens cut from text folders, and arrays of small images.

A folder's files are taken in order of their paths; hidden files and README.md (the card) are not data.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from swarm.training import columns, images
from swarm.training.errors import DataError
from swarm.training.text import CARD

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from swarm.training.tensors import Array

MAX_FILES: Final = 10**6


class Samples(Protocol):
    """A dataset cut into samples that are drawn by number."""

    total: int

    def samples(self, ids: Sequence[int]) -> Array:
        """Those samples, shape (len(ids), …)."""


class TextData:
    """Sequences of tokens from a folder; sample `i` starts at token `i * context` of all files joined.

    Args:
        folder: The dataset, or one file.
        context: Tokens that a model reads; each sample has one more, the last one to be predicted.
        encode: Gives the token ids of files; None: their bytes are the tokens, and only those of the samples
            asked for are read.
        texts: Gives files of text in place of those that hold it; see `text`.

    Raises:
        DataError: Fewer tokens than one sample has.
    """

    def __init__(
        self,
        folder: Path,
        context: int,
        encode: Callable[[Sequence[Path]], Array] | None = None,
        texts: Callable[[Sequence[Path]], Sequence[Path]] = lambda paths: paths,
    ) -> None:
        paths = texts(files(folder))
        self.paths = paths
        """The files of text, in order."""
        self._tokens = _Bytes(paths) if encode is None else encode(paths)
        self._context = context
        count = len(self._tokens)
        self.total = max(0, count - 1) // context
        """How many samples there are."""
        if self.total < 1:
            kind = "bytes" if encode is None else "tokens"
            message = (
                f"{folder.name} holds {count:,} {kind}, fewer than one sample of {context + 1}"
            )
            raise DataError(message)
        self.bytes_per_token = sum(path.stat().st_size for path in paths) / count
        """1 where bytes are the tokens."""

    def samples(self, ids: Sequence[int]) -> Array:
        """Shape (len(ids), context + 1), uint8, uint16 or uint32."""
        starts = [index * self._context for index in ids]
        return np.stack([self._tokens[start : start + self._context + 1] for start in starts])


class _Bytes:
    """The bytes of files joined, as an array that is read where it is asked for."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._ends = np.cumsum(np.array([path.stat().st_size for path in paths], np.int64))

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, part: slice) -> Array:
        start, length = part.start, part.stop - part.start
        parts = []
        at = int(np.searchsorted(self._ends, start, side="right"))
        while length:
            begin = int(self._ends[at - 1]) if at else 0
            take = min(length, int(self._ends[at]) - start)
            if take:
                with self._paths[at].open("rb") as file:
                    file.seek(start - begin)
                    data = file.read(take)
                if len(data) != take:
                    message = f"{self._paths[at].name} became shorter while it was read"
                    raise DataError(message)
                parts.append(np.frombuffer(data, np.uint8))
            start, length, at = start + take, length - take, at + 1
        return np.concatenate(parts)


class ImageData:
    """Small images from a folder, all in memory; see `images` and `columns` for the kinds of files.

    Args:
        folder: The dataset.
        size: Pixels a side that the model needs.
        channels: 1 or 3.
        resize: How images of another size are made to fit.
        column: Of a Parquet file, the one that holds pictures.
        alive: Called every so often, so that the job can be given up.

    Raises:
        DataError: No image, too many, or a file that is malformed or does not fit; it is named.
    """

    def __init__(
        self,
        folder: Path,
        size: int,
        channels: int,
        resize: str = "pad",
        column: str = "image",
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        frame = images.Frame(size, channels, resize)
        parts, total = [], 0
        for path in files(folder):
            is_table = path.suffix.lower() == ".parquet"
            for part in (
                columns.images(path, column, frame) if is_table else images.images_of(path, frame)
            ):
                total += part.nbytes
                if total > images.MAX_IMAGE_BYTES:
                    message = (
                        f"{folder.name} holds more than {images.MAX_IMAGE_BYTES:,} bytes of pixels"
                    )
                    raise DataError(message)
                parts.append(part)
                alive()
        if not total:
            message = f"{folder.name} holds no images (IDX, .npy of uint8, PNG, JPEG, .tar or .parquet of these)"
            raise DataError(message)
        self.pixels = np.concatenate(parts)
        """Shape (N, channels, size, size), uint8."""
        self.total = len(self.pixels)
        """How many images there are."""

    def samples(self, ids: Sequence[int]) -> Array:
        """Shape (len(ids), channels, size, size), uint8."""
        return self.pixels[np.asarray(ids, np.int64)]


def digest(ids: Sequence[int], samples: Array) -> bytes:
    """SHA-256 of the samples used, in order: u64 id, then the sample's bytes."""
    state = hashlib.sha256()
    for index, sample in zip(ids, samples, strict=True):
        state.update(int(index).to_bytes(8, "little"))
        state.update(np.ascontiguousarray(sample).tobytes())
    return state.digest()


def files(folder: Path) -> list[Path]:
    """The files of a dataset in order of their paths; hidden ones, links and the card are left out.

    Raises:
        DataError: There are none, or too many.
    """
    if folder.is_file():
        return [folder]
    found = []
    for top, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = [Path(top, name) for name in names if not name.startswith(".") and name != CARD]
        found += [path for path in paths if path.is_file() and not path.is_symlink()]
        if len(found) > MAX_FILES:
            message = f"{folder.name} holds more than {MAX_FILES:,} files"
            raise DataError(message)
    if not found:
        message = f"{folder.name} holds no files"
        raise DataError(message)
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix().encode())

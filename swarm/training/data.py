"""Datasets as training sees them: sequences of tokens cut from text folders, and arrays of small images.

A folder's files are taken in order of their paths; hidden files and README.md (the card) are not data.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from swarm.training.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from swarm.training.tensors import Array

MAX_FILES: Final = 10**6
MAX_IMAGE_BYTES: Final = 2**30
"""Images are held in memory; more than this many bytes of pixels are refused."""
MAX_SIDE: Final = 64
_README: Final = "README.md"


class TextData:
    """Sequences of tokens from a folder; sample `i` starts at token `i * context` of all files joined.

    Args:
        folder: The dataset, or one file.
        context: Tokens that a model reads; each sample has one more, the last one to be predicted.
        encode: Gives the token ids of files; None: their bytes are the tokens, and only those of the samples
            asked for are read.
    """

    def __init__(
        self, folder: Path, context: int, encode: Callable[[Sequence[Path]], Array] | None = None
    ) -> None:
        paths = _files(folder)
        self._tokens = _Bytes(paths) if encode is None else encode(paths)
        self._context = context
        count = len(self._tokens)
        self.total = (count - 1) // context
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
    """Small images from a folder of IDX files (also gzipped), `.npy` arrays or PNG files.

    Images whose side divides the size asked for are enlarged by repeating pixels, other smaller ones stand
    in the middle of black.

    Args:
        folder: The dataset.
        size: Pixels a side that the model needs.
        channels: 1 or 3.
    """

    def __init__(self, folder: Path, size: int, channels: int) -> None:
        parts = [_fit(part, size, channels) for part in _images(folder)]
        if not parts:
            message = f"{folder.name} holds no images (IDX, .npy of uint8, or PNG)"
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


def _files(folder: Path) -> list[Path]:
    if folder.is_file():
        return [folder]
    found = []
    for top, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = [Path(top, name) for name in names if not name.startswith(".") and name != _README]
        found += [path for path in paths if path.is_file() and not path.is_symlink()]
        if len(found) > MAX_FILES:
            message = f"{folder.name} holds more than {MAX_FILES:,} files"
            raise DataError(message)
    if not found:
        message = f"{folder.name} holds no files"
        raise DataError(message)
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix().encode())


def _images(folder: Path) -> Iterable[Array]:
    total = 0
    for path in _files(folder):
        name = path.name.lower()
        if "idx3" in name or "idx4" in name:
            images = _idx(path)
        elif name.endswith(".npy"):
            images = _npy(path)
        elif name.endswith(".png"):
            images = _png(path)
        else:
            continue  # labels, and files about the data
        total += images.nbytes
        if total > MAX_IMAGE_BYTES:
            message = f"{folder.name} holds more than {MAX_IMAGE_BYTES:,} bytes of pixels"
            raise DataError(message)
        yield images


def _idx(path: Path) -> Array:
    """An IDX file of unsigned bytes: (N, H, W) or (N, H, W, C). Source: LeCun, "The MNIST database"."""
    try:
        with path.open("rb") as raw, gzip.open(raw) if path.suffix == ".gz" else raw as file:
            data = file.read(MAX_IMAGE_BYTES + 64)
    except (OSError, EOFError, zlib.error) as error:
        message = f"{path.name} cannot be read: {error}"
        raise DataError(message) from error
    if len(data) < 16 or data[:3] != b"\x00\x00\x08" or data[3] not in (3, 4):
        message = f"{path.name} is no IDX file of images"
        raise DataError(message)
    dimensions = data[3]
    shape = tuple(
        int.from_bytes(data[at : at + 4], "big") for at in range(4, 4 + 4 * dimensions, 4)
    )
    start = 4 + 4 * dimensions
    expected = 1
    for size in shape:
        expected *= size
    if len(data) - start != expected:
        message = f"{path.name} says {expected:,} pixels and holds {len(data) - start:,}"
        raise DataError(message)
    images = np.frombuffer(data, np.uint8, offset=start).reshape(shape)
    return images[:, None] if dimensions == 3 else images.transpose(0, 3, 1, 2)


def _npy(path: Path) -> Array:
    try:
        images: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        message = f"{path.name} cannot be read: {error}"
        raise DataError(message) from error
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        message = f"{path.name} is no array of uint8 with 3 or 4 dimensions"
        raise DataError(message)
    return images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)


def _png(path: Path) -> Array:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path, formats=["PNG"]) as image:
            if max(image.size) > MAX_SIDE:
                message = f"{path.name} is larger than {MAX_SIDE} pixels a side"
                raise DataError(message)
            pixels = np.asarray(image.convert("L" if image.mode in ("1", "L", "I;16") else "RGB"))
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
        message = f"{path.name} cannot be read: {error}"
        raise DataError(message) from error
    return pixels[None, None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)[None]


def _fit(images: Array, size: int, channels: int) -> Array:
    count, found, height, width = images.shape
    if found != channels or not 0 < height <= size or not 0 < width <= size:
        message = f"images of {found} x {height} x {width} do not fit a model of {channels} x {size} x {size}"
        raise DataError(message)
    if height == width and size % height == 0:
        times = size // height
        return np.ascontiguousarray(images).repeat(times, axis=2).repeat(times, axis=3)
    fitted = np.zeros((count, channels, size, size), np.uint8)
    top, left = (size - height) // 2, (size - width) // 2
    fitted[:, :, top : top + height, left : left + width] = images
    return fitted

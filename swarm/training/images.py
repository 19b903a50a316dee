"""Images of a dataset folder: IDX files (also gzipped), `.npy` arrays, PNG and JPEG files, and tar archives of these.

Nothing is decoded before its header was read: an image that asks for more than `MAX_PIXELS` is refused.
Images of another size than the model's are made to fit as the task says (`data.resize`):

    pad      a side that divides the model's is enlarged by repeating pixels, else a smaller image stands in the
             middle of black; a larger one is refused
    crop     the square in the middle, scaled
    stretch  the whole image, scaled

Scaling is Pillow's bilinear filter, which is integer arithmetic after its weights.
"""

from __future__ import annotations

import gzip
import io
import struct
import tokenize
import warnings
import zlib
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.lib import format as npy

from swarm.training.errors import DataError
from swarm.training.text import members

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from swarm.training.tensors import Array

MAX_IMAGE_BYTES: Final = 2**30
"""Images are held in memory; more than this many bytes of pixels are refused."""
MAX_PIXELS: Final = 2**24
"""Of one image before it is made to fit."""
MAX_FILE_BYTES: Final = 2**26
"""Of one PNG or JPEG file."""
PICTURES: Final = (".png", ".jpg", ".jpeg")
MODES: Final = {1: "L", 3: "RGB"}
"""What Pillow calls images of so many channels."""
HEADER_FAULTS: Final = (
    *(ValueError, TypeError, LookupError, ArithmeticError, AttributeError, EOFError),
    *(SyntaxError, tokenize.TokenError, RecursionError, MemoryError),
)
"""What numpy raises of an array's header, which it reads as a Python literal and gives to `dtype`."""


class Frame:
    """What the model needs of each image.

    Args:
        size: Pixels a side.
        channels: 1 or 3.
        resize: How others are made to fit.
    """

    def __init__(self, size: int, channels: int, resize: str) -> None:
        self.size = size
        self.channels = channels
        self.resize = resize

    @property
    def image_bytes(self) -> int:
        """Of one image."""
        return self.channels * self.size**2

    def fit(self, images: Array, name: str) -> Array:
        """Shape (N, channels, size, size) from (N, C, H, W), uint8.

        Raises:
            DataError: They are of other channels, or too large for padding.
        """
        count, found, height, width = images.shape
        if found != self.channels or not height or not width:
            raise self._misfit(name, found, height, width)
        whole = self.size % height == 0 if self.resize == "pad" else height == self.size
        if height == width and whole:
            times = self.size // height
            return np.ascontiguousarray(images).repeat(times, axis=2).repeat(times, axis=3)
        if self.resize != "pad":
            return np.concatenate([self._scaled(image, name) for image in images])
        if height > self.size or width > self.size:
            raise self._misfit(name, found, height, width)
        fitted = np.zeros((count, self.channels, self.size, self.size), np.uint8)
        top, left = (self.size - height) // 2, (self.size - width) // 2
        fitted[:, :, top : top + height, left : left + width] = images
        return fitted

    def picture(self, content: bytes, name: str) -> Array:
        """Shape (1, channels, size, size) of a PNG or JPEG file.

        Raises:
            DataError: It is malformed, asks for too many pixels, or is too large for padding.
        """
        pillow = _pillow(name)
        faults = (
            *(OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error),
            pillow.DecompressionBombError,
        )
        try:
            with warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore", pillow.DecompressionBombWarning
                )  # our bound is lower
                with pillow.open(io.BytesIO(content), formats=["PNG", "JPEG"]) as image:
                    width, height = image.size
                    if width * height > MAX_PIXELS:
                        message = f"{name} asks for {width:,} x {height:,} pixels, at most {MAX_PIXELS:,} are decoded"
                        raise DataError(message)
                    pixels = np.asarray(image.convert(self._mode(name)))
        except faults as error:
            message = f"{name} cannot be read: {str(error)[:200]}"
            raise DataError(message) from error
        return self.fit(_channels_first(pixels[None]), name)

    def _scaled(self, image: Array, name: str) -> Array:
        pillow = _pillow(name)
        _, height, width = image.shape
        box: tuple[float, float, float, float] = (0, 0, width, height)
        if self.resize == "crop":
            side = min(width, height)
            left, top = (width - side) / 2, (height - side) / 2
            box = (left, top, left + side, top + side)
        plane = image.transpose(1, 2, 0)
        source = pillow.fromarray(
            np.ascontiguousarray(plane[:, :, 0] if len(image) == 1 else plane)
        )
        scaled = source.resize((self.size, self.size), pillow.Resampling.BILINEAR, box=box)
        return _channels_first(np.asarray(scaled)[None])

    def _mode(self, name: str) -> str:
        if self.channels not in MODES:
            message = f"{name}: PNG and JPEG files give 1 or 3 channels, and the model has {self.channels}"
            raise DataError(message)
        return MODES[self.channels]

    def _misfit(self, name: str, found: int, height: int, width: int) -> DataError:
        return DataError(
            f"{name}: images of {found} x {height} x {width} do not fit a model of"
            f" {self.channels} x {self.size} x {self.size} with data.resize = {self.resize!r}"
        )


def images_of(path: Path, frame: Frame) -> Iterator[Array]:
    """The images of a file, (N, channels, size, size) uint8 at a time; nothing of a file of another kind.

    Raises:
        DataError: It is malformed or does not fit; it is named.
    """
    load = _loader(path.name.lower())
    if load is not None:
        yield from load(path, frame)


def _loader(name: str) -> Callable[[Path, Frame], Iterator[Array]] | None:
    if name.endswith(".npy") and "label" in name:  # a classifier's, beside its images
        return None
    if "idx3" in name or "idx4" in name:
        return _idx
    return next((load for ending, load in LOADERS.items() if name.endswith(ending)), None)


def _idx(path: Path, frame: Frame) -> Iterator[Array]:
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
    yield from _parts(np.frombuffer(data, np.uint8, offset=start).reshape(shape), path, frame)


def _npy(path: Path, frame: Frame) -> Iterator[Array]:
    images = array(path)
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        message = f"{path.name} is no array of uint8 with 3 or 4 dimensions"
        raise DataError(message)
    yield from _parts(images, path, frame)


def array(path: Path) -> Array:
    """A `.npy` file in memory as it stands on disk; archives and pickles of the same ending are none.

    Raises:
        DataError: It is malformed; it is named.
    """
    try:
        found: Array = npy.open_memmap(path, mode="r")
    except (OSError, *HEADER_FAULTS) as error:
        message = f"{path.name} cannot be read: {str(error)[:200]}"
        raise DataError(message) from error
    return found


def _parts(images: Array, path: Path, frame: Frame) -> Iterator[Array]:
    """Images some at a time, so that what an enlargement takes is bounded before it is made."""
    images = _channels_first(images)
    step = max(1, 2**24 // frame.image_bytes)
    for at in range(0, len(images), step):
        yield frame.fit(images[at : at + step], path.name)


def _picture(path: Path, frame: Frame) -> Iterator[Array]:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        message = f"{path.name} cannot be read: {error.strerror}"
        raise DataError(message) from error
    if len(content) > MAX_FILE_BYTES:
        message = f"{path.name} has more than {MAX_FILE_BYTES:,} bytes"
        raise DataError(message)
    yield frame.picture(content, path.name)


def _tar(path: Path, frame: Frame) -> Iterator[Array]:
    for name, content in members(path):
        if name.lower().endswith(PICTURES):
            yield frame.picture(content, f"{path.name}: {name[:80]}")


def _channels_first(images: Array) -> Array:
    return images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)


def _pillow(name: str) -> Any:  # noqa: ANN401 - the module
    try:
        from PIL import Image
    except ImportError as error:
        message = f"{name}: Pillow, which reads and scales images, is not installed"
        raise DataError(message) from error
    return Image


LOADERS: Final[dict[str, Callable[[Path, Frame], Iterator[Array]]]] = {
    ".npy": _npy,
    ".tar": _tar,
    **dict.fromkeys(PICTURES, _picture),
}
"""By ending, what gives the images of a file."""

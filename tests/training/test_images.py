"""Pictures of other sizes and kinds, and those that would fill the memory."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from swarm.training import images
from swarm.training.data import ImageData
from swarm.training.errors import DataError
from tests.training.test_text import archive


def picture(width: int, height: int, kind: str = "PNG", value: int = 200) -> bytes:
    """Black on the left half, `value` on the right."""
    pixels = np.zeros((height, width), np.uint8)
    pixels[:, width // 2 :] = value
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind)
    return out.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header asks for so many pixels, with hardly a byte of them."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


def test_png_jpeg_and_archives_of_them_are_read_in_order_of_their_paths(tmp_path: Path) -> None:
    (tmp_path / "b.png").write_bytes(picture(16, 16, value=100))
    (tmp_path / "a.jpeg").write_bytes(picture(16, 16, "JPEG", 220))
    archive(tmp_path / "c.tar", [("0.jpg", picture(16, 16, "JPEG", 40)), ("0.cls", b"3")])
    pixels = ImageData(tmp_path, 16, 1).pixels
    assert pixels.shape == (3, 1, 16, 16)
    assert [round(one, -1) for one in pixels[:, 0, 8, 12].tolist()] == [220, 100, 40]


@pytest.mark.parametrize("shape", ["structs", "bytes"])
def test_the_pictures_of_a_table_are_those_of_its_column_in_order(
    tmp_path: Path, shape: str
) -> None:
    found = [picture(16, 16, value=value) for value in (100, 220, 40)]
    rows = [{"bytes": one, "path": None} for one in found] if shape == "structs" else found
    table = pa.table({"scan": [*rows[:2], None, rows[2]], "image": [1, 2, 3, 4]})
    parquet.write_table(table, tmp_path / "b.Parquet", row_group_size=2)
    (tmp_path / "c.png").write_bytes(picture(16, 16, value=180))
    pixels = ImageData(tmp_path, 16, 1, column="scan").pixels
    assert pixels[:, 0, 8, 12].tolist() == [100, 220, 40, 180]
    with pytest.raises(DataError, match=r"b\.Parquet: the column \(data\.column\) holds something"):
        ImageData(tmp_path, 16, 1)
    with pytest.raises(
        DataError, match=r"has no column 'absent' \(data\.column\): it has scan, im"
    ):
        ImageData(tmp_path, 16, 1, column="absent")


def test_a_bomb_in_a_table_names_its_file(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"image": [bomb(6_000, 6_000)]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet asks for 6,000 x 6,000 pixels"):
        ImageData(tmp_path, 16, 1)


def test_a_model_of_three_channels_takes_grey_pictures(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture(16, 16))
    pixels = ImageData(tmp_path, 16, 3).pixels
    assert pixels.shape == (1, 3, 16, 16)
    assert (pixels[0, 0] == pixels[0, 2]).all()


def test_pictures_of_another_size_fit_as_the_task_says(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture(64, 32))
    with pytest.raises(DataError, match=r"a\.png: images of 1 x 32 x 64 do not fit"):
        ImageData(tmp_path, 16, 1)
    cropped = ImageData(tmp_path, 16, 1, "crop").pixels[0, 0]
    stretched = ImageData(tmp_path, 16, 1, "stretch").pixels[0, 0]
    for pixels in (cropped, stretched):
        assert (pixels[:, :6] == 0).all()
        assert (pixels[:, 10:] == 200).all()
    # A crop of the middle doubles what a stretch halves: the edge is half as wide.
    wide = np.zeros((1, 32, 64), np.uint8)
    wide[:, :, :16] = 255
    np.save(tmp_path / "a.npy", wide)
    (tmp_path / "a.png").unlink()
    assert not ImageData(tmp_path, 16, 1, "crop").pixels[0, 0, :, 2:].any()
    assert (ImageData(tmp_path, 16, 1, "stretch").pixels[0, 0, :, :3] == 255).all()


@pytest.mark.parametrize("sides", [(2**14, 2**14), (60_000, 60_000), (2**31 - 1, 1)])
def test_a_picture_that_asks_for_too_many_pixels_is_not_decoded(
    tmp_path: Path, sides: tuple[int, int]
) -> None:
    (tmp_path / "a.png").write_bytes(bomb(*sides))
    for resize in ("pad", "crop"):
        with pytest.raises(DataError, match=r"a\.png"):
            ImageData(tmp_path, 16, 1, resize)
    with pytest.raises(DataError, match=r"pixels"):
        images.Frame(16, 1, "crop").picture(bomb(2**13, 2**13), "a.png")


def test_a_picture_that_is_broken_names_itself(tmp_path: Path) -> None:
    archive(tmp_path / "a.tar", [("x/7.png", picture(16, 16)[:45])])
    with pytest.raises(DataError, match=r"a\.tar: 7\.png cannot be read"):
        ImageData(tmp_path, 16, 1)
    for name in ("b.jpg", "b.png"):
        (tmp_path / "a.tar").unlink(missing_ok=True)
        (tmp_path / name).write_bytes(b"GIF89a")
        with pytest.raises(DataError, match=rf"{name} cannot be read"):
            ImageData(tmp_path, 16, 1)
        (tmp_path / name).unlink()


def test_an_enlargement_is_bounded_before_it_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "MAX_IMAGE_BYTES", 2**20)
    np.save(tmp_path / "a.npy", np.zeros((100_000, 1, 1), np.uint8))
    with pytest.raises(DataError, match="bytes of pixels"):
        ImageData(tmp_path, 16, 1)

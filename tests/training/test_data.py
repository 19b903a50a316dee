from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from swarm.training.data import ImageData, TextData
from swarm.training.demo_data import write_image_dataset, write_text_dataset
from swarm.training.errors import DataError


def test_samples_run_across_files_in_order_of_their_paths(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name, data in (
        ("b/2", b"fgh"),
        ("a", b"abcde"),
        ("c", b""),
        ("d", b"ijk"),
        ("README.md", b"#"),
        (".x", b"#"),
    ):
        (tmp_path / name).write_bytes(data)
    text = TextData(tmp_path, 5)
    assert text.total == 2
    assert [bytes(row) for row in text.samples([1, 0])] == [b"fghijk", b"abcdef"]


def test_a_link_out_of_the_folder_is_not_data(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"s" * 100)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(DataError):
        TextData(tmp_path / "data", 5)


def idx(images: np.ndarray) -> bytes:
    return (
        b"\0\0\x08\x03"
        + b"".join(size.to_bytes(4, "big") for size in images.shape)
        + images.tobytes()
    )


def test_idx_gzip_npy_and_png_give_the_same_images(tmp_path: Path) -> None:
    from PIL import Image

    images = np.arange(3 * 64, dtype=np.uint8).reshape(3, 8, 8)
    for name in ("idx", "gz", "npy", "png"):
        (tmp_path / name).mkdir()
    (tmp_path / "idx" / "images-idx3-ubyte").write_bytes(idx(images))
    (tmp_path / "gz" / "images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
    np.save(tmp_path / "npy" / "x.npy", images)
    for at, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / "png" / f"{at}.png")
    wanted = images[:, None].repeat(2, axis=2).repeat(2, axis=3)
    for name in ("idx", "gz", "npy", "png"):
        np.testing.assert_array_equal(ImageData(tmp_path / name, 16, 1).pixels, wanted)


def test_labels_beside_images_are_not_images(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", np.ones((3, 8, 8), np.uint8))
    np.save(tmp_path / "labels.npy", np.arange(3))
    assert ImageData(tmp_path, 8, 1).total == 3


def test_a_lying_idx_file_and_a_pickle_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x-idx3").write_bytes(idx(np.zeros((2, 8, 8), np.uint8))[:-1])
    with pytest.raises(DataError):
        ImageData(tmp_path, 16, 1)
    (tmp_path / "x-idx3").unlink()
    np.save(tmp_path / "x.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(DataError):
        ImageData(tmp_path, 16, 1)


@pytest.mark.slow
def test_the_demo_data_are_split_without_a_common_file(tmp_path: Path) -> None:
    train, pool = write_text_dataset(tmp_path / "text")
    names = [{path.name for path in part.iterdir()} - {"README.md"} for part in (train, pool)]
    assert not names[0] & names[1]
    sizes = [sum(path.stat().st_size for path in part.iterdir()) for part in (train, pool)]
    assert sizes[0] > 3_000_000
    assert sizes[1] > 100_000
    train, pool = write_image_dataset(tmp_path / "images")
    assert ImageData(train, 32, 1).total > 1000
    assert ImageData(pool, 32, 1).total > 200

"""The demo's task fits the data that it is given."""

from __future__ import annotations

import tomllib

import pytest

from cli.demo.data import prepare


@pytest.mark.parametrize(("side", "size"), [(8, 16), (16, 16), (28, 32)])
def test_the_gan_of_the_demo_is_as_large_as_the_images(tmp_path, side, size):
    for part in ("train", "pool"):
        (tmp_path / "data" / part).mkdir(parents=True)
        shape = b"".join(number.to_bytes(4, "big") for number in (1, side, side))
        file = tmp_path / "data" / part / "images-idx3-ubyte"
        file.write_bytes(b"\x00\x00\x08\x03" + shape + bytes(side * side))
    (tmp_path / "out").mkdir()
    task, _ = prepare("gan", tmp_path / "out", tmp_path / "data")
    assert tomllib.loads(task.read_text())["model"]["size"] == size

"""The demo's images, from whatever this machine has."""

from __future__ import annotations

import gzip

from swarm.training import demo_data


def test_the_files_of_debians_fashion_mnist_are_taken_where_they_lie(tmp_path, monkeypatch):
    # As `dpkg -L dataset-fashion-mnist` lists them.
    assert str(demo_data.FASHION) == "/usr/share/datasets/fashion-mnist"
    monkeypatch.setattr(demo_data, "FASHION", tmp_path / "installed")
    demo_data.FASHION.mkdir()
    for split in ("train", "t10k"):
        images = b"\x00\x00\x08\x03" + split.encode()
        packed = demo_data.FASHION / f"{split}-images-idx3-ubyte.gz"
        packed.write_bytes(gzip.compress(images))
        (demo_data.FASHION / f"{split}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(b"labels"))
    train, pool = demo_data.write_image_dataset(tmp_path / "out")
    assert (train / "images-idx3-ubyte").read_bytes().endswith(b"train")
    assert (pool / "images-idx3-ubyte").read_bytes().endswith(b"t10k")


def test_digits_are_taken_where_nothing_is_installed(tmp_path, monkeypatch):
    monkeypatch.setattr(demo_data, "FASHION", tmp_path / "not-installed")
    train, pool = demo_data.write_image_dataset(tmp_path / "out")
    for part in (train, pool):
        header = (part / "images-idx3-ubyte").read_bytes()[:16]
        assert header[:4] == b"\x00\x00\x08\x03"
        assert header[8:] == b"\x00\x00\x00\x08" * 2

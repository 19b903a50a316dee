"""Arrays of strangers: whatever their beginning says, a file is named and refused, and no job ends over it."""

from __future__ import annotations

import io
import struct
from pathlib import PurePath
from typing import TYPE_CHECKING

import numpy as np
import pytest

from swarm.training import layout
from swarm.training.data import ImageData
from swarm.training.errors import DataError
from swarm.training.images import array
from swarm.training.labelled import LabelledData
from swarm.training.sizes import ClassifierModel
from swarm.training.spec import Data

if TYPE_CHECKING:
    from pathlib import Path

MODEL, DATA = ClassifierModel(classes=3, size=8), Data("train", "pool")


def beginning(literal: str) -> bytes:
    text = literal.encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def shaped(shape: str, kind: str = "'|u1'") -> bytes:
    return beginning(f"{{'descr':{kind},'fortran_order':False,'shape':{shape}}}")


def archive() -> bytes:
    made = io.BytesIO()
    np.savez(made, np.zeros((2, 8, 8), np.uint8))
    return made.getvalue()


HOSTILE = {
    "a sum without an end": shaped("(" + "-" * 3000 + "1,8,8)"),
    "brackets without an end": shaped("(" * 3000),
    "a shape below nothing": shaped("(-1,-8,8)") + bytes(64),
    "a type of nothing": shaped("(1,8,8)", "()"),
    "keys that have no order": beginning("{1:2,'descr':3,'shape':4}"),
    "half an archive": b"PK\x03\x04" + bytes(60),
    "an archive": archive(),
    "a pickle": b"\x80\x04N.",
}


@pytest.mark.parametrize("what", HOSTILE)
def test_an_array_whose_beginning_lies_is_refused_by_its_name(tmp_path: Path, what: str) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(HOSTILE[what])
    with pytest.raises(DataError, match=r"a\.npy"):
        array(path)
    with pytest.raises(DataError):
        ImageData(tmp_path, 8, 1)
    np.save(tmp_path / "labels.npy", np.zeros(1, np.int64))
    with pytest.raises(DataError):
        LabelledData(tmp_path, MODEL, DATA)
    head, size = HOSTILE[what][: layout.HEAD_BYTES], len(HOSTILE[what])
    assert layout.labelled([PurePath("a.npy")], [size], {0: head}, {}) is None


def test_labels_whose_beginning_lies_are_refused_by_their_name(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((1, 8, 8), np.uint8))
    (tmp_path / "labels.npy").write_bytes(HOSTILE["brackets without an end"])
    with pytest.raises(DataError, match=r"labels\.npy"):
        LabelledData(tmp_path, MODEL, DATA)


def test_an_array_of_no_images_beside_no_labels_is_refused_by_its_name(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((0, 8, 8), np.uint8))
    np.save(tmp_path / "labels.npy", np.zeros(0, np.int64))
    with pytest.raises(DataError, match=r"a\.npy holds no image"):
        LabelledData(tmp_path, MODEL, DATA)


def test_what_an_honest_array_says_is_where_its_images_are(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.arange(3 * 64, dtype=np.uint8).reshape(3, 8, 8))
    content = path.read_bytes()
    head = content[: layout.HEAD_BYTES]
    assert layout.labelled([PurePath("a.npy")], [len(content)], {0: head}, {}) == [
        layout.Stretch(0, 3, len(content) - 3 * 64, 64)
    ]
    assert array(path).shape == (3, 8, 8)

"""The demo's data and task file: `train/`, `pool/` and `task.toml` in one folder."""

from __future__ import annotations

import shutil
import tomllib
from importlib import resources
from typing import TYPE_CHECKING

from swarm.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

POOL_SHARE = 20
"""One part in this many of a person's own text is held out for validation."""

MAX_FILE_BYTES = 2**30
SMALL_SIDE = 16
"""The demo's GAN draws images of so many pixels a side, or of 32 where the data's are larger."""


def prepare(kind: str, folder: Path, data: Path | None) -> tuple[Path, str]:
    """Write the data and the task file.

    Args:
        kind: `gpt` or `gan`.
        folder: Where to; empty.
        data: A person's own data: a folder with `train` and `pool` in it, or (for text) a file or a
            folder of files; None is the data that the software brings or finds on the machine.

    Returns:
        (the task file, the task's name)
    """
    from swarm.training import demo_data

    if data is not None:
        _take(kind, data, folder)
    elif kind == "gpt":
        demo_data.write_text_dataset(folder)
    else:
        demo_data.write_image_dataset(folder)
    text = resources.files("swarm.training").joinpath(f"tasks/{kind}.toml").read_text()
    if kind == "gan" and _largest_side(folder / "train") > SMALL_SIDE:
        text = text.replace(f"\nsize = {SMALL_SIDE}\n", "\nsize = 32\n")
    path = folder / "task.toml"
    path.write_text(text)
    return path, tomllib.loads(text)["task"]["name"]


def _largest_side(folder: Path) -> int:
    """Pixels of the longer side of a folder's IDX images; 0 where there are none."""
    sides = [0]
    for path in folder.rglob("*idx3-ubyte"):
        with path.open("rb") as file:
            header = file.read(16)
        sides += [int.from_bytes(header[8:12], "big"), int.from_bytes(header[12:16], "big")]
    return max(sides)


def _take(kind: str, data: Path, folder: Path) -> None:
    if (data / "train").is_dir() and (data / "pool").is_dir():
        shutil.copytree(data / "train", folder / "train")
        shutil.copytree(data / "pool", folder / "pool")
        return
    if kind == "gan":
        message = f"--data: {data} has no folders `train` and `pool` with images"
        raise UsageError(message)
    files = [data] if data.is_file() else sorted(path for path in data.rglob("*") if path.is_file())
    if not files:
        message = f"--data: {data} has no file in it"
        raise UsageError(message)
    for part in ("train", "pool"):
        (folder / part).mkdir()
    for at, path in enumerate(files):
        _split(path, folder, f"{at:05d}-{path.stem}.txt")


def _split(path: Path, folder: Path, name: str) -> None:
    if path.stat().st_size > MAX_FILE_BYTES:
        message = f"--data: {path} has more than {MAX_FILE_BYTES:,} bytes"
        raise UsageError(message)
    content = path.read_bytes()
    cut = len(content) - len(content) // POOL_SHARE
    (folder / "train" / name).write_bytes(content[:cut])
    if content[cut:]:
        (folder / "pool" / name).write_bytes(content[cut:])

"""Data that every machine with Python has, written as dataset folders for the demo.

Text: the documentation topics of CPython and the top-level modules of its standard library. Files go to the pool
or to the training set by the SHA-256 of their name, so that both stay disjoint and the split stays the same.
Images: the handwritten digits of scikit-learn, or Debian's `dataset-fashion-mnist` where it is installed.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np

POOL_SHARE: Final = 24
"""One text in this many goes to the pool."""
IMAGE_POOL_SHARE: Final = 5
MAX_FILE_BYTES: Final = 2**20
FASHION: Final = Path("/usr/share/datasets/fashion-mnist")


def write_text_dataset(folder: Path) -> tuple[Path, Path]:
    """Write English documentation and Python source as text.

    Args:
        folder: Gets `train` and `pool`.

    Returns:
        (folder of the training set, about 5 MB; folder of the pool, about 200 kB).
    """
    train, pool = folder / "train", folder / "pool"
    for part in (train, pool):
        part.mkdir(parents=True, exist_ok=True)
    for name, content in sorted(_texts().items()):
        target = pool if _drawn(name, POOL_SHARE) else train
        (target / name).write_bytes(content)
    for part, split in ((train, "train"), (pool, "validation")):
        _card(part, "Python's documentation and standard library", "psf-2.0", split)
    return train, pool


def write_image_dataset(folder: Path) -> tuple[Path, Path]:
    """Write small grey images as IDX files: 28 x 28 garments where Debian has them, else 8 x 8 digits.

    Args:
        folder: Gets `train` and `pool`.

    Returns:
        (folder of the training set, folder of the pool).
    """
    train, pool = folder / "train", folder / "pool"
    for part in (train, pool):
        part.mkdir(parents=True, exist_ok=True)
    found = sorted(FASHION.rglob("*-images-idx3-ubyte*")) if FASHION.is_dir() else []
    by_split = {path.name.split("-")[0]: path for path in found}
    if {"train", "t10k"} <= by_split.keys():
        for part, split in ((train, "train"), (pool, "t10k")):
            raw = by_split[split].read_bytes()
            content = gzip.decompress(raw) if by_split[split].suffix == ".gz" else raw
            (part / "images-idx3-ubyte").write_bytes(content)
            _card(part, "Fashion-MNIST", "mit", split)
        return train, pool
    images = _digits()
    held = [_drawn(f"digit-{at}", IMAGE_POOL_SHARE) for at in range(len(images))]
    for part, split, wanted in ((train, "train", False), (pool, "validation", True)):
        chosen = images[[flag is wanted for flag in held]]
        header = b"\x00\x00\x08\x03" + b"".join(size.to_bytes(4, "big") for size in chosen.shape)
        (part / "images-idx3-ubyte").write_bytes(header + chosen.tobytes())
        _card(part, "Handwritten digits (UCI, as in scikit-learn)", "cc-by-4.0", split)
    return train, pool


def _texts() -> dict[str, bytes]:
    from pydoc_data import topics

    texts = {f"topic-{name}.txt": text.encode() for name, text in topics.topics.items()}
    library = Path(sysconfig.get_paths()["stdlib"])
    for path in (*library.glob("*.py"), *library.glob("*/__init__.py")):
        if (
            path.is_file()
            and 0 < path.stat().st_size <= MAX_FILE_BYTES
            and "site-packages" not in path.parts
        ):
            name = "-".join(path.relative_to(library).parts)
            texts[name] = path.read_bytes()
    return {name.replace("/", "_"): content for name, content in texts.items()}


def _digits() -> np.ndarray:
    import numpy as np
    from sklearn.datasets import load_digits  # type: ignore[import-untyped]

    images: np.ndarray = np.round(load_digits().images * (255 / 16)).astype(np.uint8)
    return images


def _drawn(name: str, share: int) -> bool:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % share == 0


def _card(folder: Path, title: str, license_: str, split: str) -> None:
    lines = ["---", f"license: {json.dumps(license_)}", "---", f"# {title}", "", f"Split: {split}."]
    (folder / "README.md").write_text("\n".join(lines) + "\n")

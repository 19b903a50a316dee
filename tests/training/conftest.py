"""A small text task, and jobs run in this process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

SPEC = b"""
[task]
name = "tiny"
kind = "lm"
rounds = 4
budget = "1"
[data]
dataset = "train"
pool = "pool"
[model]
layers = 1
heads = 2
width = 16
context = 16
[train]
steps = 6
batch = 4
learning_rate = 0.01
[score]
sequences = 8
"""
TASK, BEACON = b"T" * 32, b"B" * 32
WORDS = [b"the swarm ", b"trains ", b"a model ", b"of bytes ", b"in rounds\n"]


@dataclass
class Room:
    """Folders of a small task and the fields that its jobs share."""

    folder: Path
    spec: bytes = SPEC

    @property
    def train(self) -> Path:
        return self.folder / "train"

    @property
    def pool(self) -> Path:
        return self.folder / "pool"

    def fields(self, round_: int = 1, base: str = "v0") -> dict[str, Any]:
        return {
            "spec": self.spec,
            "task": TASK,
            "round": round_,
            "beacon": BEACON,
            "base_root": "bafy" + base,
            "base": str(self.folder / base),
            "dataset": str(self.train),
            "pool": str(self.pool),
        }


def text(seed: int, count: int) -> bytes:
    return b"".join(WORDS[(seed * 7 + at * at) % len(WORDS)] for at in range(count))


@pytest.fixture
def room(tmp_path: Path) -> Room:
    for name, files in (("train", 3), ("pool", 1)):
        (tmp_path / name).mkdir()
        for at in range(files):
            (tmp_path / name / f"{at}.txt").write_bytes(text(at, 200))
    return Room(tmp_path)

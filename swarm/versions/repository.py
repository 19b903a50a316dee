"""The datasets of this node on its disk: one small file each, with its branches.

A file is replaced by rename after its bytes are on the disk, so a crash leaves the old branches or the new ones.
The commits themselves are chunks of the store.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from storage import cid as cids
from storage.errors import OTHER_PROGRAM, CidError
from swarm.errors import NotFoundError, RefusedError, SwarmError
from swarm.versions.reference import check_dataset

if TYPE_CHECKING:
    from pathlib import Path

    from storage.cid import Cid

FORMAT = 1
FIRST_BRANCH = "main"
MAX_BRANCHES = 1_000
MAX_DATASETS = 10_000
MAX_FILE_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Dataset:
    """A dataset of this node.

    Attributes:
        name: What it is called here, and on the ledger if it is published.
        head: The branch that its bare name means.
        branches: Each branch's newest commit; a branch without a commit is not there yet.
    """

    name: str
    head: str = FIRST_BRANCH
    branches: dict[str, Cid] = field(default_factory=dict)

    def with_branch(self, branch: str, commit: Cid | None) -> Dataset:
        """The dataset with a branch moved, or without it.

        Raises:
            RefusedError: Too many branches.
        """
        branches = {name: cid for name, cid in self.branches.items() if name != branch}
        if commit is not None:
            branches[branch] = commit
        if len(branches) > MAX_BRANCHES:
            message = f"{self.name} has {MAX_BRANCHES:,} branches already"
            raise RefusedError(message, "remove one with `swarm dataset branch -d NAME`")
        return Dataset(self.name, self.head, dict(sorted(branches.items())))


class Repository:
    """The datasets of one node.

    Args:
        folder: Where their files are; made when the first one is written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def all(self) -> list[Dataset]:
        """Every dataset, by name."""
        return [self.load(path.stem) for path in self._paths()]

    def has(self, name: str) -> bool:
        """Whether there is a dataset of that name."""
        return self._path(name).is_file()

    def load(self, name: str) -> Dataset:
        """One dataset.

        Raises:
            NotFoundError: There is none of that name.
            SwarmError: Its file is damaged.
        """
        try:
            with self._path(name).open("rb") as file:
                data = file.read(MAX_FILE_BYTES)
        except FileNotFoundError as error:
            message = f"no dataset is called {name!r} on this node"
            raise NotFoundError(message, "`swarm dataset list` shows them") from error
        try:
            value = json.loads(data)
            if value["format"] != FORMAT:
                message = f"{self._path(name)} is of version {value['format']!r}, and this program reads {FORMAT}"
                raise RefusedError(message, OTHER_PROGRAM)
            branches = {str(branch): cids.parse(cid) for branch, cid in value["branches"].items()}
            return Dataset(name, str(value["head"]), branches)
        except (ValueError, TypeError, KeyError, AttributeError, CidError) as error:
            message = f"{self._path(name)} is damaged: {error}"
            raise SwarmError(message) from error

    def create(self, dataset: Dataset) -> None:
        """Write a new dataset.

        Raises:
            RefusedError: There is one of that name, or there are too many.
        """
        if self.has(dataset.name):
            message = f"a dataset is called {dataset.name!r} on this node already"
            raise RefusedError(message, "choose another name")
        if len(self._paths()) >= MAX_DATASETS:  # what `all` left out would be kept by nobody
            message = f"this node has {MAX_DATASETS:,} datasets already"
            raise RefusedError(message, f"remove the file of one in {self._folder}")
        self.save(dataset)

    def save(self, dataset: Dataset) -> None:
        """Write a dataset; it is durable when this returns."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        value = {
            "format": FORMAT,
            "head": dataset.head,
            "branches": {name: cids.text(cid) for name, cid in dataset.branches.items()},
        }
        replace_file(self._path(dataset.name), json.dumps(value, indent=1).encode())

    def _paths(self) -> list[Path]:
        return sorted(self._folder.glob("*.json")) if self._folder.is_dir() else []

    def _path(self, name: str) -> Path:
        return self._folder / f"{check_dataset(name)}.json"


def replace_file(path: Path, content: bytes, beside: Path | None = None) -> None:
    """Put a file in place of another; a crash leaves the old one or the new one.

    Args:
        path: The file.
        content: Its bytes.
        beside: Where it is written first; on the same file system.
    """
    fresh = path.with_name(path.name + ".new") if beside is None else beside
    fresh.unlink(missing_ok=True)
    with fresh.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

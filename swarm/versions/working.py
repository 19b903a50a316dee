"""A person's folder that holds one version of a dataset: what is in it now, and making it another version.

The file `.swarm-dataset` in it says of which dataset, branch and commit it is; it is part of no version.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from storage import cid as cids
from storage.errors import ManifestError
from storage.files import check_free
from storage.importer import Added, add_path
from storage.memory import MemoryBlockstore
from storage.unixfs import read_file
from storage.unixfs_nodes import Kind, check_target, read_node
from swarm.errors import RefusedError, UsageError
from swarm.versions import tree
from swarm.versions.diff import changes
from swarm.versions.reference import check_branch, check_dataset
from swarm.versions.repository import replace_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from storage.blockstore import Blockstore, Pairs, Progress
    from storage.cid import Cid
    from storage.dag_pb import Link
    from storage.quota import Reservation
    from swarm.versions.diff import Change
    from swarm.versions.tree import Get

MARKER = ".swarm-dataset"
STAGING = ".swarm-dataset.new"
"""What is written before it is moved to its place; a crash may leave it."""
RESERVED = frozenset({MARKER, STAGING})
MAX_MARKER_BYTES = 4_096
NO_LIMIT = 2**62


@dataclass(frozen=True, slots=True)
class Marker:
    """What a working folder holds.

    Attributes:
        dataset: Of which dataset.
        branch: Of which branch; None if it holds a commit and follows no branch.
        commit: Which version; None before the first.
    """

    dataset: str
    branch: str | None
    commit: Cid | None


@dataclass(frozen=True, slots=True)
class Switched:
    """What making a folder another version took: files written, and files removed."""

    written: int
    removed: int


def find_marker(folder: Path) -> Marker | None:
    """What a folder holds; None if it is no working folder.

    Raises:
        RefusedError: Its marker is damaged.
    """
    path = folder / MARKER
    try:
        with path.open("rb") as file:
            return _read_marker(json.loads(file.read(MAX_MARKER_BYTES)))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, TypeError, KeyError, UsageError) as error:
        # A CID that is none is a ValueError.
        message = f"{path} is damaged"
        raise RefusedError(message, "check the dataset out into another folder") from error


def _read_marker(value: dict[str, str | None]) -> Marker:
    branch, commit = value["branch"], value["commit"]
    return Marker(
        check_dataset(str(value["dataset"])),
        None if branch is None else check_branch(branch),
        None if commit is None else cids.parse(commit),
    )


def write_marker(folder: Path, marker: Marker) -> None:
    """Say what a folder holds; durable when this returns."""
    value = {
        "dataset": marker.dataset,
        "branch": marker.branch,
        "commit": None if marker.commit is None else cids.text(marker.commit),
    }
    _clear(folder)
    replace_file(folder / MARKER, json.dumps(value).encode() + b"\n", folder / STAGING)


def add(folder: Path, store: Blockstore, progress: Progress | None = None) -> Added:
    """Put what a folder holds into the store, without what is ours in it.

    Raises:
        StorageError: As `storage.importer.add_path`.
    """
    _clear(folder)
    added = add_path(folder, store, progress)
    fresh: list[tuple[Cid, bytes]] = []
    emit = _appending(fresh)
    root = tree.without(added.root, RESERVED, store.get, emit)
    marker = folder / MARKER
    ours = marker.stat().st_size if marker.exists() else 0
    return Added(root, added.size - ours, added.chunks, added.new_bytes + store.put_many(fresh))


class Snapshot:
    """What a folder holds now, by its hashes alone: its files stay where they are.

    Args:
        folder: A folder.
        progress: Told of each chunk.

    Attributes:
        root: What committing it would name.
        began_ns: When it was begun to be looked at, UTC nanoseconds since 1970.

    Raises:
        ManifestError: Something in it cannot be published.
    """

    def __init__(self, folder: Path, progress: Progress | None = None) -> None:
        self.began_ns = time.time_ns()
        self._manifests = _Manifests(NO_LIMIT)
        self.root = add(folder, self._manifests, progress).root

    def over(self, get: Get) -> Get:
        """Gives the manifests of this folder, and everything else from elsewhere."""
        held = self._manifests.chunks

        def either(cid: Cid) -> bytes:
            block = held.get(cid)
            return get(cid) if block is None else block

        return either


class _Manifests(MemoryBlockstore):
    """Keeps what names other chunks, and forgets the chunks."""

    def put_many(
        self, pairs: Pairs, reservation: Reservation | None = None, *, verify: bool = False
    ) -> int:
        manifests = (pair for pair in pairs if cids.codec(pair[0]) == cids.DAG_PB)
        return super().put_many(manifests, reservation, verify=verify)


def check_tree(root: Cid, get: Get) -> None:
    """Refuse a tree that holds what is ours in a working folder.

    Raises:
        ManifestError: It does, or it is no folder.
    """
    taken = sorted(RESERVED & tree.entries(root, get).keys())
    if taken:
        message = f"{cids.text(root)} holds {taken[0]!r}, which a working folder keeps for itself"
        raise ManifestError(message)


class Switch:
    """Makes a folder hold another tree, writing only the files that differ.

    To build one writes everything new to the disk, beside its place; `apply` then moves it there.
    A crash while that runs leaves files of both versions, and the marker of the one before.

    Args:
        folder: The folder.
        snapshot: What it holds now.
        target: What it is to hold; all its chunks are held.
        store: Where they are.
        progress: Told of each leaf.

    Raises:
        ManifestError: The tree is malformed.
        RefusedError: What is to be written over or removed has changed since the snapshot.
        ChunkNotFoundError: A chunk is not held.
        FileSystemFullError: The folder's file system has no room for what is new.
    """

    def __init__(
        self,
        folder: Path,
        snapshot: Snapshot,
        target: Cid,
        store: Blockstore,
        progress: Progress | None = None,
    ) -> None:
        check_tree(target, store.get)
        self._folder = folder
        self._changes = list(changes(snapshot.root, target, snapshot.over(store.get)))
        _clear(folder)
        staging = folder / STAGING
        staging.mkdir()
        self._files = _stage(self._changes, staging, store, progress)
        self._check_untouched(snapshot.began_ns)

    def _check_untouched(self, since_ns: int) -> None:
        """Refuse where a person has gone on working in the folder: nothing holds what they wrote."""
        there = {one.path for one in self._changes if one.old is not None}
        made = {one.path for one in self._changes if one.is_folder and one.old is None}
        for change in self._changes:
            path = self._folder / change.path
            if change.path in there:
                is_touched = _is_touched(path, since_ns)
            else:  # below a folder that is made, what stood in its place is looked at
                is_touched = change.path.rpartition("/")[0] not in made and os.path.lexists(path)
            if is_touched:
                _clear(self._folder)
                message = f"{path} was changed meanwhile"
                raise RefusedError(message, "nothing was written; look at it, and try again")

    def apply(self) -> Switched:
        """Remove what is to go, and move what is new to its place; durable when this returns."""
        removed = [change for change in reversed(self._changes) if change.new is None]
        for change in removed:
            path = self._folder / change.path
            if change.is_folder:
                path.rmdir()
            else:
                path.unlink()
        for change in self._changes:
            if change.new is not None and change.is_folder:
                (self._folder / change.path).mkdir()
            elif change.new is not None:
                self._files[change.path].replace(self._folder / change.path)
        (self._folder / STAGING).rmdir()
        os.sync()
        return Switched(len(self._files), sum(not change.is_folder for change in removed))


def _stage(
    found: Sequence[Change], staging: Path, store: Blockstore, progress: Progress | None
) -> dict[str, Path]:
    """Write every new file beside its place; path in the tree to path on the disk."""
    wanted = [
        (change.path, change.new)
        for change in found
        if change.new is not None and not change.is_folder
    ]
    total = sum(_size(link, store) for _, link in wanted)
    check_free(staging, total)
    done = 0
    staged: dict[str, Path] = {}
    for index, (path, link) in enumerate(wanted):
        staged[path] = staging / str(index)
        done += _write(link.cid, path, staged[path], store)
        if progress is not None:
            progress(done, total)
    os.sync()  # one wait for thousands of small files, where an fsync each takes minutes
    return staged


def _is_touched(path: Path, since_ns: int) -> bool:
    try:
        return path.lstat().st_ctime_ns > since_ns
    except (FileNotFoundError, NotADirectoryError):
        return True


def _size(link: Link, store: Blockstore) -> int:
    return tree.file_size(link, store.get)


def _write(cid: Cid, path: str, target: Path, store: Blockstore) -> int:
    """Write a file or a symbolic link where nothing is; its bytes."""
    node = read_node(cid, store.get(cid))
    if node.kind is Kind.SYMLINK:
        target.symlink_to(check_target(node.data.decode(errors="surrogateescape"), path.count("/")))
        return 0
    with target.open("xb") as file:
        for leaf in read_file(cid, store):
            file.write(leaf)
        return file.tell()


def _clear(folder: Path) -> None:
    """Remove what a crash has left."""
    staging = folder / STAGING
    if staging.is_dir() and not staging.is_symlink():
        shutil.rmtree(staging)
    else:
        staging.unlink(missing_ok=True)


def _appending(to: list[tuple[Cid, bytes]]) -> tree.Emit:
    return lambda cid, block: to.append((cid, block))

"""Commits and differences as JSON, with what changed inside safetensors and Parquet files."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from itertools import islice
from pathlib import Path
from subprocess import DEVNULL
from typing import TYPE_CHECKING, Any

import trio

import swarm
from protocols import signing
from storage import cid as cids
from storage.errors import StorageError
from storage.unixfs import write_path
from swarm.versions import tree
from swarm.versions.diff import changes
from swarm.versions.tensors import File, tensor_changes

if TYPE_CHECKING:
    from storage.blockstore import Blockstore
    from storage.cid import Cid
    from storage.dag_pb import Link
    from swarm.control.api import Json
    from swarm.versions.commit import Commit
    from swarm.versions.diff import Change
    from swarm.versions.tree import Get

MAX_LISTED = 10_000
"""Files of a difference that are listed."""
MAX_NAMES = 1_000
"""Tensors of one kind that are named."""
MAX_LOOKED_INTO = 64
"""Files of a difference that are looked into."""
ROWS_SECONDS = 120
ROOM = "rows-"
"""How folders begin in which files lie for another process to read."""


def commit_report(cid: Cid, commit: Commit) -> Json:
    """A commit for people and programs."""
    return {
        "commit": cids.text(cid),
        "root": cids.text(commit.root),
        "parents": [cids.text(parent) for parent in commit.parents],
        "author": signing.peer_id(commit.author),
        "message": commit.message,
        "time_s": commit.time_s,
        "height": commit.height,
    }


async def diff_report(
    old: Cid, new: Cid, get: Get, store: Blockstore, folder: Path | None, scratch: Path
) -> Json:
    """What changed from one tree to another.

    Args:
        old: The tree before, held by the store.
        new: The tree after.
        get: Gives the manifests of both.
        store: Gives the files.
        folder: Where the files of `new` lie; None if the store holds them.
        scratch: Where files are put for another process to read.

    Returns:
        `files`: `path`, `change` (`added`, `removed`, `changed`), `old_size`, `new_size`; a changed `.safetensors` also has
        `tensors` (`added`, `removed`, `changed`: names, `same`: how many), a changed `.parquet` `rows` (`added`, `removed`).
        `more`, whether there are files beyond the first 10,000. Empty folders are listed with a slash.
    """
    found = await trio.to_thread.run_sync(_changes, old, new, get)
    files: list[Json] = []
    looked = 0
    for change in found[:MAX_LISTED]:
        file = await trio.to_thread.run_sync(_file, change, get)
        suffix = Path(change.path).suffix.lower()
        if change.kind == "changed" and looked < MAX_LOOKED_INTO:
            if suffix == ".safetensors":
                looked += 1
                file |= await trio.to_thread.run_sync(_tensors, change, get, store, folder)
            elif suffix == ".parquet":
                looked += 1
                file |= await _rows(change, store, folder, scratch)
        files.append(file)
    return {"files": files, "more": len(found) > MAX_LISTED}


def clear_rooms(scratch: Path) -> None:
    """Remove the files that a killed node has left for another process to read."""
    for room in scratch.glob(f"{ROOM}*"):
        shutil.rmtree(room, ignore_errors=True)


def _changes(old: Cid, new: Cid, get: Get) -> list[Change]:
    listed = (
        change
        for change in changes(old, new, get)
        if not change.is_folder or not tree.entries(_there(change).cid, get)
    )
    return list(islice(listed, MAX_LISTED + 1))


def _there(change: Change) -> Link:
    link = change.old or change.new
    assert link is not None  # noqa: S101 - a change has one of them
    return link


def _file(change: Change, get: Get) -> Json:
    if change.is_folder:
        return {
            "path": change.path + "/",
            "change": change.kind,
            "old_size": None,
            "new_size": None,
        }
    return {
        "path": change.path,
        "change": change.kind,
        "old_size": None if change.old is None else tree.file_size(change.old, get),
        "new_size": None if change.new is None else tree.file_size(change.new, get),
    }


def _tensors(change: Change, get: Get, store: Blockstore, folder: Path | None) -> Json:
    """`tensors`, or nothing where a file is not what its name says."""

    def of_store(cid: Cid, _begin: int, _size: int) -> bytes:
        return store.get(cid)

    def of_folder(_cid: Cid, begin: int, size: int) -> bytes:
        assert folder is not None  # noqa: S101 - taken only then
        with (folder / change.path).open("rb") as file:
            return os.pread(file.fileno(), size, begin)

    assert change.old is not None  # noqa: S101 - it changed
    assert change.new is not None  # noqa: S101
    try:
        old = File(change.old.cid, tree.file_size(change.old, get), get, of_store)
        read = of_store if folder is None else of_folder
        new = File(change.new.cid, tree.file_size(change.new, get), get, read)
        found = tensor_changes(old, new)
    except (StorageError, OSError):
        return {}
    if found is None:
        return {}
    names = {"added": found.added, "removed": found.removed, "changed": found.changed}
    return {
        "tensors": {
            **{kind: list(some[:MAX_NAMES]) for kind, some in names.items()},
            "same": found.same,
        }
    }


async def _rows(change: Change, store: Blockstore, folder: Path | None, scratch: Path) -> Json:
    """`rows`, or nothing where they cannot be counted: no pyarrow, no Parquet, or too many."""
    assert change.old is not None  # noqa: S101 - it changed
    assert change.new is not None  # noqa: S101
    with tempfile.TemporaryDirectory(dir=scratch, prefix=ROOM) as room:
        old, new = Path(room) / "old", Path(room) / "new"
        try:
            await trio.to_thread.run_sync(write_path, change.old.cid, store, old)
            if folder is None:
                await trio.to_thread.run_sync(write_path, change.new.cid, store, new)
            else:
                new = folder / change.path
        except (StorageError, OSError):
            return {}
        found = await _ask([sys.executable, "-P", "-m", "swarm.versions.rows", str(old), str(new)])
    return {} if found is None else {"rows": found}


async def _ask(command: list[str]) -> Any:  # noqa: ANN401 - JSON
    """What a program of ours prints as JSON; None if it fails, or takes too long."""
    rooms = str(Path(swarm.__file__).parents[1])
    environment = {"PYTHONPATH": rooms, "PATH": os.environ.get("PATH", os.defpath)}
    with trio.move_on_after(ROWS_SECONDS):
        done = await trio.run_process(
            command, capture_stdout=True, stderr=DEVNULL, check=False, env=environment
        )
        if done.returncode == 0:
            return json.loads(done.stdout)
    return None

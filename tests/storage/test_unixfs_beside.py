"""What a writer that is killed leaves beside its target, and who removes it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import storage
from storage import unixfs
from storage.memory import MemoryBlockstore
from storage.unixfs_beside import LITTER_SECONDS, beside

KILLED = """
import os, signal, sys
from pathlib import Path
from storage import unixfs
from storage.memory import MemoryBlockstore
source, target = map(Path, sys.argv[1:])
store = MemoryBlockstore()
root = unixfs.add_path(source, store).root
unixfs.write_path(root, store, target, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
"""


@pytest.fixture
def store():
    return MemoryBlockstore()


@pytest.fixture
def root(tmp_path, store):
    (tmp_path / "source").write_bytes(bytes(2**20))
    return unixfs.add_path(tmp_path / "source", store).root


def litter(folder):
    return [path for path in folder.iterdir() if path.name.startswith(".swarm-")]


def age(path, seconds=LITTER_SECONDS + 1):
    then = path.stat().st_mtime - seconds
    os.utime(path, (then, then))


@pytest.mark.slow
def test_what_a_killed_writer_left_is_removed_by_the_next_write(tmp_path, store, root):
    command = [sys.executable, "-c", KILLED, str(tmp_path / "source"), str(tmp_path / "copy")]
    done = subprocess.run(command, cwd=Path(storage.__file__).parents[1], check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = litter(tmp_path)
    assert (left / "content").stat().st_size == 2**20
    unixfs.write_path(root, store, tmp_path / "copy")
    assert litter(tmp_path) == [left]  # it is young: its writer may be about to lock it
    age(left)
    unixfs.write_path(root, store, tmp_path / "copy")
    assert litter(tmp_path) == []


def test_a_folder_in_which_somebody_writes_stays_however_old(tmp_path, store, root):
    def meanwhile(done, total):
        (mine,) = litter(tmp_path)
        age(mine)
        unixfs.write_path(root, store, tmp_path / "other")
        assert litter(tmp_path) == [mine]

    unixfs.write_path(root, store, tmp_path / "copy", meanwhile)
    assert (tmp_path / "copy").read_bytes() == bytes(2**20)
    assert litter(tmp_path) == []


@pytest.mark.parametrize("names", [[], ["lock", "notes"], ["content"]])
def test_a_folder_of_somebody_else_with_a_name_like_ours_stays(tmp_path, store, root, names):
    (tmp_path / ".swarm-notes").mkdir()
    for name in names:
        (tmp_path / ".swarm-notes" / name).touch()
    age(tmp_path / ".swarm-notes")
    unixfs.write_path(root, store, tmp_path / "copy")
    assert sorted(path.name for path in (tmp_path / ".swarm-notes").iterdir()) == sorted(names)


def test_a_link_with_a_name_like_ours_is_not_followed(tmp_path, store, root):
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "lock").touch()
    (inner / "content").touch()
    age(inner)
    (tmp_path / ".swarm-link").symlink_to(inner)
    unixfs.write_path(root, store, tmp_path / "copy")
    assert (inner / "content").exists()


def test_a_writer_that_fails_leaves_nothing(tmp_path):
    def write():
        with beside(tmp_path / "copy") as fresh:
            fresh.mkdir()
            (fresh / "file").touch()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write()
    assert litter(tmp_path) == []

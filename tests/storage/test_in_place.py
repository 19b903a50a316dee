"""Files that are published where they lie: nothing is copied, and what changes is noticed."""

from __future__ import annotations

import errno
import os
import re
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from storage import unixfs
from storage.collection import Collector
from storage.dag import links
from storage.errors import ChangedFileError, ChunkNotFoundError, UnreadableFileError
from storage.memory import MemoryBlockstore
from storage.references import FileState, Reference
from storage.walk import damaged_below, missing_below
from tests.storage.trees import accounted, leaf, open_store

MIB = 2**20


@pytest.fixture(params=["memory", "segments"])
def store(request, tmp_path):
    store = MemoryBlockstore() if request.param == "memory" else open_store(tmp_path / "chunks")
    yield store
    store.close()


@pytest.fixture
def disk_store(tmp_path):
    store = open_store(tmp_path / "chunks", segment_bytes=64 * MIB)
    yield store
    store.close()


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "big").write_bytes(os.urandom(2 * MIB + 500))
    (folder / "small").write_bytes(b"small")
    (folder / "empty").write_bytes(b"")
    return folder


def test_the_root_is_the_same_and_the_content_is_not_copied(store, folder):
    copied = unixfs.hash_path(folder)
    added = unixfs.add_path(folder, store, in_place=True)
    assert (added.root, added.size, added.chunks) == (copied.root, copied.size, copied.chunks)
    usage = store.usage()
    assert usage.in_place == 2 * MIB + 505
    assert usage.used < 5_000
    assert list(missing_below(added.root, store, links)) == []
    big = unixfs.resolve(added.root, "big", store)
    assert b"".join(unixfs.read_file(big, store)) == (folder / "big").read_bytes()
    assert store.changed_files() == []
    assert store.verify() == []
    assert unixfs.add_path(folder, store, in_place=True).new_bytes == 0
    assert store.usage() == usage


@pytest.mark.parametrize("change", ["bytes", "same time", "shorter", "replaced by a link"])
def test_a_changed_file_is_noticed_named_and_forgotten(store, folder, change):
    added = unixfs.add_path(folder, store, in_place=True)
    path = folder / "big"
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[5] ^= 1
    match change:
        case "bytes":
            path.write_bytes(data)
        case "same time":
            with path.open("r+b") as file:
                file.write(data[:10])
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        case "shorter":
            path.write_bytes(b"short")
        case _:
            path.rename(folder / "moved")
            path.symlink_to(folder / "moved")
    if change != "same time":
        assert store.changed_files() == [str(path)]
    big = unixfs.resolve(added.root, "big", store)
    leaf = links(big, store.get(big))[0].cid
    with pytest.raises(ChangedFileError, match=str(path)):
        store.get(leaf)
    with pytest.raises(ChunkNotFoundError):
        store.get(leaf)
    assert leaf in damaged_below(added.root, store, links)
    small = unixfs.resolve(added.root, "small", store)
    assert store.get(small) == b"small"


@pytest.mark.parametrize("away", ["gone", "unmounted", "failing disk", "not allowed"])
def test_a_file_that_cannot_be_read_is_not_held_until_it_can_be(store, folder, monkeypatch, away):
    added = unixfs.add_path(folder, store, in_place=True)
    path, aside = folder / "big", folder.with_name("aside")
    big = unixfs.resolve(added.root, "big", store)
    leaf = links(big, store.get(big))[0].cid
    whole = store.get(leaf)
    used = store.usage()
    with monkeypatch.context() as context:
        match away:
            case "gone":
                path.rename(aside)
            case "unmounted":
                folder.rename(aside)
                folder.mkdir()
            case "failing disk":
                context.setattr(os, "pread", refusing(errno.EIO, path, os.pread))
            case _:
                context.setattr(os, "open", refusing(errno.EACCES, path, os.open))
        for _ in range(2):
            with pytest.raises(UnreadableFileError, match=str(path)):
                store.get(leaf)
            assert not store.has(leaf)
            assert store.missing([leaf, big]) == [leaf]
        assert damaged_below(added.root, store, links) == [leaf]
        assert (store.usage(), store.verify().count(leaf)) == (used, 1)
        if away in {"gone", "unmounted"}:
            assert str(path) in store.changed_files()
    if away == "unmounted":
        folder.rmdir()
        aside.rename(folder)
    elif away == "gone":
        aside.rename(path)
    assert store.has(leaf)
    assert store.missing([leaf]) == []
    assert store.get(leaf) == whole
    assert leaf not in store.damaged()
    assert (store.usage(), store.changed_files(), store.verify()) == (used, [], [])
    assert store.damaged() == frozenset()


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_a_moment_without_file_handles_says_nothing_of_a_file(store, folder, monkeypatch, code):
    added = unixfs.add_path(folder / "small", store, in_place=True)
    with monkeypatch.context() as context:
        context.setattr(os, "open", refusing(code, folder / "small", os.open))
        with pytest.raises(OSError, match=re.escape(os.strerror(code))):
            store.get(added.root)
    assert store.has(added.root)
    assert store.get(added.root) == b"small"
    assert store.damaged() == frozenset()


def test_an_empty_file_comes_back_too(store, folder):
    root = unixfs.add_path(folder / "empty", store, in_place=True).root
    (folder / "empty").rename(folder / "aside")
    with pytest.raises(UnreadableFileError):
        store.get(root)
    assert not store.has(root)
    (folder / "aside").rename(folder / "empty")
    assert store.has(root)
    assert store.get(root) == b""


def test_a_copy_takes_the_place_of_a_file_that_cannot_be_read(disk_store, folder, tmp_path):
    added = unixfs.add_path(folder / "small", disk_store, in_place=True)
    (folder / "small").rename(tmp_path / "aside")
    assert disk_store.verify() == [added.root]
    assert disk_store.put_many([(added.root, b"small")]) == 5
    assert disk_store.get(added.root) == b"small"
    assert disk_store.damaged() == frozenset()
    assert accounted(disk_store)


def refusing(code, path, real):
    """A call that fails for one file, which it is told by its path or by a descriptor."""

    def call(file, *others):
        name = str(Path(f"/proc/self/fd/{file}").readlink()) if isinstance(file, int) else str(file)
        if name == str(path):
            raise OSError(code, os.strerror(code))
        return real(file, *others)

    return call


def test_what_occurs_twice_is_new_once(store, folder):
    (folder / "again").write_bytes((folder / "big").read_bytes())
    planned = unixfs.hash_path(folder, beside=store)
    added = unixfs.add_path(folder, store, in_place=True)
    assert (added.root, added.new_bytes) == (planned.root, planned.new_bytes)
    assert store.usage().in_place == 2 * MIB + 505


def test_a_file_that_was_only_touched_still_serves(store, folder):
    added = unixfs.add_path(folder, store, in_place=True)
    os.utime(folder / "big", ns=(1, 1))
    assert store.changed_files() == [str(folder / "big")]
    big = unixfs.resolve(added.root, "big", store)
    assert b"".join(unixfs.read_file(big, store)) == (folder / "big").read_bytes()


def test_a_copy_is_made_where_one_is_asked_for(disk_store, folder):
    added = unixfs.add_path(folder, disk_store, in_place=True)
    assert unixfs.add_path(folder, disk_store).new_bytes == 2 * MIB + 505
    (folder / "big").unlink()
    assert disk_store.verify() == []
    assert list(missing_below(added.root, disk_store, links)) == []


def test_references_are_collected_and_survive_opening_again(disk_store, folder, tmp_path):
    kept = unixfs.add_path(folder / "big", disk_store, in_place=True)
    disk_store.pin(kept.root, "kept")
    unixfs.add_path(folder / "small", disk_store, in_place=True)
    with disk_store.lease("publish"):
        found = unixfs.add_path(folder / "empty", disk_store, in_place=True)
        Collector(disk_store, dead_share=0.0).run_once()
        assert disk_store.has(found.root)
        assert disk_store.usage().in_place == 2 * MIB + 500
    Collector(disk_store, dead_share=0.0).run_once()
    assert not disk_store.has(found.root)
    assert accounted(disk_store)
    assert disk_store.usage().pinned == sum(
        disk_store.size(cid)
        for cid in [kept.root, *{link.cid for link in links(kept.root, disk_store.get(kept.root))}]
    )
    disk_store.close()
    again = open_store(tmp_path / "chunks")
    assert b"".join(unixfs.read_file(kept.root, again)) == (folder / "big").read_bytes()
    assert again.usage().in_place == 2 * MIB + 500
    assert accounted(again)
    again.close()


def test_a_changed_chunk_that_many_read_at_once_is_forgotten_once(disk_store, tmp_path):
    path, readers = tmp_path / "parts", 4
    parts = [leaf(at, 100) for at in range(40)]
    path.write_bytes(b"".join(data for _, data in parts))
    state = FileState.of(path.stat())
    disk_store.add_references(
        [
            Reference(cid, path, at * 100, 100, zlib.crc32(data), state)
            for at, (cid, data) in enumerate(parts)
        ]
    )
    disk_store.put_many([leaf("more", MIB)])  # what is given back twice would be of this
    path.write_bytes(bytes(4_000))
    together = threading.Barrier(readers)

    def read():
        for cid, _ in parts:
            together.wait()
            with suppress(ChangedFileError, ChunkNotFoundError):
                disk_store.get(cid)

    with ThreadPoolExecutor(readers) as pool:
        for done in [pool.submit(read) for _ in range(readers)]:
            done.result()
    assert disk_store.references.count == 0
    assert accounted(disk_store)

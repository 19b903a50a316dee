"""What a manifest claims, held against what is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from storage import car, unixfs
from storage import cid as cids
from storage.errors import ChunkNotFoundError, ManifestError
from storage.memory import MemoryBlockstore
from storage.unixfs_nodes import Built, file_node, folder_node
from storage.unixfs_nodes import Link as Named
from storage.unixfs_sizes import check_sizes

RAW = cids.of_raw(b"0")
FOREIGN = Path(__file__).parents[1] / "vectors" / "unixfs_foreign.car"


@pytest.fixture
def store():
    found = MemoryBlockstore()
    found.put_many([(RAW, b"0")])
    return found


def keep(store, made):
    built, block = made
    store.put_many([(built.cid, block)])
    return built


def test_each_chunk_counts_once(tmp_path, store):
    for name in ("a", "b"):
        (tmp_path / "sample" / name).mkdir(parents=True)
        (tmp_path / "sample" / name / "file").write_bytes(bytes(3 * 2**20))
    root = unixfs.add_path(tmp_path / "sample", store).root
    assert check_sizes(root, store) == sum(map(len, store.chunks.values())) - 1


def test_a_link_that_claims_more_than_is_below_it_is_named(store):
    small = keep(store, folder_node([Named(RAW, "file", 1)]))
    for claim, fits in ((small.tree, True), (0, True), (None, True), (small.tree + 1, False)):
        root = keep(store, folder_node([Named(small.cid, "folder", claim)])).cid
        if fits:
            assert check_sizes(root, store) > 0
            continue
        with pytest.raises(ManifestError, match="'folder'"):
            check_sizes(root, store)


def test_a_part_of_a_file_of_another_size_is_named(store):
    for size in (2, 10**14):
        root = keep(store, file_node([Built(RAW, size, 1)])).cid
        with pytest.raises(ManifestError, match=f"{size:,} bytes"):
            check_sizes(root, store)


def test_a_folder_is_no_part_of_a_file(store):
    folder = keep(store, folder_node([]))
    root = keep(store, file_node([Built(folder.cid, 1, 1)])).cid
    with pytest.raises(ManifestError, match="is not the part"):
        check_sizes(root, store)


def test_a_byte_that_a_few_nodes_name_without_number_is_looked_at_once(store):
    tree = keep(store, folder_node([Named(RAW, "file", 1)]))
    for _ in range(200):
        links = [Named(tree.cid, str(at), tree.tree if tree.tree < 2**60 else 1) for at in range(9)]
        tree = keep(store, folder_node(links))
    assert check_sizes(tree.cid, store) == sum(map(len, store.chunks.values()))


def test_what_is_not_held_is_told(store):
    root = keep(store, folder_node([Named(cids.of_raw(b"1"), "file", 1)])).cid
    with pytest.raises(ChunkNotFoundError):
        check_sizes(root, store)


def test_what_other_tools_wrote_is_taken():
    store = MemoryBlockstore()
    with FOREIGN.open("rb") as file:
        roots = car.load(file, store).roots
    assert all(check_sizes(root, store) > 0 for root in roots if not car.first_missing(root, store))

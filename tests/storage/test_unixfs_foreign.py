"""Files and folders that other implementations made, in other shapes than ours; links, modes and ranges."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from storage import car, dag, dag_pb, unixfs, unixfs_nodes
from storage import cid as cids
from storage.dag_pb import Link, bytes_field, varint_field
from storage.errors import ChunkNotFoundError, ManifestError
from storage.memory import MemoryBlockstore

MIB = 2**20
FOLDER = Path(__file__).parents[1] / "vectors"
VECTORS = json.loads((FOLDER / "unixfs_foreign.json").read_text())
ROOTS = {name: cids.parse(text) for name, text in VECTORS["roots"].items()}
FILES = {
    "balanced, version 0, leaves in nodes": 3_000,
    "balanced, leaves of type Raw": 3_000,
    "balanced, raw leaves": 3_000,
    "trickle, version 0, leaves in nodes": 3_000,
    "trickle, raw leaves": 3_000,
    "flat": 3_000,
    "one leaf with a node above": 50,
    "empty, version 0": 0,
    "data in an inner node, no Tsize": 120,
}


def pattern(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]


@pytest.fixture(scope="module")
def foreign():
    store = MemoryBlockstore()
    with (FOLDER / "unixfs_foreign.car").open("rb") as file:
        car.load(file, store)
    return store


class Counting(MemoryBlockstore):
    """Notes what is read."""

    def __init__(self, other):
        super().__init__()
        self.chunks = dict(other.chunks)
        self.read: list[bytes] = []

    def get(self, cid):
        self.read.append(cid)
        return super().get(cid)


def permissions(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


class TestFiles:
    @pytest.mark.parametrize(("name", "size"), FILES.items())
    def test_a_file_is_read_whatever_its_shape(self, foreign, name, size):
        root = ROOTS[name]
        assert b"".join(unixfs.read_file(root, foreign)) == pattern(size)
        assert unixfs.look(root, foreign).size == size

    @pytest.mark.parametrize("name", FILES)
    def test_any_range_is_that_of_the_whole(self, foreign, name):
        whole = pattern(FILES[name])
        for start in (0, 1, 63, 64, 65, 1_000, 2_999, 3_000, 5_000):
            for length in (0, 1, 64, 130, 10**18):
                found = b"".join(unixfs.read_range(ROOTS[name], foreign, start, length))
                assert found == whole[start : start + length], (start, length)

    @pytest.mark.parametrize("name", FILES)
    def test_a_range_reads_what_was_planned_and_nothing_else(self, foreign, name):
        size = FILES[name]
        for start, length in ((0, 1), (100, 70), (size - 1, 1)):
            held = MemoryBlockstore()
            while missing := unixfs.plan_range(ROOTS[name], held, start, length):
                held.put_many((cid, foreign.get(cid)) for cid in missing)
            counting = Counting(held)
            found = b"".join(unixfs.read_range(ROOTS[name], counting, start, length))
            assert found == pattern(size)[max(0, start) :][:length]
            assert set(counting.read) == set(held.chunks)
            assert len(held.chunks) <= 12

    @pytest.mark.parametrize(("start", "length", "leaves"), [(64, 64, 1), (63, 65, 2), (64, 65, 2)])
    def test_a_range_needs_no_leaf_beside_it(self, foreign, start, length, leaves):
        store, root = MemoryBlockstore(), ROOTS["flat"]
        store.put_many([(root, foreign.get(root))])
        assert len(unixfs.plan_range(root, store, start, length)) == leaves
        counting = Counting(foreign)
        list(unixfs.read_range(root, counting, start, length))
        assert len(counting.read) == 1 + leaves

    def test_what_a_range_lacks_is_named_a_few_at_a_time(self, foreign):
        store = MemoryBlockstore()
        root = ROOTS["flat"]
        assert unixfs.plan_range(root, store, 0, 3_000) == [root]
        store.put_many([(root, foreign.get(root))])
        assert len(unixfs.plan_range(root, store, 0, 3_000)) == 47
        assert len(unixfs.plan_range(root, store, 0, 3_000, 5)) == 5

    def test_a_link_that_carries_its_bytes_is_refused_by_that_name(self):
        identity = b"\x01\x55\x00\x03abc"
        block = dag_pb.bytes_field(2, bytes_field(1, identity)) + bytes_field(1, b"\x08\x02")
        with pytest.raises(ManifestError, match="identity"):
            dag.links(cids.of_dag_pb(block), block)

    @pytest.mark.parametrize("size", [2**50 + 1, 10**18, 2**63 - 1])
    def test_a_file_that_claims_to_be_endless_is_refused(self, size):
        data = varint_field(1, 2) + varint_field(3, size) + varint_field(4, size)
        block = dag_pb.encode([Link(cids.of_raw(b""), "", size)], data)
        store = MemoryBlockstore()
        store.put_many([(cids.of_dag_pb(block), block)])
        with pytest.raises(ManifestError, match="size"):
            unixfs.look(cids.of_dag_pb(block), store)


class TestFolders:
    def test_a_sharded_folder_is_listed_and_walked(self, foreign):
        root = ROOTS["sharded folder"]
        assert {entry.name: entry.size for entry in unixfs.listing(root, foreign)} == {
            f"file {number}": number for number in range(40)
        }
        found = unixfs.resolve(root, "file 33", foreign)
        assert b"".join(unixfs.read_file(found, foreign)) == pattern(33)

    def test_a_listing_says_what_it_lacks_until_it_can_be_made(self, foreign):
        for name in ("sharded folder", "folder with links"):
            held, rounds = MemoryBlockstore(), 0
            while missing := unixfs.plan_listing(ROOTS[name], held):
                held.put_many((cid, foreign.get(cid)) for cid in missing)
                rounds += 1
            listed = unixfs.listing(ROOTS[name], held)
            assert [one.name for one in listed] == [
                one.name for one in unixfs.listing(ROOTS[name], foreign)
            ]
            assert rounds <= 3

    def test_a_path_says_what_it_lacks_until_it_is_found(self, foreign):
        held, root = MemoryBlockstore(), ROOTS["sharded folder"]
        while missing := unixfs.plan_resolve(root, "file 7", held):
            held.put_many((cid, foreign.get(cid)) for cid in missing)
        assert unixfs.resolve(root, "file 7", held) == unixfs.resolve(root, "file 7", foreign)
        assert len(held.chunks) < 4

    def test_a_sharded_folder_is_its_shards_without_what_stands_in_it(self, foreign):
        root = ROOTS["sharded folder"]
        held = MemoryBlockstore()
        while missing := unixfs.plan_range(root, held):
            held.put_many((cid, foreign.get(cid)) for cid in missing)
        assert len(list(unixfs.names(root, held))) == 40
        for cid in held.chunks:
            kind = unixfs_nodes.read_node(cid, held.get(cid)).kind
            assert kind is unixfs_nodes.Kind.SHARD

    def test_names_are_told_without_a_look_at_what_they_name(self, foreign):
        held, root = MemoryBlockstore(), ROOTS["folder with links"]
        held.put_many([(root, foreign.get(root))])
        assert [link.name for link in unixfs.names(root, held)] == ["file", "link", "sub"]
        with pytest.raises(ChunkNotFoundError):
            unixfs.listing(root, held)


class TestLinks:
    def test_links_are_kept_and_written_again(self, foreign, tmp_path):
        unixfs.write_path(ROOTS["folder with links"], foreign, tmp_path / "out")
        assert (tmp_path / "out/link").readlink() == Path("file")
        assert (tmp_path / "out/sub/up").read_bytes() == pattern(20)
        assert os.readlink(tmp_path / "out/sub/beside") == "./up"  # noqa: PTH115
        store = MemoryBlockstore()
        again = unixfs.add_path(tmp_path / "out", store).root
        unixfs.write_path(again, store, tmp_path / "again")
        assert os.readlink(tmp_path / "again/sub/beside") == "./up"  # noqa: PTH115

    def test_a_link_has_the_name_that_kubo_gives_it(self, tmp_path):
        (tmp_path / "sub").mkdir()
        (tmp_path / "link").symlink_to("file")
        (tmp_path / "sub" / "up").symlink_to("../file")
        store = MemoryBlockstore()
        ours = unixfs.add_path(tmp_path, store).root

        def version_0(links, data):  # Kubo's default writes CIDs of version 0 and leaves in nodes
            block = dag_pb.encode(links, data)
            built = cids.of_dag_pb(block)
            return built[2:], len(block) + sum(link.size for link in links)

        def old(cid, name, size):
            return Link(cid, name, size)

        def link(path):
            block = store.get(unixfs.resolve(ours, path, store))
            return cids.of_dag_pb(block)[2:], len(block)

        file = version_0(
            [], varint_field(1, 2) + bytes_field(2, b"hello world\n") + varint_field(3, 12)
        )
        sub = version_0([old(link("sub/up")[0], "up", link("sub/up")[1])], varint_field(1, 1))
        entries = {"file": file, "link": link("link"), "sub": sub}
        root = version_0([old(cid, name, size) for name, (cid, size) in entries.items()], b"\x08\1")
        assert b"\x01\x70" + root[0] == cids.parse(VECTORS["kubo"])

    @pytest.mark.parametrize(
        "name",
        [
            "folder with an absolute link",
            "folder with a link out of it",
            "folder with a link out of it through another",
        ],
    )
    def test_a_link_that_leads_out_is_refused_by_its_path(self, foreign, tmp_path, name):
        with pytest.raises(ManifestError, match="/bad"):
            unixfs.write_path(ROOTS[name], foreign, tmp_path / "out")
        assert list(tmp_path.iterdir()) == []

    def test_a_link_to_the_root_itself_stays_inside(self, tmp_path):
        folder = tmp_path / "in"
        (folder / "sub").mkdir(parents=True)
        (folder / "sub" / "root").symlink_to("..")
        (folder / "here").symlink_to(".")
        store = MemoryBlockstore()
        unixfs.write_path(unixfs.add_path(folder, store).root, store, tmp_path / "out")
        assert (tmp_path / "out/sub/root/here").resolve() == tmp_path / "out"

    def test_a_link_by_itself_is_not_written(self, foreign, tmp_path):
        link = unixfs.resolve(ROOTS["folder with links"], "link", foreign)
        with pytest.raises(ManifestError, match="by itself"):
            unixfs.write_path(link, foreign, tmp_path / "out")


class TestModes:
    def test_modes_of_others_are_honoured_without_setuid(self, foreign, tmp_path):
        unixfs.write_path(ROOTS["modes and times"], foreign, tmp_path / "out")
        umask = os.umask(0)
        os.umask(umask)
        assert permissions(tmp_path / "out/run.sh") == 0o755 & ~umask
        assert permissions(tmp_path / "out/secret") == 0o600 & ~umask
        assert permissions(tmp_path / "out/setuid") == 0o755 & ~umask
        assert permissions(tmp_path / "out/plain") == 0o666 & ~umask
        modes = {
            entry.name: entry.mode for entry in unixfs.listing(ROOTS["modes and times"], foreign)
        }
        assert modes == {"plain": None, "run.sh": 0o755, "secret": 0o600, "setuid": 0o755}
        unixfs.write_path(ROOTS["folder with a mode"], foreign, tmp_path / "folder")
        assert permissions(tmp_path / "folder") == 0o700

    def test_modes_are_kept_on_request_only(self, tmp_path):
        folder = tmp_path / "in"
        (folder / "private").mkdir(parents=True, mode=0o700)
        (folder / "run").write_bytes(b"#!/bin/sh\n")
        (folder / "large").write_bytes(pattern(2 * MIB + 1))
        (folder / "plain").write_bytes(b"plain")
        plain = unixfs.hash_path(folder).root
        (folder / "run").chmod(0o700)
        (folder / "large").chmod(0o700)
        (folder / "plain").chmod(0o644)
        assert unixfs.hash_path(folder).root == plain
        store = MemoryBlockstore()
        kept = unixfs.add_path(folder, store, preserve_mode=True)
        assert kept.root == unixfs.hash_path(folder, preserve_mode=True).root != plain
        assert unixfs.resolve(kept.root, "plain", store) == cids.of_raw(b"plain")
        unixfs.write_path(kept.root, store, tmp_path / "out")
        for name in ("run", "large", "private"):
            assert permissions(tmp_path / "out" / name) == 0o700, name
        assert (tmp_path / "out/large").read_bytes() == pattern(2 * MIB + 1)

    def test_a_mode_is_written_as_others_write_it(self, foreign, tmp_path):
        root = ROOTS["large file with a mode"]
        node = unixfs_nodes.read_node(root, foreign.get(root))
        children = [
            unixfs_nodes.Built(link.cid, size, link.size)
            for link, size in zip(node.links, node.block_sizes, strict=True)
        ]
        built, block = unixfs_nodes.file_node(children, 0o755)
        assert (built.cid, block) == (root, foreign.get(root))
        assert unixfs_nodes.folder_node([], 0o700)[0].cid == ROOTS["folder with a mode"]

    def test_a_folder_that_nobody_may_enter_can_be_written_and_removed(self, tmp_path):
        store = MemoryBlockstore()
        leaf = unixfs_nodes.file_node([], 0)
        folder = unixfs_nodes.folder_node([Link(leaf[0].cid, "file", 1)], 0)
        store.put_many([(leaf[0].cid, leaf[1]), (folder[0].cid, folder[1])])
        unixfs.write_path(folder[0].cid, store, tmp_path / "out")
        assert permissions(tmp_path / "out") == 0o700
        assert permissions(tmp_path / "out/file") == 0o400


class TestNodesThatNameEachOtherAgainAndAgain:
    """A few blocks can be a tree of any size: what it costs to look at them is bounded by the blocks."""

    def test_shards_without_entries_are_planned_once_each(self):
        store = MemoryBlockstore()
        built, block = unixfs_nodes.shard_node([], 0)
        store.put_many([(built.cid, block)])
        for _ in range(unixfs.MAX_FILE_DEPTH - 1):
            links = [Link(built.cid, f"{slot:02X}", 0) for slot in range(256)]
            built, block = unixfs_nodes.shard_node(links, 2**256 - 1)
            store.put_many([(built.cid, block)])
        counting = Counting(store)
        assert unixfs.plan_range(built.cid, counting) == []
        assert len(counting.read) <= len(store.chunks)

    @pytest.fixture
    def deep(self):
        """A file of 2^30 bytes that are one."""
        store = MemoryBlockstore()
        leaf = cids.of_raw(b"x")
        store.put_many([(leaf, b"x")])
        built = unixfs_nodes.Built(leaf, 1, 1)
        for _ in range(30):
            built, block = unixfs_nodes.file_node([built, built])
            store.put_many([(built.cid, block)])
        return store, built.cid

    def test_a_file_of_one_byte_again_and_again_is_planned_by_its_nodes(self, deep):
        store, root = deep
        counting = Counting(store)
        assert unixfs.plan_range(root, counting, 1, 2**30 - 2) == []
        assert len(counting.read) <= 3 * len(store.chunks)

    def test_parts_that_are_larger_than_their_parents_say_are_not_planned(self):
        store = MemoryBlockstore()
        leaf = cids.of_raw(b"x")
        store.put_many([(leaf, b"x")])
        at = unixfs_nodes.Built(leaf, 1, 1)
        for level in range(12):
            built, block = unixfs_nodes.file_node([unixfs_nodes.Built(at.cid, 1, 1)] * (9 + level))
            store.put_many([(built.cid, block)])
            at = built
        for length in (1, at.size):
            counting = Counting(store)
            with pytest.raises(ManifestError, match="is not the part of 1 bytes"):
                unixfs.plan_range(at.cid, counting, 0, length)
            assert len(counting.read) <= 2

    def test_a_file_in_the_place_of_a_shard_is_not_planned(self, deep):
        store, root = deep
        links = [Link(root, f"{slot:02X}", 0) for slot in range(256)]
        built, block = unixfs_nodes.shard_node(links, 2**256 - 1)
        store.put_many([(built.cid, block)])
        counting = Counting(store)
        assert unixfs.plan_range(built.cid, counting, 1, 2**30 - 2) == []
        assert set(counting.read) == {built.cid, root}

    def test_a_file_of_one_byte_again_and_again_is_not_read(self, deep, monkeypatch):
        monkeypatch.setattr(unixfs, "MAX_SMALL_PARTS", 1_000)
        store, root = deep
        with pytest.raises(ManifestError, match="parts of less than"):
            for _ in unixfs.read_range(root, store, 0, 2**22):
                pass

    def test_one_large_file_under_many_names_is_looked_at_once(self, tmp_path):
        store = MemoryBlockstore()
        leaf = cids.of_raw(b"x" * 2_000)
        store.put_many([(leaf, b"x" * 2_000)])
        built, block = unixfs_nodes.file_node([unixfs_nodes.Built(leaf, 2_000, 2_000)] * 5)
        names = [Link(built.cid, f"{number:03}", built.tree) for number in range(200)]
        folder, above = unixfs_nodes.folder_node(names)
        store.put_many([(built.cid, block), (folder.cid, above)])
        counting = Counting(store)
        assert [one.name for one in unixfs.listing(folder.cid, counting)] == [
            f"{number:03}" for number in range(200)
        ]
        assert counting.read == [folder.cid, built.cid]
        unixfs.write_path(folder.cid, store, tmp_path / "out")
        assert (tmp_path / "out" / "199").read_bytes() == b"x" * 10_000

"""Files and folders to chunks and back, with the names that IPFS gives them, and manifests that lie."""

from __future__ import annotations

import json
import os
import shutil
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest

from storage import cid as cids
from storage import dag, dag_pb, hamt, importer, unixfs, unixfs_nodes
from storage.blockstore import SegmentBlockstore
from storage.dag_pb import Link, bytes_field, varint_field
from storage.errors import (
    ChunkNotFoundError,
    CorruptChunkError,
    DiskFullError,
    ManifestError,
    PathNotFoundError,
    QuotaError,
    TargetExistsError,
)
from storage.memory import MemoryBlockstore
from storage.unixfs_nodes import Built, file_node, folder_node

MIB = 2**20
VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "unixfs.json").read_text())["cids"]
RAW = cids.of_raw(b"0")


def pattern(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]


def folder_cid(names: list[str], contents=lambda number: b"%d" % (number % 7)) -> str:
    """The CID of a folder of small files, without the files."""
    links = []
    for number, name in enumerate(names):
        data = contents(number)
        links.append(Link(cids.of_raw(data), name, len(data)))
    built = importer._Import(importer._NoSink(), 0, None)._folder_of(
        sorted(links, key=lambda link: link.name)
    )
    return cids.text(built.cid)


def numbered(count: int, length: int) -> list[str]:
    return [f"{number:06}" + "x" * (length - 6) for number in range(count)]


def tree(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def sample(tmp_path):
    folder = tmp_path / "sample"
    (folder / "inner" / "deep").mkdir(parents=True)
    (folder / "empty folder").mkdir()
    (folder / "empty file").touch()
    (folder / ".hidden").write_bytes(b"hidden")
    (folder / "é").write_bytes(pattern(2 * MIB + 5))
    (folder / "inner" / "deep" / "file").write_bytes(b"deep")
    (folder / "inner" / "file").write_bytes(pattern(MIB))
    return folder


def keep(store, *blocks: tuple[Built, bytes]):
    store.put_many((built.cid, block) for built, block in blocks)
    return blocks[-1][0].cid


class TestNames:
    @pytest.mark.parametrize(
        ("what", "size"),
        [
            ("file of 0 bytes", 0),
            ("file of 1 byte", 1),
            ("file of 1 MiB", MIB),
            ("file of 1 MiB and 1 byte", MIB + 1),
            ("file of 5 MiB and 3 bytes", 5 * MIB + 3),
        ],
    )
    def test_a_file_has_the_name_that_ipfs_gives_it(self, tmp_path, what, size):
        (tmp_path / "file").write_bytes(pattern(size))
        assert cids.text(unixfs.hash_path(tmp_path / "file").root) == VECTORS[what]

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("what", "size"),
        [("file of 1 GiB of zeros", 2**30), ("file of 1 GiB and 1 byte of zeros", 2**30 + 1)],
    )
    def test_a_file_of_more_than_1024_leaves_has_two_levels(self, what, size):
        # The leaves are all alike, so the tree is built from one hash; hashing a GiB would only take longer.
        leaf = Built(cids.of_raw(bytes(MIB)), MIB, MIB)
        work = importer._Import(importer._NoSink(), size, None)
        levels = [[]]
        for _ in range(size // MIB):
            work._push(levels, 0, leaf)
        if size % MIB:
            work._push(levels, 0, Built(cids.of_raw(bytes(size % MIB)), size % MIB, size % MIB))
        assert cids.text(work._top(levels).cid) == VECTORS[what]

    def test_known_names(self, tmp_path):
        (tmp_path / "hello").write_bytes(b"hello world\n")
        (tmp_path / "folder").mkdir()
        assert cids.text(unixfs.hash_path(tmp_path / "hello").root) == VECTORS["hello world"]
        assert cids.text(unixfs.hash_path(tmp_path / "folder").root) == VECTORS["empty folder"]

    def test_a_small_folder(self):
        assert folder_cid(numbered(10, 10)) == VECTORS["folder of 10"]

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("what", "size"),
        [("folder of 262,144 bytes", 262_144), ("folder of 262,145 bytes", 262_145)],
    )
    def test_a_folder_is_sharded_above_256_kib_and_not_at_it(self, what, size):
        names = [f"{number:06}" + "y" * 75 for number in range(3_000)]
        entry = len(folder_node([Link(RAW, names[0], 1)])[1]) - len(folder_node([])[1])
        names = names[: (262_144 - len(folder_node([])[1])) // entry]
        short = size - len(folder_node([Link(RAW, name, 1) for name in names])[1])
        names = [name + "z" * (number < short) for number, name in enumerate(names)]
        assert len(folder_node([Link(RAW, name, 1) for name in names])[1]) == size
        assert folder_cid(names, lambda _: b"0") == VECTORS[what]

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("what", "count", "length"),
        [("folder of 6,000", 6_000, 12), ("folder of 30,000", 30_000, 9)],
    )
    def test_a_sharded_folder_has_the_name_that_ipfs_gives_it(self, what, count, length):
        assert folder_cid(numbered(count, length)) == VECTORS[what]


class TestRoundTrip:
    def test_a_folder_comes_back_as_it_was(self, sample, tmp_path):
        store = SegmentBlockstore(tmp_path / "chunks", 2**30)
        seen = []
        added = unixfs.add_path(sample, store, lambda *now: seen.append(now))
        assert added.size == 3 * MIB + 15
        assert seen[-1] == (added.size, added.size)
        assert added.root == unixfs.hash_path(sample).root
        seen.clear()
        unixfs.write_path(added.root, store, tmp_path / "copy", lambda *now: seen.append(now))
        assert seen[-1] == (added.size, added.size)
        assert tree(tmp_path / "copy") == tree(sample)
        assert names(tmp_path) == ["chunks", "copy", "sample"]
        store.close()

    def test_adding_again_adds_nothing(self, sample):
        store = MemoryBlockstore()
        first = unixfs.add_path(sample, store)
        assert first.new_bytes == sum(len(data) for data in store.chunks.values())
        again = unixfs.add_path(sample, store)
        assert (again.root, again.new_bytes) == (first.root, 0)
        assert store.usage().reserved == 0

    def test_adding_again_is_not_refused_for_want_of_room(self, sample):
        store = MemoryBlockstore()
        unixfs.add_path(sample, store)
        store.set_limit(store.usage().used)
        assert unixfs.add_path(sample, store).new_bytes == 0
        (sample / "more").write_bytes(b"more")
        with pytest.raises(QuotaError):
            unixfs.add_path(sample, store)

    def test_a_store_that_fails_while_adding_ends_the_add(self, tmp_path):
        class Failing(MemoryBlockstore):
            def put_many(self, pairs, reservation=None, *, verify=False):
                next(iter(pairs))
                raise DiskFullError(1, 0)

        with (tmp_path / "file").open("wb") as file:
            file.truncate(64 * MIB)
        with pytest.raises(DiskFullError):
            unixfs.add_path(tmp_path / "file", Failing())

    def test_a_folder_is_listed_and_walked_by_path(self, sample):
        store = MemoryBlockstore()
        root = unixfs.add_path(sample, store).root
        assert [(entry.name, entry.size, entry.kind) for entry in unixfs.listing(root, store)] == [
            (".hidden", 6, "file"),
            ("empty file", 0, "file"),
            ("empty folder", 4, "folder"),
            (
                "inner",
                dag.tree_size(inner := unixfs.resolve(root, "inner", store), store.get(inner)),
                "folder",
            ),
            ("é", 2 * MIB + 5, "file"),
        ]
        deep = unixfs.resolve(root, "/inner/deep/file", store)
        assert b"".join(unixfs.read_file(deep, store)) == b"deep"
        assert unixfs.resolve(root, "", store) == root
        for path in ("inner/none", "é/inside a file", ".."):
            with pytest.raises(PathNotFoundError):
                unixfs.resolve(root, path, store)
        with pytest.raises(ManifestError):
            unixfs.listing(deep, store)
        with pytest.raises(ManifestError):
            list(unixfs.read_file(root, store))

    @pytest.mark.slow
    def test_a_sharded_folder_is_listed_walked_and_written(self, tmp_path):
        folder = tmp_path / "large"
        folder.mkdir()
        for number in range(4_000):
            (folder / f"a rather long name of a file, number {number}").write_bytes(b"%d" % number)
        store = MemoryBlockstore()
        root = unixfs.add_path(folder, store).root
        assert unixfs_nodes.read_node(root, store.get(root)).kind is unixfs_nodes.Kind.SHARD
        assert [entry.name for entry in unixfs.listing(root, store)] == names(folder)
        name = "a rather long name of a file, number 3123"
        assert store.get(unixfs.resolve(root, name, store)) == b"3123"
        with pytest.raises(PathNotFoundError):
            unixfs.resolve(root, "another", store)
        links = [Link(RAW, entry, 1) for entry in ("x", "y")]
        assert hamt.build(links, lambda *_: None).cid != root
        unixfs.write_path(root, store, tmp_path / "copy")
        assert tree(tmp_path / "copy") == tree(folder)

    def test_every_block_is_reached_by_links(self, sample):
        store = MemoryBlockstore()
        root = unixfs.add_path(sample, store).root
        reached, waiting = set(), [root]
        while waiting:
            cid = waiting.pop()
            reached.add(cid)
            waiting += [link.cid for link in dag.links(cid, store.get(cid))]
        assert reached == set(store.chunks)

    def test_memory_does_not_grow_with_the_file(self, tmp_path):
        class Counting(MemoryBlockstore):
            def put_many(self, pairs, reservation=None, *, verify=False):
                return sum(len(data) for _, data in pairs)

        with (tmp_path / "file").open("wb") as file:
            file.truncate(96 * MIB)
        tracemalloc.start()
        unixfs.add_path(tmp_path / "file", Counting())
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < (importer.MAX_QUEUED_CHUNKS + 8) * MIB

    def test_a_file_is_replaced_and_a_folder_is_not(self, sample, tmp_path):
        store = MemoryBlockstore()
        root = unixfs.add_path(sample, store).root
        file = unixfs.resolve(root, ".hidden", store)
        (tmp_path / "file").write_bytes(b"old")
        unixfs.write_path(file, store, tmp_path / "file")
        assert (tmp_path / "file").read_bytes() == b"hidden"
        for what, target in ((root, "sample"), (file, "sample"), (root, "file")):
            with pytest.raises(TargetExistsError):
                unixfs.write_path(what, store, tmp_path / target)
        (tmp_path / "link").symlink_to(tmp_path / "file")
        with pytest.raises(TargetExistsError):
            unixfs.write_path(file, store, tmp_path / "link")

    def test_nothing_is_left_when_a_chunk_is_missing_or_damaged(self, sample, tmp_path):
        store = MemoryBlockstore()
        root = unixfs.add_path(sample, store).root
        leaf = cids.of_raw(pattern(MIB))
        store.chunks[leaf] = b"x" + store.chunks[leaf][1:]
        with pytest.raises(CorruptChunkError):
            unixfs.write_path(root, store, tmp_path / "copy")
        with pytest.raises(ChunkNotFoundError):
            unixfs.write_path(root, store, tmp_path / "copy")
        assert names(tmp_path) == ["sample"]


class TestRefusedToPublish:
    @pytest.mark.parametrize(
        "target", ["/etc/passwd", "../../out", "deep/../../../out", "deep/../file", "é\udcff"]
    )
    def test_a_symbolic_link_that_leads_out_is_named(self, sample, target):
        (sample / "inner" / "link").symlink_to(target)
        for call in (unixfs.hash_path, lambda path: unixfs.add_path(path, MemoryBlockstore())):
            with pytest.raises(ManifestError, match="inner/link cannot be published"):
                call(sample)

    def test_a_symbolic_link_as_the_path_itself_is_followed(self, sample, tmp_path):
        (tmp_path / "link").symlink_to(sample)
        assert unixfs.hash_path(tmp_path / "link") == unixfs.hash_path(sample)

    def test_a_pipe_is_named(self, sample):
        os.mkfifo(sample / "pipe")
        with pytest.raises(ManifestError, match="pipe is neither"):
            unixfs.hash_path(sample)

    def test_a_name_that_is_not_utf_8_is_named(self, sample):
        (sample / "inside").mkdir()
        (Path(os.fsdecode(os.fsencode(sample) + b"/inside/\xff"))).touch()
        with pytest.raises(ManifestError, match=r"sample/inside .*'\\udcff' is not UTF-8"):
            unixfs.hash_path(sample)

    def test_folders_nested_too_deep(self, tmp_path):
        (tmp_path / "/".join("d" * importer.MAX_FOLDER_DEPTH)).mkdir(parents=True)
        with pytest.raises(ManifestError, match="deeper"):
            unixfs.hash_path(tmp_path)

    def test_a_file_that_changes_while_it_is_read(self, tmp_path):
        path = tmp_path / "file"
        for change in (
            lambda: path.write_bytes(b"short"),
            lambda: path.open("ab").close() or os.truncate(path, 9 * MIB),
        ):
            path.write_bytes(bytes(3 * MIB))
            with pytest.raises(ManifestError, match="changed"):
                unixfs.hash_path(path, lambda _done, _total, change=change: change())

    @pytest.mark.parametrize("in_place", [False, True])
    def test_a_file_that_is_written_to_while_it_is_read_and_keeps_its_size(
        self, tmp_path, in_place
    ):
        path, store = tmp_path / "file", MemoryBlockstore()
        path.write_bytes(bytes(3 * MIB))
        os.utime(path, ns=(0, 0))

        def write(_done, _total):
            with path.open("r+b") as file:
                file.write(b"new")

        with pytest.raises(ManifestError, match="changed"):
            unixfs.add_path(path, store, write, in_place=in_place)

    def test_the_size_that_is_told_is_that_of_what_was_read(self, tmp_path):
        for name in ("a", "b"):
            (tmp_path / name).write_bytes(b"x" * 10)

        def grow(done, _total):
            if done == 10:
                (tmp_path / "b").write_bytes(b"x" * 25)

        added = unixfs.add_path(tmp_path, store := MemoryBlockstore(), grow)
        assert added.size == 35 == sum(one.size for one in unixfs.listing(added.root, store))


class TestStrangers:
    """Manifests that somebody made to do harm."""

    @pytest.mark.parametrize(
        "name", ["", ".", "..", "../up", "/etc/passwd", "a/b", "a\0b", "x" * 256, "é" * 128]
    )
    def test_a_name_that_leaves_its_folder_is_refused(self, tmp_path, name):
        store = MemoryBlockstore()
        store.put_many([(RAW, b"0")])
        root = keep(store, folder_node([Link(RAW, name, 1)]))
        for call in (
            lambda: unixfs.write_path(root, store, tmp_path / "copy"),
            lambda: unixfs.listing(root, store),
        ):
            with pytest.raises(ManifestError, match="cannot be the name"):
                call()
        assert names(tmp_path) == []

    def test_a_name_twice_is_refused(self, tmp_path):
        store = MemoryBlockstore()
        store.put_many([(RAW, b"0")])
        root = keep(store, folder_node([Link(RAW, "same", 1)] * 2))
        with pytest.raises(ManifestError, match="two entries"):
            unixfs.write_path(root, store, tmp_path / "copy")

    def test_a_symbolic_link_is_refused_by_its_path(self, tmp_path):
        store = MemoryBlockstore()
        block = dag_pb.encode([], varint_field(1, 4) + bytes_field(2, b"/etc/passwd"))
        link = cids.of_dag_pb(block)
        store.put_many([(link, block)])
        root = keep(store, folder_node([Link(link, "passwd", 1)]))
        with pytest.raises(ManifestError, match="/passwd"):
            unixfs.write_path(root, store, tmp_path / "copy")
        assert unixfs.listing(root, store)[0].kind == "symlink"

    def test_a_part_of_another_size_than_claimed_is_refused(self, tmp_path):
        store = MemoryBlockstore()
        store.put_many([(RAW, b"0")])
        root = keep(store, file_node([Built(RAW, 5, 1), Built(RAW, 1, 1)]))
        with pytest.raises(ManifestError, match="5 bytes"):
            unixfs.write_path(root, store, tmp_path / "copy")
        assert names(tmp_path) == []

    def test_a_file_larger_than_the_disk_is_refused_before_a_byte_is_written(self, tmp_path):
        store = MemoryBlockstore()
        store.put_many([(RAW, b"0")])
        blocks = [file_node([Built(RAW, 1, 1)] * 1_000)]
        while blocks[-1][0].size < 2**49 // 1_000:
            blocks.append(file_node([blocks[-1][0]] * 1_000))
        blocks.append(file_node([blocks[-1][0]] * (2**49 // blocks[-1][0].size)))
        root = keep(store, *blocks)
        if shutil.disk_usage(tmp_path).free > blocks[-1][0].size:
            pytest.skip("this disk has room for it")
        with pytest.raises(DiskFullError):
            unixfs.write_path(root, store, tmp_path / "copy")

    def test_folders_of_folders_without_number_are_refused(self, tmp_path, monkeypatch):
        monkeypatch.setattr(unixfs, "MAX_ENTRIES", 5_000)
        store = MemoryBlockstore()
        blocks = [folder_node([])]
        for _ in range(20):
            blocks.append(
                folder_node([Link(blocks[-1][0].cid, str(slot), 1) for slot in range(50)])
            )
        root = keep(store, *blocks)
        with pytest.raises(ManifestError, match="more than"):
            unixfs.write_path(root, store, tmp_path / "copy")

    def test_a_folder_under_many_names_is_walked_once_a_level(self, tmp_path):
        class Counting(MemoryBlockstore):
            reads = 0

            def get(self, cid):
                self.reads += 1
                return super().get(cid)

        store = Counting()
        for links, levels in ((200, 3), (2, 60)):
            link = unixfs_nodes.symlink_node("x")
            blocks = [link, folder_node([Link(link[0].cid, "x", 1)])]
            for _ in range(levels):
                below = Link(blocks[-1][0].cid, "", 1)
                blocks.append(folder_node([replace(below, name=str(at)) for at in range(links)]))
            store.reads = 0
            with pytest.raises(ManifestError, match="more than"):
                unixfs.write_path(keep(store, *blocks), store, tmp_path / "copy")
            assert store.reads <= len(blocks)

    def test_a_link_that_leads_out_only_where_its_folder_stands_higher_is_refused(self, tmp_path):
        store = MemoryBlockstore()
        link = unixfs_nodes.symlink_node("../../x")
        low = folder_node([Link(link[0].cid, "link", 1)])
        middle = folder_node([Link(low[0].cid, "low", 1)])
        both = folder_node([Link(middle[0].cid, "a", 1), Link(low[0].cid, "b", 1)])
        top = folder_node([Link(middle[0].cid, "top", 1)])
        unixfs.write_path(keep(store, link, low, middle, top), store, tmp_path / "copy")
        for _ in range(2):  # whichever of the two is walked first
            with pytest.raises(ManifestError, match="b/link"):
                unixfs.write_path(keep(store, both), store, tmp_path / "other")
            both = folder_node([Link(low[0].cid, "b", 1), Link(middle[0].cid, "c", 1)])

    def test_folders_nested_too_deep_by_one_of_their_names_are_refused(self, tmp_path):
        store = MemoryBlockstore()
        blocks = [folder_node([])]
        for _ in range(importer.MAX_FOLDER_DEPTH - 1):
            blocks.append(folder_node([Link(blocks[-1][0].cid, "d", 1)]))
        deep = blocks[-1][0].cid
        unixfs.write_path(keep(store, *blocks), store, tmp_path / "copy")
        below = folder_node([Link(deep, "d", 1)])
        with pytest.raises(ManifestError, match="deeper"):
            unixfs.write_path(keep(store, below), store, tmp_path / "other")

    def test_folders_nested_too_deep_are_refused(self, tmp_path):
        store = MemoryBlockstore()
        blocks = [folder_node([])]
        for _ in range(importer.MAX_FOLDER_DEPTH + 1):
            blocks.append(folder_node([Link(blocks[-1][0].cid, "d", 1)]))
        with pytest.raises(ManifestError, match="deeper"):
            unixfs.write_path(keep(store, *blocks), store, tmp_path / "copy")

    def test_a_file_of_too_many_levels_is_refused(self):
        store = MemoryBlockstore()
        store.put_many([(RAW, b"0")])
        blocks = [file_node([Built(RAW, 1, 1)])]
        for _ in range(unixfs.MAX_FILE_DEPTH + 1):
            blocks.append(file_node([blocks[-1][0]]))
        with pytest.raises(ManifestError, match="levels"):
            list(unixfs.read_file(keep(store, *blocks), store))

    def test_a_shard_whose_entries_are_not_where_their_hash_leads_is_refused(self):
        store = MemoryBlockstore()
        store.put_many([(RAW, b"0")])
        slot = hamt.name_hash("name")[0]
        right = unixfs_nodes.shard_node([Link(RAW, f"{slot:02X}name", 1)], 1 << slot)
        assert [entry.name for entry in unixfs.listing(keep(store, right), store)] == ["name"]
        other = (slot + 1) % 256
        for wrong in (
            unixfs_nodes.shard_node([Link(RAW, f"{other:02X}name", 1)], 1 << other),
            unixfs_nodes.shard_node([Link(RAW, f"{slot:02X}name", 1)], 1 << other),
            unixfs_nodes.shard_node([Link(RAW, f"{slot:02X}name", 1)], 3),
            unixfs_nodes.shard_node([Link(RAW, f"{slot:02X}", 1)], 1 << slot),
        ):
            with pytest.raises(ManifestError):
                unixfs.listing(keep(store, wrong), store)

    def test_a_bit_field_with_more_bits_than_a_shard_has_slots_is_refused(self):
        name = f"{hamt.name_hash('name')[0]:02X}name"
        for length, is_known in ((32, True), (33, False), (2**20, False)):
            taken = bytearray(length)
            slot = hamt.name_hash("name")[0]
            taken[-1 - slot // 8] |= 1 << slot % 8
            data = varint_field(1, unixfs_nodes.Kind.SHARD) + bytes_field(2, bytes(taken))
            data += varint_field(5, unixfs_nodes.MURMUR3_X64_64) + varint_field(6, 256)
            block = dag_pb.encode([Link(RAW, name, 1)], data)
            root = cids.of_dag_pb(block)
            if is_known:
                node = unixfs_nodes.read_node(root, block)
                assert [link.name for link in hamt.entries(node, None)] == ["name"]
                continue
            with pytest.raises(ManifestError, match="a way that we do not know"):
                unixfs_nodes.read_node(root, block)

    def test_shards_without_entries_are_refused(self):
        store = MemoryBlockstore()
        blocks = [unixfs_nodes.shard_node([], 0)]
        for _ in range(6):
            below = blocks[-1][0].cid
            blocks.append(
                unixfs_nodes.shard_node(
                    [Link(below, f"{slot:02X}", 1) for slot in range(256)], 2**256 - 1
                )
            )
        with pytest.raises(ManifestError, match="empty"):
            unixfs.listing(keep(store, *blocks), store)

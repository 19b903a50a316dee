"""The swarm through fsspec: what pandas, pyarrow and datasets see, and how little of it is fetched."""

from __future__ import annotations

import errno
import random

import fsspec
import pytest
import trio

from protocols.signing import Signer
from storage import cid as cids
from storage import unixfs
from storage.dag_pb import Link
from storage.unixfs_nodes import folder_node, symlink_node
from swarm.control.service import serve
from swarm.errors import RefusedError
from swarm.filesystem import SwarmFileSystem
from swarm.versions import commit
from tests.gateway.reading import ContentNode, open_pair

MIB = 2**20
ROWS = 400_000
fsspec.register_implementation("swarm", SwarmFileSystem, clobber=True)


@pytest.fixture
async def swarm(tmp_path, nursery):
    """Publishes a folder at one peer; gives a file system that asks another, which holds nothing."""
    async with open_pair() as (giver, taker, ranges):
        home = tmp_path / "home"
        await nursery.start(serve, ContentNode(taker, ranges), home / "control.sock")

        async def ask(work):
            filesystem = SwarmFileSystem(home=str(home), skip_instance_cache=True)
            return await trio.to_thread.run_sync(work, filesystem)

        def publish(path):
            return cids.text(unixfs.add_path(path, giver.store).root)

        ask.publish, ask.taker, ask.giver, ask.home = publish, taker, giver, home
        yield ask
        nursery.cancel_scope.cancel()


def held(node) -> int:
    return sum(len(data) for data in node.store.chunks.values())


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "data"
    (path / "train").mkdir(parents=True)
    (path / "train" / "large file.bin").write_bytes(random.Random(9).randbytes(3 * MIB + 5))
    (path / "train" / "empty").touch()
    (path / "card.md").write_text("# card")
    (path / "link").symlink_to("card.md")
    return path


async def test_below_a_commit_stand_the_files_of_its_version(swarm, folder):
    made = commit.make(Signer(b"a" * 32), cids.parse(swarm.publish(folder)), [], "all", 7)
    block = commit.encode(made)
    swarm.giver.store.put_many([(made.cid, block)])
    root = cids.text(made.cid)
    names = await swarm(lambda fs: fs.ls(f"swarm://{root}", detail=False))
    assert f"{root}/train" in names
    assert await swarm(lambda fs: fs.cat_file(f"swarm://{root}/card.md")) == b"# card"
    forged = block.replace(b"all", b"ALL")
    name = cids.of_dag_cbor(forged)
    swarm.giver.store.put_many([(name, forged)])
    with pytest.raises(RefusedError, match="not signed by its author"):
        await swarm(lambda fs: fs.ls(f"swarm://{cids.text(name)}"))


async def test_a_folder_is_listed_walked_and_looked_at(swarm, folder):
    root = swarm.publish(folder)

    def look(fs):
        assert fs.ls(f"swarm://{root}", detail=False) == [
            f"{root}/card.md",
            f"{root}/link",
            f"{root}/train",
        ]
        assert [one["type"] for one in fs.ls(root)] == ["file", "link", "directory"]
        assert fs.info(f"swarm://{root}/train/large file.bin")["size"] == 3 * MIB + 5
        assert fs.find(f"{root}/train") == [f"{root}/train/empty", f"{root}/train/large file.bin"]
        assert fs.glob(f"{root}/train/*.bin") == [f"{root}/train/large file.bin"]
        assert fs.isdir(f"{root}/train")
        assert not fs.exists(f"{root}/none")
        assert fs.checksum(f"{root}/card.md") == cids.text(cids.of_raw(b"# card"))
        for call in (fs.info, fs.ls, fs.cat_file):
            with pytest.raises(FileNotFoundError):
                call(f"{root}/none")
        with pytest.raises(OSError, match="not written"):
            fs.open(f"{root}/new", "wb")

    await swarm(look)


async def test_bytes_are_read_in_ranges_and_through_open_files(swarm, folder):
    root = swarm.publish(folder)
    path = f"{root}/train/large file.bin"
    data = (folder / "train" / "large file.bin").read_bytes()

    def read(fs):
        for start, end in ((0, 10), (MIB - 1, MIB + 1), (3 * MIB, None), (-5, None), (10, -10)):
            assert fs.cat_file(path, start, end) == data[start:end]
        assert fs.cat_file(path, 4 * MIB, 5 * MIB) == fs.cat_file(path, 5, 5) == b""
        assert fs.cat_file(f"{root}/train/empty") == b""
        assert fs.cat_file(path) == data
        with fs.open(path) as file:
            file.seek(2 * MIB)
            assert file.read(100) == data[2 * MIB :][:100]
        fs.get(f"{root}/train", str(folder.parent / "copy"), recursive=True)
        assert (folder.parent / "copy" / "large file.bin").read_bytes() == data

    await swarm(read)


@pytest.fixture
def table(tmp_path):
    """A file of two columns, of which one is nearly all of it."""
    pyarrow = pytest.importorskip("pyarrow")
    import numpy as np
    import pyarrow.parquet as parquet

    rng = np.random.default_rng(1)
    pixels = pyarrow.array(rng.random(ROWS * 8, dtype="float32"))
    made = pyarrow.table(
        {
            "label": rng.integers(0, 10, ROWS).astype("int8"),
            "image": pyarrow.FixedSizeListArray.from_arrays(pixels, 8),
        }
    )
    path = tmp_path / "table" / "train"
    path.mkdir(parents=True)
    parquet.write_table(made, path / "0001.parquet", row_group_size=ROWS)
    return tmp_path / "table"


@pytest.mark.slow
async def test_a_column_is_read_without_the_others(swarm, table):
    pandas = pytest.importorskip("pandas")
    file = table / "train" / "0001.parquet"
    url = f"swarm://{swarm.publish(table)}/train/0001.parquet"
    options = {"home": str(swarm.home)}

    def read(_):
        return pandas.read_parquet(url, columns=["label"], storage_options=options)

    found = await swarm(read)
    assert found.equals(pandas.read_parquet(file, columns=["label"]))
    assert held(swarm.taker) < 3 * MIB < 10 * MIB < file.stat().st_size


@pytest.mark.slow
async def test_datasets_loads_from_the_swarm_without_another_network(swarm, table, tmp_path):
    datasets = pytest.importorskip("datasets")
    url = f"swarm://{swarm.publish(table)}/train/0001.parquet"

    def load(_):
        loaded = datasets.load_dataset(
            "parquet",
            data_files={"train": url},
            storage_options={"home": str(swarm.home)},
            cache_dir=str(tmp_path / "cache"),
        )
        return loaded["train"].num_rows, loaded["train"].column_names

    assert await swarm(load) == (ROWS, ["label", "image"])


async def test_what_a_link_leads_to_is_read_and_no_link_leaves_its_root(swarm, folder):
    (folder / "train" / "up").symlink_to("../link")
    root = swarm.publish(folder)
    files = [folder / "round", folder / "out"]
    store = swarm.giver.store
    links = []
    for path, target in zip(files, ("round", f"../{root}/card.md"), strict=True):
        built, block = symlink_node(target)
        store.put_many([(built.cid, block)])
        links.append(Link(built.cid, path.name, built.tree))
    made, block = folder_node(sorted(links, key=lambda link: link.name))
    store.put_many([(made.cid, block)])
    hostile = cids.text(made.cid)

    def read(fs):
        for path in (f"{root}/link", f"{root}/train/up"):
            assert fs.info(path)["type"] == "link"
            assert fs.cat_file(path) == b"# card"
            assert fs.cat_file(path, -4, -1) == b"car"
            with fs.open(path) as file:
                assert file.read() == b"# card"
        with pytest.raises(OSError, match="symbolic links"):
            fs.open(f"{hostile}/round")
        with pytest.raises(FileNotFoundError):
            fs.cat_file(f"{hostile}/out")

    await swarm(read)


async def test_a_folder_is_taken_with_what_its_links_lead_to_and_without_those_that_lead_to_no_file(
    swarm, folder, tmp_path
):
    (folder / "train" / "around").symlink_to("..")
    (folder / "gone").symlink_to("nowhere")
    root = swarm.publish(folder)

    def take(fs):
        with pytest.warns(UserWarning, match="left out") as said:
            fs.get(f"swarm://{root}", str(tmp_path / "out"), recursive=True)
        assert {str(one.message).split()[2] for one in said} == {
            f"{root}/train/around",
            f"{root}/gone",
        }
        with pytest.raises(IsADirectoryError):  # asked for by its own name
            fs.get(f"{root}/train/around", str(tmp_path / "one"), recursive=True)

    await swarm(take)
    out = tmp_path / "out"
    assert (out / "link").read_text() == "# card"
    assert not (out / "link").is_symlink()
    assert sorted(one.name for one in (out / "train").iterdir()) == ["empty", "large file.bin"]
    assert not (out / "gone").exists()


async def test_what_writes_is_refused(swarm, folder, tmp_path):
    root = swarm.publish(folder)

    def write(fs):
        for work in (
            lambda: fs.mkdir(f"{root}/new"),
            lambda: fs.makedirs(f"{root}/new/er", exist_ok=True),
            lambda: fs.rmdir(f"{root}/train"),
            lambda: fs.rm(f"{root}/card.md"),
            lambda: fs.copy(f"{root}/card.md", f"{root}/twice.md"),
            lambda: fs.pipe(f"{root}/card.md", b"other"),
            lambda: fs.put(str(folder), f"{root}/put", recursive=True),
        ):
            with pytest.raises(OSError, match="not written") as refused:
                work()
            assert refused.value.errno == errno.EROFS

    await swarm(write)


async def test_a_folder_is_not_read_as_a_file(swarm, folder):
    root = swarm.publish(folder)

    def read(fs):
        for path in (root, f"{root}/train", f"{root}/train/"):
            with pytest.raises(IsADirectoryError):
                fs.cat_file(path)
            with pytest.raises(IsADirectoryError):
                fs.open(path)

    await swarm(read)


async def test_at_what_is_no_cid_stands_nothing(swarm):
    def look(fs):
        assert not fs.exists("swarm://no-cid/x")
        assert not fs.isdir("swarm://no-cid")
        with pytest.raises(FileNotFoundError, match="not a CID"):
            fs.cat_file("swarm://no-cid/x")

    await swarm(look)


async def test_a_line_s_end_in_a_name_is_part_of_it(swarm, tmp_path):
    path = tmp_path / "odd"
    path.mkdir()
    for name in ("a", "a\n", "b\nc"):
        (path / name).write_text(repr(name))
    root = swarm.publish(path)

    def read(filesystem):
        return [filesystem.cat_file(one).decode() for one in filesystem.find(root)]

    assert await swarm(read) == [repr("a"), repr("a\n"), repr("b\nc")]

"""Parts of content, of which only the chunks that are needed are fetched."""

from __future__ import annotations

import io
import random
from contextlib import aclosing

import pytest

from protocols.exchange.errors import ContentNotFoundError
from storage import car, unixfs
from storage import cid as cids
from storage.errors import PathNotFoundError
from storage.memory import MemoryBlockstore
from storage.unixfs_nodes import Built, file_node
from swarm import ranges
from swarm.ranges import BLOCK, ENTITY
from tests.gateway.reading import open_pair

MIB = 2**20
LARGE = random.Random(7).randbytes(9 * MIB + 5)


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "data"
    (path / "inner").mkdir(parents=True)
    (path / "inner" / "large").write_bytes(LARGE)
    (path / "small").write_text("hello")
    return path


async def whole(parts) -> bytes:
    async with aclosing(parts) as given:
        return b"".join([part async for part in given])


async def test_a_range_brings_the_path_to_it_and_its_chunks_and_nothing_else(folder):
    async with open_pair() as (giver, taker, reader):
        root = unixfs.add_path(folder, giver.store).root
        reading = reader.of(root)
        file = await reading.resolve("inner/large")
        assert len(taker.store.chunks) == 2
        start = 3 * MIB + 100
        assert await whole(reading.read(file, start, 1_000)) == LARGE[start : start + 1_000]
        assert len(taker.store.chunks) == 4
        assert await whole(reading.read(file, 4 * MIB - 1, 2)) == LARGE[4 * MIB - 1 :][:2]
        assert len(taker.store.chunks) == 5
        assert await whole(reading.read(file, len(LARGE) - 3, 100)) == LARGE[-3:]
        assert await whole(reading.read(file, len(LARGE), 100)) == b""


async def test_a_whole_file_comes_in_windows(folder):
    async with open_pair() as (giver, _, reader):
        file = unixfs.add_path(folder / "inner" / "large", giver.store).root
        async with aclosing(reader.of(file).read(file, 0, 10**18)) as parts:
            sizes = [len(part) async for part in parts]
        assert sum(sizes) == len(LARGE)
        assert max(sizes) == ranges.WINDOW_BYTES


async def test_a_folder_is_listed_with_a_look_at_each_entry_and_named_without(folder):
    async with open_pair() as (giver, taker, reader):
        root = unixfs.add_path(folder, giver.store).root
        assert [link.name for link in await reader.of(root).names(root, 9)] == ["inner", "small"]
        assert len(taker.store.chunks) == 1
        found = [(one.name, one.kind, one.size) for one in await reader.of(root).listing(root)]
        assert found[1] == ("small", "file", 5)
        assert len(taker.store.chunks) == 2


async def test_a_path_that_leads_nowhere_is_told_as_that(folder):
    async with open_pair() as (giver, _, reader):
        root = unixfs.add_path(folder, giver.store).root
        with pytest.raises(PathNotFoundError):
            await reader.of(root).resolve("inner/none")


async def test_a_file_of_the_same_node_many_times_is_one_of_each_in_a_car_file():
    async with open_pair() as (giver, _, reader):
        chunk = bytes(1_000)
        leaf = Built(cids.of_raw(chunk), len(chunk), len(chunk))
        below, node = file_node([leaf] * 3)
        top, block = file_node([below] * 4)
        chunks = {leaf.cid: chunk, below.cid: node, top.cid: block}
        giver.store.put_many(chunks.items())
        data = await whole(reader.of(top.cid).car("", ENTITY))
        assert dict(car.Reader(io.BytesIO(data))) == chunks
        assert data == b"".join(car.export([top.cid], giver.store))


@pytest.mark.slow
async def test_a_chunk_that_nobody_has_ends_the_reading(folder):
    async with open_pair() as (giver, _, reader):
        root = unixfs.add_path(folder, giver.store).root
        del giver.store.chunks[cids.of_raw(LARGE[5 * MIB : 6 * MIB])]
        file = await reader.of(root).resolve("inner/large")
        assert await whole(reader.of(root).read(file, 0, MIB)) == LARGE[:MIB]
        reader.patience = 0.3
        with pytest.raises(ContentNotFoundError):
            await whole(reader.of(root).read(file, 5 * MIB, 1))


async def test_a_chunk_that_was_damaged_on_the_disk_is_fetched_again(folder):
    async with open_pair() as (giver, taker, reader):
        root = unixfs.add_path(folder, giver.store).root
        small = cids.of_raw(b"hello")
        taker.store.chunks[small] = b"jello"
        found = await reader.of(root).resolve("small")
        assert await whole(reader.of(root).read(found, 0, 10)) == b"hello"


@pytest.mark.parametrize(
    ("path", "scope", "more", "chunks"),
    [
        ("", BLOCK, {}, 1),
        ("inner/large", BLOCK, {}, 3),
        ("", ENTITY, {}, 1),
        ("inner/large", ENTITY, {}, 13),
        ("inner/large", ENTITY, {"start": MIB, "length": MIB + 1}, 5),
        ("small", ranges.ALL, {}, 2),
        ("inner", ranges.ALL, {}, 13),
        ("", ranges.ALL, {}, 14),
    ],
)
async def test_a_car_file_holds_what_proves_the_path_and_its_scope(
    folder, path, scope, more, chunks
):
    async with open_pair() as (giver, taker, reader):
        root = unixfs.add_path(folder, giver.store).root
        data = await whole(reader.of(root).car(path, scope, **more))
        store = MemoryBlockstore()
        imported = car.load(io.BytesIO(data), store)
        assert imported.roots == (unixfs.resolve(root, path, giver.store),)
        assert imported.blocks == chunks == len(store.chunks)
        assert unixfs.resolve(root, path, store) == imported.roots[0]
        assert set(taker.store.chunks) == set(store.chunks)
        if scope == ranges.ALL and not path:
            assert data == b"".join(car.export([root], giver.store))

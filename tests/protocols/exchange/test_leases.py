"""A collection in the middle of a fetch, a get or a publish takes nothing that they have written or found."""

from __future__ import annotations

import random

import pytest
import trio

from storage.blockstore import SegmentBlockstore
from storage.collection import Collector
from storage.unixfs import add_path
from swarm import datasets
from tests.protocols.exchange.conftest import open_neighbourhood


@pytest.fixture
def disk(tmp_path):
    """A store on disk in small segments, so that a collection has something to remove."""
    store = SegmentBlockstore(tmp_path / "store", 2**30, keep_free=0, segment_bytes=2**21)
    yield store
    store.close()


def collect(store) -> int:
    """Bytes given back."""
    return Collector(store, dead_share=0.0).run_once().freed


async def test_what_a_fetch_has_written_and_found_stays_until_it_ends(published, disk):
    source, root = published
    found = sorted(set(source.chunks) - {root})[:4]
    disk.put_many([(cid, source.chunks[cid]) for cid in found])
    freed = []

    def tell(done: int, _total: int, _note: str = "") -> None:
        if done:  # before the root is here nobody knows that what is found belongs to it
            freed.append(collect(disk))

    async with open_neighbourhood() as near:
        giver, taker = await near.node(source), await near.node(disk)
        fetched = await taker.exchange.fetch(root, [giver.peer], progress=tell)
        assert freed[-1] == sum(freed) == 0
        assert fetched.chunks == len(source.chunks) - len(found)
        assert disk.missing(source.chunks) == []
        assert collect(disk) > 12 * 2**20
        assert set(disk.missing(source.chunks)) == set(source.chunks)


async def test_a_fetch_that_fails_ends_its_lease(published, disk):
    source, root = published
    async with open_neighbourhood() as near:
        giver, taker = await near.node(source), await near.node(disk)
        with trio.CancelScope() as scope:
            await taker.exchange.fetch(root, [giver.peer], progress=lambda *_: scope.cancel())
        assert disk.leases.labels() == []


class Collecting:
    """An exchange after whose fetches a collection runs at once."""

    def __init__(self, exchange, store) -> None:
        self._exchange = exchange
        self._store = store

    async def fetch(self, *arguments, **more):
        fetched = await self._exchange.fetch(*arguments, **more)
        assert collect(self._store) == 0
        return fetched


async def test_what_is_got_stays_until_it_is_written_out(published, disk, tmp_path):
    source, root = published
    async with open_neighbourhood() as near:
        await near.node(source)
        taker = await near.node(disk)
        exchange = Collecting(taker.exchange, disk)
        got = await datasets.get(root, exchange, disk, tmp_path / "out")
        assert got.size == 12 * 2**20 + 77
        assert disk.leases.labels() == []


async def test_what_is_published_stays_until_it_is_pinned(disk, tmp_path):
    path = tmp_path / "new.bin"
    path.write_bytes(random.Random(8).randbytes(5 * 2**20))
    freed = []

    def tell(done: int, total: int) -> None:
        if done == total:
            freed.append(collect(disk))

    async with open_neighbourhood() as near:
        published = await datasets.publish(path, disk, near.transport(), progress=tell)
    assert freed[-1] == 0
    assert disk.pins() == {published.root: "new.bin"}
    assert add_path(path, disk).new_bytes == 0

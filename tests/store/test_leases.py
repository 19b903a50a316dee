"""Whoever brings content and then works with it holds a lease: a collection in between takes nothing of it."""

from __future__ import annotations

import pytest

from storage import cid as cids
from storage import dag, unixfs
from storage.collection import Collector
from storage.walk import missing_below
from swarm import datasets
from swarm.shelf import Shelf
from swarm.store.collector import StoreCollector
from swarm.store.retention import Checkpoint, Data, Update
from tests.ledger.world import BASE
from tests.participant.test_service import open_room
from tests.store.nodes import MIB, open_keepers, silent


@pytest.mark.parametrize("who", ["the shelf", "get"])
async def test_what_was_fetched_stays_until_it_is_written(tmp_path, who):
    (tmp_path / "data").write_bytes(bytes(range(256)) * 8_192)
    async with open_keepers(tmp_path, segment_bytes=MIB // 8) as (giver, taker):
        root = unixfs.add_path(tmp_path / "data", giver.store).root
        fetch = taker.peer.exchange.fetch

        async def fetch_and_collect(*arguments, **options):
            fetched = await fetch(*arguments, **options)
            await taker.collector.collect(dead_share=1e-9)
            return fetched

        taker.peer.exchange.fetch = fetch_and_collect
        if who == "the shelf":
            shelf = Shelf(tmp_path / "shelf", taker.store, taker.peer.exchange)
            target = await shelf.take(root, [giver.peer.peer])
        else:
            target = tmp_path / "copy"
            await datasets.get(root, taker.peer.exchange, taker.store, target)
        assert target.read_bytes() == (tmp_path / "data").read_bytes()
        assert (await taker.collector.collect(dead_share=1e-9)).dropped == 2
        assert target.exists()


async def test_a_worker_keeps_what_its_task_needs_until_the_task_is_over(tmp_path):
    async with open_room(tmp_path) as room:
        await room.blocks(3)
        store, ledger = room._participant._store, room.alone.ledger
        update = cids.of_raw(b"update 1")
        kept = {
            (update, Update(room.task, 1).label),
            (BASE, Checkpoint("gpt", 0).label),
            (BASE, Data(room.task).label),
        }
        assert set(store.holds()) == kept
        assert store.pins() == {}
        collector = StoreCollector(store, ledger.view)
        assert await collector.release() == 0
        while room.round is not None:
            await room.blocks(1)
        assert await collector.release() == 2
        assert store.holds() == [(BASE, Checkpoint("gpt", 0).label)]


@pytest.mark.parametrize("how", ["published", "in place", "pinned"])
async def test_what_is_to_be_pinned_stays_until_it_is(tmp_path, how):
    (tmp_path / "data").write_bytes(bytes(range(256)) * 8_192)
    async with open_keepers(tmp_path, segment_bytes=MIB // 8) as (giver, taker):
        root = unixfs.add_path(tmp_path / "data", giver.store).root
        pin = taker.store.pin

        def collect_and_pin(root, label) -> None:
            Collector(taker.store, dead_share=1e-9).run_once()
            pin(root, label)

        taker.store.pin = collect_and_pin
        if how == "pinned":
            await taker.door.pin(root, None, silent)
        else:
            where = taker.store, taker.peer.transport
            await datasets.publish(tmp_path / "data", *where, in_place=how == "in place")
        assert taker.store.pins().keys() == {root}
        assert list(missing_below(root, taker.store, dag.links)) == []

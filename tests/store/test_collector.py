"""When the node collects by itself, and that a collection is in nobody's way and takes nothing live."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace

import pytest
import trio

from storage import cid as cids
from storage import dag, unixfs
from storage.collection import Step
from storage.errors import FileSystemFullError
from storage.files import mount_of
from storage.quota import Usage
from storage.walk import missing_below
from swarm import datasets
from swarm.store.collector import CollectorSettings, Past, StoreCollector, due
from swarm.store.retention import Checkpoint, Update
from tests.store.nodes import MIB, nothing_known, open_keepers, silent

SETTINGS = CollectorSettings(
    first_seconds=100,
    every_seconds=10_000,
    after_release_seconds=1_000,
    tight_seconds=500,
    tight_share=0.1,
    much_share=0.2,
    much_dead_share=0.25,
    least_dead_share=0.05,
)
ROOMY = Usage(limit=1_000, used=500, reserved=0, free=500)
MUCH_DEAD = Usage(limit=1_000, used=500, reserved=0, free=500, reclaimable=101)
SCARCE = Usage(limit=1_000, used=950, reserved=0, free=50)
FULL = Usage(limit=1_000, used=1_000, reserved=0, free=0)


@pytest.mark.parametrize(
    ("now", "past", "usage", "share"),
    [
        (99, Past(0), FULL, None),
        (100, Past(0), ROOMY, 0.5),
        (100, Past(0), FULL, 0.05),
        # After a collection with nothing new: only after a long time.
        (9_999, Past(0, 0), ROOMY, None),
        (10_000, Past(0, 0), ROOMY, 0.5),
        # Something was let go.
        (999, Past(0, 0, 0.5, True), ROOMY, None),
        (1_000, Past(0, 0, 0.5, True), ROOMY, 0.5),
        (499, Past(0, 0, 0.5, True), SCARCE, None),
        (500, Past(0, 0, 0.5, True), SCARCE, 0.25),
        # Less room than last time: a lower share may give some back, the same one would not.
        (500, Past(0, 0, 0.5), SCARCE, 0.25),
        (500, Past(0, 0, 0.25), SCARCE, None),
        (500, Past(0, 0, 0.25), FULL, 0.05),
        (500, Past(0, 0, 0.5), MUCH_DEAD, 0.25),
        (500, Past(0, 0, 0.25), MUCH_DEAD, None),
    ],
)
def test_a_collection_is_due_when_it_may_give_something_back(now, past, usage, share):
    assert due(now, past, usage, SETTINGS) == share


def write(folder, name, size, seed):
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_bytes(random.Random(seed).randbytes(size))
    return path


async def test_what_was_unpinned_gives_its_room_back(tmp_path):
    async with open_keepers(tmp_path, 1) as (keeper,):
        kept = unixfs.add_path(write(tmp_path / "in", "kept", 2 * MIB, 1), keeper.store).root
        keeper.store.pin(kept, "kept")
        before = keeper.store.usage().free
        path = write(tmp_path / "in", "gone", 6 * MIB, 2)
        gone = (await datasets.publish(path, keeper.store, keeper.peer.transport)).root
        assert keeper.store.usage().free < before - 6 * MIB
        assert (await keeper.door.unpin(gone))["label"] == "gone"
        told = []
        done = await keeper.door.collect(lambda *now: told.append(now))
        assert done["freed"] >= 6 * MIB
        assert keeper.store.usage().free >= before - 4_096
        assert {stage for stage, _, _ in told} <= {"look", "mark", "compact"}
        assert list(missing_below(kept, keeper.store, dag.links)) == []


async def test_a_collection_beside_publishing_and_fetching_takes_nothing_live(tmp_path):
    async with open_keepers(tmp_path, segment_bytes=MIB // 4) as (giver, taker):
        sizes = range(6)
        roots = [
            (
                await datasets.publish(
                    write(tmp_path / "g", f"{at}", MIB, at), giver.store, giver.peer.transport
                )
            ).root
            for at in sizes
        ]
        # Dead chunks between the live ones, which what is published and fetched next counts on.
        for at in sizes:
            unixfs.add_path(tmp_path / "g" / f"{at}", taker.store)
            unixfs.add_path(write(tmp_path / "t", f"{at}", MIB, 100 + at), taker.store)
        published = []

        async def publish() -> None:
            for at in sizes:
                path = tmp_path / "t" / f"{at}"
                done = await datasets.publish(path, taker.store, taker.peer.transport)
                published.append(done.root)

        async def pin() -> None:
            for root in roots:
                await taker.door.pin(root, None, silent)

        async with trio.open_nursery() as nursery:
            async with trio.open_nursery() as work:

                async def collect() -> None:
                    while True:
                        await taker.collector.collect(dead_share=0.01)

                nursery.start_soon(collect)
                work.start_soon(publish)
                work.start_soon(pin)
            nursery.cancel_scope.cancel()
        await taker.collector.collect(dead_share=0.01)
        for root in [*roots, *published]:
            assert list(missing_below(root, taker.store, dag.links)) == []
        assert taker.store.verify() == []


async def test_a_collection_ends_at_once_when_the_node_stops_and_can_be_begun_again(tmp_path):
    async with open_keepers(tmp_path, 1, segment_bytes=MIB // 8) as (keeper,):
        unixfs.add_path(write(tmp_path / "in", "dead", 4 * MIB, 1), keeper.store)
        settings = CollectorSettings(first_seconds=0, look_seconds=0, rest_seconds=3600)
        resting = StoreCollector(keeper.store, nothing_known, settings=settings)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(resting.run)
            with trio.fail_after(30):
                while not keeper.store.collecting.locked():
                    await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        assert not keeper.store.collecting.locked()
        assert (await keeper.door.collect(silent))["freed"] >= 4 * MIB


async def test_what_a_person_asks_for_does_not_wait_for_the_nodes_own_collection(tmp_path):
    async with open_keepers(tmp_path, 1, segment_bytes=MIB // 8) as (keeper,):
        unixfs.add_path(write(tmp_path / "in", "dead", 2 * MIB, 1), keeper.store)
        settings = CollectorSettings(first_seconds=0, look_seconds=0, rest_seconds=3600)
        collector = StoreCollector(keeper.store, nothing_known, settings=settings)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(collector.run)
            with trio.fail_after(30):
                while not keeper.store.collecting.locked():
                    await trio.lowlevel.checkpoint()
                assert (await collector.collect()).freed >= 2 * MIB
            nursery.cancel_scope.cancel()


async def test_the_node_lets_go_of_what_the_ledger_says_is_over_and_of_no_pin(tmp_path):
    task = b"t" * 32
    async with open_keepers(tmp_path, 1) as (keeper,):
        store = keeper.store
        old, pinned = cids.of_raw(b"old"), cids.of_raw(b"pinned")
        store.put_many([(old, b"old"), (pinned, b"pinned")])
        for root in (old, pinned):
            store.hold(root, Checkpoint("gpt", 1).label)
            store.hold(root, Update(task, 1).label)
        store.hold(old, "piece 7 of a deal")
        store.pin(pinned, "mine")
        ledger = nothing_known()
        ledger.name = lambda _name: SimpleNamespace(version=9)
        ledger.task = lambda _task: "a task"
        ledger.round = lambda _task: None
        collector = StoreCollector(store, lambda: ledger)
        assert await collector.release() == 4
        assert store.holds() == [(old, "piece 7 of a deal")]
        assert store.pins() == {pinned: "mine"}


async def test_what_lies_between_live_chunks_is_given_back_where_a_person_insists(tmp_path):
    async with open_keepers(tmp_path, 1, segment_bytes=32 * MIB) as (keeper,):
        unixfs.add_path(write(tmp_path / "in", "gone", MIB // 2, 1), keeper.store)
        kept = unixfs.add_path(write(tmp_path / "in", "kept", 8 * MIB, 2), keeper.store).root
        keeper.store.pin(kept, "kept")
        done = await keeper.door.collect(silent)
        assert (done["freed"], done["reclaimable"] >= MIB // 2) == (0, True)
        done = await keeper.door.collect(silent, is_thorough=True)
        assert (done["freed"] >= MIB // 2, done["reclaimable"]) == (True, 0)
        assert list(missing_below(kept, keeper.store, dag.links)) == []


async def test_another_full_file_system_is_not_told_what_a_collection_gives_back(tmp_path):
    other = Path("/proc")
    assert mount_of(other) == other != mount_of(tmp_path)
    async with open_keepers(tmp_path, 1) as (keeper,):
        unixfs.add_path(write(tmp_path / "in", "gone", 2 * MIB, 1), keeper.store)
        told = await keeper.door.advice(FileSystemFullError(10, 1, other))
        assert told.hint == "make room on /proc, or write elsewhere"
        told = await keeper.door.advice(FileSystemFullError(10, 1, mount_of(tmp_path)))
        assert "`swarm gc` gives up to" in told.hint


async def test_what_could_be_given_back_is_told_without_a_collection(tmp_path):
    async with open_keepers(tmp_path, 1) as (keeper,):
        path = write(tmp_path / "in", "one", 2 * MIB, 1)
        one = (await datasets.publish(path, keeper.store, keeper.peer.transport)).root
        told = (await keeper.door.listing())["usage"]
        assert (told["reclaimable"], keeper.store.usage().pinned > 2 * MIB) == (0, True)
        await keeper.door.unpin(one)
        told = (await keeper.door.listing())["usage"]
        assert told["reclaimable"] > 2 * MIB
        assert keeper.store.usage().pinned == 0


class Endless:
    """A collection of a store without an end."""

    def __init__(self, *_store, **_settings) -> None:
        pass

    def run_once(self, progress, pause):
        while True:
            progress(Step("mark", 1, 2))
            pause()


async def test_a_collection_that_a_person_gives_up_ends(tmp_path, monkeypatch):
    monkeypatch.setattr("swarm.store.collector.Collector", Endless)
    async with open_keepers(tmp_path, 1) as (keeper,):
        with trio.CancelScope() as scope:
            await keeper.door.collect(
                lambda stage, _done, _total: stage == "mark" and scope.cancel()
            )
        assert scope.cancelled_caught

from __future__ import annotations

import random

import pytest
import trio

from storage.errors import ManifestError, QuotaError, TargetExistsError
from storage.memory import MemoryBlockstore
from swarm import datasets
from tests.protocols.exchange.conftest import open_neighbourhood


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "data"
    (path / "inner").mkdir(parents=True)
    (path / "inner" / "large").write_bytes(random.Random(5).randbytes(3 * 2**20 + 5))
    (path / "small").write_text("hello")
    return path


async def test_what_one_publishes_another_gets(folder, tmp_path):
    async with open_neighbourhood() as near:
        giver, taker = await near.node(), await near.node()
        told = []
        published = await datasets.publish(
            folder, giver.store, giver.transport, progress=lambda *now: told.append(now)
        )
        assert published.size == 3 * 2**20 + 10
        assert published.new_bytes > published.size
        assert giver.store.pins() == {published.root: "data"}
        assert told[-1][0] == told[-1][1] > 0

        target = tmp_path / "copy"
        told.clear()
        got = await datasets.get(
            published.root, taker.exchange, taker.store, target, lambda *now: told.append(now)
        )
        assert told[-1] == (got.fetched, got.fetched, "")
        assert got.size == published.size
        assert got.fetched == published.new_bytes
        assert set(got.from_peers) == {giver.peer}
        assert (target / "inner" / "large").read_bytes() == (
            folder / "inner" / "large"
        ).read_bytes()
        assert (target / "small").read_text() == "hello"


async def test_publishing_again_adds_nothing(folder):
    async with open_neighbourhood() as near:
        giver = await near.node()
        first = await datasets.publish(folder, giver.store, giver.transport)
        second = await datasets.publish(folder, giver.store, giver.transport, label="again")
        assert second.root == first.root
        assert second.new_bytes == 0
        assert giver.store.pins() == {first.root: "again"}


async def test_what_does_not_fit_is_neither_pinned_nor_announced(folder):
    async with open_neighbourhood() as near:
        giver = await near.node(MemoryBlockstore(2**20))
        with pytest.raises(QuotaError):
            await datasets.publish(
                folder, giver.store, giver.transport, progress=lambda _done, _total: None
            )
        assert not giver.store.pins()
        assert not near.network.providers


async def test_what_cannot_be_published_is_refused(folder):
    (folder / "link").symlink_to("/etc/passwd")
    async with open_neighbourhood() as near:
        giver = await near.node()
        with pytest.raises(ManifestError):
            await datasets.publish(folder, giver.store, giver.transport)
        assert not near.network.providers


async def test_a_target_that_is_there_is_left_as_it_is(folder, tmp_path):
    async with open_neighbourhood() as near:
        giver = await near.node()
        published = await datasets.publish(folder, giver.store, giver.transport)
        target = tmp_path / "taken"
        target.write_text("mine")
        with pytest.raises(TargetExistsError):
            await datasets.get(published.root, giver.exchange, giver.store, target)
        assert target.read_text() == "mine"


async def test_progress_is_told_from_the_task_that_publishes(folder):
    async with open_neighbourhood() as near:
        giver = await near.node()
        tasks = set()

        def progress(_done: int, _total: int) -> None:
            tasks.add(trio.lowlevel.current_task().parent_nursery is not None)

        await datasets.publish(folder, giver.store, giver.transport, progress=progress)
        assert tasks == {True}

"""Roots as files: fetched once, bounded in bytes on the disk, never taken away from who uses them."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from protocols.exchange.errors import ContentTooLargeError
from storage import cid as cids
from storage.dag_pb import Link
from storage.errors import ManifestError, QuotaError
from storage.memory import MemoryBlockstore
from storage.unixfs import add_path
from storage.unixfs_nodes import folder_node
from swarm.shelf import ENTRY_BYTES, Shelf
from tests.protocols.exchange.conftest import open_neighbourhood

SIZE = 100_000


def publish(store, folder, name, data) -> cids.Cid:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_bytes(data)
    return cids.Cid(add_path(path, store).root)


@pytest.fixture
def roots(tmp_path):
    """A store with five files of 100 kB, and their roots."""
    store = MemoryBlockstore()
    made = [publish(store, tmp_path / "made", f"{at}", bytes([at]) * SIZE) for at in range(5)]
    return store, made


def shelf_of(node, tmp_path, entries=2, folder="shelf") -> Shelf:
    return Shelf(tmp_path / folder, node.store, node.exchange, entries * (SIZE + ENTRY_BYTES))


def on_disk(tmp_path, folder="shelf") -> set[str]:
    return {one.name for one in (tmp_path / folder).iterdir()}


async def test_two_takers_at_once_fetch_once(tmp_path, roots) -> None:
    store, (root, *_) = roots
    async with open_neighbourhood() as there:
        keeper, node = await there.node(store), await there.node()
        shelf, paths, fetched = shelf_of(node, tmp_path), [], []
        fetch = node.exchange.fetch

        async def count(*arguments, **options):
            fetched.append(arguments[0])
            return await fetch(*arguments, **options)

        node.exchange.fetch = count

        async def take() -> None:
            paths.append(await shelf.take(root, [keeper.peer]))

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(take)
        assert len(set(paths)) == 1
        assert paths[0].read_bytes() == bytes(SIZE)
        assert fetched == [root]
        assert on_disk(tmp_path) == {cids.text(root)}


async def test_a_taker_that_comes_while_another_writes_after_a_failure_waits_for_it(
    tmp_path, roots
) -> None:
    """Whoever waited behind a failure holds the lock that the next one must find."""
    store, (root, *_) = roots
    async with open_neighbourhood() as there:
        node = await there.node(store)
        shelf, fetch, paths = shelf_of(node, tmp_path), node.exchange.fetch, []
        came, gates = ([trio.Event() for _ in range(3)] for _ in range(2))
        turns = iter(range(3))

        async def fetch_at_the_gate(*arguments, **options):
            turn = next(turns)
            came[turn].set()
            await gates[turn].wait()
            if turn == 0:
                message = "the first provider died"
                raise OSError(message)
            return await fetch(*arguments, **options)

        async def fail() -> None:
            with pytest.raises(OSError, match="died"):
                await shelf.take(root)

        async def take() -> None:
            paths.append(await shelf.take(root))

        node.exchange.fetch = fetch_at_the_gate
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)
            await came[0].wait()
            nursery.start_soon(take)
            await wait_all_tasks_blocked()
            gates[0].set()
            await came[1].wait()
            nursery.start_soon(take)
            await wait_all_tasks_blocked()
            gates[1].set()
            gates[2].set()
        assert len(set(paths)) == 1
        assert shelf.used == SIZE + ENTRY_BYTES
        assert not came[2].is_set(), "the third found what the second wrote"


async def test_the_least_recently_used_entry_makes_room(tmp_path, roots) -> None:
    store, (first, second, third, *_) = roots
    async with open_neighbourhood() as there:
        shelf = shelf_of(await there.node(store), tmp_path)
        for root in (first, second, first, third):
            await shelf.take(root)
        assert on_disk(tmp_path) == {cids.text(first), cids.text(third)}
        assert (await shelf.take(second)).read_bytes() == bytes([1]) * SIZE


async def test_what_is_under_a_lease_stays_and_the_limit_holds(tmp_path, roots) -> None:
    store, (first, second, third, *_) = roots
    async with open_neighbourhood() as there:
        shelf = shelf_of(await there.node(store), tmp_path)
        with shelf.lease() as lease:
            await lease.take(first)
            await lease.take(second)
            with pytest.raises(QuotaError):
                await shelf.take(third)
            assert on_disk(tmp_path) == {cids.text(first), cids.text(second)}
        await shelf.take(third)
        assert on_disk(tmp_path) == {cids.text(second), cids.text(third)}


async def test_content_over_what_the_caller_or_the_shelf_accepts_is_refused(
    tmp_path, roots
) -> None:
    store, (root, *_) = roots
    large = publish(store, tmp_path / "made", "large", b"x" * 3 * SIZE)
    async with open_neighbourhood() as there:
        keeper, node = await there.node(store), await there.node()
        shelf = shelf_of(node, tmp_path)
        for wanted, most, error in (
            (root, SIZE - 1, ContentTooLargeError),
            (large, 2 * SIZE + 1, ContentTooLargeError),
            (large, 10 * SIZE, QuotaError),  # no fault of who gives it
            (large, None, QuotaError),
        ):
            with pytest.raises(error):
                await shelf.take(wanted, [keeper.peer], max_bytes=most)
        assert on_disk(tmp_path) == set()


async def test_what_is_on_the_shelf_already_is_refused_to_who_accepts_less(tmp_path, roots) -> None:
    store, (root, *_) = roots
    async with open_neighbourhood() as there:
        node = await there.node(store)
        await shelf_of(node, tmp_path).take(root)
        for shelf in (shelf_of(node, tmp_path), shelf_of(node, tmp_path)):
            with pytest.raises(ContentTooLargeError) as raised:
                await shelf.take(root, max_bytes=SIZE - 1)
            assert raised.value.limit == SIZE - 1
            assert (await shelf.take(root, max_bytes=SIZE + ENTRY_BYTES)).exists()
            assert (await shelf.take(root)).exists()


async def test_a_folder_counts_the_same_once_the_shelf_was_opened_again(tmp_path) -> None:
    store = MemoryBlockstore()
    made = tmp_path / "made"
    (made / "below" / "empty").mkdir(parents=True)
    (made / "below" / "file").write_bytes(bytes(SIZE))
    (made / "link").symlink_to("below")
    root = add_path(made, store).root
    async with open_neighbourhood() as there:
        node = await there.node(store)
        shelf = shelf_of(node, tmp_path)
        await shelf.take(root)
        assert shelf_of(node, tmp_path).used == shelf.used == 4 * ENTRY_BYTES + SIZE + len("below")


async def test_what_is_over_both_limits_is_too_large_whichever_is_the_lower(tmp_path) -> None:
    store = MemoryBlockstore()
    large = publish(store, tmp_path / "made", "large", b"x" * 4 * SIZE)
    async with open_neighbourhood() as there:
        shelf = shelf_of(await there.node(store), tmp_path)
        with pytest.raises(ContentTooLargeError) as raised:
            await shelf.take(large, max_bytes=3 * SIZE)
        assert raised.value.limit == 3 * SIZE


async def test_where_a_file_is_asked_for_a_folder_is_malformed_whatever_names_are_in_it(
    tmp_path,
) -> None:
    store = MemoryBlockstore()
    folder, block = folder_node([])
    store.put_many([(folder.cid, block)])
    plain = folder.cid
    for _ in range(20):  # longer than any path that a system takes
        folder, block = folder_node([Link(folder.cid, "n" * 250, folder.tree)])
        store.put_many([(folder.cid, block)])
    async with open_neighbourhood() as there:
        shelf = shelf_of(await there.node(store), tmp_path)
        assert (await shelf.take(plain)).is_dir()
        for root in (folder.cid, plain):
            with pytest.raises(ManifestError, match="is no file"):
                await shelf.take(root, is_file=True)


async def test_a_few_manifests_that_name_a_folder_without_end_are_measured_at_once(
    tmp_path,
) -> None:
    store = MemoryBlockstore()
    for depth, error in ((12, QuotaError), (40, ManifestError), (70, ManifestError)):
        root = nested(store, depth)
        async with open_neighbourhood() as there:
            node = await there.node(store)
            read, get = [], store.get
            store.get = lambda cid, read=read, get=get: read.append(cid) or get(cid)
            with pytest.raises(error):
                await Shelf(tmp_path / f"{depth}", store, node.exchange, 1000 * ENTRY_BYTES).take(
                    root
                )
            store.get = get
        assert len(read) < 1_000


def nested(store, depth) -> cids.Cid:
    """A folder in which a folder stands twice, in which one stands twice, and so on; none says how large it is."""
    built, block = folder_node([])
    store.put_many([(built.cid, block)])
    for _ in range(depth):
        links = [Link(built.cid, name, None) for name in "ab"]
        built, block = folder_node(links)
        store.put_many([(built.cid, block)])
    return built.cid


async def test_files_count_as_often_as_they_are_written(tmp_path) -> None:
    """A folder of one chunk under many names, or of many empty files, is small only in the store."""
    folder = tmp_path / "bomb"
    for at in range(20):
        (folder / f"{at}").mkdir(parents=True)
        for name in "abcdefgh":
            (folder / f"{at}" / name).write_bytes(b"")
    store = MemoryBlockstore()
    root = cids.Cid(add_path(folder, store).root)
    async with open_neighbourhood() as there:
        node = await there.node(store)
        with pytest.raises(QuotaError):
            await Shelf(tmp_path / "shelf", store, node.exchange, 160 * ENTRY_BYTES).take(root)
        taken = await Shelf(tmp_path / "large", store, node.exchange, 200 * ENTRY_BYTES).take(root)
        assert len(list(taken.iterdir())) == 20


async def test_a_shelf_opened_again_knows_its_entries_and_removes_what_a_crash_left(
    tmp_path, roots
) -> None:
    store, (first, second, third, *_) = roots
    async with open_neighbourhood() as there:
        node = await there.node(store)
        shelf = shelf_of(node, tmp_path)
        await shelf.take(first)
        await shelf.take(second)
        (tmp_path / "shelf" / ".swarm-half").mkdir()
        (tmp_path / "shelf" / ".swarm-half" / "content").write_bytes(b"x")
        (tmp_path / "shelf" / ".removed-1").write_bytes(b"x")
        shelf = shelf_of(node, tmp_path)
        assert on_disk(tmp_path) == {cids.text(first), cids.text(second)}
        await shelf.take(third)
        assert len(on_disk(tmp_path)) == 2


async def test_what_made_room_is_gone_even_if_who_wanted_it_is_stopped(tmp_path, roots) -> None:
    store, (first, second, *_) = roots
    large = publish(store, tmp_path / "large", "large", bytes(2 * SIZE))
    async with open_neighbourhood() as there:
        keeper, node = await there.node(store), await there.node()
        shelf = shelf_of(node, tmp_path)
        for root in (first, second):
            await shelf.take(root, [keeper.peer])
        scope = trio.CancelScope()

        async def stop() -> None:
            while shelf.used:
                await trio.lowlevel.checkpoint()
                if shelf._removed:
                    scope.cancel()
                    return

        async with trio.open_nursery() as nursery:
            nursery.start_soon(stop)
            with scope:
                await shelf.take(large, [keeper.peer])
        assert scope.cancelled_caught
        assert on_disk(tmp_path) == set()


async def test_an_entry_that_a_person_removed_is_unpacked_again(tmp_path, roots) -> None:
    store, (first, *_) = roots
    async with open_neighbourhood() as there:
        shelf = shelf_of(await there.node(store), tmp_path, entries=1)
        (await shelf.take(first)).unlink()
        assert (await shelf.take(first)).read_bytes() == bytes(SIZE)

"""What is lost is said by root and path, and exactly that is brought from peers."""

from __future__ import annotations

import os
import random
from contextlib import closing

import pytest

from storage import cid as cids
from storage import dag, unixfs
from storage.slot_contents import SlotContents
from storage.slots import SlotStore
from storage.walk import missing_below
from swarm import datasets
from swarm.errors import NotFoundError, RefusedError, UsageError
from swarm.versions.commit import encode, make
from tests.store.nodes import MIB, open_keepers, silent
from tests.versions.world import ALICE


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "plays"
    (folder / "acts").mkdir(parents=True)
    (folder / "acts" / "large").write_bytes(random.Random(7).randbytes(3 * MIB + 5))
    (folder / "small").write_text("hello")
    return folder


def damage(store, cid) -> None:
    """Change a byte of a chunk on the disk."""
    place = store.index.find(cid)
    path = store.log._path(place.segment)
    with path.open("r+b") as file:
        file.seek(place.offset + 44)
        byte = file.read(1)[0]
        file.seek(place.offset + 44)
        file.write(bytes([byte ^ 1]))


def leaves(store, root, path):
    file = unixfs.resolve(root, path, store)
    return [link.cid for link in dag.links(file, store.get(file))]


async def publish(keeper, folder, **how):
    return (await datasets.publish(folder, keeper.store, keeper.peer.transport, **how)).root


async def test_a_file_changed_since_it_was_published_in_place_is_named_and_mended_from_a_peer(
    tmp_path, folder
):
    async with open_keepers(tmp_path) as (alice, bob):
        root = await publish(alice, folder, in_place=True)
        assert alice.store.usage().used < 5_000
        await bob.door.pin(root, None, silent)
        good = await alice.door.verify(None, silent, is_repair=False)
        assert (good["bad"], good["remaining"], good["chunks"]) == ([], 0, 8)

        with (folder / "acts" / "large").open("r+b") as file:
            file.seek(MIB + 100)
            file.write(b"changed")
        found = await alice.door.verify(None, silent, is_repair=False)
        (bad,) = found["bad"]
        assert (bad["root"], bad["label"], bad["path"]) == (cids.text(root), "plays", "acts/large")
        assert (bad["chunks"], bad["remaining"], found["remaining"]) == (1, 1, 1)
        assert bad["file"] == str(folder / "acts" / "large")

        told = []
        mended = await alice.door.verify(None, lambda *now: told.append(now), is_repair=True)
        assert mended["remaining"] == 0
        assert mended["bad"][0]["remaining"] == 0
        notes = [one[3] for one in told if one[0] == "repair"]
        assert notes[0] == "looking for peers that have it"
        assert told[-1] == ("repair", 1, 1, "")
        assert alice.store.index.totals()[1] < 2 * MIB  # only what had changed was copied
        target = tmp_path / "copy"
        unixfs.write_path(root, alice.store, target)
        large = target / "acts" / "large"
        assert large.read_bytes() == random.Random(7).randbytes(3 * MIB + 5)
        assert (await alice.door.verify(None, silent, is_repair=False))["bad"] == []


async def test_a_touched_file_with_the_same_bytes_is_good(tmp_path, folder):
    async with open_keepers(tmp_path, 1) as (alice,):
        await publish(alice, folder, in_place=True)
        os.utime(folder / "small", ns=(1, 1))
        assert alice.store.changed_files() == [str(folder / "small")]
        assert (await alice.door.verify(None, silent, is_repair=False))["remaining"] == 0


@pytest.mark.parametrize("whole", [True, False])
async def test_damage_on_the_disk_is_mended_nodes_too(tmp_path, folder, whole):
    async with open_keepers(tmp_path) as (alice, bob):
        root = await publish(alice, folder)
        await bob.door.pin(root, None, silent)
        file = unixfs.resolve(root, "acts/large", alice.store)
        leaf = leaves(alice.store, root, "acts/large")[2]
        for cid in (file, leaf):
            damage(alice.store, cid)
        only = None if whole else root
        found = await alice.door.verify(only, silent, is_repair=False)
        assert [(bad["path"], bad["chunks"]) for bad in found["bad"]] == [("acts/large", 1)]
        mended = await alice.door.verify(only, silent, is_repair=True)
        assert mended["remaining"] == 0
        assert list(missing_below(root, alice.store, dag.links)) == []
        assert alice.store.damaged() == frozenset()


async def test_what_no_peer_has_remains_bad_and_says_why(tmp_path, folder, patient_clock):
    async with open_keepers(tmp_path) as (alice, _):
        root = await publish(alice, folder)
        small = unixfs.resolve(root, "small", alice.store)
        damage(alice.store, small)
        told = []
        found = await alice.door.verify(None, lambda *now: told.append(now), is_repair=True)
        assert ("repair", 0, 1, "nobody has the missing chunk; looking again in 1 s") in told
        assert found["remaining"] == 1
        assert found["bad"][0]["path"] == "small"
        assert f"nobody has {cids.text(small)}" in found["bad"][0]["why"]


async def test_damage_that_nothing_keeps_is_counted_apart(tmp_path, folder):
    async with open_keepers(tmp_path, 1) as (alice,):
        root = await publish(alice, folder)
        damage(alice.store, unixfs.resolve(root, "small", alice.store))
        alice.store.unpin(root)
        found = await alice.door.verify(None, silent, is_repair=False)
        assert (found["bad"], found["remaining"], found["unwanted"]) == ([], 0, 1)


async def test_what_a_hold_has_not_fetched_yet_and_old_versions_are_not_bad(tmp_path, folder):
    async with open_keepers(tmp_path, 1) as (alice,):
        alice.store.hold(cids.of_raw(b"to come"), "task")
        tree = unixfs.add_path(folder, alice.store).root
        first = make(ALICE, cids.of_dag_pb(b"an old tree"), [], "first", 1)
        before = cids.of_dag_cbor(encode(first))
        block = encode(make(ALICE, tree, [(before, first)], "second", 2))
        commit = cids.of_dag_cbor(block)
        alice.store.put_many([(commit, block)])
        alice.store.pin(commit, "dataset plays")
        assert (await alice.door.verify(None, silent, is_repair=False))["bad"] == []
        damage(alice.store, unixfs.resolve(tree, "small", alice.store))
        found = await alice.door.verify(None, silent, is_repair=False)
        assert [bad["path"] for bad in found["bad"]] == ["small"]


async def test_a_collection_refuses_what_it_cannot_read_until_it_is_mended(tmp_path, folder):
    async with open_keepers(tmp_path) as (alice, bob):
        root = await publish(alice, folder)
        await bob.door.pin(root, None, silent)
        damage(alice.store, unixfs.resolve(root, "acts", alice.store))
        with pytest.raises(RefusedError, match="nothing was removed") as refused:
            await alice.door.collect(silent)
        assert "--repair" in (refused.value.hint or "")
        assert "`swarm verify --repair`" in alice.collector.problems[0]
        await alice.door.verify(None, silent, is_repair=True)
        assert (await alice.door.collect(silent))["damaged"] == []
        assert alice.collector.problems == []


async def test_what_is_not_held_cannot_be_verified_nor_unpinned(tmp_path):
    async with open_keepers(tmp_path, 1) as (alice,):
        root = cids.of_raw(b"elsewhere")
        with pytest.raises(NotFoundError):
            await alice.door.verify(root, silent, is_repair=True)
        alice.store.hold(root, "update of mine")
        with pytest.raises(NotFoundError) as refused:
            await alice.door.unpin(root)
        assert refused.value.hint == "the node keeps it for: update of mine"


async def test_pins_of_branches_are_not_a_persons_to_take_or_to_make(tmp_path, folder):
    async with open_keepers(tmp_path, 1) as (alice,):
        root = cids.of_raw(b"a version")
        alice.store.put_many([(root, b"a version")])
        alice.store.pin(root, "dataset plays")
        with pytest.raises(RefusedError):
            await alice.door.unpin(root)
        with pytest.raises(UsageError):
            await alice.door.pin(root, "dataset mine", silent)
        published = await publish(alice, folder.rename(tmp_path / "dataset mine"))
        assert alice.store.pins()[published] == "./dataset mine"


async def test_a_damaged_slot_is_reported_by_path_and_sealed_again_with_what_a_peer_has(
    tmp_path, folder
):
    async with open_keepers(tmp_path) as (alice, bob):
        root = await publish(alice, folder)
        await bob.door.pin(root, None, silent)
        with closing(SlotStore(tmp_path / "slots", b"k" * 32, b"c" * 32, 4, 1)) as slots:
            contents = SlotContents(slots, alice.store)
            for _ in range(4):
                slots.append()
            slots.settle(slots.stage().root)
            sealed = contents.waiting(root)
            for cid in sealed:
                assert contents.put(cid, 4)
            committed = slots.stage()
            slots.settle(committed.root)
            good = await alice.door.verify(None, silent, is_repair=False)
            assert (good["bad"], good["remaining"], good["chunks"]) == ([], 0, 8)

            lost = sealed[1]
            with (tmp_path / "slots" / "000000.slots").open("r+b") as file:
                file.seek(slots.find(lost) * MIB + 5_000)
                file.write(b"changed")
            found = await alice.door.verify(None, silent, is_repair=False)
            (bad,) = found["bad"]
            assert (bad["root"], bad["path"]) == (cids.text(root), "acts/large")
            assert (bad["chunks"], bad["remaining"], found["remaining"]) == (1, 1, 1)

            mended = await alice.door.verify(None, silent, is_repair=True)
            assert mended["remaining"] == 0
            assert alice.store.index.find(lost) is None, "it lies in its slot, and only there"
            assert slots.verify() == []
            assert slots.settled == committed
            again = await alice.door.verify(None, silent, is_repair=False)
            assert (again["bad"], again["chunks"]) == ([], 8)

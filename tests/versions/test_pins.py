"""What branches point to is pinned at every moment, and a person's pin is a person's."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from storage.importer import add_path
from storage.memory import MemoryBlockstore
from swarm.errors import RefusedError, SwarmError
from swarm.store.operations import StoreOperations
from swarm.versions import repository
from swarm.versions.repository import Dataset
from tests.versions.world import ALICE, Names, silent, versions_of, write


async def nothing(*_arguments, **_options):
    return SimpleNamespace(bytes=0)


@pytest.fixture
def node(tmp_path):
    """A node with a dataset `plays`, and a person's door to its store; nobody else is there."""
    store = MemoryBlockstore()
    near = SimpleNamespace(
        store=store,
        exchange=SimpleNamespace(fetch=nothing),
        transport=SimpleNamespace(provide=nothing),
    )
    versions = versions_of(near, ALICE, tmp_path, Names())
    collector = SimpleNamespace(released=lambda: None)
    door = StoreOperations(store, near.exchange, near.transport, collector, let_go=versions.let_go)
    root = add_path(write(tmp_path / "plays", {"hamlet": "to be"}), store).root
    return SimpleNamespace(
        store=store,
        door=door,
        versions=versions,
        branches=versions._branches,
        repository=versions._repository,
        root=root,
        again=lambda: versions_of(near, ALICE, tmp_path, Names()),
    )


async def committed(node, branch="main", message="first"):
    if not node.repository.has("plays"):
        await node.branches.create(Dataset("plays"))
    dataset = node.repository.load("plays")
    cid, _ = await node.branches.commit(dataset, branch, node.root, [], message)
    return cid


async def test_what_a_person_pins_stays_when_its_branch_is_removed(node):
    cid = await committed(node, "side")
    assert node.store.pins() == {cid: "dataset plays"}
    assert (await node.door.pin(cid, None, silent))["label"] == ""
    await node.branches.move(node.repository.load("plays"), "side", None)
    assert node.store.pins() == {cid: ""}


async def test_what_a_person_unpins_stays_while_a_branch_points_to_it(node):
    cid = await committed(node)
    await node.door.pin(cid, "mine", silent)
    assert (await node.door.unpin(cid))["held_for"] == ["dataset plays"]
    assert node.store.pins() == {cid: "dataset plays"}
    with pytest.raises(RefusedError):
        await node.door.unpin(cid)
    await node.branches.move(node.repository.load("plays"), "main", None)
    assert node.store.pins() == {}


async def test_a_person_unpins_what_no_branch_points_to(node):
    await node.door.pin(node.root, None, silent)
    assert (await node.door.unpin(node.root))["held_for"] == []
    assert node.store.pins() == {}


async def test_a_commit_is_pinned_before_a_branch_points_to_it_and_the_old_one_let_go_after(node):
    first = await committed(node)
    seen = []
    save, unpin = node.repository.save, node.store.unpin

    def saving(dataset):
        seen.append(
            ("save", dataset.branches["main"] in node.store.pins(), first in node.store.pins())
        )
        save(dataset)

    def unpinning(cid):
        seen.append(
            ("unpin", cid == first, node.repository.load("plays").branches["main"] != first)
        )
        unpin(cid)

    node.repository.save, node.store.unpin = saving, unpinning
    second = await committed(node, message="second")
    assert seen == [("save", True, True), ("unpin", True, True)]
    assert node.store.pins() == {second: "dataset plays"}


async def test_a_branch_that_cannot_be_saved_leaves_the_pins_of_those_that_are(node):
    first = await committed(node)

    def full(_dataset):
        message = "no space left"
        raise OSError(message)

    node.repository.save = full
    with pytest.raises(OSError, match="no space"):
        await committed(node, message="second")
    assert node.store.pins() == {first: "dataset plays"}


async def test_after_a_start_what_branches_point_to_is_pinned(node):
    cid = await committed(node)
    node.store.unpin(cid)
    await node.again().keep()
    assert node.store.pins() == {cid: "dataset plays"}


async def test_a_damaged_dataset_does_not_end_the_start_nor_take_a_pin(node, tmp_path):
    cid = await committed(node)
    (tmp_path / "datasets" / "poems.json").write_text("{")
    await node.again().keep()
    assert node.store.pins() == {cid: "dataset plays"}


async def test_another_datasets_damage_is_told_before_a_branch_moves(node, tmp_path):
    first = await committed(node)
    (tmp_path / "datasets" / "other.json").write_text("damaged")
    with pytest.raises(SwarmError, match=r"other\.json is damaged"):
        await committed(node, message="second")
    assert node.repository.load("plays").branches == {"main": first}


async def test_no_more_datasets_are_made_than_are_pinned(node, monkeypatch):
    monkeypatch.setattr(repository, "MAX_DATASETS", 2)
    for name in ("a", "b"):
        await node.branches.create(Dataset(name))
    with pytest.raises(RefusedError, match="2 datasets already"):
        await node.branches.create(Dataset("c"))
    assert [one.name for one in node.repository.all()] == ["a", "b"]


async def test_what_a_killed_difference_left_is_removed_at_the_start(node, tmp_path):
    await committed(node)
    left = tmp_path / "datasets" / "rows-abc"
    left.mkdir()
    (left / "old").write_bytes(b"a large file")
    await node.again().keep()
    assert not left.exists()
    assert node.repository.has("plays")

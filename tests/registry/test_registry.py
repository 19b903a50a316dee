"""The versions of a model on a real ledger: which there are, and the way back to an earlier one."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import trio

from protocols import signing
from storage import cid as cids
from swarm.errors import NotFoundError, RefusedError, UsageError
from swarm.ledger.transactions import NameRegister, NameUpdate, TaskPost
from swarm.ledger.transactions import Phases as Lengths
from swarm.participant.accuracies import Accuracies
from swarm.registry.operations import Registry, labelled
from swarm.wallet import Wallet
from tests.ledger.alone import ALICE, BOB, open_alone
from tests.ledger.test_rounds import all_score, to_scoring
from tests.ledger.world import BASE, MERGED, World, root


async def caught_up(_progress) -> None:
    """There is nobody to wait for."""


def silent(*_) -> None:
    """Nobody watches."""


def on_world(world, folder) -> Registry:
    """A registry that reads a ledger whose rounds the test plays."""
    known = Accuracies(folder / "accuracies.json")
    known.note(MERGED, 0.75)
    quiet = SimpleNamespace(activity={}, problems={}, losses={}, accuracies=known)
    node = SimpleNamespace(
        ledger=SimpleNamespace(view=lambda: world.view),
        worker=SimpleNamespace(speeds={}),
        participant=quiet,
        device="cpu: test",
        settings=SimpleNamespace(gpu=False),
    )
    return Registry(node, caught_up)


@pytest.fixture
def played():
    """A world with one merged round, in which one of two updates was refused."""
    world = World(people=("alice", "bob", "carol", "dave"))
    world.w = [world.people["bob"], world.people["carol"]]
    world.task = to_scoring(world)
    all_score(world, world.task, {"update 0": 300, "update 1": 5})
    world.attest(world.task, dict.fromkeys(world.validators[:3], MERGED))
    return world


async def test_a_log_tells_what_made_each_version_and_whose_work_it_holds(played, tmp_path) -> None:
    found = await on_world(played, tmp_path).log("gpt", 10, silent)
    newest, first = found["versions"]
    assert (newest["version"], newest["round"], newest["cid"]) == (1, 1, cids.text(MERGED))
    assert (newest["base_loss"], newest["loss"]) == (0.5, 0.49)
    assert newest["accepted"] == [signing.peer_id(played.w[0].public_key)]
    assert newest["height"] == played.height
    assert (newest["accuracy"], first["accuracy"]) == (0.75, None)
    assert (first["version"], first["round"], first["loss"], first["accepted"]) == (
        0,
        None,
        None,
        [],
    )
    assert (found["more"], found["task"]) == (False, played.task.hex())
    short = await on_world(played, tmp_path).log("gpt", 1, silent)
    assert ([one["version"] for one in short["versions"]], short["more"]) == ([1], True)
    with pytest.raises(NotFoundError, match="other"):
        await on_world(played, tmp_path).log("other", 1, silent)


async def test_a_task_is_watched_with_its_rounds_and_reasons(played, tmp_path) -> None:
    registry = on_world(played, tmp_path)
    registry._node.worker.speeds[played.task] = 7.0
    found = await registry.watch("gpt")
    assert (found["all_rounds"], found["round"], found["phase"]) == (2, 2, "train")
    settled, current = found["rounds"]
    assert [entry["accepted"] for entry in settled["submissions"]] == [True, False]
    assert settled["submissions"][1]["reason"]
    assert (current["outcome"], found["speed"]) == ("train", 7.0)
    with pytest.raises(NotFoundError, match="nothing"):
        await registry.watch("nothing")


@pytest.fixture
def alone(tmp_path):
    with open_alone(tmp_path) as made:
        assert made.run(ALICE, NameRegister("gpt", BASE)) == ""
        assert made.run(ALICE, NameUpdate("gpt", MERGED, 1, BASE)) == ""
        yield made


def of(alone, who) -> Registry:
    wallet = Wallet(who, alone.ledger, alone.heights, lambda _: None)
    return Registry(SimpleNamespace(ledger=alone.ledger, wallet=wallet, signer=who), caught_up)


async def test_a_rollback_is_a_new_version_that_names_an_old_root(alone, autojump_clock) -> None:
    made = {}

    async def roll_back() -> None:
        made.update(await of(alone, ALICE).rollback("gpt", 0, silent))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(roll_back)
        await trio.sleep(1)
        alone.grow()
    entry = alone.ledger.view().name("gpt")
    assert (entry.version, entry.root, entry.previous) == (2, BASE, MERGED)
    assert (made["version"], made["restored"], made["cid"]) == (2, 0, cids.text(BASE))
    assert alone.ledger.view().name_version("gpt", 1).root == MERGED


async def test_who_may_not_roll_back_is_told_before_anything_is_sent(alone) -> None:
    height = alone.ledger.view().height
    for who, name, version, why in (
        (BOB, "gpt", 0, "belongs to"),
        (ALICE, "gpt", 1, "names the same"),
        (ALICE, "gpt", 2, "versions 0 to 1"),
        (ALICE, "other", 0, "no model"),
    ):
        with pytest.raises((RefusedError, NotFoundError), match=why):
            await of(alone, who).rollback(name, version, silent)
    lengths = Lengths(5, 5, 5, 5, 5)
    post = TaskPost("gpt", "lm", b"spec", BASE, root("d"), root("p"), 1, 10**10, lengths, 0)
    assert alone.run(ALICE, post) == ""
    with pytest.raises(RefusedError, match="open task"):
        await of(alone, ALICE).rollback("gpt", 0, silent)
    assert alone.ledger.view().height == height + 1


def test_probabilities_that_are_no_numbers_are_refused_with_their_file() -> None:
    good = {"path": "/a.npy", "index": 0, "labels": [("cat", 0.75)]}
    assert labelled([good])[0]["labels"] == [{"label": "cat", "probability": 0.75}]
    bad = {"path": "/b.npy", "index": 3, "labels": [("cat", float("nan"))]}
    with pytest.raises(UsageError, match=r"/b\.npy: of sample 3 "):
        labelled([good, bad])

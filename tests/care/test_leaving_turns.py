"""Leaving as it is begun and taken back: decisions that meet, and clients that go away."""

import json
import threading
from types import SimpleNamespace

import pytest
import trio
import trio.testing

from storage import cid as cids
from swarm.care.controls import Controls
from swarm.care.leaving import FILE, Leaving
from swarm.ledger.genesis import Params
from swarm.ledger.holdings import Account

KEY = b"k" * 32


class View:
    """An account that holds nothing."""

    params, height = Params(), 10

    def duties_of(self, _key):
        return []

    def account(self, key):
        return Account(key)

    def keeper(self, _key):
        return None

    def deal(self, _deal):
        return SimpleNamespace(replicas=2)

    def seats(self, _deal):
        return SimpleNamespace(of=((),) * 4)  # nobody else has shown a piece


class Holds:
    """What a store keeps, and why."""

    def __init__(self):
        self.now = set()

    def holds(self):
        return sorted(self.now)

    def hold(self, root, label):
        self.now.add((root, label))

    def release(self, root, label):
        self.now.discard((root, label))


class Slow(Leaving):
    """Its disk waits until the test lets it write."""

    def __init__(self, *given):
        super().__init__(*given)
        self.is_writing, self.may_write = trio.Event(), threading.Event()
        self.token = trio.lowlevel.current_trio_token()

    def _wait(self):
        self.token.run_sync_soon(self.is_writing.set)
        self.may_write.wait(10)

    def _remember(self, state):
        self._wait()
        super()._remember(state)

    def _forget(self, pieces):
        self._wait()
        super()._forget(pieces)


@pytest.fixture
def leaving(tmp_path):
    async def above(_height):
        await trio.sleep_forever()

    node = SimpleNamespace(
        settings=SimpleNamespace(home=tmp_path, gpu=False, temporary=False),
        controls=Controls(),
        ledger=SimpleNamespace(view=View),
        signer=SimpleNamespace(public_key=KEY),
        heights=SimpleNamespace(height=10, above=above),
        participant=SimpleNamespace(owing=()),
        collector=SimpleNamespace(released=lambda: None),
        store=Holds(),
    )

    def make():
        return Slow(node, b"v" * 32)

    return node, make


async def test_who_stays_after_all_has_not_left_though_its_end_was_being_written(
    leaving, tmp_path, nursery
):
    node, make = leaving
    one = make()
    one.may_write.set()
    await one.begin()
    one.may_write.clear()
    one.is_writing = trio.Event()
    nursery.start_soon(one.run)  # it holds nothing, so it has left at once
    await one.is_writing.wait()
    async with trio.open_nursery() as staying:
        staying.start_soon(one.cancel)
        await trio.testing.wait_all_tasks_blocked(0.01)
        one.may_write.set()
    await trio.testing.wait_all_tasks_blocked(0.05)
    assert one.told()["state"] == "staying"
    assert not node.controls.is_leaving
    assert not (tmp_path / FILE).exists()
    nursery.cancel_scope.cancel()


async def test_a_client_that_goes_away_leaves_no_decision_half_made(leaving, tmp_path):
    node, make = leaving
    one = make()
    for ask, is_leaving in ((one.begin, True), (one.cancel, False)):
        one.may_write.clear()
        one.is_writing = trio.Event()
        async with trio.open_nursery() as asking:
            asking.start_soon(ask)
            await one.is_writing.wait()
            asking.cancel_scope.cancel()
            one.may_write.set()
        assert (not one.is_staying, node.controls.is_leaving) == (is_leaving, is_leaving)
        assert (tmp_path / FILE).exists() == is_leaving


async def test_what_died_between_a_decision_and_its_holds_is_put_right_at_the_next_start(
    leaving, tmp_path
):
    node, make = leaving
    own, other = cids.of_raw(b"a piece"), cids.of_raw(b"another")
    kept = (own, "leaving aa 3")
    foreign = (other, "leaving on sunday")

    async def start():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(make().run)
            await trio.testing.wait_all_tasks_blocked(0.05)
            nursery.cancel_scope.cancel()

    node.store.now = {kept, foreign}  # held, and then it died before it was remembered
    await start()
    assert node.store.now == {foreign}
    node.store.now = {foreign, (other, "leaving bb 0")}  # it stays, and died before it released
    piece = {"deal": "aa", "index": 3, "root": cids.text(own), "size": 7}
    remembered = {"begun": 1.0, "blocks": 5, "pieces": [piece], "is_over": False}
    (tmp_path / FILE).write_text(json.dumps(remembered))
    await start()
    assert node.store.now == {foreign, kept}


async def test_who_cannot_be_made_to_stay_still_leaves_and_may_be_asked_again(leaving, tmp_path):
    node, make = leaving
    one = make()
    one.may_write.set()
    await one.begin()
    (tmp_path / FILE).unlink()
    (tmp_path / FILE).mkdir()
    with pytest.raises(OSError, match=FILE):
        await one.cancel()
    assert (one.is_staying, node.controls.is_leaving) == (False, True)
    (tmp_path / FILE).rmdir()
    assert (await one.cancel())["state"] == "staying"
    assert not node.controls.is_leaving


def test_a_damaged_file_of_leaving_does_not_keep_the_node_from_its_start(leaving, tmp_path):
    node, _ = leaving
    text = '{"begun": 0, "blocks": Infinity, "pieces": [], "is_over": false}'
    (tmp_path / FILE).write_text(text)
    assert Leaving(node, b"v" * 32).is_staying

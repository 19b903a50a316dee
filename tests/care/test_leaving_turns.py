"""Leaving as it is begun and taken back: decisions that meet, and clients that go away."""

import threading
from types import SimpleNamespace

import pytest
import trio
import trio.testing

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

"""Beside its progress an operation tells how it stands: to callbacks that ask for it, and to no other."""

import json

import pytest
import trio

from swarm.async_client import AsyncClient
from swarm.client import Client, Noting
from swarm.control.operation import Operation
from swarm.control.service import serve
from tests.control.fake_node import CID, FakeNode

WHY = "from 1 peer: …mKxq 8.1 MB/s"


class Watcher:
    """A callback with a `note`."""

    def __init__(self) -> None:
        self.told = []
        self.notes = []

    def __call__(self, stage, done, total):
        self.told.append((stage, done, total))

    def note(self, stage, text):
        self.notes.append((stage, text))


@pytest.fixture
async def home(tmp_path, nursery):
    node = FakeNode(tmp_path / "home")
    await nursery.start(serve, node, node.home / "control.sock")
    return node.home


async def events(work):
    sent = []

    async def send(message):
        sent.append(message.get("body", b""))

    await Operation(work)({}, trio.sleep_forever, send)
    return [json.loads(line) for line in b"".join(sent).splitlines()]


async def test_a_note_stands_in_the_event_where_there_is_one(autojump_clock):
    async def work(progress):
        progress("fetch", 1, 4, WHY)
        await trio.sleep(1)
        progress("fetch", 2, 4)

    first, last, _ = await events(work)
    assert first == {"event": "progress", "stage": "fetch", "done": 1, "total": 4, "note": WHY}
    assert last == {"event": "progress", "stage": "fetch", "done": 2, "total": 4}


async def test_a_callback_with_a_note_is_told_how_it_stands_and_when_that_is_over(home, tmp_path):
    watcher = Watcher()
    assert isinstance(watcher, Noting)
    client = Client.of_home(home)
    await trio.to_thread.run_sync(client.get, CID, tmp_path / "x", watcher)
    assert watcher.told[-1] == ("fetch", 5, 5)
    assert watcher.notes == [("fetch", WHY), ("fetch", "")]


async def test_the_awaited_client_tells_the_same(home, tmp_path):
    watcher = Watcher()
    async with AsyncClient.of_home(home) as client:
        await client.get(CID, tmp_path / "x", watcher)
    assert watcher.notes == [("fetch", WHY), ("fetch", "")]


async def test_a_callback_of_three_arguments_is_told_as_ever(home, tmp_path):
    told = []

    def show(stage, done, total):
        told.append((stage, done, total))

    await trio.to_thread.run_sync(Client.of_home(home).get, CID, tmp_path / "x", show)
    assert told[-1] == ("fetch", 5, 5)


async def test_a_result_that_is_not_json_is_told_as_an_error(autojump_clock):
    async def work(_):
        await trio.lowlevel.checkpoint()
        return {"loss": float("nan")}

    (event,) = await events(work)
    assert (event["event"], event["error"]["code"]) == ("error", "internal")

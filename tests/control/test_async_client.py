import inspect

import anyio
import pytest
import trio

from swarm.async_client import AsyncClient
from swarm.client import Client
from swarm.control import app
from swarm.control.service import serve
from swarm.errors import NetworkError, NotFoundError, RefusedError
from swarm.release import version
from tests.control.fake_node import CID, PEER, FakeNode

OF_ONE_SIDE = {"serve"}
"""It holds a connection until it is interrupted, which a program does by the command."""


@pytest.fixture
async def served(tmp_path, nursery):
    node = FakeNode(tmp_path / "home")
    await nursery.start(serve, node, node.home / "control.sock")
    async with AsyncClient.of_home(node.home) as client:
        yield node, client


def public(kind):
    return {name for name in vars(kind) if not name.startswith("_")} - OF_ONE_SIDE


def test_every_method_of_the_client_is_there_and_takes_the_same():
    assert public(AsyncClient) == public(Client)
    for name in public(Client) - {"of_home"}:
        method, later = getattr(Client, name), getattr(AsyncClient, name)
        assert list(inspect.signature(later).parameters) == list(
            inspect.signature(method).parameters
        )
        assert later.__doc__


async def test_questions_and_operations_are_awaited(served):
    node, client = served
    assert (await client.status())["height"] == 42
    assert (await client.blocks(limit=2))[1]["height"] == 41
    assert (await client.send(PEER, 5, wait=False))["height"] is None
    assert node.sent == [(PEER, 5, False)]


async def test_progress_is_told_in_the_task_of_the_caller(served, tmp_path):
    _, client = served
    told = []
    (tmp_path / "x").write_text("hello")
    task = trio.lowlevel.current_task()
    published = await client.publish(
        tmp_path / "x", progress=lambda *one: told.append((*one, trio.lowlevel.current_task()))
    )
    assert published["cid"] == CID
    assert told[-1] == ("hash", 2, 2, task)


async def test_errors_are_those_of_the_command(served, tmp_path):
    _, client = served
    with pytest.raises(NotFoundError):
        await client.scoreboard("nobody")
    with pytest.raises(RefusedError) as told:
        await client.publish(tmp_path / "too-large")
    assert told.value.exit_code == 4
    assert "swarm gc" in told.value.hint


async def test_a_cancelled_operation_is_cancelled_at_the_node(served, tmp_path):
    node, client = served
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.publish, tmp_path / "slow")
        await node.began.wait()
        nursery.cancel_scope.cancel()
    with trio.fail_after(5):
        await node.cancelled.wait()


async def test_several_tasks_use_one_client_at_once(served, tmp_path):
    node, client = served
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.publish, tmp_path / "slow")
        await node.began.wait()
        with trio.fail_after(5):
            assert (await client.status())["height"] == 42
        nursery.cancel_scope.cancel()


async def test_a_question_does_not_wait_behind_a_hundred_operations(served, tmp_path):
    node, client = served
    async with trio.open_nursery() as nursery:
        for _ in range(120):
            nursery.start_soon(client.publish, tmp_path / "slow")
        await node.began.wait()
        with trio.fail_after(5):
            assert (await client.status())["height"] == 42
        nursery.cancel_scope.cancel()


async def test_a_node_of_another_version_is_refused_and_can_be_stopped(
    tmp_path, nursery, monkeypatch
):
    monkeypatch.setattr(app, "version", lambda: "0.0.1")
    node = FakeNode(tmp_path)
    await nursery.start(serve, node, tmp_path / "control.sock")
    async with AsyncClient.of_home(tmp_path) as client:
        with pytest.raises(RefusedError, match=r"the node runs version 0\.0\.1"):
            await client.status()
        with pytest.raises(RefusedError, match=r"the node runs version 0\.0\.1"):
            await client.send(PEER, 1)
        await client.stop()
    assert node.stopped.is_set()


async def test_without_a_node_it_says_how_to_start_one(tmp_path):
    async with AsyncClient.of_home(tmp_path) as client:
        with pytest.raises(NetworkError, match="no node answers"):
            await client.status()


@pytest.mark.slow
def test_it_works_under_asyncio_too(tmp_path):
    import threading

    node = FakeNode(tmp_path / "home")
    ready, stop = threading.Event(), []

    async def run():
        async with trio.open_nursery() as nursery:
            token = trio.lowlevel.current_trio_token()
            stop.append(lambda: token.run_sync_soon(nursery.cancel_scope.cancel))
            await nursery.start(serve, node, node.home / "control.sock")
            ready.set()

    thread = threading.Thread(target=trio.run, args=(run,))
    thread.start()
    assert ready.wait(10)

    async def ask():
        async with AsyncClient.of_home(node.home) as client:
            return await client.status()

    try:
        assert anyio.run(ask, backend="asyncio")["height"] == 42
    finally:
        stop[0]()
        thread.join()


async def test_a_node_that_goes_before_it_has_answered_has_stopped_all_the_same(tmp_path, nursery):
    ended = b"0\r\n\r\n"  # an answer without an event, and in order
    head = f"HTTP/1.1 200 OK\r\nswarm-version: {version()}\r\ntransfer-encoding: chunked\r\n\r\n"
    with trio.socket.socket(trio.socket.AF_UNIX) as listening:
        await listening.bind(str(tmp_path / "control.sock"))
        listening.listen()

        async def answer():
            while True:
                there, _ = await listening.accept()
                with there:
                    await there.recv(4096)
                    await there.send(head.encode() + ended)

        nursery.start_soon(answer)
        async with AsyncClient.of_home(tmp_path) as client:
            await client.stop()
            with pytest.raises(NetworkError, match="stopped before it was done"):
                await client.publish(tmp_path / "x")
        await trio.to_thread.run_sync(Client.of_home(tmp_path).stop)
        nursery.cancel_scope.cancel()

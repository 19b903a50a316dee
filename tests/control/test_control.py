import os
import socket
import stat
from functools import partial

import httpx
import pytest
import trio
from starlette.middleware import Middleware

from swarm import errors, release
from swarm.client import Client, socket_of
from swarm.control import app
from swarm.control.fields import MAX_BODY_BYTES
from swarm.control.service import serve
from tests.control.fake_node import CID, PEER, FakeNode


@pytest.fixture
async def node(tmp_path, nursery):
    node = FakeNode(tmp_path)
    await nursery.start(serve, node, tmp_path / "control.sock")
    return node


async def asked(home, question):
    """Ask with the real client, in a thread as a command would."""

    def ask():
        with Client.of_home(home) as client:
            return question(client)

    return await trio.to_thread.run_sync(ask)


async def test_a_question_is_answered_with_what_the_node_says(node):
    assert await asked(node.home, Client.status) == node.status()
    assert await asked(node.home, lambda client: client.blocks(5, 2)) == await node.blocks(5, 2)
    assert (await asked(node.home, lambda client: client.block(7)))["txs"][0]["from"] == PEER


async def test_an_operation_tells_its_progress_and_then_its_result(node, tmp_path):
    told = []
    got = await asked(
        node.home,
        lambda client: client.publish(tmp_path / "x", "name", lambda *event: told.append(event)),
    )
    assert got["cid"] == CID
    assert got["version"] == 1
    assert told[-1] == ("hash", 2, 2)


@pytest.mark.parametrize(
    ("question", "kind", "words"),
    [
        (lambda client: client.get("bafy", "/x"), errors.NotFoundError, "3 peers were asked"),
        (lambda client: client.block(43), errors.NotFoundError, "43"),
        (lambda client: client.balance("me"), errors.UsageError, "'me'"),
        (lambda client: client.publish("too-large"), errors.RefusedError, "1,000,000,000,000"),
        (lambda client: client.sample("broken"), errors.SwarmError, "ZeroDivisionError"),
        (lambda client: client.blocks(None, 0), errors.UsageError, "limit: 0"),
        (lambda client: client.send(PEER, -1), errors.UsageError, "amount: -1"),
    ],
)
async def test_an_error_of_the_node_is_raised_again_by_the_client(node, question, kind, words):
    with pytest.raises(errors.SwarmError) as raised:
        await asked(node.home, question)
    assert type(raised.value) is kind
    assert words in raised.value.message


async def test_a_client_that_goes_away_cancels_its_operation(node):
    stream = await trio.open_unix_socket(node.home / "control.sock")
    body = b'{"path": "/slow"}'
    head = f"POST /v1/publish HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
    await stream.send_all(head.encode() + body)
    with trio.fail_after(5):
        await node.began.wait()
        await stream.aclose()
        await node.cancelled.wait()


async def test_a_client_that_does_not_read_does_not_delay_the_end(tmp_path):
    node = FakeNode(tmp_path)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            await nursery.start(serve, node, tmp_path / "control.sock")
            stream = await trio.open_unix_socket(tmp_path / "control.sock")
            body = b'{"path": "/chatty"}'
            head = f"POST /v1/publish HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
            await stream.send_all(head.encode() + body)
            while b"hash" not in await stream.receive_some(4096):
                pass
            nursery.cancel_scope.cancel()
    await stream.aclose()
    assert not (tmp_path / "control.sock").exists()


async def test_only_the_owner_can_open_the_socket(node):
    assert stat.S_IMODE((node.home / "control.sock").stat().st_mode) == 0o600


async def test_a_home_with_a_long_path_is_reached_through_its_pointer(tmp_path):
    home = tmp_path / ("long" * 30)
    node = FakeNode(home)
    async with trio.open_nursery() as nursery:
        await nursery.start(serve, node, home / "control.sock")
        assert len(os.fsencode(socket_of(home))) < 100
        assert (await asked(home, Client.status))["pid"] == 4711
        target = socket_of(home)
        nursery.cancel_scope.cancel()
    assert not target.parent.exists()
    assert list(home.iterdir()) == []


async def test_a_socket_that_a_killed_node_left_is_taken_over(tmp_path):
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(tmp_path / "control.sock"))
    left.close()
    async with trio.open_nursery() as nursery:
        await nursery.start(serve, FakeNode(tmp_path), tmp_path / "control.sock")
        assert (await asked(tmp_path, Client.status))["height"] == 42
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{" + b" " * MAX_BODY_BYTES + b"}", "1,048,576"),
        (b"[1]", "object"),
        (b"{", "JSON"),
        (b'{"path": "relative"}', "path: not an absolute path"),
        (b'{"path": 3}', "path: not a text"),
        (b"{}", "path: missing"),
    ],
)
async def test_a_malformed_request_is_refused_with_the_field_at_fault(node, body, words):
    def post():
        transport = httpx.HTTPTransport(uds=str(node.home / "control.sock"))
        with httpx.Client(transport=transport) as client:
            return client.post("http://x/v1/publish", content=body).text

    answer = await trio.to_thread.run_sync(post)
    assert words in answer
    assert '"exit_code":2' in answer.replace(" ", "")


@pytest.mark.parametrize("theirs", ["0.0.1", None])
async def test_a_node_of_another_version_is_refused_and_can_be_stopped(
    tmp_path, nursery, monkeypatch, theirs
):
    """None: it is of before nodes told their version in each answer."""
    monkeypatch.setattr(app, "version", lambda: theirs)
    if theirs is None:
        monkeypatch.setattr(app, "Middleware", lambda *_: Middleware(lambda inner, **_: inner))
    node = FakeNode(tmp_path)
    await nursery.start(serve, node, tmp_path / "control.sock")
    told = "unknown (an older build)" if theirs is None else theirs
    for question in (Client.peers, Client.status, lambda client: client.send(PEER, 1)):
        with pytest.raises(errors.RefusedError, match="the node runs version") as raised:
            await asked(node.home, question)
        assert f"version {told}, this command is {release.version()}" in raised.value.message
        assert "restart the node" in raised.value.hint
    await asked(node.home, Client.stop)
    assert node.stopped.is_set()


async def test_stop_stops_the_node_and_answers(node):
    await asked(node.home, Client.stop)
    assert node.stopped.is_set()


def test_no_node_is_a_network_error_that_says_what_to_do(tmp_path):
    with Client.of_home(tmp_path) as client, pytest.raises(errors.NetworkError) as raised:
        client.status()
    assert raised.value.hint == "start one with: swarm join"


async def test_a_node_that_dies_during_an_operation_is_a_network_error(tmp_path):
    node = FakeNode(tmp_path)
    async with trio.open_nursery() as outer:
        serving = await outer.start(_serve_in_scope, node)
        done = []

        async def publish():
            with pytest.raises(errors.NetworkError) as raised:
                await asked(tmp_path, lambda client: client.publish("slow"))
            done.append(raised.value.message)

        outer.start_soon(publish)
        await node.began.wait()
        serving.cancel()
    assert done == ["the node stopped before it was done"]


async def _serve_in_scope(node, *, task_status):
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(serve, node, node.home / "control.sock"))
            task_status.started(scope)

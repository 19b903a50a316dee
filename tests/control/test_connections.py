"""Places: who has none waits in the kernel, and who takes nothing of an answer does not keep one."""

from __future__ import annotations

import socket
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from threading import Timer

import pytest
import trio
import trio.testing
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from cli.connection import answers
from swarm import asking
from swarm.client import Client, NetworkError, socket_of
from swarm.control import service
from swarm.control.operation import Operation
from swarm.control.service import serve_app
from swarm.gateway.stream import Stream

SMALL = b"GET /small HTTP/1.1\r\nhost: x\r\n\r\n"
LARGE = b"GET /large HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
ENDLESS = b"GET /endless HTTP/1.1\r\nhost: x\r\n\r\n"
OPERATION = b"GET /operation HTTP/1.1\r\nhost: x\r\n\r\n"
LARGE_BYTES = 4 * 2**20
RATE = 50_000
"""Bytes a second of a client behind a slow line."""


class Door:
    """Where an application is served, on a socket of this process."""

    def __init__(self, path) -> None:
        self._path = path
        self.working = 0

    async def client(self, question: bytes = b""):
        stream = await trio.open_unix_socket(self._path)
        await stream.send_all(question)
        return stream

    async def is_answered(self) -> bool:
        """Whether one more client is served, sooner or later."""
        async with await self.client(SMALL) as stream:
            with trio.move_on_after(2 * service.SEND_SECONDS):
                return (await stream.receive_some()).startswith(b"HTTP/1.1 200")
        return False

    async def small(self, _request):
        return PlainTextResponse("hello")

    async def large(self, _request):
        return PlainTextResponse("x" * LARGE_BYTES)

    async def endless(self, _request):
        async def parts():
            while True:
                yield b"x" * 2**16

        return Stream(parts(), {})

    async def operation(self, _request):
        async def work(progress):
            self.working += 1
            try:
                await trio.sleep_forever()
            finally:
                self.working -= 1

        return Operation(work)


@asynccontextmanager
async def door(tmp_path, most):
    found = Door(tmp_path / "door.sock")
    names = ("small", "large", "endless", "operation")
    app = Starlette(routes=[Route(f"/{name}", getattr(found, name)) for name in names])
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "door.sock"))
        listener.listen(64)
        async with trio.open_nursery() as nursery:
            await nursery.start(lambda **how: serve_app(app, listener, most=most, **how))
            yield found
            nursery.cancel_scope.cancel()


def files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_who_has_no_place_costs_no_file_and_is_served_when_one_is_free(tmp_path):
    async with door(tmp_path, most=2) as served:
        before = files()
        clients = [await served.client() for _ in range(20)]
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert files() - before == 20 + 2
        for one in clients:
            await one.aclose()
        assert await served.is_answered()
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert files() == before


@pytest.mark.parametrize("question", [ENDLESS, LARGE, SMALL * 20_000])
async def test_a_client_that_reads_nothing_gives_its_place_to_another(
    tmp_path, question, autojump_clock
):
    async with door(tmp_path, most=1) as served:
        silent = await served.client()

        async def ask():
            with trio.move_on_after(3 * service.SEND_SECONDS):
                try:
                    await silent.send_all(question)
                except trio.BrokenResourceError:
                    return

        async with silent, trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            assert await served.is_answered()


async def test_a_client_that_reads_slowly_gets_all(tmp_path, autojump_clock):
    start, got = trio.current_time(), 0
    async with door(tmp_path, most=1) as served, await served.client(LARGE) as slow:
        while part := await slow.receive_some(4_096):
            got += len(part)
            await trio.sleep(len(part) / RATE)
    assert got > LARGE_BYTES
    assert trio.current_time() - start > 2 * service.SEND_SECONDS


async def test_what_works_for_a_client_that_reads_nothing_is_given_up(tmp_path, autojump_clock):
    async with door(tmp_path, most=1) as served, await served.client(OPERATION):
        await trio.testing.wait_all_tasks_blocked()
        assert served.working == 1
        await trio.sleep(86_400)  # until what says that it is alive fills what the kernel holds
        assert served.working == 0
        assert await served.is_answered()


async def test_one_who_went_with_a_question_behind_another_keeps_no_place(tmp_path, autojump_clock):
    async with door(tmp_path, most=1) as served:
        gone = await served.client(OPERATION + SMALL)
        await trio.testing.wait_all_tasks_blocked()
        assert served.working == 1
        await gone.aclose()
        assert await served.is_answered()
        assert served.working == 0


@pytest.fixture
def full(tmp_path):
    """A socket at which as many wait as may, and what takes one of them."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(socket_of(tmp_path)))
        listener.listen(1)
        for _ in range(2):
            waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
            waiting.connect(str(socket_of(tmp_path)))
        yield tmp_path, lambda: stack.enter_context(listener.accept()[0])


def test_where_as_many_wait_as_may_a_client_waits_for_a_place(full):
    home, take = full
    later = Timer(0.1, take)
    later.start()
    asking.connected(socket_of(home)).close()
    later.join()


def test_a_node_that_takes_nobody_is_told_from_one_that_does_not_run(full, monkeypatch):
    home, _ = full
    monkeypatch.setattr(asking, "CONNECT_SECONDS", 0.1)
    assert answers(home)  # and no second one is started
    with pytest.raises(NetworkError, match="too many ask at once"):
        Client.of_home(home).status()
    assert not answers(home / "another")

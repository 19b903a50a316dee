"""A body that is too large is not read, and one that does not come is not waited for."""

from __future__ import annotations

import json
import socket

import pytest
import trio
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from swarm.control import body as bodies
from swarm.control.faults import status_of
from swarm.control.service import serve_app

MOST = 1_000


@pytest.fixture
async def port(nursery):
    async def answer(request):
        try:
            return Response(str(len(await bodies.read(request, MOST))))
        except bodies.TooLargeError as error:
            return Response(error.message, status_of(error))

    async def unwell(_request):
        return Response("", headers={"x": "a\r\nb: c"})

    routes = [Route("/", answer, methods=["POST"]), Route("/unwell", unwell)]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        await nursery.start(serve_app, Starlette(routes=routes), listener)
        yield listener.getsockname()[1]
        nursery.cancel_scope.cancel()


async def said(stream) -> bytes:
    """All that comes until the other side ends."""
    found = b""
    async with stream:
        while part := await stream.receive_some(65_536):
            found += part
    return found


async def begun(port, head: str):
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    await stream.send_all(f"POST / HTTP/1.1\r\nhost: x\r\n{head}\r\n\r\n".encode())
    return stream


@pytest.mark.parametrize("length", [MOST + 1, 10**12, 10**17, 10**30])
async def test_a_body_that_says_it_is_too_large_is_refused_before_a_byte_of_it_comes(port, length):
    with trio.fail_after(10):
        answer = await said(await begun(port, f"content-length: {length}"))
    assert answer.split(b" ", 2)[1] in {b"413", b"400"}  # h11 reads no number of 31 digits


async def test_a_body_that_does_not_say_is_counted(port):
    stream = await begun(port, "transfer-encoding: chunked")
    await stream.send_all(b"1f5\r\n" + b"a" * 501 + b"\r\n1f4\r\n" + b"a" * 500 + b"\r\n")
    with trio.fail_after(10):
        assert b" 413 " in await said(stream)


async def test_a_body_of_just_so_many_bytes_is_read(port):
    stream = await begun(port, f"connection: close\r\ncontent-length: {MOST}")
    await stream.send_all(b"a" * MOST)
    with trio.fail_after(10):
        assert (await said(stream)).endswith(b"1000")


async def test_a_body_that_comes_too_slowly_is_given_up(port, monkeypatch):
    monkeypatch.setattr(bodies, "BODY_SECONDS", 0.1)
    stream = await begun(port, "content-length: 10")
    await stream.send_all(b"12345")
    with trio.fail_after(10):
        answer = await said(stream)
    assert b" 408 " in answer.split(b"\r\n")[0]
    assert json.loads(answer.rpartition(b"\r\n")[2])["error"]["code"] == "network"


async def test_a_client_that_breaks_an_answer_leaves_the_others_served(port):
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    await stream.send_all(b"GET /unwell HTTP/1.1\r\nhost: x\r\n\r\n")
    with trio.fail_after(10):
        assert b"\r\nb:" not in await said(stream)
    again = await begun(port, "connection: close\r\ncontent-length: 2")
    await again.send_all(b"ok")
    with trio.fail_after(10):
        assert (await said(again)).endswith(b"2")


async def test_no_answer_tells_what_serves_it(port):
    stream = await begun(port, "connection: close\r\ncontent-length: 0")
    with trio.fail_after(10):
        assert b"hypercorn" not in (await said(stream)).lower()

"""A page over a source from memory, asked in the same process."""

from __future__ import annotations

import httpx
import pytest

from swarm.page.access import Access
from swarm.page.app import make_app, make_hub
from tests.page.fake_source import FakeSource

TOKEN = "t" * 43
HOST = "http://127.0.0.1:4747"


@pytest.fixture
def source(tmp_path):
    return FakeSource(tmp_path)


@pytest.fixture
def access():
    return Access(TOKEN)


@pytest.fixture
def hub(source):
    return make_hub(source)


@pytest.fixture
def app(source, access, hub):
    return make_app(source, access, hub)


@pytest.fixture
async def stranger(app):
    """A browser that was not let in."""
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url=HOST) as client:
        yield client


@pytest.fixture
async def browser(app, access):
    """A browser with a session, on the page itself."""
    transport = httpx.ASGITransport(app=app)
    headers = {"origin": HOST, "sec-fetch-site": "same-origin"}
    async with httpx.AsyncClient(transport=transport, base_url=HOST, headers=headers) as client:
        answer = await client.post("/api/session", json={"code": access.new_code()})
        client.headers["x-swarm-key"] = answer.json()["value"]["key"]
        yield client

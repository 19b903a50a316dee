"""A path of this machine need not be UTF-8: it goes to the node and back as it is, and nothing else does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio

from swarm.async_client import AsyncClient
from swarm.client import Client
from swarm.control.service import serve
from swarm.errors import UsageError
from tests.control.fake_node import CID, PEER, FakeNode

ODD = Path(os.fsdecode(b"/nowhere/caf\xe9"))
NO_TEXT = "\udcff"


class PathNode(FakeNode):
    """Says of paths what a real one would."""

    async def publish(self, path, name, progress, **options):
        del options
        progress("hash", 1, 2, f"reading {path}")
        path.stat()

    async def get(self, cid, path, progress, source):
        del progress, source
        return {"cid": cid, "path": str(path)}

    async def entries(self, cid, path):
        del cid, path
        return [{"name": NO_TEXT}]


@pytest.fixture
async def home(tmp_path, nursery):
    await nursery.start(serve, PathNode(tmp_path), tmp_path / "control.sock")
    return tmp_path


@pytest.fixture(params=[Client, AsyncClient])
async def ask(request, home):
    """Asks with either client: a method by its name."""

    async def by_thread(name, *given, **named):
        with Client.of_home(home) as client:
            call = getattr(client, name)
            return await trio.to_thread.run_sync(lambda: call(*given, **named))

    async def awaited(name, *given, **named):
        async with AsyncClient.of_home(home) as client:
            return await getattr(client, name)(*given, **named)

    return by_thread if request.param is Client else awaited


async def test_a_result_with_such_a_path_is_told(ask):
    assert await ask("get", CID, ODD) == {"cid": CID, "path": str(ODD)}
    assert await ask("entries", CID) == [{"name": NO_TEXT}]


async def test_an_error_about_such_a_path_is_the_error_and_no_end_of_the_node(ask):
    with pytest.raises(UsageError, match="No such file") as told:
        await ask("publish", ODD, progress=lambda *_: None)
    assert told.value.message.startswith(str(ODD))


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("scoreboard", [NO_TEXT]),
        ("balance", [NO_TEXT]),
        ("send", [PEER + NO_TEXT, 1]),
        ("publish", [Path("/x"), NO_TEXT]),
        ("read", [CID, NO_TEXT]),
        ("get", [CID, Path("/\ud800")]),
    ],
)
async def test_what_is_no_path_of_this_machine_has_to_be_utf_8(ask, name, given):
    with pytest.raises(UsageError, match=r"not UTF-8|not an absolute path"):
        await ask(name, *given)

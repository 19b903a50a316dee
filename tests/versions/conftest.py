"""Two nodes with datasets behind real control sockets, in a thread of their own."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass

import pytest
import structlog
import trio

from cli.main import main
from swarm.control.service import serve
from tests.control.fake_node import FakeNode
from tests.protocols.exchange.conftest import Node as Peer
from tests.protocols.exchange.conftest import open_neighbourhood
from tests.versions.world import ALICE, BOB, Names, versions_of


@dataclass
class Pair:
    """Two nodes and the ledger that they share."""

    homes: list[str]
    peers: list[Peer]
    names: Names


@pytest.fixture
def _quiet():
    """The nodes share this process's stdout with the command, which a log would spoil."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    yield
    structlog.reset_defaults()


@pytest.fixture
def pair(tmp_path, monkeypatch, _quiet):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    homes = [tmp_path / "home-a", tmp_path / "home-b"]
    found = Pair([str(home) for home in homes], [], Names())
    ready = threading.Event()
    stop = []

    async def run():
        async with open_neighbourhood() as near, trio.open_nursery() as nursery:
            token = trio.lowlevel.current_trio_token()
            stop.append(lambda: token.run_sync_soon(nursery.cancel_scope.cancel))
            for home, signer in zip(homes, (ALICE, BOB), strict=True):
                home.mkdir()
                peer = await near.node()
                node = FakeNode(home)
                node.versions = versions_of(peer, signer, home, found.names)
                found.peers.append(peer)
                await nursery.start(serve, node, home / "control.sock")
            ready.set()

    thread = threading.Thread(target=trio.run, args=(run,))
    thread.start()
    assert ready.wait(10)
    yield found
    stop[0]()
    thread.join()


@pytest.fixture
def swarm(capsys, pair):
    """Run `swarm dataset …` on one of the nodes; gives its exit code, stdout and stderr."""

    def run(*arguments, node=0):
        code = main(["dataset", *map(str, arguments), "--home", pair.homes[node]])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run

import threading

import pytest
import trio

from cli import advice
from cli.main import main
from swarm.control.service import serve
from tests.control.fake_node import FakeNode


@pytest.fixture(autouse=True)
def _own_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("SWARM_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    advice.note(None)


@pytest.fixture
def node(tmp_path):
    """A fake node behind a real socket on SWARM_HOME, in a thread of its own."""
    node = FakeNode(tmp_path / "home")
    ready = threading.Event()
    stop = []

    async def run():
        async with trio.open_nursery() as nursery:
            token = trio.lowlevel.current_trio_token()
            stop.append(lambda: token.run_sync_soon(nursery.cancel_scope.cancel))
            await nursery.start(serve, node, node.home / "control.sock")
            ready.set()

    thread = threading.Thread(target=trio.run, args=(run,))
    thread.start()
    assert ready.wait(10)
    yield node
    stop[0]()
    thread.join()


@pytest.fixture
def swarm(capsys):
    """Run a command line; gives its exit code, stdout and stderr."""

    def run(*arguments):
        code = main(list(arguments))
        said = capsys.readouterr()
        return code, said.out, said.err

    return run

"""`swarm publish --in-place`, `pin`, `unpin`, `ls`, `gc` and `verify`: the real command, socket and stores."""

from __future__ import annotations

import json
import random
import threading

import pytest
import trio

from cli.main import main
from storage import cid as cids
from storage import unixfs
from swarm.control.service import serve
from tests.store.nodes import MIB, StoreNode, open_keepers

LIMIT = 12 * MIB


@pytest.fixture
def keepers(tmp_path, monkeypatch, _quiet):
    """A node behind a socket on SWARM_HOME, and a peer of it, in a thread of their own."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("SWARM_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    ready = threading.Event()
    found, stop = [], []

    async def run():
        async with open_keepers(tmp_path, limit=LIMIT) as pair, trio.open_nursery() as nursery:
            token = trio.lowlevel.current_trio_token()
            stop.append(lambda: token.run_sync_soon(nursery.cancel_scope.cancel))
            node = StoreNode(tmp_path / "home", pair[0])
            await nursery.start(serve, node, tmp_path / "home" / "control.sock")
            found.extend(pair)
            ready.set()

    thread = threading.Thread(target=trio.run, args=(run,))
    thread.start()
    assert ready.wait(10)
    yield found
    stop[0]()
    thread.join()


@pytest.fixture
def swarm(keepers, capsys):
    def run(*arguments):
        code = main(list(arguments))
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def file(tmp_path, name, size, seed=0):
    (tmp_path / name).write_bytes(random.Random(seed).randbytes(size))
    return name


def test_content_is_pinned_listed_unpinned_and_its_room_comes_back(keepers, swarm, tmp_path):
    peer = keepers[1]
    (tmp_path / "plays").mkdir()
    file(tmp_path, "plays/one", 2 * MIB)
    root = unixfs.add_path(tmp_path / "plays", peer.store).root
    text = cids.text(root)
    assert swarm("pin", f"ipfs://{text}", "--label", "the plays")[:2] == (0, f"{text}\n")
    code, out, err = swarm("ls")
    assert code == 0
    assert out.splitlines()[1].split(maxsplit=4) == [text, "2.1", "MB", "pin", "the plays"]
    assert "2.1 MB used, 10.5 MB free" in err
    (listed,) = (json.loads(line) for line in swarm("ls", "--json")[1].splitlines())
    assert (listed["kind"], listed["label"]) == ("pin", "the plays")
    assert [
        json.loads(swarm("ls", f"{text}{path}", "--json")[1])["size"] for path in ("", "/one")
    ] == [2 * MIB] * 2
    assert swarm("pin", text)[0] == 0
    assert keepers[0].store.pins() == {root: "the plays"}
    assert swarm("unpin", text)[:2] == (0, f"{text}\n")
    assert swarm("unpin", text)[0] == 3
    assert swarm("ls", "--json")[1] == ""
    code, out, _ = swarm("gc")
    assert (code, out) == (0, "2.1 MB freed, 4 chunks dropped\n")
    assert keepers[0].store.usage().used == 0
    assert json.loads(swarm("gc", "--json")[1])["freed"] == 0


@pytest.mark.parametrize("command", ["pin", "unpin", "verify", "ls"])
def test_what_is_no_cid_is_refused_before_the_node_is_asked(swarm, command):
    code, _, err = swarm(command, "bafy")
    assert code == 2
    assert "CID" in err


def test_a_full_quota_is_exit_4_and_names_gc_where_that_would_help(keepers, swarm, tmp_path):
    first = json.loads(swarm("publish", file(tmp_path, "first", 8 * MIB), "--json")[1])["cid"]
    large = file(tmp_path, "second", 8 * MIB, 2)
    code, _, err = swarm("publish", large)
    assert code == 4
    assert "hint: lend more" in err
    assert swarm("unpin", first)[0] == 0
    code, _, err = swarm("publish", large)
    assert code == 4
    assert "hint: `swarm gc` gives up to 8.4 MB back\n" in err
    code, _, err = swarm("publish", file(tmp_path, "third", 40 * MIB, 3))
    assert code == 4
    assert "8.4 MB back, which is not enough: lend more" in err
    assert swarm("gc")[0] == 0
    assert swarm("publish", large)[0] == 0


def test_verify_exits_1_while_something_bad_remains(keepers, swarm, tmp_path):
    name = file(tmp_path, "data", 3 * MIB)
    code, out, err = swarm("publish", name, "--in-place")
    root = out.strip()
    assert code == 0
    assert "nothing was copied" in err
    assert keepers[0].store.usage().used < 5_000
    assert swarm("verify")[:2] == (0, "")
    unixfs.add_path(tmp_path / name, keepers[1].store)
    file(tmp_path, name, 2 * MIB, 3)
    code, out, err = swarm("verify")
    assert (code, out) == (
        1,
        f"{root}  3 chunks, 3 bad; {tmp_path / name} is not what was published\n",
    )
    assert "hint: `swarm verify --repair`" in err
    code, out, _ = swarm("verify", "--repair")
    assert (code, out) == (0, f"{root}  3 chunks, repaired\n")
    told = json.loads(swarm("verify", root, "--json")[1])
    assert (told["bad"], told["remaining"], told["bytes"] > 3 * MIB) == ([], 0, True)


def test_the_marker_of_a_working_folder_is_no_part_of_what_is_published(swarm, tmp_path):
    (tmp_path / "plays").mkdir()
    (tmp_path / "plays" / "one").write_text("to be")
    plain = swarm("publish", "plays", "--only-hash")[1]
    (tmp_path / "plays" / ".swarm-dataset").write_text("{}")
    (tmp_path / "plays" / "inner").mkdir()
    inner = swarm("publish", "plays", "--only-hash")[1]
    assert swarm("publish", "plays")[1] == inner != plain
    assert swarm("publish", "plays", "--in-place")[1] == inner
    (tmp_path / "plays" / "inner").rmdir()
    assert swarm("publish", "plays")[1] == plain

"""`swarm car`: against a node that has content, over its real socket."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import trio

import cli
from cli.commands.car import _write
from storage import car, unixfs
from storage import cid as cids
from storage.unixfs_nodes import Link, folder_node
from swarm.control.service import serve
from swarm.errors import RefusedError
from tests.gateway.reading import ContentNode, open_pair


@pytest.fixture
def pair(tmp_path):
    """A peer that gives, and one that holds nothing behind a socket on SWARM_HOME, in a thread of their own."""
    ready = threading.Event()
    found = []

    async def run():
        async with open_pair() as (giver, taker, ranges), trio.open_nursery() as nursery:
            socket = tmp_path / "home" / "control.sock"
            await nursery.start(serve, ContentNode(taker, ranges), socket)
            found.extend([giver, taker, trio.lowlevel.current_trio_token(), nursery.cancel_scope])
            ready.set()

    thread = threading.Thread(target=trio.run, args=(run,))
    thread.start()
    assert ready.wait(10)
    giver, taker, token, scope = found
    yield giver, taker
    token.run_sync_soon(scope.cancel)
    thread.join()


@pytest.fixture
def root(pair, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "file").write_bytes(bytes(3 * 2**20))
    (folder / "small").write_text("hello")
    return unixfs.add_path(folder, pair[0].store).root


def test_content_is_exported_and_imported_again(pair, root, swarm, tmp_path):
    code, out, err = swarm("car", "export", f"ipfs://{cids.text(root)}", "-o", "out.car")
    assert code == 0, err
    assert out.endswith("out.car\n")
    data = (tmp_path / "out.car").read_bytes()
    assert data == b"".join(car.export([root], pair[0].store))
    assert [path.name for path in tmp_path.iterdir() if "part" in path.name] == []
    pair[1].store.chunks.clear()
    code, out, err = swarm("car", "import", "out.car")
    assert code == 0
    assert out.endswith(f"{cids.text(root)}\n")
    assert pair[1].store.pins() == {root: "out.car"}
    assert pair[1].store.chunks == pair[0].store.chunks
    assert swarm("car", "export", cids.text(root), "-o", "out.car")[0] == 4


def test_an_export_is_told_in_json_and_only_where_a_file_takes_the_content(
    pair, root, swarm, tmp_path
):
    code, out, err = swarm("car", "export", f"swarm://{cids.text(root)}", "-o", "x.car", "--json")
    size = (tmp_path / "x.car").stat().st_size
    assert code == 0, err
    told = json.loads(out.splitlines()[-1])
    assert told == {"cid": cids.text(root), "path": "x.car", "bytes": size}
    code, out, err = swarm("car", "export", cids.text(root), "-o", "-", "--json")
    assert (code, out) == (2, "")
    assert "hint: name a file with -o" in err


def test_an_import_of_a_root_that_is_not_whole_is_refused_and_the_rest_may_come(
    pair, root, swarm, tmp_path
):
    block = pair[0].store.get(root)
    (tmp_path / "part.car").write_bytes(car.header([root]) + car.section(root, block))
    code, out, err = swarm("car", "import", "part.car")
    assert (code, out) == (4, "")
    assert f"part.car: {cids.text(root)} is not whole: chunk baf" in err
    assert pair[1].store.pins() == {}
    rest = [(cid, block) for cid, block in car.walk([root], pair[0].store) if cid != root]
    sections = b"".join(car.section(cid, block) for cid, block in rest)
    (tmp_path / "rest.car").write_bytes(car.header([root]) + sections)
    told = json.loads(swarm("car", "import", "rest.car", "--json")[1])
    held = sum(map(len, pair[1].store.chunks.values()))
    assert told["roots"] == [{"cid": cids.text(root), "size": held}]
    assert pair[1].store.pins() == {root: "rest.car"}


def test_an_import_of_a_root_that_claims_more_than_there_is_is_refused(pair, swarm, tmp_path):
    leaf = cids.of_raw(b"0")
    built, block = folder_node([Link(leaf, "file", 10**18)])
    good = cids.of_raw(b"good")
    sections = car.section(built.cid, block) + car.section(leaf, b"0") + car.section(good, b"good")
    (tmp_path / "liar.car").write_bytes(car.header([good, built.cid]) + sections)
    code, out, err = swarm("car", "import", "liar.car")
    assert (code, out) == (4, "")
    assert "1,000,000,000,000,000,000 bytes are below 'file', where 1 are" in err
    assert pair[1].store.pins() == {}


def test_two_exports_to_one_file_do_not_take_each_others_part_away(tmp_path):
    target = tmp_path / "x.car"

    def first():
        yield b"one"
        _write([b"two"], target)
        yield b"more"

    with pytest.raises(RefusedError, match="is there already"):
        _write(first(), target)
    assert target.read_bytes() == b"two"
    assert list(tmp_path.iterdir()) == [target]


def test_an_export_that_ends_early_leaves_nothing_of_its_own_and_touches_no_other(tmp_path):
    target, left = tmp_path / "x.car", tmp_path / ".x.car.part"
    left.write_bytes(b"of one that was killed")

    def broken():
        yield b"one"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _write(broken(), target)
    assert list(tmp_path.iterdir()) == [left]
    _write([b"whole"], target)
    assert target.read_bytes() == b"whole"


def test_an_import_of_a_pipe_is_refused_at_once(pair, swarm, tmp_path):
    os.mkfifo(tmp_path / "pipe.car")
    code, out, err = swarm("car", "import", "pipe.car")
    assert (code, out) == (2, "")
    assert "pipe.car is not a file" in err
    assert pair[1].store.pins() == {}


def test_a_file_that_is_no_car_is_refused(pair, root, swarm, tmp_path):
    (tmp_path / "none.car").write_bytes(b"not a CAR file at all")
    code, _, err = swarm("car", "import", "none.car")
    assert code == 2
    assert err.startswith("error: none.car: a CAR file")
    assert swarm("car", "export", "none")[0] == 2


def test_a_chunk_that_is_not_what_its_name_says_is_refused_as_a_fault_of_the_file(
    pair, root, swarm, tmp_path
):
    bad = car.section(cids.of_raw(b"hello"), b"hellO")
    (tmp_path / "bad.car").write_bytes(car.header([root]) + bad)
    code, _, err = swarm("car", "import", "bad.car")
    assert code == 2
    assert err.startswith("error: bad.car: the bytes of chunk bafk")
    assert pair[1].store.chunks == {}


@pytest.mark.slow
def test_an_export_goes_to_standard_output(pair, root, tmp_path):
    command = [sys.executable, "-m", "cli", "car", "export", cids.text(root), "-o", "-"]
    done = subprocess.run(
        command, cwd=Path(cli.__file__).parents[1], capture_output=True, check=True
    )
    assert done.stdout == b"".join(car.export([root], pair[0].store))


def test_modes_change_the_cid_only_when_they_are_kept(swarm, tmp_path):
    (tmp_path / "run").write_text("#!/bin/sh\n")
    (tmp_path / "run").chmod(0o755)
    plain = swarm("publish", "run", "--only-hash")[1]
    kept = swarm("publish", "run", "--only-hash", "--preserve-mode")[1]
    assert plain.strip() == cids.text(cids.of_raw(b"#!/bin/sh\n"))
    assert kept.strip() == cids.text(unixfs.hash_path(tmp_path / "run", preserve_mode=True).root)
    assert kept != plain

"""How the nodes of one machine find each other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import trio

from swarm.errors import RefusedError
from swarm.heights import Heights
from swarm.machine import Machine

if TYPE_CHECKING:
    from pathlib import Path


def test_a_running_node_is_found_and_a_stopped_one_is_not(tmp_path) -> None:
    machine = Machine(tmp_path / "run")
    machine.enter(b"c" * 32, ["/ip4/127.0.0.1/tcp/1/p2p/x"])
    (found,) = machine.running()
    assert (found.pid, found.chain_id) == (os.getpid(), (b"c" * 32).hex())
    machine.leave()
    assert machine.running() == []


def _left_behind(machine: Machine, folder: Path, step: float) -> Path:
    """A file that nobody holds, whose process started so many seconds later than it says."""
    machine.enter(b"c" * 32, [])
    (path,) = folder.glob("*.node")
    record = json.loads(path.read_text())
    machine.leave()
    path.write_text(json.dumps(record | {"created": record["created"] - step}))
    return path


def test_the_file_of_a_killed_node_and_of_a_reused_pid_is_removed(tmp_path) -> None:
    machine = Machine(tmp_path / "run")
    path = _left_behind(machine, tmp_path / "run", 60)
    assert machine.running() == []
    assert not path.exists()


def test_a_node_of_an_older_version_which_holds_no_lock_is_found(tmp_path) -> None:
    machine = Machine(tmp_path / "run")
    path = _left_behind(machine, tmp_path / "run", 0)
    assert len(machine.running()) == 1
    assert path.exists()


def test_a_step_of_the_clock_does_not_make_a_running_node_a_dead_one(tmp_path) -> None:
    machine = Machine(tmp_path / "run")
    for _ in range(2):  # it enters again when its addresses change
        machine.enter(b"c" * 32, [])
        (path,) = (tmp_path / "run").glob("*.node")
        record = json.loads(path.read_text())
        path.write_text(json.dumps(record | {"created": record["created"] + 7200}))
        assert len(Machine(tmp_path / "run").running()) == 1
        assert path.exists()


@pytest.mark.slow
def test_a_killed_node_holds_its_file_no_longer(tmp_path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from swarm.machine import Machine\n"
        "m = Machine(Path(sys.argv[1])); m.enter(b'c' * 32, []); print(flush=True); time.sleep(60)"
    )
    folder = tmp_path / "run"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE
    ) as node:
        assert node.stdout is not None
        node.stdout.readline()
        (found,) = Machine(folder).running()
        assert found.pid == node.pid
        node.kill()
    assert Machine(folder).running() == []
    assert not list(folder.glob("*.node"))


def test_garbage_in_the_folder_is_no_node(tmp_path) -> None:
    machine = Machine(tmp_path / "run")
    whole = '{"pid": %s, "created": 1, "chain_id": "", "addresses": []}'
    texts = ["[]", "{", '{"pid": "x"}', whole % "1e999", whole % -1, whole % 10**30]
    for at, text in enumerate(texts):
        (tmp_path / "run" / f"{at}.node").write_text(text)
    assert machine.running() == []


def test_a_folder_that_was_removed_under_a_running_node_is_made_again(tmp_path) -> None:
    machine = Machine(tmp_path / "run")
    (tmp_path / "run").rmdir()
    machine.enter(b"c" * 32, [])
    assert len(machine.running()) == 1


def test_only_one_node_at_a_time_decides(tmp_path) -> None:
    machine = Machine(tmp_path / "run")
    first = machine.decide()
    assert first is not None
    assert machine.decide() is None
    first.release()
    second = machine.decide()
    assert second is not None
    second.release()


async def test_a_waiting_task_wakes_at_the_next_height_only(autojump_clock) -> None:
    heights, seen = Heights(4), []

    async def wait() -> None:
        seen.append(await heights.above(4))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.sleep(1)
        heights.move(4)
        await trio.sleep(1)
        assert seen == []
        heights.move(6)
    assert seen == [6]
    assert await heights.above(5) == 6


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_a_folder_that_another_user_made_is_refused(tmp_path):
    for given in (tmp_path / "itself", tmp_path / "above"):
        folder = given if given.name == "itself" else given / "swarm"
        folder.mkdir(parents=True)
        os.chown(given, 12345, -1)
        with pytest.raises(RefusedError, match="belongs to another user"):
            Machine(folder)

import errno
import fcntl
import os
import stat
import subprocess
import sys
import threading

import pytest

from swarm.errors import RefusedError
from swarm.identity import KEY_FILE, Identity, NodeLock, is_held


def test_a_key_is_made_once_and_is_for_its_owner_alone(tmp_path):
    home = tmp_path / "deep" / "home"
    first = Identity.load_or_create(home)
    assert Identity.load_or_create(home).peer == first.peer
    assert first.peer.startswith("12D3KooW")
    assert stat.S_IMODE((home / KEY_FILE).stat().st_mode) == 0o600
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert [path.name for path in home.iterdir()] == [KEY_FILE]


@pytest.mark.parametrize(
    "text", ["", "swarm-identity 2\n" + "00" * 32 + "\n", "swarm-identity 1\nzz\n"]
)
def test_a_damaged_key_file_is_refused_and_left_alone(tmp_path, text):
    path = tmp_path / KEY_FILE
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(RefusedError, match="damaged"):
        Identity.load_or_create(tmp_path)
    assert path.read_text() == text


def test_a_key_file_that_others_can_read_is_refused(tmp_path):
    Identity.load_or_create(tmp_path)
    (tmp_path / KEY_FILE).chmod(0o644)
    with pytest.raises(RefusedError, match="0644"):
        Identity.load_or_create(tmp_path)


def test_a_second_node_on_a_folder_is_refused_with_the_first_ones_process_id(tmp_path):
    with NodeLock(tmp_path), pytest.raises(RefusedError, match=f"process {os.getpid()}$"):
        NodeLock(tmp_path)
    NodeLock(tmp_path).close()


def test_the_node_of_one_command_is_waited_for_and_not_killed(tmp_path):
    with (
        NodeLock(tmp_path, is_temporary=True),
        pytest.raises(RefusedError, match="a command's own node") as caught,
    ):
        NodeLock(tmp_path)
    assert "has ended" in caught.value.hint


@pytest.mark.slow
def test_a_node_that_was_killed_holds_no_lock(tmp_path):
    code = f"from pathlib import Path; from swarm.identity import NodeLock; import os, sys; lock = NodeLock(Path({str(tmp_path)!r})); os._exit(9)"
    ended = subprocess.run([sys.executable, "-c", code], check=False)
    assert ended.returncode == 9
    NodeLock(tmp_path).close()


def test_a_folder_that_cannot_be_locked_is_not_told_as_another_nodes(tmp_path, monkeypatch):
    NodeLock(tmp_path).close()  # whose process id stays in the file

    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(RefusedError, match="cannot be locked: No locks available") as caught:
        NodeLock(tmp_path)
    assert "kill" not in caught.value.hint


def test_a_lock_without_a_process_id_sends_nobody_to_kill_it(tmp_path):
    with NodeLock(tmp_path):
        (tmp_path / "node.lock").write_text("")
        with pytest.raises(RefusedError, match="process unknown") as caught:
            NodeLock(tmp_path)
    assert caught.value.hint is None


def test_what_cannot_be_read_or_written_in_a_data_folder_is_told_as_that(tmp_path):
    (tmp_path / "node.lock").mkdir()
    with pytest.raises(RefusedError, match="nothing can be written in the data folder"):
        NodeLock(tmp_path)
    (tmp_path / KEY_FILE).mkdir()
    with pytest.raises(RefusedError, match=r"identity\.key cannot be read: Is a directory"):
        Identity.load_or_create(tmp_path)


def test_a_key_that_cannot_be_written_is_told_as_that(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)  # a file system without them
    with pytest.raises(RefusedError, match=r"identity\.key cannot be written: Operation not"):
        Identity.load_or_create(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_who_only_looks_whether_a_folder_is_held_refuses_it_to_no_node(tmp_path):
    NodeLock(tmp_path).close()
    over = threading.Event()

    def look():
        while not over.is_set():
            is_held(tmp_path)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        for _ in range(200):
            NodeLock(tmp_path).close()
    finally:
        over.set()
        looking.join()
    with NodeLock(tmp_path):
        assert is_held(tmp_path)
        with pytest.raises(RefusedError):
            NodeLock(tmp_path)

"""A node whose files are damaged says so, says what to do, and ends with the exit code for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from storage.consensus_log import ConsensusLog
from tests.storage import state_faults

pytestmark = pytest.mark.slow


def join(home):
    runtime = home.parent / "runtime"
    runtime.mkdir(mode=0o700, exist_ok=True)
    return subprocess.run(
        [sys.executable, "-m", "cli", "join", "--home", str(home), "--listen", "127.0.0.1:0"],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"XDG_RUNTIME_DIR": str(runtime)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_ledger_that_was_cut_is_refused_with_what_to_do(tmp_path):
    home = tmp_path / "home"
    file = state_faults.made(home / "ledger")
    os.truncate(file, file.stat().st_size // 2)
    done = join(home)
    assert done.returncode == 4, done.stderr
    assert "bytes are there" in done.stderr
    assert "hint: put a copy of that folder back, or move it away" in done.stderr


def test_a_vote_log_with_damage_in_its_middle_is_refused_with_what_to_do(tmp_path):
    home = tmp_path / "home"
    path = home / "consensus.log"
    with ConsensusLog(path) as log:
        for number in range(3):
            log.append([b"vote %d" % number])
    data = bytearray(path.read_bytes())
    data[data.index(b"vote 1")] ^= 1
    path.write_bytes(data)
    done = join(home)
    assert done.returncode == 4, done.stderr
    assert "hint: move it away and leave the ledger in place" in done.stderr

"""A ledger's state whose process is killed, whose file is cut or changed, and whose disk is full."""

from __future__ import annotations

import collections
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.storage import state_faults


def run(what, folder, seed=None):
    """One kind of fault, in processes of its own."""
    seed = random.randrange(2**32) if seed is None else seed
    done = subprocess.run(
        [sys.executable, "-m", "tests.storage.state_faults", what, str(folder), str(seed)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"seed {seed}: {done.stderr}"
    outcomes = [int(line) for line in done.stdout.split()]
    assert state_faults.WRONG not in outcomes, f"seed {seed}: {done.stderr}"
    return outcomes


@pytest.mark.slow
def test_a_store_killed_forty_times_while_it_commits_holds_all_that_it_told_of(tmp_path):
    (height,) = run("kills", tmp_path / "state")
    assert height >= state_faults.KILLS - 1


@pytest.mark.slow
def test_a_file_that_was_cut_is_refused_with_what_to_do_and_does_not_end_the_process(tmp_path):
    outcomes = run("torn", tmp_path)
    assert len(outcomes) > 10
    assert set(outcomes) == {state_faults.REFUSED}


@pytest.mark.slow
@pytest.mark.parametrize("seed", [124, None], ids=["a key becomes another one's", "any"])
def test_a_file_with_changed_bytes_is_refused_or_reads_as_it_was(tmp_path, seed):
    outcomes = collections.Counter(run("damage", tmp_path, seed))
    assert outcomes[state_faults.REFUSED] >= state_faults.FLIPS // 3
    # A page of LMDB's own may be read past its end: then the process ends, and nothing wrong is told.
    assert outcomes[state_faults.REFUSED] + outcomes[state_faults.SAME] > state_faults.FLIPS * 0.9


@pytest.mark.slow
def test_a_full_disk_ends_a_commit_by_name_and_leaves_the_height_before(tmp_path):
    assert run("full", tmp_path) == [state_faults.FULL]

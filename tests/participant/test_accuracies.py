"""Accuracies are known again after a restart, within bounds, and a broken file costs nothing else."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from storage import cid as cids
from swarm.participant import accuracies
from swarm.participant.accuracies import Accuracies

if TYPE_CHECKING:
    from pathlib import Path

ROOTS = [cids.of_raw(bytes([at])) for at in range(4)]


def test_the_newest_measure_of_a_checkpoint_is_known_after_a_restart(tmp_path: Path) -> None:
    known = Accuracies(tmp_path / "accuracies")
    assert known.of(ROOTS[0]) is None
    known.note(ROOTS[0], None)
    assert not (tmp_path / "accuracies").exists()
    for share in (0.5, 0.75):
        known.note(ROOTS[0], share)
    assert Accuracies(tmp_path / "accuracies").of(ROOTS[0]) == 0.75


def test_those_that_were_measured_first_go_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accuracies, "MAX_KEPT", 2)
    known = Accuracies(tmp_path / "accuracies")
    for at in (0, 1, 0, 2):
        known.note(ROOTS[at], 0.1 * at)
    for one in (known, Accuracies(tmp_path / "accuracies")):
        assert [one.of(root) is not None for root in ROOTS[:3]] == [True, False, True]


def test_what_cannot_be_written_is_known_until_the_next_start_and_fails_nothing(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").write_bytes(b"no folder")
    known = Accuracies(tmp_path / "file" / "accuracies")
    known.note(ROOTS[0], 0.5)
    assert known.of(ROOTS[0]) == 0.5


def test_two_threads_note_what_they_measured_at_once(tmp_path: Path) -> None:
    known = Accuracies(tmp_path / "accuracies")
    roots = [[cids.of_raw(bytes([thread, at])) for at in range(40)] for thread in range(2)]
    with ThreadPoolExecutor(2) as pool:
        for _ in pool.map(lambda mine: [known.note(root, 0.5) for root in mine], roots):
            pass
    again = Accuracies(tmp_path / "accuracies")
    assert [again.of(root) for one in roots for root in one] == [0.5] * 80


@pytest.mark.parametrize("content", [b"{", b"[1]", b'{"x": "y"}', b"[" * 10_000, b"\xff"])
def test_a_broken_file_is_no_measure(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "accuracies").write_bytes(content)
    known = Accuracies(tmp_path / "accuracies")
    known.note(ROOTS[0], 1.0)
    assert Accuracies(tmp_path / "accuracies").of(ROOTS[0]) == 1.0

"""Kept encodings are a cache: whatever their disk does costs the making of a record anew, and no job."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from swarm.training.drawers import EDGE_BYTES, ENDING, ROOM_EVERY, Drawers

if TYPE_CHECKING:
    from pathlib import Path

RECORD = np.dtype([("values", "u1", (5000,))])
ONE = np.full(1, 7, RECORD)[0]


def test_two_drawers_that_do_not_fit_beside_each_other_cost_no_job(tmp_path: Path) -> None:
    drawers = Drawers(tmp_path, limit=ROOM_EVERY * (RECORD.itemsize + EDGE_BYTES) + 20_000)
    dataset, pool = drawers.open("a" * 64, RECORD), drawers.open("b" * 64, RECORD)
    assert dataset is not None
    assert pool is not None
    for index in range(3 * ROOM_EVERY):
        for drawer in (dataset, pool):
            drawer.put(index, ONE)
            assert drawer.get(index) in (None, ONE)


def test_a_full_disk_costs_the_record_and_not_the_job(tmp_path: Path) -> None:
    (tmp_path / ("c" * 64 + ENDING)).symlink_to("/dev/full")
    drawer = Drawers(tmp_path).open("c" * 64, RECORD)
    assert drawer is not None
    drawer.put(0, ONE)
    assert drawer.get(0) is None


def test_a_drawer_that_the_worker_removes_meanwhile_is_counted_as_nothing(tmp_path: Path) -> None:
    (tmp_path / ("d" * 64 + ENDING)).symlink_to(tmp_path / "gone")
    assert Drawers(tmp_path).used == 0

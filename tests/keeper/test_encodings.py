"""Kept encodings lie within what is lent, and a job that finds no room keeps none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from storage.blockstore import SegmentBlockstore
from storage.errors import QuotaError
from swarm.keeper.encodings import SHARE, EncodingSpace
from swarm.keeper.space import LentSpace
from swarm.training.drawers import Drawers
from tests.training.conftest import SPEC as PLAIN
from tests.training.test_finetune import SPEC

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MIB = 2**20
LENT = 64 * MIB
KIND = np.dtype([("x", "u1", (50_000,))])


class Lent:
    """A store, and the one number over it and the encodings."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "encodings"
        self.store = SegmentBlockstore(folder / "store", LENT)
        self.encodings = EncodingSpace(
            self.folder, lambda: LENT, self.claim, lambda: self.space.look()
        )
        self.space = LentSpace(self.store, LENT, self.encodings.taken)

    async def claim(self) -> None:
        self.space.look()


@pytest.fixture
def lent(tmp_path: Path) -> Iterator[Lent]:
    made = Lent(tmp_path)
    yield made
    made.store.close()


def fill(folder: Path, limit: int, records: int, key: str = "a") -> int:
    drawers = Drawers(folder, limit)
    drawer = drawers.open(key * 64, KIND)
    assert drawer is not None
    for at in range(records):
        drawer.put(at, np.ones(1, KIND)[0])
    return drawers.used


async def test_a_job_counts_all_that_it_may_keep_and_then_what_it_kept(lent: Lent) -> None:
    most = LENT // SHARE
    async with lent.encodings.grant(SPEC) as allowed:
        assert allowed == lent.encodings.most == most
        assert lent.store.usage().limit == LENT - most
        used = fill(lent.folder, allowed, 1_000)
        assert 0 < used <= allowed
    assert lent.store.usage().limit == LENT - used
    fill(lent.folder, most, 1_000, "b")
    lent.space.look()
    assert lent.encodings.taken() <= most
    assert lent.store.usage().limit == LENT - lent.encodings.taken()


async def test_a_job_that_finds_no_room_keeps_no_more(lent: Lent) -> None:
    with lent.store.reserve(LENT - MIB):
        async with lent.encodings.grant(SPEC) as allowed:
            assert allowed == 0
            assert fill(lent.folder, allowed, 100) == 0
            assert lent.encodings.taken() == 0
    async with lent.encodings.grant(SPEC) as allowed:
        assert allowed


@pytest.mark.parametrize(
    "spec", [PLAIN, b"not a task", SPEC.replace(b"[model]", b'encodings = "published"\n[model]')]
)
async def test_a_task_that_keeps_none_claims_none(lent: Lent, spec: bytes) -> None:
    async with lent.encodings.grant(spec) as allowed:
        assert allowed == 0
        assert lent.store.usage().limit == LENT
    with pytest.raises(QuotaError):
        lent.store.reserve(LENT + 1)

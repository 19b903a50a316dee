from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bench.adversaries.arena import Arena, Run
from bench.adversaries.attackers import ATTACKS
from swarm.training.spec import parse_spec

if TYPE_CHECKING:
    from tests.training.conftest import Room


def play(room: Room, kind: str) -> Run:
    arena = Arena(parse_spec(room.spec), room.folder / "arena", room.train, room.pool)
    return arena.run(2, ["peer1", "peer2"], ["peer3", "peer4"], ATTACKS[kind])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "reasons"),
    [
        ("sign flip", {"no improvement", "far behind"}),
        ("copies", {"same as an earlier submission"}),
        ("noisy copies", {"same as an earlier submission"}),
        ("malformed", {"malformed file", "not finite"}),
    ],
)
def test_half_of_the_workers_is_hostile_and_earns_nothing(
    room: Room, kind: str, reasons: set[str]
) -> None:
    run = play(room, kind)
    assert (run.hostile.submitted, run.hostile.accepted, run.hostile.paid) == (4, 0, 0)
    assert set(run.hostile.reasons) <= reasons
    assert run.honest.accepted == 4
    assert run.honest.paid > 0

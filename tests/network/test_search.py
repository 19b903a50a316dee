"""When the members are asked for more members."""

from __future__ import annotations

import trio

from swarm.network.search import LOOKUP_S, MAX_LOOKUP_S, Pauses


def times_asked(pauses: Pauses, begin: float, end: float) -> list[float]:
    """When it is asked, for a node that looks each second."""
    found = []
    now = begin
    while now < end:
        if pauses.is_over(now):
            pauses.begin(now)
            found.append(now)
        now += 1
    return found


def test_while_nothing_changes_the_members_are_asked_ever_more_seldom():
    asked = times_asked(Pauses(), 100, 400)
    assert asked == [100, 102, 106, 114, 130, 162, 222, 282, 342]
    assert asked[-1] - asked[-2] == MAX_LOOKUP_S


def test_after_a_change_the_members_are_asked_soon_and_not_at_once():
    pauses = Pauses()
    times_asked(pauses, 100, 165)
    pauses.shorten(170)
    assert times_asked(pauses, 170, 180) == [170 + LOOKUP_S, 174, 178]


async def test_members_that_come_or_go_shorten_the_pause_and_somebody_to_dial_does_not(make):
    search = make(1)._search
    now = trio.current_time()
    for _ in range(4):
        search._pauses.begin(now)
    search.look_again()
    assert not search._pauses.is_over(now + 2 * LOOKUP_S)
    search.members_changed()
    assert search._pauses.is_over(now + 2 * LOOKUP_S)

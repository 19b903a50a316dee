"""Work that failed is tried again, each time after longer."""

from __future__ import annotations

from swarm.participant.tries import Tries


def tried(heights: int, fails: int) -> list[int]:
    """Heights at which work is tried that fails so often."""
    tries: Tries[str] = Tries()
    found = []
    for height in range(heights):
        if tries.are_due("work", height):
            found.append(height)
            if len(found) > fails:
                break
            tries.failed("work", height)
    return found


def test_twice_with_the_next_block_and_then_after_twice_as_many_each_time():
    assert tried(100, 99) == [0, 1, 2, 4, 8, 16, 32, 64]
    assert tried(100, 3) == [0, 1, 2, 4]


def test_what_is_not_kept_is_new_again():
    tries: Tries[str] = Tries()
    for _ in range(3):
        tries.failed("old", 7)
        tries.failed("kept", 7)
    tries.keep(["kept"])
    assert tries.are_due("old", 7)
    assert tries.failures("old") == 0
    assert not tries.are_due("kept", 8)
    assert tries.are_due("kept", 9)
    assert tries.failures("kept") == 3

"""Seeds without end: `python -m tests.simulation.soak [FIRST [COUNT]]`; one number plays one seed again.

A failing seed is printed with the command that repeats it, and the run goes on; the exit code says whether there was one.
"""

# ruff: noqa: T201 - it speaks to who started it
from __future__ import annotations

import sys
import time

from swarm.simulator.memo import remembered
from tests.simulation.plans import drawn, play

SEEDS = 10_000
FIRST = 1_000
"""Those below it are played by every test run."""
EACH_S = 5.0
"""Between two lines of progress."""


def soak(first: int, count: int) -> int:
    """Play seeds; returns how many failed."""
    failed = 0
    began = told = time.monotonic()
    with remembered():
        for done in range(count):
            seed = first + done
            try:
                play(drawn(seed), seed)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
                failed += 1
                print(f"seed {seed}: {type(error).__name__}: {str(error)[:300]}")
                print(f"again: python -m tests.simulation.soak {seed} 1", flush=True)
            now = time.monotonic()
            if now - told >= EACH_S:
                told = now
                left = (now - began) / (done + 1) * (count - done - 1)
                print(
                    f"{done + 1:,} of {count:,} seeds, {failed} failed, {left:,.0f} s left",
                    flush=True,
                )
    print(
        f"{count:,} seeds from {first:,} on in {time.monotonic() - began:,.0f} s, {failed} failed"
    )
    return failed


def main() -> int:
    """Read the command line."""
    numbers = [int(one) for one in sys.argv[1:3]]
    first = numbers[0] if numbers else FIRST
    count = numbers[1] if len(numbers) > 1 else 1 if numbers else SEEDS
    return 1 if soak(first, count) else 0


if __name__ == "__main__":
    sys.exit(main())

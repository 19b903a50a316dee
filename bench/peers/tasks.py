"""How a node under measurement is told what to do: a line of JSON in, a line of JSON out.

A line in: `{"do": "add", "path": …}` or `{"do": "fetch", "name": …, "address": …, "path": …}`; a line out: `{"value": …}`
or `{"error": "…"}`. The first line out is `{"value": "up"}`.
"""

from __future__ import annotations

import json
import os
import sys
from typing import IO


def answers() -> IO[str]:
    """What was stdout; libraries print to stderr from now on."""
    found = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return found


def next_task() -> dict[str, str] | None:
    """The next line in; None at the end."""
    line = sys.stdin.readline()
    return json.loads(line) if line else None


def answer(to: IO[str], value: object) -> None:
    """Say what came of it."""
    print(json.dumps({"value": value}), file=to)


def fail(to: IO[str], error: Exception) -> None:
    """Say that it did not work."""
    print(json.dumps({"error": repr(error)}), file=to)

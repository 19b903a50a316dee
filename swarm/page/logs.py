"""The end of the node's log, as `swarm join` keeps it: one JSON object a line."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    Json = dict[str, Any]

FILE: Final = Path("logs") / "node.jsonl"
LEVELS: Final = ("debug", "info", "warning", "error", "critical")
MAX_BYTES: Final = 512 * 2**10
"""Of the file's end, which are read."""
MAX_LINES: Final = 500
LINES: Final = 100
MAX_CHARS: Final = 2_000
"""Of an event's words, and of all its values together."""
_OWN: Final = frozenset({"event", "level", "timestamp"})


def tail(home: Path, level: str, lines: int) -> list[Json]:
    """The newest events of a level and above, the oldest of them first.

    Args:
        home: The data folder.
        level: One of `LEVELS`.
        lines: How many at most.

    Returns:
        `time` (ISO 8601), `level`, `event`, `values` (text) each; empty where no log is kept.
    """
    try:
        with (home / FILE).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - MAX_BYTES))
            data = file.read(MAX_BYTES)
    except OSError:
        return []
    whole = data.split(b"\n")[1 if size > MAX_BYTES else 0 :]
    return _events(whole, LEVELS[LEVELS.index(level) :], lines)


def changed(home: Path) -> int:
    """A number that is another one when the log is; 0 where none is kept."""
    try:
        return os.stat(home / FILE).st_mtime_ns  # noqa: PTH116 - one call
    except OSError:
        return 0


def _events(lines: list[bytes], levels: Iterable[str], most: int) -> list[Json]:
    wanted = frozenset(levels)
    found: list[Json] = []
    for line in reversed(lines):
        if len(found) == most:
            break
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):  # half a line, while it is written
            continue
        if isinstance(event, dict) and event.get("level") in wanted:
            found.append(_told(event))
    return found[::-1]


def _told(event: Json) -> Json:
    rest = {name: value for name, value in event.items() if name not in _OWN}
    values = " ".join(f"{name}={value}" for name, value in rest.items())
    return {
        "time": str(event.get("timestamp", ""))[:40],
        "level": event["level"],
        "event": str(event.get("event", ""))[:MAX_CHARS],
        "values": values[:MAX_CHARS],
    }

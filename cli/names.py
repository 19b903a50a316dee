"""Names as people type them: `NAME` or `NAME@VERSION`."""

from __future__ import annotations

import re

from swarm.errors import UsageError

_REFERENCE = re.compile(r"([^@\s/]{1,64})(?:@v?(\d{1,18}))?")


def parse_reference(text: str) -> tuple[str, int | None]:
    """Read a name with or without a version.

    Returns:
        The name, and the version or None for the latest.

    Raises:
        UsageError: Of another form.
    """
    match = _REFERENCE.fullmatch(text)
    if match is None or match[1] in {".", ".."}:
        message = f"NAME: {text[:80]!r} is not a name, or a name with a version"
        raise UsageError(message, "write it like tiny-gpt or tiny-gpt@3")
    return match[1], None if match[2] is None else int(match[2])

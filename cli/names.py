"""Names as people type them: `NAME` or `NAME@VERSION`."""

from __future__ import annotations

import re

from swarm.errors import UsageError

_REFERENCE = re.compile(r"([^@\s/]{1,64})(?:@v?(\d{1,18}))?")


_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
"""What the ledger takes as a name."""


def check_name(text: str) -> None:
    """Refuse what the ledger would not take as a new name, before anything is done for it.

    Raises:
        UsageError: Of another form.
    """
    if _NAME.fullmatch(text) is None:
        message = f"--name: {text[:80]!r} is not a name"
        raise UsageError(message, "1 to 63 of a-z, 0-9 and -, and the first is no -")
    from swarm.ledger.names import READS_AS_CID, reads_as_cid

    if reads_as_cid(text):
        message = f"--name: {text} is not a name"
        raise UsageError(message, READS_AS_CID)


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

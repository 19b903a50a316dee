"""Sizes and counts as people read them; imports nothing, so that the command line starts quickly."""

from __future__ import annotations


def format_size(size: int) -> str:
    """A size for people, in powers of 1000: `1.4 GB`."""
    if size < 1000:
        return f"{size} B"
    units = ("kB", "MB", "GB", "TB", "PB", "EB")
    power = next(at for at in range(1, 7) if at == 6 or size / 1000**at < 999.95)
    return f"{size / 1000**power:.1f} {units[power - 1]}"


def counted(count: int, noun: str) -> str:
    """How many there are of what a noun names: `1 peer`, `2,000 peers`, `3 copies`.

    Args:
        count: That.
        noun: In the singular; what stands before it may be part of it.
    """
    if count == 1:
        return f"1 {noun}"
    return f"{count:,} {noun[:-1]}ies" if noun.endswith("py") else f"{count:,} {noun}s"

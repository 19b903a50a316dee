"""Sizes as people read them; imports nothing, so that the command line starts quickly."""

from __future__ import annotations


def format_size(size: int) -> str:
    """A size for people, in powers of 1000: `1.4 GB`."""
    if size < 1000:
        return f"{size} B"
    units = ("kB", "MB", "GB", "TB", "PB", "EB")
    power = next(at for at in range(1, 7) if at == 6 or size / 1000**at < 999.95)
    return f"{size / 1000**power:.1f} {units[power - 1]}"

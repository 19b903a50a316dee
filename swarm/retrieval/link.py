"""How a root is told to somebody: a link, and a picture of it for a telephone."""

from __future__ import annotations

from typing import Final

SCHEME: Final = "swarm://"
QUIET_ZONE: Final = 2
"""Modules of light around the picture."""


def link(cid: str) -> str:
    """The link of a root, which `swarm get` and fsspec take."""
    return SCHEME + cid


def without_scheme(text: str) -> str:
    """A root as people give it: alone, or as a link of ours or of IPFS."""
    return text.removeprefix(SCHEME).removeprefix("ipfs://")


def picture(text: str) -> str | None:
    """A QR code for a terminal, two modules a character; None where the package `segno` is not installed."""
    try:
        import segno
    except ImportError:
        return None
    rows = [list(row) for row in segno.make(text, micro=False).matrix_iter(border=QUIET_ZONE)]
    if len(rows) % 2:
        rows.append([0] * len(rows[0]))
    halves = {(0, 0): "█", (0, 1): "▀", (1, 0): "▄", (1, 1): " "}
    lines = (
        "".join(halves[bool(upper), bool(lower)] for upper, lower in zip(above, below, strict=True))
        for above, below in zip(rows[::2], rows[1::2], strict=True)
    )
    return "\n".join(lines)

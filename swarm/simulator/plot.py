"""Plots that need nothing: blocks of Unicode for a terminal, and lines of SVG for a file."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_EIGHTHS = " ▁▂▃▄▅▆▇█"
ROWS = 6
BAR_COLUMNS = 40
SVG_WIDTH, SVG_HEIGHT, SVG_MARGIN = 720, 240, 48


def line(values: Sequence[int | None], unit: str, seconds: float) -> list[str]:
    """A series over time as columns; where there is no value there is no column.

    Args:
        values: Equal pieces of time, not negative.
        unit: Of the values.
        seconds: The whole time.
    """
    top = max((value for value in values if value is not None), default=0)
    if top == 0:
        return ["no values"]
    label = f"{top:,} {unit}"
    drawn = []
    for row in range(ROWS - 1, -1, -1):
        cells = ""
        for value in values:
            filled = 0 if value is None else -(-value * ROWS * 8 // top) - row * 8
            cells += _EIGHTHS[max(0, min(8, filled))]
        side = label if row == ROWS - 1 else "0" if row == 0 else ""
        drawn.append(f"{side:>{len(label)}} ┤{cells}".rstrip())
    drawn.append(" " * len(label) + " └" + "─" * len(values))
    drawn.append(" " * (len(label) + 2) + f"0 s{f'{seconds:,.0f} s':>{max(0, len(values) - 3)}}")
    return drawn


def bars(rows: Sequence[tuple[str, float, str]]) -> list[str]:
    """A bar each: what it is, how long, and what is written at its end."""
    top = max((length for _, length, _ in rows), default=0)
    width = max((len(name) for name, _, _ in rows), default=0)
    drawn = []
    for name, length, told in rows:
        eighths = round(length * BAR_COLUMNS * 8 / top) if top > 0 else 0
        bar = "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()
        drawn.append(f"{name:<{width}}  {bar} {told}".rstrip())
    return drawn


def svg(values: Sequence[int | None], unit: str, seconds: float, title: str) -> str:
    """The same series as a line in a file of its own."""
    top = max((value for value in values if value is not None), default=0) or 1
    across = (SVG_WIDTH - 2 * SVG_MARGIN) / max(1, len(values) - 1)
    up = (SVG_HEIGHT - 2 * SVG_MARGIN) / top
    base = SVG_HEIGHT - SVG_MARGIN
    pieces: list[list[str]] = [[]]
    for at, value in enumerate(values):
        if value is None:
            pieces.append([])
        else:
            pieces[-1].append(f"{SVG_MARGIN + at * across:.1f},{base - value * up:.1f}")
    drawn = [
        f'<polyline points="{" ".join(piece)}" fill="none" stroke="#2563eb" stroke-width="2"'
        ' stroke-linecap="round"/>'
        for piece in pieces
        if piece
    ]
    right = SVG_WIDTH - SVG_MARGIN
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {SVG_WIDTH} {SVG_HEIGHT}"'
            ' font-family="sans-serif" font-size="12">',
            f'<rect width="{SVG_WIDTH}" height="{SVG_HEIGHT}" fill="white"/>',
            f'<text x="{SVG_MARGIN}" y="24">{escape(title)}</text>',
            f'<path d="M{SVG_MARGIN} {SVG_MARGIN}V{base}H{right}" fill="none" stroke="#888"/>',
            f'<text x="{SVG_MARGIN}" y="{SVG_MARGIN - 6}">{top:,} {escape(unit)}</text>',
            f'<text x="{SVG_MARGIN}" y="{base + 18}">0 s</text>',
            f'<text x="{right}" y="{base + 18}" text-anchor="end">{seconds:,.0f} s</text>',
            *drawn,
            "</svg>",
            "",
        ]
    )

"""A curve of few values: points of Braille for a terminal, or a drawing of its own for a file."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

ROWS = 8
COLUMNS = 60
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Bits of a Braille letter by row and column."""
_BLANK = 0x2800
WIDTH, HEIGHT, MARGIN = 720, 280, 56

Point = tuple[float, float]


def curve(points: Sequence[Point], first: str, last: str) -> list[str]:
    """Lines of text with the points joined.

    Args:
        points: (x, y), in order of x; finite.
        first: What stands below the left end.
        last: And below the right end.
    """
    if not points:
        return ["no values yet"]
    wide, high = 2 * COLUMNS, 4 * ROWS
    low, top = min(y for _, y in points), max(y for _, y in points)
    placed = _placed(points, wide - 1, high - 1)
    cells = [[_BLANK] * COLUMNS for _ in range(ROWS)]
    for (x, y), (to_x, to_y) in zip(placed, [*placed[1:], placed[-1]], strict=True):
        for at in range(x, to_x + 1):
            share = (at - x) / (to_x - x) if to_x > x else 0.0
            row = high - 1 - round(y + share * (to_y - y))
            cells[row // 4][at // 2] |= _DOTS[row % 4][at % 2]
    sides = [f"{top:.4g}", *[""] * (ROWS - 2), f"{low:.4g}"]
    side = max(map(len, sides))
    drawn = [
        f"{label:>{side}} ┤{''.join(map(chr, row))}".rstrip(chr(_BLANK))
        for label, row in zip(sides, cells, strict=True)
    ]
    drawn.append(" " * side + " └" + "─" * COLUMNS)
    drawn.append(" " * (side + 2) + first + last.rjust(COLUMNS - len(first)))
    return drawn


def svg(points: Sequence[Point], first: str, last: str, title: str) -> str:
    """The same curve as a file of SVG."""
    across, up = WIDTH - 2 * MARGIN, HEIGHT - 2 * MARGIN
    base, right = HEIGHT - MARGIN, WIDTH - MARGIN
    low, top = min((y for _, y in points), default=0.0), max((y for _, y in points), default=0.0)
    placed = [(MARGIN + x, base - y) for x, y in _placed(points, across, up)]
    path = " ".join(f"{x},{y}" for x, y in placed)
    dots = [f'<circle cx="{x}" cy="{y}" r="2.5" fill="#2563eb"/>' for x, y in placed]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"'
            ' font-family="sans-serif" font-size="12">',
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
            f'<text x="{MARGIN}" y="28" font-size="14">{escape(title)}</text>',
            f'<path d="M{MARGIN} {MARGIN}V{base}H{right}" fill="none" stroke="#888"/>',
            f'<text x="{MARGIN - 6}" y="{MARGIN + 4}" text-anchor="end">{top:.4g}</text>',
            f'<text x="{MARGIN - 6}" y="{base + 4}" text-anchor="end">{low:.4g}</text>',
            f'<text x="{MARGIN}" y="{base + 20}">{escape(first)}</text>',
            f'<text x="{right}" y="{base + 20}" text-anchor="end">{escape(last)}</text>',
            f'<polyline points="{path}" fill="none" stroke="#2563eb" stroke-width="2"/>',
            *dots,
            "</svg>",
            "",
        ]
    )


def _placed(points: Sequence[Point], wide: int, high: int) -> list[tuple[int, int]]:
    """Points on a grid of so many steps, from the lower left; a flat curve lies in the middle."""
    if not points:
        return []
    left, right = points[0][0], points[-1][0]
    low, top = min(y for _, y in points), max(y for _, y in points)
    return [
        (
            round((x - left) / (right - left) * wide) if right > left else 0,
            round((y - low) / (top - low) * high) if top > low else high // 2,
        )
        for x, y in points
    ]

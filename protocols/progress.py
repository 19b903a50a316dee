"""How whoever fetches tells how far it is."""

from __future__ import annotations

from typing import Protocol


class Tell(Protocol):
    """Told (bytes here, bytes in total), and from whom they come, or why none do."""

    def __call__(self, done: int, total: int, note: str = "", /) -> None: ...

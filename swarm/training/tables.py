"""One table of a TOML file: each read takes an entry out and checks it, and what is left at the end is refused."""

from __future__ import annotations

from typing import Any

from swarm.training.errors import SpecError


class Table:
    """The entries that are left.

    Args:
        title: The table's name, for errors.
        entries: What was read.

    Raises:
        SpecError: It is no table; so every method, where an entry is not as it must be, with its name.
    """

    def __init__(self, title: str, entries: Any) -> None:  # noqa: ANN401 - TOML gives anything
        if not isinstance(entries, dict):
            raise SpecError(title, "is missing or is not a table")
        self._title = title
        self._entries = dict(entries)

    def text(self, key: str, *, maximum: int, default: str | None = None) -> str:
        value = self._take(key, default)
        if not isinstance(value, str) or not 0 < len(value) <= maximum or not value.isprintable():
            raise SpecError(self._name(key), f"is text of 1 to {maximum:,} characters in quotes")
        return value

    def choice(self, key: str, allowed: tuple[str, ...], default: str | None = None) -> str:
        value = self._take(key, default)
        if value not in allowed or not isinstance(value, str):
            raise SpecError(
                self._name(key), "is one of " + ", ".join(f'"{item}"' for item in allowed)
            )
        return value

    def integer(self, key: str, low: int, high: int, default: int | None = None) -> int:
        value = self._take(key, default)
        if type(value) is not int or not low <= value <= high:
            raise SpecError(self._name(key), f"is a whole number from {low:,} to {high:,}")
        return value

    def number(self, key: str, low: float, high: float, default: float | None = None) -> float:
        value = self._take(key, default)
        if type(value) not in (int, float) or not low <= value <= high:
            raise SpecError(self._name(key), f"is a number from {low:g} to {high:g}")
        return float(value)

    def flag(self, key: str, *, default: bool) -> bool:
        value = self._take(key, default)
        if not isinstance(value, bool):
            raise SpecError(self._name(key), "is true or false")
        return value

    def text_or_none(self, key: str, *, maximum: int) -> str:
        """Text, or "" where there is none."""
        if not self._entries.get(key):
            self._entries.pop(key, None)
            return ""
        return self.text(key, maximum=maximum)

    def done(self) -> None:
        for key in self._entries:
            raise SpecError(self._name(key), "is not a key of a task file")

    def _take(self, key: str, default: Any) -> Any:  # noqa: ANN401 - checked by the caller
        if key not in self._entries and default is None:
            raise SpecError(self._name(key), "is missing")
        return self._entries.pop(key, default)

    def _name(self, key: str) -> str:
        return f"{self._title}.{key}"

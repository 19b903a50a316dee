"""Reading a request: each field by its name, with its type and its bounds."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swarm.control import body as bodies
from swarm.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request

MAX_BODY_BYTES = 2**20
MAX_TEXT = 4096
"""Characters of a name, a path, a CID or an account."""

MAX_INT = 2**63 - 1


class Fields:
    """The fields of a request, read strictly.

    Args:
        values: Field name to value: a JSON object, or a query's texts.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    @classmethod
    async def of_body(cls, request: Request) -> Fields:
        """Read a JSON object of at most `MAX_BODY_BYTES`.

        Raises:
            TooLargeError: Larger.
            UsageError: Not JSON, or not an object.
        """
        body = await bodies.read(request, MAX_BODY_BYTES)
        try:
            values = json.loads(body or b"{}")
        except (ValueError, RecursionError) as error:
            message = f"the request is not JSON: {error}"
            raise UsageError(message) from error
        if not isinstance(values, dict):
            message = "the request is not a JSON object"
            raise UsageError(message)
        return cls(values)

    def text(self, name: str, *, max_chars: int = MAX_TEXT) -> str:
        """A text that has to be there."""
        value = self.optional_text(name, max_chars=max_chars)
        if value is None:
            message = f"{name}: missing"
            raise UsageError(message)
        return value

    def optional_text(self, name: str, *, max_chars: int = MAX_TEXT) -> str | None:
        """A text, or None."""
        value = self._characters(name, max_chars)
        if value is not None and not is_unicode(value):
            message = f"{name}: not UTF-8"
            raise UsageError(message)
        return value

    def integer(self, name: str, default: int | None, low: int, high: int) -> int:
        """A whole number within bounds; without a default it has to be there."""
        value = self.optional_integer(name, low, high)
        if value is None:
            value = default
        if value is None:
            message = f"{name}: missing"
            raise UsageError(message)
        return value

    def optional_integer(self, name: str, low: int, high: int) -> int | None:
        """A whole number within bounds, or None; a query's digits count too."""
        value = self._values.get(name)
        if value is None:
            return None
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 19:
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            message = f"{name}: {value!r} is not a whole number from {low:,} to {high:,}"
            raise UsageError(message)
        return value

    def flag(self, name: str, *, default: bool) -> bool:
        """A truth value."""
        value = self._values.get(name, default)
        if not isinstance(value, bool):
            message = f"{name}: neither true nor false"
            raise UsageError(message)
        return value

    def path(self, name: str) -> Path:
        """An absolute path: this process has another working folder than the one who asks."""
        value = self.optional_path(name)
        if value is None:
            message = f"{name}: missing"
            raise UsageError(message)
        return value

    def paths(self, name: str, most: int) -> list[Path]:
        """One to so many absolute paths."""
        value = self._values.get(name)
        if not isinstance(value, list) or not 0 < len(value) <= most:
            message = f"{name}: not a list of 1 to {most:,} paths"
            raise UsageError(message)
        return [Fields({name: one}).path(name) for one in value]

    def optional_path(self, name: str) -> Path | None:
        """An absolute path, or None; whatever bytes it has on this machine."""
        text = self._characters(name, MAX_TEXT)
        if text is None:
            return None
        path = Path(text)
        if not path.is_absolute() or "\0" in text or not _has_bytes(text):
            message = f"{name}: not an absolute path"
            raise UsageError(message)
        return path

    def _characters(self, name: str, most: int) -> str | None:
        value = self._values.get(name)
        if value is not None and not (isinstance(value, str) and 0 < len(value) <= most):
            message = f"{name}: not a text of 1 to {most:,} characters"
            raise UsageError(message)
        return value


def is_unicode(text: str) -> bool:
    """Whether a text can be written as UTF-8: JSON's escapes can spell what cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _has_bytes(path: str) -> bool:
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        return False
    return True

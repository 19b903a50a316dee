"""JSON as a node tells it: ASCII alone.

A path of this machine need not be UTF-8, and Python has it with lone surrogates then, which only an escape can tell.
"""

from __future__ import annotations

import json
from typing import Any

from starlette.responses import JSONResponse


class JsonAnswer(JSONResponse):
    """An answer that is one JSON value."""

    def render(self, content: Any) -> bytes:  # noqa: ANN401 - JSON
        return encode(content)


def encode(value: Any) -> bytes:  # noqa: ANN401
    """The bytes of a JSON value, on one line."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode("ascii")

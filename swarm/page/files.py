"""The page's static files: read once, held in memory, and no other can be named."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources
from typing import Final

TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
INDEX: Final = "index.html"
MAX_BYTES: Final = 200_000
"""Of all files together: the page is there within a second."""


@dataclass(frozen=True, slots=True)
class File:
    """One file.

    Attributes:
        content: Its bytes.
        kind: Its type.
        etag: Names the content.
    """

    content: bytes
    kind: str
    etag: str


def load() -> dict[str, File]:
    """Every file by its name."""
    found: dict[str, File] = {}
    for entry in sorted(resources.files(__package__).joinpath("static").iterdir(), key=str):
        kind = TYPES.get(entry.name.rpartition(".")[2])
        if kind is not None:
            content = entry.read_bytes()
            etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
            found[entry.name] = File(content, kind, etag)
    return found

"""Which version of swarm this is; a command and the node that it asks have to be of the same."""

from __future__ import annotations

from functools import cache
from importlib import metadata
from typing import Final

HEADER: Final = "swarm-version"
"""In each answer of a node's control API."""
UNKNOWN: Final = "unknown"


@cache
def version() -> str:
    """Of this process; `UNKNOWN` where it was not installed."""
    try:
        return metadata.version("swarm-node")
    except metadata.PackageNotFoundError:
        return UNKNOWN

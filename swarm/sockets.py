"""Where a node's control socket is: what the node and its clients have to agree on."""

from __future__ import annotations

import os
from pathlib import Path

SOCKET_NAME = "control.sock"
MAX_SOCKET_PATH = 100
"""Bytes; the kernel takes 107 on Linux and 103 on macOS."""

MAX_POINTER_BYTES = 4096


def pointer_of(socket_path: Path) -> Path:
    """The file that says where the socket is when its own path is too long for the kernel."""
    return socket_path.with_suffix(".path")


def socket_of(home: Path) -> Path:
    """The control socket of a data folder; whether a node listens on it is another question."""
    path = Path(home).absolute() / SOCKET_NAME
    if len(os.fsencode(path)) > MAX_SOCKET_PATH:
        try:
            with pointer_of(path).open("rb") as file:
                path = Path(os.fsdecode(file.read(MAX_POINTER_BYTES)))
        except OSError:
            pass  # no node: connecting will say so
    return path

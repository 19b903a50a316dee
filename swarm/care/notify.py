"""Tells systemd how the node is: datagrams to the socket that `NOTIFY_SOCKET` names.

Source: sd_notify(3).
"""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Final

READY: Final = "READY=1"
STOPPING: Final = "STOPPING=1"
MAX_PATH: Final = 107


def notify(address: str | None, state: str) -> bool:
    """Send one state; whether it was sent. Without an address, or where nobody listens, nothing is.

    Args:
        address: What `NOTIFY_SOCKET` says: a path, or a name of the kernel's that begins with `@`.
        state: Lines as `sd_notify` takes them.
    """
    if not address or address[0] not in "/@" or len(address) > MAX_PATH:
        return False
    if address[0] == "@":
        address = "\0" + address[1:]
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        sender.connect(address)
        sender.send(state.encode())
        return True
    return False

"""What is refused before anything is made or paid for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocols import signing
from swarm.errors import RefusedError

if TYPE_CHECKING:
    from pathlib import Path

    from swarm.ledger.state import LedgerView


def check_free(path: Path) -> None:
    """Refuse a path at which something stands.

    Raises:
        RefusedError: Something does.
    """
    if path.exists():
        message = f"{path} is there already"
        raise RefusedError(message, "give another path with -o, or remove it")


def check_writable(view: LedgerView, account: bytes, name: str) -> None:
    """Refuse a name that an account cannot change now.

    Raises:
        RefusedError: It belongs to another, or an open task writes it.
    """
    entry = view.name(name)
    if entry is None:
        return
    if entry.owner != account:
        message = f"the name {name!r} belongs to {signing.peer_id(entry.owner)}"
        raise RefusedError(message, "choose another name")
    if entry.task:
        message = f"an open task writes {name!r}"
        raise RefusedError(message, "`swarm tasks` says when it is over; or choose another name")

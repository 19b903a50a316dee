"""The lowest level that each part of a node logs, which can be changed while it runs; a restart forgets it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from swarm.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

LEVELS: Final = ("debug", "info", "warning", "error")
ALL: Final = "all"
PARTS: Final[Mapping[str, tuple[str, ...]]] = {
    "training": ("swarm.participant", "swarm.replays", "swarm.announcements", "swarm.receipts"),
    "network": ("swarm.network", "swarm.gossip", "swarm.entry", "swarm.limits"),
    "content": (
        *("swarm.exchange", "swarm.bitswap", "swarm.retrieval"),
        *("swarm.store", "swarm.versions"),
    ),
    "keeping": (
        *("swarm.keeper", "swarm.duties", "swarm.cellar"),
        *("swarm.auditing", "swarm.audit"),
    ),
    "ledger": ("swarm.consensus", "swarm.ledger", "swarm.wallet", "swarm.payout"),
    "serving": ("swarm.serving", "swarm.gateway", "swarm.hub", "swarm.page"),
    "node": ("swarm.node", "swarm.care", "swarm.control"),
    "libp2p": ("libp2p",),
}
"""The loggers of each part; what lies below one is a part of it."""


def parse(text: str) -> dict[str, str]:
    """Read `training=debug,network=info`; a level alone is for all parts.

    Raises:
        UsageError: No such part or level.
    """
    found: dict[str, str] = {}
    for one in text.split(","):
        part, _, level = one.strip().rpartition("=")
        part = part or ALL
        if level not in LEVELS:
            message = f"{level[:40]!r} is no level"
            raise UsageError(message, f"one of {', '.join(LEVELS)}")
        if part != ALL and part not in PARTS:
            message = f"{part[:40]!r} is no part of the log"
            raise UsageError(message, f"one of {', '.join((ALL, *PARTS))}")
        found |= dict.fromkeys(PARTS, level) if part == ALL else {part: level}
    return found


def change(levels: Mapping[str, str]) -> None:
    """Log from these levels up, from now on."""
    for part, level in levels.items():
        for name in PARTS[part]:
            logging.getLogger(name).setLevel(level.upper())


def told() -> dict[str, str]:
    """The lowest level that each part logs; of several loggers, the lowest of theirs."""
    return {
        part: logging.getLevelName(
            min(logging.getLogger(name).getEffectiveLevel() for name in names)
        ).lower()
        for part, names in PARTS.items()
    }

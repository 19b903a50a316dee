"""What libp2p loads for its own host, which is not ours: left out, so that a node is some ten megabytes smaller.

`libp2p.host.basic_host` brings Zeroconf, requests, an ACME client and UPnP with it; importing any part of libp2p imports it.
A module of its name with the names that others import from it, and nothing behind them, stands in its place.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Final

MODULE: Final = "libp2p.host.basic_host"
NAMES: Final = ("BasicHost", "IDHost", "RoutedHost")


def leave_out() -> None:
    """Take its place, where it was not loaded yet; before anything of libp2p is imported."""
    if MODULE in sys.modules:
        return
    stand_in = ModuleType(MODULE, "Nothing: this program has a host of its own.")
    for name in NAMES:
        setattr(stand_in, name, type(name, (), {"__module__": MODULE}))
    sys.modules[MODULE] = stand_in

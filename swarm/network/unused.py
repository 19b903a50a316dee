"""What libp2p loads for its own host, which is not ours: left out, so that a node is ten megabytes smaller.

`libp2p.host.basic_host` brings Zeroconf, requests, an ACME client and UPnP with it, and whoever imports any part of libp2p
imports it. A module of its name stands in its place until somebody makes such a host.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any, Final

MODULE: Final = "libp2p.host.basic_host"


class StandIn(ModuleType):
    """Has the names that the rest of libp2p imports from the module."""

    def __init__(self) -> None:
        super().__init__(MODULE, __doc__)
        self.AddrsFactory = object
        self.BasicHost = _Host


class _Host:
    """Becomes the real one when it is made."""

    def __new__(cls, *args: Any, **fields: Any) -> Any:  # noqa: ANN401 - libp2p's
        if isinstance(sys.modules[MODULE], StandIn):
            del sys.modules[MODULE]
        return importlib.import_module(MODULE).BasicHost(*args, **fields)


def leave_out() -> None:
    """Take its place, where it was not loaded yet; before anything of libp2p is imported."""
    sys.modules.setdefault(MODULE, StandIn())

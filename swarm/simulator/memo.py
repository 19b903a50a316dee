"""What many nodes check of one signature, checked once.

A simulated network of a hundred nodes verifies each vote a hundred times, in one process and with one answer.
The three functions are pure, so remembering what they said changes nothing but the time.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from protocols import signing
from protocols.consensus import votes
from swarm.ledger import vrf

if TYPE_CHECKING:
    from collections.abc import Iterator

REMEMBERED = 2**16
_PURE: tuple[tuple[Any, str], ...] = (
    (signing, "verify"),
    (votes, "signed_bytes"),
    (vrf, "verify"),
)


@contextmanager
def remembered() -> Iterator[None]:
    """Remember verified signatures and proofs while the block runs; may be nested."""
    before = [(module, name, getattr(module, name)) for module, name in _PURE]
    try:
        for module, name, function in before:
            if not hasattr(function, "cache_info"):
                setattr(module, name, lru_cache(REMEMBERED)(function))
        yield
    finally:
        for module, name, function in before:
            setattr(module, name, function)

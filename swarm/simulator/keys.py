"""Keys of a simulated world: the same in every run, and of no use outside it."""

from __future__ import annotations

import hashlib

from protocols.signing import Signer


def signer(role: str, at: int) -> Signer:
    """The key of one of those that play a role."""
    return Signer(hashlib.sha256(f"swarm/simulation/{role}/{at}".encode()).digest())

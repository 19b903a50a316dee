"""What one person tells another, so that a newcomer knows which chain to believe."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The last block of an epoch, as somebody named it whom the person trusts."""

    height: int
    block_id: bytes

    def __str__(self) -> str:
        return f"{self.height}:{self.block_id.hex()}"

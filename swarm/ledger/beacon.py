"""The beacon: randomness that no leader can choose, one value a block.

    beacon_0 = SHA-256("swarm/beacon/1" || 0x00 || chain id)
    beacon_h = SHA-256("swarm/beacon/1" || 0x00 || beacon_{h-1} || vrf output of h)
    vrf input of h = "swarm/beacon-input/1" || 0x00 || beacon_{h-1} || h (u64, big endian)

A leader's one choice is to stay silent; its key is the one that its epoch fixed, so it cannot try others.
"""

from __future__ import annotations

import hashlib
from typing import Final

_TAG: Final = b"swarm/beacon/1\x00"
_INPUT_TAG: Final = b"swarm/beacon-input/1\x00"
_LEADER_TAG: Final = b"swarm/leader/1\x00"
_SLOT_TAG: Final = b"swarm/leader-slot/1\x00"


def first(chain_id: bytes) -> bytes:
    """The beacon of genesis."""
    return hashlib.sha256(_TAG + chain_id).digest()


def vrf_input(previous: bytes, height: int) -> bytes:
    """What the leader of a height proves."""
    return _INPUT_TAG + previous + height.to_bytes(8, "big")


def following(previous: bytes, vrf_output: bytes) -> bytes:
    """The beacon after a leader's output."""
    return hashlib.sha256(_TAG + previous + vrf_output).digest()


def draw(seed: bytes, epoch: int, view: int, total: int) -> int:
    """A number below `total` for a view of an epoch; 256 bits over less than 2^90, so the bias is nil."""
    return _draw(_LEADER_TAG, seed, epoch, view, total)


def draw_slot(seed: bytes, epoch: int, view: int, total: int) -> int:
    """Another one, which says whether scores or stakes draw the view's leader."""
    return _draw(_SLOT_TAG, seed, epoch, view, total)


def _draw(tag: bytes, seed: bytes, epoch: int, view: int, total: int) -> int:
    body = tag + seed + epoch.to_bytes(8, "big") + view.to_bytes(8, "big")
    return int.from_bytes(hashlib.sha256(body).digest(), "big") % total

"""What an audit asks of a keeper: drawn from the beacon, the same for every auditor, known to nobody before.

    leaf i  = SHA-256("swarm/audit-leaf/1" || 0x00 || seed || keeper || u32 BE i || bytes of leaf i-1) mod (slots * 256)
    slot i  = SHA-256("swarm/audit-slot/1" || 0x00 || seed2 || keeper || u32 BE i) mod slots
    held    = SHA-256("swarm/audit-held/1" || 0x00 || seed2 || deal || u32 BE piece || keeper), for `storage.sampling`

Nothing stands before the first leaf. Index n is leaf n mod 256 of slot n // 256.
Each leaf tells where the next one is, so that a keeper that has to make them cannot make two at a time: what it lacks
costs it the time of one sealing after another, however many machines it has.
Leaves show that bytes stand under the committed root, and whole slots what those bytes are. All auditors see the same
slots, so that what one finds all report, and a strike takes most of them.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from storage import merkle
from storage.sealing import SLOT_LEAVES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from storage.slots import LeafProof

AUDIT_SLOTS: Final = 4
"""Whole slots that are asked for; one that comes twice is asked for once."""


def leaf_index(seed: bytes, keeper: bytes, number: int, previous: bytes, slots: int) -> int:
    """The index of drawn leaf `number` among all leaves of a keeper.

    Args:
        seed: The audit's, 32 bytes.
        keeper: Its public key, 32 bytes.
        number: From 0.
        previous: The 4 KiB of the drawn leaf before it; empty for the first.
        slots: As committed, at least 1.
    """
    return _draw(b"swarm/audit-leaf/1\x00", seed + keeper + _u32(number) + previous) % (
        slots * SLOT_LEAVES
    )


def draw_leaves(
    seed: bytes, keeper: bytes, slots: int, count: int, prove: Callable[[int, int], LeafProof]
) -> list[LeafProof]:
    """All drawn leaves, by the keeper that has them.

    Args:
        seed: The audit's, 32 bytes.
        keeper: Its public key, 32 bytes.
        slots: As committed.
        count: The chain's `audit_leaves`.
        prove: Gives (slot, leaf) with its proof; what it raises is passed on.

    Returns:
        In the order drawn; none where there are no slots.
    """
    found: list[LeafProof] = []
    previous = b""
    for number in range(count if slots else 0):
        index = leaf_index(seed, keeper, number, previous, slots)
        found.append(prove(*divmod(index, SLOT_LEAVES)))
        previous = found[-1].leaf
    return found


def answer_root(leaves: Sequence[bytes]) -> bytes:
    """What a keeper answers on the ledger: the Merkle root over the drawn leaves."""
    return merkle.root(leaves)


def draw_slots(seed2: bytes, keeper: bytes, slots: int) -> list[int]:
    """The slots that every auditor of a keeper asks for whole.

    Args:
        seed2: The audit's second seed, 32 bytes.
        keeper: Its public key, 32 bytes.
        slots: As committed.

    Returns:
        At most `AUDIT_SLOTS`, each once, in the order drawn.
    """
    tag = b"swarm/audit-slot/1\x00"
    numbers = range(AUDIT_SLOTS if slots else 0)
    drawn = (_draw(tag, seed2 + keeper + _u32(number)) % slots for number in numbers)
    return list(dict.fromkeys(drawn))


def held_seed(seed2: bytes, keeper: bytes, deal: bytes, piece: int) -> bytes:
    """The seed that draws the challenged chunk of a duty; `storage.sampling` walks by it.

    Args:
        seed2: The audit's second seed, 32 bytes.
        keeper: Its public key, 32 bytes.
        deal: Its id, 32 bytes.
        piece: Its place in the deal.
    """
    tag = b"swarm/audit-held/1\x00"
    return hashlib.sha256(tag + seed2 + deal + _u32(piece) + keeper).digest()


def _draw(tag: bytes, data: bytes) -> int:
    return int.from_bytes(hashlib.sha256(tag + data).digest(), "big")


def _u32(number: int) -> bytes:
    return number.to_bytes(4, "big")

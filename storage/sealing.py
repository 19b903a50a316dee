"""Sealed slots: a megabyte that is slow to make, fast to undo, and cannot be made in parts.

    key    = scrypt(public key (32), n = 2^log_n, r = 8, p = 1, 32 bytes,
                    salt = "swarm/seal/1" || 0x00 || chain id (32) || slot (u64 BE) || named (40))
    named  = CID of the chunk (36) || its length (u32 BE), or 40 zero bytes for zeros
    state  = content, 1 MiB: 65,536 blocks of 16 bytes
    for pass = 0, 1, ... passes - 1:
        state = AES-256-CBC(key, IV = pass as u128 BE), over the whole state, without padding
        state = the 32 rows of 2,048 blocks, transposed: the block at index i goes to i * 32 mod 65,535
    sealed = state

A pass cannot begin before the one before it is nearly done, and every 4 KiB of the result depend on all that came
before. Undoing a pass needs no chain, so that a reader is several times as fast as the one who sealed.

The matrix is not square on purpose. A square transposition is its own inverse: rows become columns and rows again,
dependencies stay inside a rectangle, and some chain values stored at the starts of rows make any part of a slot
cheap. Moving an index by 5 of its 16 bits returns to where it was only after 16 passes: each pass doubles what a
block is made from until it is everything.

The key depends on what is sealed. Otherwise a keeper would begin at the end: take bytes that are quick to make, unseal
them, and call what comes out a chunk.

The key is public and short, and so is a chain value; what the seal is worth, and against whom, is told in
`docs/decisions/0012-sealing.md`.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from storage.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable

SLOT_BYTES: Final = 2**20
LEAF_BYTES: Final = 4096
SLOT_LEAVES: Final = SLOT_BYTES // LEAF_BYTES
ZEROS: Final = bytes(40)
"""Names a slot of zeros, where a chunk has its CID and length."""
MAX_LOG_N: Final = 20
"""1 GiB of memory for one key; more would be a weapon against auditors."""
MAX_PASSES: Final = 2**16

_TAG: Final = b"swarm/seal/1\x00"
_BLOCK: Final = 16
_ROWS: Final = 32
_COLUMNS: Final = SLOT_BYTES // _BLOCK // _ROWS
_CELL: Final = np.dtype(f"V{_BLOCK}")
_R: Final = 8


def slot_key(
    public_key: bytes, chain_id: bytes, slot: int, log_n: int, named: bytes = ZEROS
) -> bytes:
    """The 32 bytes that one slot of one keeper on one chain is sealed with, for one content.

    Args:
        public_key: The keeper's, 32 bytes.
        chain_id: 32 bytes.
        slot: Its number, from 0.
        log_n: scrypt's cost: 2^`log_n` times 1 KiB of memory.
        named: The last 40 bytes of the slot's label (`storage.slot_tree`).
    """
    if len(public_key) != 32 or len(chain_id) != 32 or len(named) != len(ZEROS):
        message = "a public key and a chain id have 32 bytes each, and what names a content has 40"
        raise ValueError(message)
    if not 1 <= log_n <= MAX_LOG_N or not 0 <= slot < 2**64:
        message = f"no slot {slot} with a cost of 2^{log_n}"
        raise ValueError(message)
    n = 2**log_n
    salt = _TAG + chain_id + slot.to_bytes(8, "big") + named
    room = 128 * _R * (n + 4)
    return hashlib.scrypt(public_key, salt=salt, n=n, r=_R, p=1, maxmem=room, dklen=32)


class SealingStoppedError(StorageError):
    """A slot was not sealed to its end, because nobody waits for it any more."""


def seal(
    key: bytes,
    content: bytes | memoryview,
    passes: int,
    is_stopped: Callable[[], bool] = lambda: False,
) -> bytes:
    """The sealed bytes of a slot; about a millisecond a pass.

    Args:
        key: From `slot_key`.
        content: At most 1 MiB; shorter content is filled up with zeros.
        passes: How often the whole is chained and spread.
        is_stopped: Asked before each pass.

    Returns:
        1 MiB.

    Raises:
        SealingStoppedError: `is_stopped` said so.
    """
    _check_passes(passes)
    state, chained = bytearray(fill(content)), bytearray(SLOT_BYTES + _BLOCK)
    spread, rows = _cells(state), _cells(chained)
    for number in range(passes):
        if is_stopped():
            message = "sealing was stopped"
            raise SealingStoppedError(message)
        cipher = Cipher(algorithms.AES(key), modes.CBC(number.to_bytes(_BLOCK, "big")))
        cipher.encryptor().update_into(state, chained)
        np.copyto(spread.reshape(_COLUMNS, _ROWS), rows.reshape(_ROWS, _COLUMNS).T)
    return bytes(state)


def unseal(key: bytes, sealed: bytes | memoryview, passes: int) -> bytes:
    """The content of a slot, with the zeros that filled it up.

    Args:
        key: From `slot_key`.
        sealed: 1 MiB.
        passes: As it was sealed.
    """
    _check_passes(passes)
    if len(sealed) != SLOT_BYTES:
        message = f"a slot has {SLOT_BYTES:,} bytes, not {len(sealed):,}"
        raise ValueError(message)
    state, chained = bytearray(SLOT_BYTES + _BLOCK), bytearray(SLOT_BYTES)
    state[:SLOT_BYTES] = sealed
    spread, rows = _cells(state), _cells(chained)
    for number in reversed(range(passes)):
        np.copyto(rows.reshape(_ROWS, _COLUMNS), spread.reshape(_COLUMNS, _ROWS).T)
        cipher = Cipher(algorithms.AES(key), modes.CBC(number.to_bytes(_BLOCK, "big")))
        cipher.decryptor().update_into(chained, state)
    return bytes(memoryview(state)[:SLOT_BYTES])


def fill(content: bytes | memoryview) -> bytes:
    """Content filled up with zeros to a slot."""
    if len(content) > SLOT_BYTES:
        message = f"a slot takes {SLOT_BYTES:,} bytes, not {len(content):,}"
        raise ValueError(message)
    return bytes(content) + bytes(SLOT_BYTES - len(content))


def _cells(buffer: bytearray) -> np.ndarray:
    return np.frombuffer(buffer, dtype=_CELL, count=SLOT_BYTES // _BLOCK)


def _check_passes(passes: int) -> None:
    if not 1 <= passes <= MAX_PASSES:
        message = f"a slot is sealed with 1 to {MAX_PASSES:,} passes, not {passes}"
        raise ValueError(message)

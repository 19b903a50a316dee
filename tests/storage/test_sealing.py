from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.sealing import SLOT_BYTES, fill, seal, slot_key, unseal
from storage.slot_tree import slot_root

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "sealing.json").read_text())
CONTENTS = {"zeros": b"", "text": b"swarm", "full": bytes(range(256)) * 4096}
KEY = slot_key(bytes(32), bytes(32), 0, 4)
BLOCKS = SLOT_BYTES // 16


@pytest.mark.parametrize(
    "pinned", VECTORS["sealed"], ids=lambda one: f"{one['content']}-{one['passes']}"
)
def test_sealed_bytes_are_those_that_are_pinned(pinned):
    who = bytes.fromhex(pinned["public_key"]), bytes.fromhex(pinned["chain_id"])
    named = bytes.fromhex(pinned["named"])
    key = slot_key(*who, pinned["slot"], pinned["log_n"], named)
    assert key.hex() == pinned["key"]
    sealed = seal(key, CONTENTS[pinned["content"]], pinned["passes"])
    assert hashlib.sha256(sealed).hexdigest() == pinned["sha256"]
    assert slot_root(sealed).hex() == pinned["slot_root"]


def test_a_pass_is_what_the_text_says():
    content = random.Random(1).randbytes(SLOT_BYTES)
    cipher = Cipher(algorithms.AES(KEY), modes.CBC(bytes(16))).encryptor()
    chained = cipher.update(content) + cipher.finalize()
    spread = bytearray(SLOT_BYTES)
    for index in range(BLOCKS):
        to = index if index == BLOCKS - 1 else index * 32 % (BLOCKS - 1)
        spread[to * 16 : to * 16 + 16] = chained[index * 16 : index * 16 + 16]
    assert seal(KEY, content, 1) == spread


@settings(max_examples=10, deadline=None)
@given(st.binary(max_size=64), st.integers(0, SLOT_BYTES - 64), st.integers(1, 4))
def test_what_is_sealed_can_be_unsealed(data, zeros, passes):
    content = bytes(zeros) + data
    assert unseal(KEY, seal(KEY, content, passes), passes) == fill(content)


def test_a_slot_is_bound_to_key_chain_number_cost_and_content():
    keys = {
        slot_key(bytes(32), bytes(32), 0, 4),
        slot_key(b"\1" * 32, bytes(32), 0, 4),
        slot_key(bytes(32), b"\1" * 32, 0, 4),
        slot_key(bytes(32), bytes(32), 1, 4),
        slot_key(bytes(32), bytes(32), 0, 5),
        slot_key(bytes(32), bytes(32), 0, 4, bytes(39) + b"\1"),
    }
    assert len(keys) == 6
    assert seal(KEY, b"", 2) != seal(KEY, b"", 3)


def test_what_no_slot_can_be_is_refused():
    for wrong in (
        lambda: seal(KEY, bytes(SLOT_BYTES + 1), 1),
        lambda: seal(KEY, b"", 0),
        lambda: unseal(KEY, b"", 1),
        lambda: slot_key(bytes(31), bytes(32), 0, 4),
        lambda: slot_key(bytes(32), bytes(32), 0, 4, bytes(39)),
        lambda: slot_key(bytes(32), bytes(32), -1, 4),
        lambda: slot_key(bytes(32), bytes(32), 0, 21),
    ):
        with pytest.raises(ValueError):
            wrong()


# What a cheater would have to know. Index arithmetic only: where a block of a pass comes from.


def spread(index: int) -> int:
    return index if index == BLOCKS - 1 else index * 32 % (BLOCKS - 1)


def gathered(index: int) -> int:
    return index if index == BLOCKS - 1 else index * 2048 % (BLOCKS - 1)


def test_to_know_one_block_of_an_early_pass_takes_the_whole_slot():
    known = {30_000}
    sizes = []
    for _ in range(16):
        # A block before a pass is its cipher block decrypted, and the one before that.
        known = {spread(chained) for at in known for chained in (at, max(0, at - 1))}
        sizes.append(len(known))
    assert sizes[:10] == [2**power for power in range(1, 11)]
    assert sizes[-1] > 0.99 * BLOCKS


def chained_from(known: set[int], every: int) -> set[int]:
    """The blocks that are chained to make some, where each `every`th is stored."""
    tops: dict[int, int] = {}
    for at in known:
        tops[at // every] = max(tops.get(at // every, 0), at)
    return {at for start, top in tops.items() for at in range(start * every, top + 1)}


@pytest.mark.slow
def test_stored_chain_values_make_only_the_last_passes_cheap():
    for every, passes in ((1024, 2), (256, 2), (64, 18)):
        for leaf in (3, 100, 255):
            needed = {gathered(at) for at in range(leaf * 256, leaf * 256 + 256)}
            for _ in range(passes):
                needed = {gathered(at) for at in chained_from(needed, every)}
            assert len(needed) > 0.75 * BLOCKS

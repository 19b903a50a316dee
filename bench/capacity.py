"""What proving lent space costs: `python -m bench.capacity [GB] [passes] [leaves]`.

Sealing and unsealing a slot; answering an audit over so many GB of slots, of which the hashes are real and the bytes are
a sparse file; what it would cost a keeper to seal on demand what it does not hold; and how soon lost slots are noticed.
"""

from __future__ import annotations

import os
import random
import statistics
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from bench.machine import describe
from protocols.audit.draw import draw_leaves, leaf_index
from protocols.audit.messages import LeafAnswer
from storage import merkle
from storage.sealing import SLOT_BYTES, SLOT_LEAVES, seal, slot_key, unseal
from storage.slot_tree import LABEL_BYTES, SlotTree, slot_leaves
from storage.slots import LeafProof, SlotStore

if TYPE_CHECKING:
    from collections.abc import Callable

MB = 1e6
KEEPER, CHAIN, SEED = b"k" * 32, b"c" * 32, b"s" * 32
DEADLINE_S = 10.0
"""4 blocks of 2.5 s, the default of a genesis."""
LOST = 0.01
RUNS = 400


def main() -> None:
    """Measure and print."""
    gigabytes, passes, leaves = (
        int(sys.argv[at]) if len(sys.argv) > at else default
        for at, default in ((1, 500), (2, 128), (3, 64))
    )
    _say(describe())
    seal_s = _sealing(passes)
    _waiting(passes)
    _answering(gigabytes, leaves)
    _cheating(passes, leaves, seal_s)
    _noticing(gigabytes, leaves)


def _sealing(passes: int) -> float:
    content = os.urandom(SLOT_BYTES)
    for log_n in (10, 14):
        key_s = _median(partial(slot_key, KEEPER, CHAIN, 1, log_n))
        _say(f"a key at log_n = {log_n}: {key_s * 1e3:.1f} ms")
    key = slot_key(KEEPER, CHAIN, 1, 4)
    sealed = seal(key, content, passes)
    seal_s = _median(lambda: seal(key, content, passes))
    unseal_s = _median(lambda: unseal(key, sealed, passes))
    for what, seconds in (("seal", seal_s), ("unseal", unseal_s)):
        rate = SLOT_BYTES / MB / seconds
        _say(
            f"{what}, {passes} passes: {seconds * 1e3:.1f} ms a slot, {rate:.1f} MB/s,"
            f" {seconds / passes * 1e6:,.0f} us a pass"
        )
    return seal_s


def _waiting(passes: int) -> None:
    """How long another thread waits for the GIL while slots are sealed."""
    with tempfile.TemporaryDirectory(prefix="swarm-bench-") as name:
        store = SlotStore(Path(name), KEEPER, CHAIN, 4, passes)
        thread = threading.Thread(target=lambda: [store.append() for _ in range(8)])
        gaps = []
        thread.start()
        while thread.is_alive():
            began = time.perf_counter()
            time.sleep(0.001)
            gaps.append(time.perf_counter() - began - 0.001)
        store.close()
    gaps.sort()
    _say(
        f"a thread that wakes while slots are sealed is late by {statistics.median(gaps) * 1e3:.2f} ms,"
        f" at worst {gaps[-1] * 1e3:.1f} ms"
    )


def _answering(gigabytes: int, leaves: int) -> None:
    slots = gigabytes * 10**9 // SLOT_BYTES
    source = random.Random(1)  # noqa: S311 - made-up hashes
    labels = source.randbytes(LABEL_BYTES * slots)
    tree = SlotTree()
    began = time.perf_counter()
    for at in range(0, len(labels), LABEL_BYTES):
        tree.append(labels[at : at + LABEL_BYTES])
    _say(
        f"the tree over {slots:,} slots is built in {time.perf_counter() - began:.2f} s"
        f" and takes {2 * 32 * slots / MB:.0f} MB"
    )
    replace_s = _median(lambda: tree.replace(slots // 3, labels[:LABEL_BYTES]))
    _say(f"a slot replaced in it: {replace_s * 1e6:.0f} us")
    tree.replace(slots // 3, labels[slots // 3 * LABEL_BYTES :][:LABEL_BYTES])
    with tempfile.TemporaryFile() as file:
        file.truncate(slots * SLOT_BYTES)

        def prove(slot: int, number: int) -> LeafProof:
            found = slot_leaves(os.pread(file.fileno(), SLOT_BYTES, slot * SLOT_BYTES))
            label = labels[slot * LABEL_BYTES : (slot + 1) * LABEL_BYTES]
            inner = merkle.prove(found, number)
            return LeafProof(slot, number, found[number], label, inner, tree.prove(slot, slots))

        answers: list[LeafProof] = []
        answer_s = _median(
            lambda: answers.extend(draw_leaves(SEED, KEEPER, slots, leaves, prove)), runs=5
        )
    sizes = [len(LeafAnswer(one.leaf, one.label, one.inner, one.path).encode()) for one in answers]
    _say(
        f"an answer of {leaves} leaves: {answer_s * 1e3:.0f} ms, without the seeks of a disk;"
        f" a proof has {statistics.mean(sizes):,.0f} bytes, all of them {sum(sizes[:leaves]) / MB:.2f} MB"
    )


def _cheating(passes: int, leaves: int, seal_s: float) -> None:
    """What an audit costs a keeper that holds nothing but its keys and the tree."""
    block = bytearray(SLOT_BYTES)
    room = bytearray(SLOT_BYTES + 16)
    cipher = Cipher(algorithms.AES(KEEPER), modes.ECB())  # noqa: S305 - as fast as many chains beside each other
    pipelined_s = _median(lambda: cipher.encryptor().update_into(block, room))
    plain = leaves * seal_s
    best = leaves * passes * pipelined_s
    _say(
        f"sealing {leaves} slots on demand: {plain:.1f} s, one after another, with this code;"
        f" {best:.2f} core-seconds if the AES units are kept full (chain values stored, or many keepers at once)"
    )
    _say(
        f"within {DEADLINE_S:.0f} s this code makes {min(1.0, DEADLINE_S / plain):.0%} of the drawn slots;"
        f" full AES units {DEADLINE_S / best:.1f} times all of them a core"
    )


def _noticing(gigabytes: int, leaves: int) -> None:
    """How many hourly audits pass before one of the lost slots is drawn."""
    slots = gigabytes * 10**9 // SLOT_BYTES
    lost = int(slots * LOST)
    audits = []
    for run in range(RUNS):
        number = 0
        while True:
            number += 1
            seed = (run << 32 | number).to_bytes(32, "big")
            drawn = (leaf_index(seed, KEEPER, at, b"", slots) for at in range(leaves))
            if any(index // SLOT_LEAVES < lost for index in drawn):
                break
        audits.append(number)
    audits.sort()
    _say(
        f"{LOST:.0%} of the slots lost: noticed after {statistics.median(audits):.0f} audits in the median,"
        f" {audits[int(RUNS * 0.99)]} in 99 of 100 cases, {audits[-1]} in the worst of {RUNS};"
        f" expected in one audit {1 - (1 - LOST) ** leaves:.0%}"
    )


def _median(call: Callable[[], object], runs: int = 9) -> float:
    times = []
    for _ in range(runs):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()

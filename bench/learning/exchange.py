"""A whole round's exchange among four peers, beside hivemind, with the same number of float32 weights.

The clock runs from the first peer's being told to begin until the last holds the result; each peer is a process of its
own on the loopback, and the rounds of both systems are interleaved.
What ends differs, and is printed: hivemind's peers hold the mean of all weights, ours the merge of what was greatest of
each peer's update, the rest carried into their next one.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.interop.nodes import Child

HERE = Path(__file__).parent
HIVEMIND = HERE.parents[1] / ".peers/hivemind/bin/python"
PEERS = 4
VALUES = 1600 * 4096
"""26 MB in float32."""


def main(rounds: int) -> None:
    """Print each system's rounds, in seconds."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        ours = _start(stack, folder / "ours", Path(sys.executable), "our_peer.py")
        addresses = [peer.do("start") for peer in ours]
        for at, peer in enumerate(ours):
            for address in addresses[:at]:
                peer.do("connect", address=address)
        theirs: list[Child] = []
        if HIVEMIND.exists():
            theirs = _start(stack, folder / "hivemind", HIVEMIND, "hivemind_peer.py")
            first = theirs[0].do("start", address="")
            for peer in theirs[1:]:
                peer.do("start", address=first)
        else:
            print("hivemind: not installed (`make .peers/hivemind`)")
        mine: list[float] = []
        other: list[float] = []
        for _ in range(rounds):
            mine.append(_our_round(ours))
            if theirs:
                other.append(_hivemind_round(theirs))
        _print("ours", mine[1:])
        if other:
            _print("hivemind", other[1:])
            for peer in theirs:
                peer.do("stop")


def _start(stack: ExitStack, folder: Path, python: Path, script: str) -> list[Child]:
    peers = []
    for seed in range(PEERS):
        place = folder / str(seed)
        command = [str(python), str(HERE / script), str(place / "store"), str(VALUES), str(seed)]
        peers.append(Child.start(command, place))
        stack.callback(peers[-1].end)
    return peers


def _our_round(peers: list[Child]) -> float:
    _all(peers, "learn")
    began = time.monotonic()
    offers = _all(peers, "offer")
    made = time.monotonic()
    found = _all(peers, "merge", offers=offers)
    took = time.monotonic() - began
    same = len(set(_all(peers, "sum"))) == 1
    size = offers[0]["bytes"]
    print(
        f"ours: {took:.3f} s ({made - began:.3f} to make and keep, at most "
        f"{max(item['fetching'] for item in found):.3f} to fetch), {size:,} bytes a peer, {size / VALUES:.4f} a weight; "
        f"{'all hold the same bits' if same else 'THE PEERS DIFFER'}",
        flush=True,
    )
    return took


def _hivemind_round(peers: list[Child]) -> float:
    began = time.monotonic()
    found = _all(peers, "round")
    took = time.monotonic() - began
    sums = [item["sum"] for item in found]
    print(
        f"hivemind: {took:.3f} s, groups of {sorted({item['peers'] for item in found})}, "
        f"sums of the weights differ by {max(sums) - min(sums):.2e}",
        flush=True,
    )
    return took


def _all(peers: list[Child], task: str, **fields: Any) -> list[Any]:  # noqa: ANN401 - JSON
    """Tell all, then hear all."""
    for peer in peers:
        peer.tell(task, **fields)
    return [peer.answer() for peer in peers]


def _print(name: str, seconds: list[float]) -> None:
    print(
        f"{name}: median {statistics.median(seconds):.3f} s a round "
        f"({min(seconds):.3f} to {max(seconds):.3f}, {len(seconds)} rounds after the first)"
    )

"""A round step by step: a small sketch of the weights after each step, chained, so that a fault can be bisected.

A sketch of weights w of P numbers has `SIZE` numbers and is linear:

    s_b(w) = sum over i with i mod SIZE = b of sign_i w_i          sign_i is +1 or -1, drawn from a key

so |s(v) - s(w)| is about |v - w|: the mean over keys of the square is equal, its standard deviation sqrt(2 / SIZE) = 35 %.

A **trace** is one entry a step, float32 little endian: the loss, and the sketch of what the segment has moved so far. Its
key is known to all, and its links end in the segments of the transcript:

    link_i = SHA-256("swarm/trace/1" 00 link_{i-1} entry_i)         link_0 of each segment: 32 zero bytes

A **proof of having run** a segment is another sketch: of the weights in its middle, by a key that the beacon drew. Neither
the states that a peer shows nor its trace give it away; who wants it takes half of the segment's steps, forwards or backwards.

Sources: Charikar, Chen, Farach-Colton, "Finding Frequent Items in Data Streams" (2002) for the sketch; Arun et al.,
"Verde: Verification via Refereed Delegation for Machine Learning Programs" (2025) for the bisection.
"""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from swarm.training.assignment import torch_seed
from swarm.training.errors import TranscriptError
from swarm.training.transcript import ENTRY_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from swarm.training.tensors import Array

SIZE: Final = ENTRY_BYTES // 4 - 1
"""Numbers of a sketch."""
PROOF_PARTS: Final = 10**9
"""A proof is told in parts of this of the length of the segment's first weights."""
MAX_PROOF: Final = 2**53
_BLOCK: Final = 2**14
"""Signs that are drawn; those of each further block are these, turned round or not."""
_TAG: Final = b"swarm/trace/1\x00"
_OPEN_KEY: Final = b"swarm/trace-key/1"


class Sketcher:
    """Sketches a model's weights, as they are when it is called, by one key.

    Args:
        model: Whose weights; they are changed in place.
        key: Draws the signs.
    """

    def __init__(self, model: nn.Module, key: bytes = _OPEN_KEY) -> None:
        self._items = [item for _, item in sorted(model.state_dict().items())]
        size = sum(item.numel() for item in self._items)
        device = self._items[0].device
        self._room = torch.zeros(-(-size // _BLOCK) * _BLOCK, device=device)
        self._size = size
        words = np.random.Philox(key=torch_seed("sketch", key))
        self._signs = _signs(words, _BLOCK).to(device)
        self._turns = _signs(words, len(self._room) // _BLOCK).to(device)

    @torch.no_grad()
    def __call__(self) -> Array:
        """Shape (SIZE,), float64: of all weights, in the order of their names."""
        torch.cat([item.reshape(-1).float() for item in self._items], out=self._room[: self._size])
        folded = self._turns @ self._room.view(-1, _BLOCK)
        found: Array = (folded * self._signs).view(-1, SIZE).cpu().double().sum(0).numpy()
        return found

    @property
    def length(self) -> float:
        """Of all weights at the last call."""
        return float(torch.linalg.vector_norm(self._room))


def _signs(words: np.random.Philox, count: int) -> torch.Tensor:
    """So many of +1 and -1, float32; drawn by 64."""
    drawn = words.random_raw(-(-count // 64))
    bits = np.unpackbits(drawn.astype("<u8").view(np.uint8), bitorder="little")[:count]
    return torch.from_numpy(1 - 2 * bits.astype(np.float32))


class Tracer:
    """Writes the entries of a round while it is trained or run again.

    Args:
        model: Whose weights are sketched; as it is where the first segment begins.
    """

    def __init__(self, model: nn.Module) -> None:
        self._sketch = Sketcher(model)
        self._entries: list[bytes] = []
        self._last = self._sketch()
        self.begin()

    def begin(self) -> None:
        """A segment begins here."""
        self._start = self._last
        self._link = bytes(32)

    def after(self, loss: float) -> None:
        """A step was taken."""
        self._last = self._sketch()
        moved = self._last - self._start
        entry = np.asarray([loss, *moved], "<f4").tobytes()
        self._entries.append(entry)
        self._link = link(self._link, entry)

    @property
    def link(self) -> bytes:
        """Of the segment, so far."""
        return self._link

    @property
    def data(self) -> bytes:
        """The entries, in order."""
        return b"".join(self._entries)


def link(before: bytes, entry: bytes) -> bytes:
    """The next link of a segment's chain."""
    return hashlib.sha256(_TAG + before + entry).digest()


def entries(data: bytes, first: int, last: int, end: bytes) -> list[bytes]:
    """The entries of a segment, checked against its last link.

    Args:
        data: A stranger's trace of a round.
        first: The segment's first step, from 0.
        last: The one after its last.
        end: As the transcript says.

    Raises:
        TranscriptError: The trace is not the one that the transcript names.
    """
    found = [data[at * ENTRY_BYTES : (at + 1) * ENTRY_BYTES] for at in range(first, last)]
    at = bytes(32)
    for one in found:
        at = link(at, one)
    if at != end or any(len(one) != ENTRY_BYTES for one in found):
        message = "the trace is not the one that the record names"
        raise TranscriptError(message)
    return found


def apart(ours: bytes, theirs: bytes) -> float:
    """How far two entries' weights are apart, in lengths of the way from the segment's start; estimated."""
    left, right = (np.frombuffer(one, "<f4")[1:].astype(np.float64) for one in (ours, theirs))
    way, gap = float(np.linalg.norm(right)), float(np.linalg.norm(left - right))
    if not gap:
        return 0.0
    return gap / way if math.isfinite(gap) and math.isfinite(way) and way else math.inf


def first_fault(steps: int, agrees: Callable[[int], bool]) -> int | None:
    """Bisect: a step before which two parties agree, and after which they do not.

    It asks about at most log2(steps) + 2 places. Where they agree, differ and agree again, it is one of those steps.

    Args:
        steps: How many were taken, at least one, from a start on which they agree.
        agrees: Whether they agree after so many steps.

    Returns:
        The step, from 1; None where they agree at the end.
    """
    if agrees(steps):
        return None
    low, high = 0, steps
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if agrees(middle) else (low, middle)
    return high


def proof_step(steps: int) -> int:
    """After how many steps of a segment its proof is taken."""
    return max(1, steps // 2)


class Prover:
    """Makes the proof of having run a segment.

    Args:
        model: As it is where the segment begins.
        key: That the beacon drew.
    """

    def __init__(self, model: nn.Module, key: bytes) -> None:
        self._sketch = Sketcher(model, key)
        self._start = self._sketch()
        self._length = self._sketch.length or 1.0

    def __call__(self) -> list[int]:
        """`SIZE` whole numbers, for the model as it is in the middle."""
        moved = (self._sketch() - self._start) / self._length * PROOF_PARTS
        return [_whole(value) for value in moved]


def _whole(value: float) -> int:
    return round(min(MAX_PROOF, max(-MAX_PROOF, value))) if math.isfinite(value) else MAX_PROOF

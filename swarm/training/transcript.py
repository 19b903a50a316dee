"""What a worker writes down of a round, so that any part of it can be run again. Pure.

A round of `steps` steps is cut into segments of `every` steps, the last one shorter; no round has more than
`MAX_SEGMENTS`, so `every` grows with a long one. The worker keeps its state (weights and optimiser moments, one
safetensors file) at the start and at each segment's end, and notes:

    h_0 = SHA-256(tag || canonical [task, round, peer, beacon, steps, every, fingerprint, start])
    h_j = SHA-256(tag || h_{j-1} || state_j || samples_j || loss_j || link_j)     state_j is the CID of the state's file

`samples_j` is SHA-256 of the ids that the segment trains on, u64 little endian, and `loss_j` the bits of the loss of its last
step, float32 little endian. `link_j` is the last link of the segment's steps (`trace`), whose entries lie in a file of their
own. Nothing else is random in a step, so no generator has a state to keep.
The root is the Merkle root over h_1 to h_m. An update names it, the CID of these bytes, and the fingerprint.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from storage import canonical, cid, merkle
from storage.errors import CanonicalError, CidError
from swarm.training.errors import TranscriptError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from storage.cid import Cid

VERSION: Final = 2
MAX_SEGMENTS: Final = 1024
MAX_BYTES: Final = 256 * 2**10
MAX_STEPS: Final = 10**5
MAX_FACTS: Final = 32
"""Of a fingerprint."""
MAX_FACT: Final = 256
"""Characters of a fact's name or value."""
NAME: Final = "transcript"
"""The file of a record folder that holds these bytes; the states lie beside it."""
TRACE: Final = "trace"
"""The file of the steps."""
ENTRY_BYTES: Final = 68
"""Of a step in the trace: its loss, and a sketch of 16 numbers."""
_STORE_BYTES: Final = 2**16
_HEADER_BYTES: Final = 2 * 2**20
_TAG: Final = b"swarm/transcript/2\x00"

Fingerprint: TypeAlias = tuple[tuple[str, str], ...]
"""What a machine computes with: facts by name, sorted."""


@dataclass(frozen=True, slots=True)
class Segment:
    """One part of a round."""

    state: Cid  # of the file with the state at its end
    samples: bytes  # 32
    loss: bytes  # 4
    link: bytes  # 32, of its steps


@dataclass(frozen=True, slots=True)
class Transcript:
    """The record of one round."""

    task: bytes
    round: int
    peer: str
    beacon: bytes  # that drew the samples
    steps: int
    every: int
    fingerprint: Fingerprint
    start: Cid  # the state before the first step
    segments: tuple[Segment, ...]
    trace: Cid  # of the file with the steps

    @property
    def root(self) -> bytes:
        """32 bytes that stand for the whole."""
        head = self._encode([self.fingerprint, self.start])
        previous = hashlib.sha256(_TAG + head).digest()
        chain = []
        for one in self.segments:
            body = previous + one.state + one.samples + one.loss + one.link
            previous = hashlib.sha256(_TAG + body).digest()
            chain.append(previous)
        return merkle.root(chain)

    def states(self, segment: int) -> tuple[Cid, Cid]:
        """The states at the start and at the end of a segment."""
        before = self.segments[segment - 1].state if segment else self.start
        return before, self.segments[segment].state

    def bounds(self, segment: int) -> tuple[int, int]:
        """The first step of a segment, and the one after its last."""
        return segment * self.every, min(self.steps, (segment + 1) * self.every)

    def encode(self) -> bytes:
        """Canonical bytes."""
        segments = [[one.state, one.samples, one.loss, one.link] for one in self.segments]
        return self._encode([self.fingerprint, self.start, segments, self.trace])

    def _encode(self, rest: list[object]) -> bytes:
        about = [VERSION, self.task, self.round, self.peer, self.beacon, self.steps, self.every]
        return canonical.encode([*about, *rest])

    @classmethod
    def decode(cls, data: bytes) -> Transcript:
        """Read a stranger's bytes.

        Raises:
            TranscriptError: Malformed, of another version, or a field is out of its bounds.
        """
        try:
            version, *about, fingerprint, start, segments, trace = canonical.decode(
                data, max_bytes=MAX_BYTES
            )
            made = cls(  # type: ignore[call-arg]  # counted by place
                *about,
                tuple((name, value) for name, value in fingerprint),
                cid.from_bytes(start),
                tuple(Segment(cid.from_bytes(state), *rest) for state, *rest in segments),
                cid.from_bytes(trace),
            )
            fault = made._fault()
            if version != VERSION:
                fault = f"it has version {version}, this software reads {VERSION}"
            elif not fault and made.encode() != data:
                fault = "other bytes stand for the same"
        except (CanonicalError, CidError, TypeError, ValueError) as error:
            fault = f"it is malformed: {error}"
        if fault:
            raise TranscriptError(fault)
        return made

    def _fault(self) -> str:
        """Which bound a stranger's fields break; empty if none."""
        numbers = (self.round, self.steps, self.every)
        if any(type(one) is not int or one < 1 for one in numbers) or self.steps > MAX_STEPS:
            return "its numbers are out of their bounds"
        if len(self.segments) != count(self.steps, self.every) or len(self.segments) > MAX_SEGMENTS:
            return "it has another number of segments than its steps give"
        fixed = [(self.task, 32), (self.beacon, 32)]
        for one in self.segments:
            fixed += [(one.samples, 32), (one.loss, 4), (one.link, 32)]
        if any(type(value) is not bytes or len(value) != size for value, size in fixed):
            return "a hash has another length"
        words = [self.peer, *(word for fact in self.fingerprint for word in fact)]
        if any(type(word) is not str or len(word) > MAX_FACT for word in words):
            return "a text is too long"
        names = [name for name, _ in self.fingerprint]
        if len(names) > MAX_FACTS or names != sorted(set(names)):
            return "its fingerprint is not sorted"
        return ""


def length(steps: int, wanted: int) -> int:
    """Steps of a segment of a round, where a network asks for `wanted`."""
    return max(wanted, -(-steps // MAX_SEGMENTS))


def count(steps: int, every: int) -> int:
    """Segments of a round."""
    return -(-steps // every)


def max_state_bytes(parameters: int) -> int:
    """No state of a model is longer: each weight, at most two moments of it, and the file's header."""
    return _HEADER_BYTES + 3 * 4 * parameters


def max_trace_bytes(steps: int) -> int:
    """No trace of a round takes more room: its entries, and what a store adds."""
    return steps * ENTRY_BYTES + _STORE_BYTES


def samples_digest(ids: Sequence[int]) -> bytes:
    """What a segment says of the samples that it trains on."""
    return hashlib.sha256(b"".join(one.to_bytes(8, "little") for one in ids)).digest()


def fingerprint_hash(facts: Fingerprint) -> bytes:
    """32 bytes that stand for a fingerprint."""
    return hashlib.sha256(canonical.encode([list(fact) for fact in facts])).digest()

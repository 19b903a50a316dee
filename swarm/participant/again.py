"""A segment of a peer's recorded round, fetched and run again.

The update, its transcript and the two states come from the peer by their CIDs, all of bounded size; the worker process runs
the segment. What the peer does not give, or gives malformed, is `WithheldError`; any other error is this node's own.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from protocols import signing
from protocols.exchange.errors import ExchangeError
from storage import cid as cids
from storage.errors import CidError, ManifestError
from swarm.errors import SwarmError
from swarm.participant.samples import Samples
from swarm.training import assignment, tensors, transcript
from swarm.training.errors import TrainingError, TranscriptError
from swarm.training.requests import ReplayJob
from swarm.training.spec import max_update_bytes, parameters, parse_spec
from swarm.training.transcript import Transcript

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from storage.cid import Cid
    from swarm.ledger.state import LedgerView, TaskState
    from swarm.ranges import Ranges
    from swarm.shelf import Lease, Shelf
    from swarm.training.requests import ReplayResult
    from swarm.training.spec import TaskSpec
    from swarm.training.supervisor import Worker


MAX_DIGITS = 18
"""Of a number of samples."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A submission of which a segment is to be run again."""

    task: TaskState
    round: int
    worker: bytes
    root: Cid  # of the update
    base: Cid
    beacon: bytes | None  # that drew the samples; None: as the record says
    segment: Callable[[int], int]  # which one, of so many

    @property
    def peer(self) -> str:
        """The worker's peer id."""
        return signing.peer_id(self.worker)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it.

    Attributes:
        segment: From 0.
        segments: Of the round.
        steps: The first and the one after the last, from 0.
        result: Of the worker process.
    """

    segment: int
    segments: int
    steps: tuple[int, int]
    result: ReplayResult


class WithheldError(SwarmError):
    """The peer does not show what it recorded of the round."""


class Again:
    """Runs segments again.

    Args:
        account: This node's.
        view: The newest finalized state.
        shelf: Unpacks what peers give.
        worker: Takes the steps.
        folder: For parts of datasets.
        ranges: Reads parts of datasets; None: each is taken whole.
    """

    def __init__(
        self,
        account: bytes,
        view: Callable[[], LedgerView],
        shelf: Shelf,
        worker: Worker,
        folder: Path,
        ranges: Ranges | None,
    ) -> None:
        self._account = account
        self._view = view
        self._shelf = shelf
        self._worker = worker
        self._folder = folder
        self._samples = Samples(ranges)
        self._lock = trio.Lock()

    async def run(
        self,
        asked: Asked,
        seconds: float,
        progress: Callable[[str, int, int], None] = lambda *_: None,
        *,
        proof_key: bytes = b"",
        is_bisected: bool = False,
    ) -> Outcome:
        """Fetch what it takes and run a segment again.

        Args:
            asked: Which.
            seconds: For the peer to give its record and states.
            progress: Told (stage, done, total).
            proof_key: Of the proof of having run it; empty: none is made.
            is_bisected: Whether to say which step is the first that went another way.

        Raises:
            WithheldError: The peer does not give what it recorded, or that cannot be run.
            SpecError: This version cannot read the task.
        """
        spec = parse_spec(asked.task.spec)
        every = transcript.length(spec.train.steps, self._view().params.replay_steps)
        segments = transcript.count(spec.train.steps, every)
        segment = asked.segment(segments)
        steps = segment * every, min(spec.train.steps, (segment + 1) * every)
        with self._shelf.lease() as lease:
            progress("fetching the peer's record", 0, 0)
            update, path, record, made_of = await self._record(asked, lease, seconds)
            if len(record.segments) != segments:
                message = "its record is cut into other segments than the network asks for"
                raise WithheldError(message)
            roots = record.states(segment)
            most = transcript.max_state_bytes(parameters(spec))
            progress("fetching the peer's states", 0, 0)
            with _withheld(seconds):
                units = _units(made_of, spec)
                start, end = [await self._take(one, asked, lease, most) for one in roots]
                longest = transcript.max_trace_bytes(record.steps)
                trace = (
                    await self._take(record.trace, asked, lease, longest) if is_bisected else None
                )
            progress("fetching the checkpoint and the data", 0, 0)
            base = await lease.take(asked.base)
            beacon = record.beacon if asked.beacon is None else asked.beacon
            data = cids.text(asked.task.dataset)

            def draw(total: int) -> list[int]:
                ids = assignment.sample_ids(
                    asked.task.id,
                    data,
                    asked.round,
                    asked.peer,
                    beacon,
                    count=assignment.samples_of(spec.train.steps, spec.train.batch, units),
                    total=total,
                )
                return assignment.of_steps(ids, spec.train.steps, spec.train.batch, units, *steps)

            async with self._lock:  # the parts of a dataset lie in one folder
                dataset = await self._samples.take(
                    asked.task.dataset, asked.task.spec, draw, lease, self._folder
                )
                result = await self._worker.replay(
                    ReplayJob(
                        spec=asked.task.spec,
                        task=asked.task.id,
                        round=asked.round,
                        peer=asked.peer,
                        beacon=beacon,
                        base_root=cids.text(asked.base),
                        base=base,
                        dataset=dataset,
                        dataset_root=data,
                        update=update,
                        record=path,
                        segment=segment,
                        start=start,
                        end=end,
                        every=self._view().params.replay_steps,
                        tolerance=self._view().params.replay_tolerance,
                        proof_key=proof_key,
                        trace=trace,
                    ),
                    lambda done, total, _: progress("running the steps again", done, total),
                )
        return Outcome(segment, segments, steps, result)

    async def _record(
        self, asked: Asked, lease: Lease, seconds: float
    ) -> tuple[Path, Path, Transcript, int]:
        """The update, the file of the transcript that it names, and of how many samples it says that it was made."""
        most = max_update_bytes(parse_spec(asked.task.spec))
        with _withheld(seconds):
            update = await self._take(asked.root, asked, lease, most)
            named, samples = await trio.to_thread.run_sync(_record_of, update, most)
            path = await self._take(named, asked, lease, transcript.MAX_BYTES)
            data = await trio.to_thread.run_sync(path.read_bytes)
            return update, path, Transcript.decode(data), samples

    async def _take(self, root: Cid, asked: Asked, lease: Lease, most: int) -> Path:
        """A file of the peer's, from it or from the validators, which fetch updates and states too."""
        view = self._view()
        keys = [asked.worker, *(one.public_key for one in view.validators(view.epoch).validators)]
        peers = [signing.peer_id(key) for key in dict.fromkeys(keys) if key != self._account]
        return await lease.take(root, peers, max_bytes=most, is_file=True)


@contextlib.contextmanager
def _withheld(seconds: float) -> Iterator[None]:
    """Turns whatever a peer does not give in time, or gives malformed, into `WithheldError`."""
    try:
        with trio.fail_after(seconds):
            yield
    except (
        ExchangeError,
        ManifestError,
        CidError,
        TrainingError,
        trio.TooSlowError,
    ) as error:
        raise WithheldError(str(error) or "it was not given in time") from error


def _units(samples: int, spec: TaskSpec) -> int:
    train = spec.train
    units = assignment.units_of(samples, train.steps, train.batch, train.units)
    if units is None:
        message = f"its update was made of {samples:,} samples, which is no work of this task"
        raise TranscriptError(message)
    return units


def _record_of(update: Path, most: int) -> tuple[Cid, int]:
    """The transcript that an update names, and how many samples it was made of."""
    metadata = tensors.read(update, max_bytes=most).metadata
    named, samples = metadata.get("record"), metadata.get("samples", "")
    if named is None or not samples.isdecimal() or len(samples) > MAX_DIGITS:
        message = "its update names no record"
        raise TranscriptError(message)
    return cids.parse(named), int(samples)

"""A segment of a recorded round, run again: does the end that the peer has come out of the start that it has?

The verifier draws the samples and takes the learning rates itself, from the task, the round, the peer and the beacon; of
the peer it takes the two states. The distance is, of weights and of each kind of moments, the greatest

    |ours - theirs| / |theirs - start|

Of a round's last segment it is also by how much the update says less than the greatest part of what was learnt.

Of the segment's middle the verifier makes a proof that it ran it (`trace.Prover`), and where it has the peer's trace, it says
which step is the first that went another way, and how far apart the two are after it.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from swarm.training import assignment, codec, local, models, tensors, trace, transcript
from swarm.training.devices import Batches
from swarm.training.errors import StateError, TensorFileError, TranscriptError, UpdateError
from swarm.training.recorder import WEIGHT, fingerprint, state_of
from swarm.training.transcript import Transcript

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from swarm.training.checkpoint import Checkpoint
    from swarm.training.codec import Expected, Layout, Sparse, Update
    from swarm.training.data import Samples
    from swarm.training.local import Optimizers
    from swarm.training.spec import TaskSpec
    from swarm.training.tensors import Array

MATCH: Final = "match"
WITHIN: Final = "within"
MISMATCH: Final = "mismatch"
UNFIT: Final = "unfit"
"""The record or a state is none that could be run again."""
PARTS: Final = 10**6
"""A tolerance is told in parts of this."""
FAR: Final = 10**6
"""The greatest distance that is told; what is not a number is this far."""
HEADER_BYTES: Final = tensors.MAX_HEADER_BYTES + 8
_KINDS: Final = (WEIGHT, "muon.", "adamw.first.", "adamw.second.")


@dataclass(frozen=True, slots=True)
class Replayed:
    """What came of it."""

    outcome: str  # MATCH bit for bit, WITHIN the tolerance, MISMATCH, or UNFIT
    distance: float
    same_machine: bool  # the fingerprints are equal, so that MATCH is due
    seconds: float  # of the steps
    why: str = ""  # UNFIT: in words
    proof: list[int] = field(default_factory=list)  # of having run it; empty where nobody asks
    step: int | None = None  # the first of the round, from 1, that went another way than the trace
    step_distance: float | None = None  # after it; estimated


def run(
    spec: TaskSpec,
    job: Mapping[str, Any],
    base: Checkpoint,
    text: Samples,
    expected: Expected,
    device: torch.device,
    report: Callable[[int, int, float], None],
) -> Replayed:
    """Run one segment again.

    Args:
        spec: The task.
        job: `requests.ReplayJob`.
        base: The agreed checkpoint of the round.
        text: The training data.
        expected: What the update must be.
        device: Where to compute.
        report: Called after each step with (step, steps, loss).
    """
    try:
        said = codec.read(Path(job["update"]), expected)
        record = _record(spec, job, said)
        first, last = record.bounds(job["segment"])
        units = _units(said.about.samples, spec)
        told = _steps(job, record, first, last)
        model = models.fill(models.build(base.config.model), base.tensors, device)
        optimizers = local.Optimizers(model, spec.train)
        fresh = state_of(model, optimizers)
        most = spec.rounds * spec.train.steps
        before, theirs = (_state(Path(job[name]), fresh, most) for name in ("start", "end"))
    except (UpdateError, TranscriptError, StateError) as error:
        return Replayed(UNFIT, FAR, same_machine=False, seconds=0.0, why=str(error))
    _restore(model, optimizers, before)
    ids = assignment.sample_ids(
        job["task"],
        job["dataset_root"],
        job["round"],
        job["peer"],
        job["beacon"],
        count=assignment.samples_of(spec.train.steps, spec.train.batch, units),
        total=text.total,
    )
    taken = assignment.of_steps(ids, spec.train.steps, spec.train.batch, units, first, last)
    samples = text.samples(taken)
    prover = trace.Prover(model, job["proof_key"]) if job.get("proof_key") else None
    tracer = None if told is None else trace.Tracer(model)
    proof: list[int] = []
    started = time.monotonic()
    batches = Batches(device, most=spec.train.batch)
    losses = local.steps(
        spec,
        job["round"],
        model,
        optimizers,
        samples,
        device,
        first,
        batches=batches,
        units=units,
    )
    for done, loss in enumerate(losses, 1):
        if tracer is not None:
            tracer.after(loss)
        if prover is not None and done == trace.proof_step(last - first):
            proof = prover()
        report(done, last - first, loss)
    seconds = time.monotonic() - started
    ours = state_of(model, optimizers)
    gap = distance(ours, theirs, before)
    if last == spec.train.steps:
        gap = max(gap, unsaid(base, theirs, said.groups, expected.layout))
    outcome = MISMATCH
    if gap * PARTS <= job["tolerance"]:
        is_same = all(ours[name].tobytes() == theirs[name].tobytes() for name in ours)
        outcome = MATCH if is_same else WITHIN
    found = Replayed(outcome, gap, fingerprint(device) == record.fingerprint, seconds, proof=proof)
    if told is None or tracer is None:
        return found
    mine, size = tracer.data, transcript.ENTRY_BYTES
    away = [trace.apart(mine[at * size : (at + 1) * size], entry) for at, entry in enumerate(told)]
    fault = trace.first_fault(len(told), lambda done: away[done - 1] * PARTS <= job["tolerance"])
    if fault is None:
        return found
    return replace(found, step=first + fault, step_distance=min(FAR, away[fault - 1]))


def _units(samples: int, spec: TaskSpec) -> int:
    """How many units of work an update says that it was made of.

    Raises:
        TranscriptError: None that the task allows.
    """
    train = spec.train
    units = assignment.units_of(samples, train.steps, train.batch, train.units)
    if units is None:
        message = f"the update was made of {samples:,} samples, which is no work of this task"
        raise TranscriptError(message)
    return units


def _steps(job: Mapping[str, Any], record: Transcript, first: int, last: int) -> list[bytes] | None:
    """The entries of the peer's trace; None where nobody asks for its first fault.

    Raises:
        TranscriptError: It is another trace than the record names.
    """
    if not job.get("trace"):
        return None
    path, most = Path(job["trace"]), transcript.max_trace_bytes(record.steps)
    if path.stat().st_size > most:
        message = "the trace is longer than its steps"
        raise TranscriptError(message)
    return trace.entries(path.read_bytes(), first, last, record.segments[job["segment"]].link)


def _record(spec: TaskSpec, job: Mapping[str, Any], said: Update) -> Transcript:
    """The peer's transcript, checked against its update and against what the network asks for.

    Raises:
        TranscriptError: It is another's, or of another cut.
    """
    record = Transcript.decode(Path(job["record"]).read_bytes())
    about, steps = said.about.record, spec.train.steps
    if about is None or about.transcript != record.root:
        message = "the update names another record"
        raise TranscriptError(message)
    found = (record.task, record.round, record.peer, record.beacon, record.steps, record.every)
    asked = (job["task"], job["round"], job["peer"], job["beacon"], steps)
    if found != (*asked, transcript.length(steps, job["every"])):
        message = "the record is of another round, or cut into other segments"
        raise TranscriptError(message)
    return record


def distance(
    ours: Mapping[str, Array], theirs: Mapping[str, Array], start: Mapping[str, Array]
) -> float:
    """How far two ends are apart, in lengths of the way from the start; see above."""
    return max(_distance(ours, theirs, start, kind) for kind in _KINDS)


def _distance(
    ours: Mapping[str, Array], theirs: Mapping[str, Array], start: Mapping[str, Array], kind: str
) -> float:
    apart = moved = 0.0
    for name in (one for one in ours if one.startswith(kind)):
        there = theirs[name].astype(np.float64)
        apart += float(np.square(ours[name].astype(np.float64) - there).sum())
        moved += float(np.square(there - start[name].astype(np.float64)).sum())
    if not apart:
        return 0.0
    found = math.sqrt(apart / moved) if moved else math.inf
    return min(FAR, found)  # also for what is not a number


def unsaid(base: Checkpoint, end: Mapping[str, Array], said: list[Sparse], layout: Layout) -> float:
    """By how much an update says less, or says it louder or softer, than the greatest part of what was learnt.

    Places where magnitudes are equal count alike, so it does not matter which of them an update names. A group whose
    level is 0 moves nothing, so of one in which as much was learnt it does not matter which places it names at all.
    """
    weights = {
        name.removeprefix(WEIGHT): item for name, item in end.items() if name.startswith(WEIGHT)
    }
    after = codec.gather(weights, layout)
    error = [old - new for old, new in zip(codec.gather(base.tensors, layout), after, strict=True)]
    gap, best_said = 0.0, codec.compress(error, layout)
    for group, whole, theirs, ours in zip(layout.groups, error, said, best_said, strict=True):
        flat = group.part(whole)
        best = float(np.abs(flat[ours.positions]).sum(dtype=np.float64))
        named = flat[theirs.positions].astype(np.float64)
        found = float(np.where(theirs.negative, -named, named).sum())
        if ours.level:  # then `best` is not 0 either
            gaps = (1 - found / best, abs(theirs.level / ours.level - 1))
            gap = max(gap, *(min(FAR, one) for one in gaps))  # also for what is not a number
        elif theirs.level:
            gap = FAR
    return min(FAR, gap)


def _state(path: Path, fresh: Mapping[str, Array], most: int) -> dict[str, Array]:
    """A peer's state, checked.

    Args:
        path: Its file.
        fresh: Tensors of the names, shapes and types that it has to hold.
        most: Steps that a moment can have seen.

    Raises:
        StateError: It is none of this task.
    """
    layout = {name: (item.shape, item.dtype) for name, item in fresh.items()}
    size = HEADER_BYTES + sum(item.nbytes for item in fresh.values())
    try:
        file = tensors.read(path, max_bytes=size)
    except TensorFileError as error:
        message = f"a recorded state {error}"
        raise StateError(message) from error
    found = {name: (item.shape, item.dtype) for name, item in file.tensors.items()}
    if found != layout or file.metadata:
        message = "a recorded state holds other tensors than the task's model and optimisers have"
        raise StateError(message)
    if not 0 <= int(file.tensors["adamw.count"][0]) <= most:
        message = "a recorded state counts more steps than the task has"
        raise StateError(message)
    if not all(np.isfinite(item).all() for item in file.tensors.values()):
        message = "a recorded state holds a value that is not finite"
        raise StateError(message)
    return {name: np.array(item) for name, item in file.tensors.items()}


def _restore(model: torch.nn.Module, optimizers: Optimizers, state: Mapping[str, Array]) -> None:
    values = {name: torch.from_numpy(item) for name, item in state.items()}
    weights = {
        name.removeprefix(WEIGHT): item for name, item in values.items() if name.startswith(WEIGHT)
    }
    model.load_state_dict(weights)
    optimizers.restore(values)

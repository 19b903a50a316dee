"""What a worker keeps while it trains: its states at segment ends, and the transcript that names them."""

from __future__ import annotations

import hashlib
import platform
import shutil
import struct
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

from storage import cid
from storage.importer import hash_path
from swarm.training import models, tensors, transcript
from swarm.training.codec import Record
from swarm.training.trace import Tracer
from swarm.training.transcript import Fingerprint, Segment, Transcript

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from concurrent.futures import Future

    from torch import nn

    from storage.cid import Cid
    from swarm.training.local import Optimizers, Place
    from swarm.training.spec import Train
    from swarm.training.tensors import Array

WEIGHT: Final = "weight."
"""Before the names of a state's weights; its other tensors are the optimisers' own."""


@contextmanager
def of(
    job: Mapping[str, Any], place: Place, settings: Train, device: torch.device
) -> Iterator[Recorder | None]:
    """What keeps the states of a job; None where it asks for no record."""
    if not job.get("record"):
        yield None
        return
    made = Recorder(Path(job["record"]), place, settings, job["every"], device)
    try:
        yield made
    finally:
        made.close()


class Recorder:
    """Keeps one round's states in a folder, which is whole or not there.

    A state is copied, and written and hashed by a thread while the next steps are taken; there is one copy at a time.
    Who makes one closes it.

    Args:
        folder: Replaced when the round is over.
        place: Task, round, peer and beacon.
        settings: Of the task.
        every: Steps of a segment that the network asks for.
        device: What the round is computed on.
    """

    def __init__(
        self, folder: Path, place: Place, settings: Train, every: int, device: torch.device
    ) -> None:
        self._folder = folder
        self._part = folder.with_name(folder.name + ".part")
        self._place = place
        self._settings = settings
        self._every = transcript.length(settings.steps, every)
        self._fingerprint = fingerprint(device)
        self._is_shared = device.type == "cpu"
        self._thread = ThreadPoolExecutor(1, "swarm-record")
        self._states: list[Future[Cid]] = []
        self._ends: list[tuple[bytes, bytes, bytes]] = []

    def begin(self, model: nn.Module, optimizers: Optimizers, ids: Sequence[int]) -> None:
        """Keep the state before the first step.

        Args:
            model: That is trained.
            optimizers: The model's.
            ids: Of the samples, in the order of the steps, of each as many.
        """
        shutil.rmtree(self._part, ignore_errors=True)
        self._part.mkdir(parents=True, exist_ok=True)
        self._model, self._optimizers, self._ids = model, optimizers, ids
        self._batch = len(ids) // self._settings.steps
        self._tracer = Tracer(model)
        self._keep()

    def after(self, done: int, loss: float) -> None:
        """Note a step, and keep the state after one that ends a segment.

        Args:
            done: Steps of the round so far.
            loss: Of the last one.

        Raises:
            OSError: The state before could not be written.
        """
        self._tracer.after(loss)
        if done % self._every and done != self._settings.steps:
            return
        self._keep()
        first = len(self._ends) * self._every * self._batch
        samples = transcript.samples_digest(self._ids[first : done * self._batch])
        self._ends.append((samples, struct.pack("<f", loss), self._tracer.link))
        self._tracer.begin()

    def finish(self) -> Record:
        """Write the transcript and put the folder in its place.

        Raises:
            OSError: A state, or the transcript, could not be written.
        """
        place = self._place
        start, *states = [one.result() for one in self._states]
        segments = [Segment(state, *end) for state, end in zip(states, self._ends, strict=True)]
        steps = self._part / transcript.TRACE
        steps.write_bytes(self._tracer.data)
        made = Transcript(
            place.task,
            place.round,
            place.peer,
            place.beacon,
            self._settings.steps,
            self._every,
            self._fingerprint,
            start,
            tuple(segments),
            hash_path(steps).root,
        )
        path = self._part / transcript.NAME
        path.write_bytes(made.encode())
        record = hash_path(path).root
        shutil.rmtree(self._folder, ignore_errors=True)
        self._part.replace(self._folder)
        facts = transcript.fingerprint_hash(self._fingerprint)
        return Record(made.root, cid.text(record), facts)

    def close(self) -> None:
        """Wait for the thread, and remove what was begun and not finished: the disk may be full of it."""
        self._thread.shutdown()
        shutil.rmtree(self._part, ignore_errors=True)

    def _keep(self) -> None:
        if self._states:
            self._states[-1].result()
        state = state_of(self._model, self._optimizers)
        if self._is_shared:
            state = {name: item.copy() for name, item in state.items()}
        path = self._part / f"state-{len(self._states):04d}.safetensors"
        self._states.append(self._thread.submit(_write, path, state))


def _write(path: Path, state: Mapping[str, Array]) -> Cid:
    tensors.write(path, state, {})
    return hash_path(path).root


def state_of(model: nn.Module, optimizers: Optimizers) -> dict[str, Array]:
    """Weights and moments by name."""
    values = {WEIGHT + name: item for name, item in models.values(model).items()}
    return values | {name: item.cpu().numpy() for name, item in optimizers.state().items()}


def fingerprint(device: torch.device) -> Fingerprint:
    """What this process computes with: where two are the same, equal work gives equal bits."""
    name = _processor()
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    facts = {
        "torch": str(torch.__version__),
        "build": hashlib.sha256(torch.__config__.show().encode()).hexdigest()[:16],
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "device": f"{device.type}: {name}"[: transcript.MAX_FACT],
        "threads": str(torch.get_num_threads()),
        "deterministic": str(torch.are_deterministic_algorithms_enabled()),
        "tf32": _tf32(),
        "code": _code(),
    }
    return tuple(sorted(facts.items()))


def _tf32() -> str:
    """Whether float32 may be rounded to TF32 in products of matrices, and in convolutions."""
    backends = torch.backends
    return f"matmul {backends.cuda.matmul.allow_tf32}, cudnn {backends.cudnn.allow_tf32}"


@cache
def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not on Linux
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


@cache
def _code() -> str:
    """SHA-256 over the training room's own modules."""
    found = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        found.update(path.name.encode() + b"\x00" + path.read_bytes())
    return found.hexdigest()[:16]

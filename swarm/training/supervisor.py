"""The node's side of the worker process: starts it, gives it jobs, and survives it.

One job at a time, in order of asking. The process is started for the first job, and again after it crashed,
hung or was killed; a job that ends with it raises `WorkerError` with the cause, and the next job is served.
A caller that is cancelled gives its job up: the worker is asked to stop between two steps and is killed if it
does not within `CANCEL_SECONDS`.
"""

from __future__ import annotations

import math
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import trio

import swarm
from swarm.training import messages
from swarm.training.completion import Completed, Loaded
from swarm.training.drawers import DEFAULT_BYTES
from swarm.training.errors import WorkerError
from swarm.training.sizes import FinetuneModel, LmModel

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractAsyncContextManager

    from trio_typing import TaskStatus

    from swarm.training.completion import CompletionJob
    from swarm.training.sizes import Decoder

START_SECONDS: Final = 120
"""How long the process may take to load torch."""
CANCEL_SECONDS: Final = 2
"""How long a job that was given up may run on before the process is killed."""
STOP_SECONDS: Final = 1
"""How long the process may take to end by itself when the node stops."""
MAX_SPEEDS: Final = 64
"""Tasks of which the speed is remembered."""
STDERR_BYTES: Final = 4096
"""The last words of the process that an error quotes."""
_ON_THE_WAY: Final = frozenset({"progress", "text"})
"""What a message has that does not end its job."""

Progress: TypeAlias = Callable[[int, int, float], None]


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """How the worker process runs."""

    device: str = "cpu"  # "cpu", or "auto": an accelerator when there is one
    threads: int = 1
    nice: int = 10
    job_seconds: float = 3600.0  # a job that takes longer is given up and the process killed
    silence_seconds: float = 600.0  # likewise after so long without progress
    encodings: Path | None = None  # folder for encodings; None: they are not kept
    encodings_bytes: int = DEFAULT_BYTES


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """What the worker computes with."""

    device: str
    torch: str
    threads: int


@dataclass(frozen=True, slots=True)
class Checked:
    """What is known of a task before it is posted."""

    samples: int  # of the dataset
    pool_samples: int
    parameters: int
    memory_bytes: int  # about, of one peer's round
    bytes_per_token: float | None  # of the dataset; None of a gan
    doubts: list[str]  # sentences for whoever posts it


@dataclass(frozen=True, slots=True)
class TrainJob:
    """One peer's work in one round."""

    spec: bytes
    task: bytes  # 32
    round: int
    peer: str
    beacon: bytes  # 32
    base_root: str  # CID of the agreed checkpoint
    base: Path  # its folder
    dataset: Path
    dataset_root: str
    state: Path  # folder kept across rounds: moments and error feedback
    out: Path  # the update file to write
    record: Path | None = None  # folder for the states at segment ends; None: none are kept
    every: int = 0  # steps of a segment
    units: int = 1  # of work, at most what the task allows


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a round of training gave; losses are nats (gan: distances)."""

    loss_first: float
    loss_last: float
    samples: int
    bytes: int
    parameters: int
    seconds: float


@dataclass(frozen=True, slots=True)
class ReplayJob:
    """A recorded segment of a peer's round, to be run again."""

    spec: bytes
    task: bytes
    round: int
    peer: str
    beacon: bytes  # that drew its samples
    base_root: str
    base: Path
    dataset: Path
    dataset_root: str
    update: Path
    record: Path  # the peer's transcript
    segment: int  # from 0
    start: Path  # the peer's state before the segment
    end: Path  # and after it
    every: int  # steps of a segment, as the network has it
    tolerance: int  # parts of a million
    proof_key: bytes = b""  # of the proof of having run it; empty: none is asked for
    trace: Path | None = None  # the peer's, to be told which step went another way


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """What came of it; see `replay`."""

    outcome: str  # "match", "within", "mismatch", or "unfit" where there is nothing to run
    distance: float
    same_machine: bool  # equal fingerprints
    seconds: float
    why: str
    proof: list[int]  # of having run it, in parts of 10^9; empty where none was asked for
    step: int | None  # the first, from 1, that went another way than the peer's trace
    step_distance: float | None  # after it; estimated


@dataclass(frozen=True, slots=True)
class ScoreJob:
    """The updates of a round to be scored; None for one that could not be fetched."""

    spec: bytes
    task: bytes
    round: int
    beacon: bytes
    base_root: str
    base: Path
    dataset: Path
    pool: Path
    updates: list[Path | None]
    peers: list[str] = field(default_factory=list)  # who must have made each; empty: not checked
    order: list[int] = field(default_factory=list)  # places of their commits; empty: copies count
    start_beacon: bytes = b""  # drew the peers' samples; empty: nobody looks for work on them
    dataset_root: str = ""
    evidence: Path | None = None  # file kept across rounds: who worked on its own samples


@dataclass(frozen=True, slots=True)
class ScoreResult:
    """Integers for the chain, one score an update; below -2^40 is a refusal."""

    base_loss: int
    scores: list[int]


@dataclass(frozen=True, slots=True)
class MergeJob:
    """The accepted updates of a round, in order of CID."""

    spec: bytes
    task: bytes
    round: int
    name: str
    version: int  # of the new checkpoint
    beacon: bytes
    base_root: str
    base: Path
    updates: list[Path]
    pool: Path
    out: Path  # folder of the new checkpoint
    scores: list[int] = field(default_factory=list)  # agreed, one an update; chooses a gan's winner


@dataclass(frozen=True, slots=True)
class MergeResult:
    """The merged checkpoint's loss on beacon-drawn batches of the pool."""

    loss: int
    accuracy: float | None = None  # of a classifier: the share of samples that get their own label


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How good a checkpoint is."""

    loss: int  # nats times 10^5; of a gan the distance times 10^5
    accuracy: float | None = None  # of a classifier


@dataclass(eq=False, slots=True)
class _Job:
    kind: str
    number: int
    packed: bytes
    on_progress: Progress | None
    on_text: Callable[[str], None] | None = None
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    done: trio.Event = field(default_factory=trio.Event)
    result: dict[str, Any] | None = None
    error: BaseException | None = None


class Worker:
    """The one training worker of a node.

    Args:
        settings: Device, threads, priority and limits.
    """

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._send, self._receive = trio.open_memory_channel[_Job](math.inf)
        self._child: _Child | None = None
        self._next = 0
        self.encodings: Callable[[bytes], AbstractAsyncContextManager[int]] | None = None
        """Gives a job of a task the bytes that kept encodings may take; None: as the settings say."""
        self.speeds: dict[bytes, float] = {}
        """Samples a second of the last round of each task."""

    @property
    def pid(self) -> int | None:
        """The process id, or None while no process runs."""
        return None if self._child is None else self._child.pid

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve jobs until cancelled; the process ends with this task, within two seconds."""
        task_status.started()
        job: _Job | None = None
        try:
            while True:
                job = await self._receive.receive()
                await self._serve(job)
        finally:
            waiting = [] if job is None or job.done.is_set() else [job]
            with suppress(trio.WouldBlock, trio.EndOfChannel):
                while True:
                    waiting.append(self._receive.receive_nowait())
            self._receive.close()
            for left in waiting:
                left.error = WorkerError(cause="closed", why="the node is shutting down")
                left.done.set()
            await self._stop()

    async def describe(self) -> WorkerInfo:
        """What the worker computes with; starts it."""
        return WorkerInfo(**await self._call("describe", {}))

    async def vocabulary(self, tokenizer: Path) -> int:
        """How many tokens a tokenizer.json has."""
        found: int = (await self._call("vocabulary", {"tokenizer": str(tokenizer)}))["vocabulary"]
        return found

    async def base(self, spec: bytes, start: Path) -> tuple[Decoder, bool]:
        """A model's sizes with those of its base, which lies at `start`, and whether bytes are the base's tokens."""
        found = await self._call("base", {"spec": spec, "start": str(start)})
        sizes = found["model"]
        kind = FinetuneModel if "trained_blocks" in sizes else LmModel
        return kind(**sizes), found["over_bytes"]

    async def encode(
        self, spec: bytes, start: Path, name: str, data: Path, tokenizer: Path | None, out: Path
    ) -> int:
        """Write the encodings of a task's dataset or pool, as `name` says; how many, 0 where it holds encodings."""
        fields = {
            "spec": spec,
            "start": str(start),
            "name": name,
            "dataset": str(data),
            "tokenizer": None if tokenizer is None else str(tokenizer),
            "out": str(out),
        }
        samples: int = (await self._call("encode", fields))["samples"]
        return samples

    async def check(
        self,
        spec: bytes,
        dataset: Path,
        pool: Path,
        tokenizer: Path | None = None,
        start: Path | None = None,
    ) -> Checked:
        """Look for what would keep a task from being trained.

        Raises:
            WorkerError: With cause `failed`, it names the field and the reason.
        """
        fields = {
            "spec": spec,
            "dataset": str(dataset),
            "pool": str(pool),
            "tokenizer": None if tokenizer is None else str(tokenizer),
            "start": None if start is None else str(start),
        }
        return Checked(**await self._call("check", fields))

    async def initial(
        self,
        spec: bytes,
        dataset: Path,
        out: Path,
        tokenizer: Path | None = None,
        start: Path | None = None,
    ) -> float | None:
        """Write the version-0 checkpoint folder of a task.

        The weights are a function of the task's seed. A gan's evaluator is trained on the dataset and
        stands in the folder, so that the folder's CID pins it; so does the tokenizer, if there is one.
        Of a task with a base the weights are those, and the base lies at `start`.

        Returns:
            Bytes a token of the dataset; 1 where bytes are the tokens, None of a gan.
        """
        fields = {
            "spec": spec,
            "dataset": str(dataset),
            "out": str(out),
            "tokenizer": None if tokenizer is None else str(tokenizer),
            "start": None if start is None else str(start),
        }
        ratio: float | None = (await self._call("initial", fields)).get("bytes_per_token")
        return ratio

    async def train(self, job: TrainJob, on_progress: Progress | None = None) -> TrainResult:
        """Train one round and write the update file; `on_progress` gets (step, steps, loss)."""
        result = TrainResult(**await self._call("train", _fields(job), on_progress))
        self.speeds[job.task] = result.samples / max(result.seconds, 1e-9)
        while len(self.speeds) > MAX_SPEEDS:
            del self.speeds[next(iter(self.speeds))]
        return result

    async def difference(self, old: Path, new: Path) -> dict[str, Any]:
        """What changed from one checkpoint to another; see `difference.difference`."""
        return await self._call("diff", {"old": str(old), "new": str(new)})

    async def replay(self, job: ReplayJob, on_progress: Progress | None = None) -> ReplayResult:
        """Run a recorded segment again; `on_progress` gets (step, steps, loss)."""
        return ReplayResult(**await self._call("replay", _fields(job), on_progress))

    async def score(self, job: ScoreJob) -> ScoreResult:
        """Score the updates of a round."""
        return ScoreResult(**await self._call("score", _fields(job)))

    async def merge(self, job: MergeJob) -> MergeResult:
        """Write the next checkpoint folder, the same bytes on every machine."""
        return MergeResult(**await self._call("merge", _fields(job)))

    async def evaluate(
        self, spec: bytes, checkpoint: Path, pool: Path, limit: int | None
    ) -> Evaluation:
        """How good a checkpoint is on the whole pool, or on its first `limit` samples (gan: so many generated images)."""
        fields = {"spec": spec, "checkpoint": str(checkpoint), "pool": str(pool), "limit": limit}
        return Evaluation(**await self._call("evaluate", fields))

    async def sample(
        self,
        checkpoint: Path,
        prompt: str,
        out: Path | None,
        *,
        length: int = 200,
        temperature: float = 0.8,
        seed: int = 0,
    ) -> str | Path:
        """Text that continues the prompt (lm), or the PNG that was written to `out` (gan)."""
        fields = {
            "checkpoint": str(checkpoint),
            "prompt": prompt,
            "out": None if out is None else str(out),
            "length": length,
            "temperature": temperature,
            "seed": seed,
        }
        result = await self._call("sample", fields)
        return result["text"] if "text" in result else Path(result["out"])

    async def classify(
        self, checkpoint: Path, paths: Sequence[Path], *, resize: str, top: int
    ) -> list[dict[str, Any]]:
        """What a classifier says of files: `path`, `index` and `labels` of each sample; see `labelling`."""
        fields = {
            "checkpoint": str(checkpoint),
            "paths": [str(one) for one in paths],
            "resize": resize,
            "top": top,
        }
        found: list[dict[str, Any]] = (await self._call("classify", fields))["found"]
        return found

    async def load(self, checkpoint: Path) -> Loaded:
        """Make a language model ready: `complete` of the same checkpoint then begins at once."""
        return Loaded(**await self._call("load", {"checkpoint": str(checkpoint)}))

    async def complete(self, job: CompletionJob, on_text: Callable[[str], None]) -> Completed:
        """Continue a prompt; `on_text` gets the text as it is made."""
        return Completed(**await self._call("complete", _fields(job), on_text=on_text))

    async def _call(
        self,
        kind: str,
        fields: dict[str, Any],
        on_progress: Progress | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> dict[str, Any]:
        if self.encodings is not None and "spec" in fields:
            async with self.encodings(fields["spec"]) as allowed:
                fields["encodings_bytes"] = allowed
                return await self._queue(kind, fields, on_progress, on_text)
        return await self._queue(kind, fields, on_progress, on_text)

    async def _queue(
        self,
        kind: str,
        fields: dict[str, Any],
        on_progress: Progress | None,
        on_text: Callable[[str], None] | None,
    ) -> dict[str, Any]:
        self._next += 1
        try:
            packed = messages.pack({"id": self._next, "job": kind, **fields})
        except ValueError as error:  # a text that is not UTF-8: the process has no part in it
            raise WorkerError(cause="failed", why=f"the job cannot be told: {error}") from error
        job = _Job(kind, self._next, packed, on_progress, on_text)
        try:
            self._send.send_nowait(job)
        except trio.BrokenResourceError as error:
            raise WorkerError(cause="closed", why="the node is shutting down") from error
        try:
            await job.done.wait()
        finally:
            job.scope.cancel()
        if job.error is not None:
            raise job.error
        assert job.result is not None  # noqa: S101 - `done` is set after one of the two
        return job.result

    async def _serve(self, job: _Job) -> None:
        if job.scope.cancel_called:  # given up before its turn: the process never hears of it
            job.done.set()
            return
        try:
            with job.scope:
                job.result = await self._execute(job)
            if job.result is None and self._child is not None:
                await self._give_up(job.number)
        except WorkerError as error:
            job.error = error
        except Exception as error:  # noqa: BLE001 - a progress callback's fault is its caller's
            job.error = error
            if self._child is not None:
                await self._give_up(job.number)
        finally:
            if job.result is not None or job.error is not None or job.scope.cancelled_caught:
                job.done.set()

    async def _execute(self, job: _Job) -> dict[str, Any]:
        child = await self._started()
        try:
            with trio.fail_after(self._settings.job_seconds):
                await child.send(job.packed)
                while True:
                    with trio.fail_after(self._settings.silence_seconds):
                        answer = await child.receive()
                    if answer.get("id") != job.number:
                        continue  # the tail of a job that was given up
                    if "progress" in answer:  # empty: the job is alive and has no step to tell of
                        if job.on_progress is not None and answer["progress"]:
                            job.on_progress(*answer["progress"])
                        continue
                    if "text" in answer:
                        if job.on_text is not None:
                            job.on_text(answer["text"])
                        continue
                    if "error" in answer:
                        raise WorkerError(answer["cause"], answer["error"])
                    result: dict[str, Any] = answer["result"]
                    return result
        except trio.TooSlowError as error:
            await self._stop()
            raise WorkerError(cause="timeout", why=f"job {job.kind} took too long") from error
        except (trio.BrokenResourceError, EOFError, ValueError) as error:
            cause, why = await self._ended()
            raise WorkerError(cause, why) from error

    async def _give_up(self, number: int) -> None:
        """Ask the process to leave a job; kill it if it does not."""
        child = self._child
        if child is None:
            return
        if not child.ready:
            await self._stop()
            return
        try:
            with trio.fail_after(CANCEL_SECONDS):
                await child.send(messages.pack({"cancel": number}))
                while True:
                    answer = await child.receive()
                    if answer.get("id") == number and answer.keys().isdisjoint(_ON_THE_WAY):
                        return
        except (trio.TooSlowError, trio.BrokenResourceError, EOFError, ValueError):
            await self._stop()

    async def _started(self) -> _Child:
        if self._child is None:
            self._child = await _Child.start(self._settings)
        child = self._child
        if child.ready:
            return child
        try:
            with trio.fail_after(START_SECONDS):
                await child.receive()
                child.ready = True
        except trio.TooSlowError as error:
            await self._stop()
            raise WorkerError(
                cause="start", why=f"the process said nothing for {START_SECONDS} s"
            ) from error
        except (trio.BrokenResourceError, EOFError, ValueError) as error:
            _, why = await self._ended()
            raise WorkerError(cause="start", why=why) from error
        return child

    async def _ended(self) -> tuple[str, str]:
        child, self._child = self._child, None
        if child is None:
            return "crashed", "the process is gone"
        return await child.reap()

    async def _stop(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            await child.stop()


class _Child:
    """One process and the node's end of its socket."""

    def __init__(self, process: trio.Process, stream: trio.SocketStream, errors: int) -> None:
        self._process = process
        self._stream = stream
        self._errors = errors
        self._buffer = bytearray()
        self._words = ""
        self.ready = False

    @property
    def pid(self) -> int:
        return self._process.pid

    @classmethod
    async def start(cls, settings: WorkerSettings) -> _Child:
        """Start the process; it says that it is ready later.

        Raises:
            WorkerError: The operating system did not start it.
        """
        ours, theirs = socket.socketpair()
        # What it writes to stderr goes to a nameless file: no pipe can fill up and no task has to read it.
        errors = (
            os.memfd_create("swarm-worker-stderr", os.MFD_CLOEXEC)
            if hasattr(os, "memfd_create")
            else -1
        )
        command = [sys.executable, "-m", "swarm.training.worker", str(theirs.fileno())]
        command += [settings.device, str(settings.threads), str(settings.nice)]
        command += [str(settings.encodings or ""), str(settings.encodings_bytes)]
        try:
            with trio.CancelScope(shield=True):
                process = await trio.lowlevel.open_process(
                    command,
                    pass_fds=(theirs.fileno(),),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=errors if errors >= 0 else subprocess.DEVNULL,
                    env=_environment(settings),
                    start_new_session=True,  # Ctrl-C in a terminal is for the node, which then stops us
                )
        except OSError as error:
            ours.close()
            if errors >= 0:
                os.close(errors)
            raise WorkerError(cause="start", why=str(error)) from error
        finally:
            theirs.close()
        return cls(process, trio.SocketStream(trio.socket.from_stdlib_socket(ours)), errors)

    async def send(self, message: bytes) -> None:
        """Send what `messages.pack` gave."""
        await self._stream.send_all(message)

    async def receive(self) -> dict[str, Any]:
        """The next message; what is half read when cancelled is kept.

        Raises:
            EOFError: The process ended.
            ValueError: It said something that is no message.
        """
        await self._fill(messages.PREFIX)
        size = messages.PREFIX + messages.length(bytes(self._buffer[: messages.PREFIX]))
        await self._fill(size)
        body = bytes(self._buffer[messages.PREFIX : size])
        del self._buffer[:size]
        return messages.unpack(body)

    async def _fill(self, count: int) -> None:
        while len(self._buffer) < count:
            data = await self._stream.receive_some(2**16)
            if not data:
                raise EOFError
            self._buffer += data

    async def reap(self) -> tuple[str, str]:
        """Collect a process whose socket closed: (cause, what happened)."""
        await self.stop()
        code = self._process.returncode or 0
        words = self._last_words()
        if code < 0:
            name = signal.Signals(-code).name
            hint = ", as the system does when memory runs out" if -code == signal.SIGKILL else ""
            return "killed", f"the process was ended by {name}{hint}{words}"
        return "crashed", f"the process ended with status {code}{words}"

    async def stop(self) -> None:
        """End the process: close its socket, then kill it if it stays."""
        with trio.CancelScope(shield=True):
            await self._stream.aclose()
            with trio.move_on_after(STOP_SECONDS):
                await self._process.wait()
            if self._process.returncode is None:
                self._process.kill()
                await self._process.wait()
        self._words = self._read_errors()

    def _last_words(self) -> str:
        return f": {self._words}" if self._words else ""

    def _read_errors(self) -> str:
        if self._errors < 0:
            return ""
        size = os.fstat(self._errors).st_size
        data = os.pread(self._errors, STDERR_BYTES, max(0, size - STDERR_BYTES))
        os.close(self._errors)
        self._errors = -1
        lines = data.decode(errors="replace").strip().splitlines()
        # Rust ends with advice on debugging.
        lines = [line for line in lines if not line.startswith("note: ")]
        return lines[-1][:500] if lines else ""


def _fields(job: TrainJob | ReplayJob | ScoreJob | MergeJob | CompletionJob) -> dict[str, Any]:
    return {name: _plain(getattr(job, name)) for name in job.__dataclass_fields__}


def _plain(value: Any) -> Any:  # noqa: ANN401 - a job's fields are int, str, bytes, Path or lists of these
    if isinstance(value, Path):
        return str(value.absolute())
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


def _environment(settings: WorkerSettings) -> dict[str, str]:
    """The node's own environment, with the threads of torch's libraries and the path of our packages."""
    root = str(Path(swarm.__file__).parents[1])
    inherited = os.environ.get("PYTHONPATH")
    return {
        **os.environ,
        "PYTHONPATH": root if not inherited else f"{root}{os.pathsep}{inherited}",
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": str(settings.threads),
        "MKL_NUM_THREADS": str(settings.threads),
        "OPENBLAS_NUM_THREADS": str(settings.threads),
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        # The tokenizers' own threads; without a backtrace a panic's words are short.
        "TOKENIZERS_PARALLELISM": "true" if settings.threads > 1 else "false",
        "RAYON_NUM_THREADS": str(settings.threads),
        "RUST_BACKTRACE": "0",
    }

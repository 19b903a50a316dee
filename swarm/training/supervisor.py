"""The node's side of the worker process: starts it, gives it jobs, and survives it.

One job at a time, in order of asking. The process is started for the first job, and again after it crashed,
hung or was killed; a job that ends with it raises `WorkerError` with the cause, and the next job is served.
A caller that is cancelled gives its job up: the worker is asked to stop between two steps and is killed if it
does not within `CANCEL_SECONDS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import trio

from swarm.training import messages
from swarm.training.child import Child, WorkerSettings
from swarm.training.completion import Completed, Loaded
from swarm.training.errors import WorkerError
from swarm.training.requests import (
    Checked,
    Evaluation,
    MergeJob,
    MergeResult,
    ReplayJob,
    ReplayResult,
    ScoreJob,
    ScoreResult,
    TrainJob,
    TrainResult,
    WorkerInfo,
    fields,
)
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
MAX_SPEEDS: Final = 64
"""Tasks of which the speed is remembered."""
_ON_THE_WAY: Final = frozenset({"progress", "text"})
"""What a message has that does not end its job."""

Progress: TypeAlias = Callable[[int, int, float], None]


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
        self._child: Child | None = None
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
        result = TrainResult(**await self._call("train", fields(job), on_progress))
        self.speeds[job.task] = result.samples / max(result.seconds, 1e-9)
        while len(self.speeds) > MAX_SPEEDS:
            del self.speeds[next(iter(self.speeds))]
        return result

    async def difference(self, old: Path, new: Path) -> dict[str, Any]:
        """What changed from one checkpoint to another; see `difference.difference`."""
        return await self._call("diff", {"old": str(old), "new": str(new)})

    async def replay(self, job: ReplayJob, on_progress: Progress | None = None) -> ReplayResult:
        """Run a recorded segment again; `on_progress` gets (step, steps, loss)."""
        return ReplayResult(**await self._call("replay", fields(job), on_progress))

    async def score(self, job: ScoreJob) -> ScoreResult:
        """Score the updates of a round."""
        return ScoreResult(**await self._call("score", fields(job)))

    async def merge(self, job: MergeJob) -> MergeResult:
        """Write the next checkpoint folder, the same bytes on every machine."""
        return MergeResult(**await self._call("merge", fields(job)))

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
        return Completed(**await self._call("complete", fields(job), on_text=on_text))

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

    async def _started(self) -> Child:
        if self._child is None:
            self._child = await Child.start(self._settings)
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

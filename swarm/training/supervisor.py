"""The node's side of the worker process: starts it, gives it jobs, and survives it.

One job at a time, in the order of `turns`: while one trains, a job that is more urgent is let in between two of its
steps. The process is started for the first job, and again after it crashed, hung or was killed; a job that ends with
it raises `WorkerError` with the cause, and the next job is served. One that was let in is then done again alone, and no
other is let in after it: both together may be more than the memory holds.
A caller that is cancelled gives its job up: the worker is asked to stop between two steps and is killed if it
does not within `CANCEL_SECONDS`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

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
from swarm.training.turns import Job, Turns

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from trio_typing import TaskStatus

    from swarm.training.completion import CompletionJob
    from swarm.training.sizes import Decoder
    from swarm.training.turns import Progress

START_SECONDS: Final = 120
"""How long the process may take to load torch."""
CANCEL_SECONDS: Final = 2
"""How long a job that was given up may run on before the process is killed."""
MAX_SPEEDS: Final = 64
"""Tasks of which the speed is remembered."""


class Worker:
    """The one training worker of a node.

    Args:
        settings: Device, threads, priority and limits.
    """

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._turns = Turns()
        self._child: Child | None = None
        self._told: dict[int, Job] = {}  # by number; what the process has heard of and not ended
        self._lets_in = True
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
        job: Job | None = None
        try:
            while True:
                # One that was let in can outlast the job that it was let into.
                job = next(iter(self._told.values()), None) or await self._turns.next()
                await self._serve(job)
        finally:
            left = [*self._told.values(), *self._turns.close(), *([] if job is None else [job])]
            self._told.clear()
            for one in left:
                if not one.done.is_set():
                    one.error = WorkerError(cause="closed", why="the node is shutting down")
                    one.done.set()
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
        if self._turns.is_closed:
            raise WorkerError(cause="closed", why="the node is shutting down")
        job = Job(kind, self._next, packed, on_progress, on_text)
        self._turns.add(job)
        try:
            await job.done.wait()
        finally:
            job.scope.cancel()
            self._turns.drop(job)
        if job.error is not None:
            raise job.error
        assert job.result is not None  # noqa: S101 - `done` is set after one of the two
        return job.result

    async def _serve(self, job: Job) -> None:
        try:
            if job.scope.cancel_called and job.number not in self._told:
                return  # given up before its turn: the process never hears of it
            with job.scope:
                await self._execute(job)
            if not job.done.is_set() and self._child is not None:
                await self._give_up(job)
        except WorkerError as error:
            job.error = error
        except Exception as error:  # noqa: BLE001 - what the process says must not end the node
            job.error = error
            await self._stop(job)
        finally:
            if job.result is not None or job.error is not None or job.scope.cancelled_caught:
                job.done.set()

    async def _execute(self, job: Job) -> None:
        child = await self._started()
        try:
            if job.number not in self._told:
                await self._tell(child, job)
            while job.number in self._told:
                await self._hear(child)
                await self._let_in(child, job)
        except trio.TooSlowError as error:
            late = self._under_way.kind
            await self._stop(job)
            raise WorkerError(cause="timeout", why=f"job {late} took too long") from error
        except (trio.BrokenResourceError, EOFError, ValueError) as error:
            cause, why = await self._ended(job)
            raise WorkerError(cause, why) from error

    async def _tell(self, child: Child, job: Job) -> None:
        self._told[job.number] = job
        await self._send(child, job.packed)

    @staticmethod
    async def _send(child: Child, message: bytes) -> None:
        """Whoever gives up meanwhile: after half a message the process would understand no other."""
        with trio.fail_after(CANCEL_SECONDS) as scope:
            scope.shield = True
            await child.send(message)

    @property
    def _under_way(self) -> Job:
        """Of what the process was told, the last: the others stand still for it."""
        return next(reversed(self._told.values()))

    async def _hear(self, child: Child) -> None:
        """Give what the process says next to the job that it is about."""
        one, began = self._under_way, trio.current_time()
        left = max(0.0, self._settings.job_seconds - one.seconds)
        try:
            with trio.fail_after(min(left, self._settings.silence_seconds)):
                answer = await child.receive()
        finally:
            one.seconds += trio.current_time() - began
        job = self._told.get(answer.get("id", 0))
        if job is None:
            return
        if "error" not in answer and "result" not in answer:
            try:
                job.hear(answer)
            except Exception as error:  # noqa: BLE001 - a progress callback's fault is its caller's
                job.error = error
                job.scope.cancel()
            return
        was_let_in = job is not next(iter(self._told.values()))
        del self._told[job.number]
        if answer.get("cause") == "memory" and was_let_in:
            self._again(job)
            return
        if "error" in answer:
            job.error = job.error or WorkerError(answer["cause"], answer["error"])
        else:
            job.result = answer["result"]
        job.done.set()

    async def _let_in(self, child: Child, job: Job) -> None:
        """Let a more urgent job in, or give up one that was let in and that nobody waits for any more."""
        for inner in self._told.values():
            if inner is not job:
                if inner.scope.cancel_called:
                    await self._send(child, messages.pack({"cancel": inner.number}))
                return
        if not self._lets_in or not self._told or job.scope.cancel_called:
            return
        if (urgent := self._turns.before(job)) is not None:
            await self._tell(child, urgent)

    def _again(self, job: Job) -> None:
        """Do a job again, alone, that was let in and had too little room."""
        self._lets_in = False
        job.seconds = 0.0
        if job.scope.cancel_called:
            job.done.set()
        else:
            self._turns.add(job)

    def _forget(self, ended: Job | None) -> None:
        """The process is gone, and what it was told; what it did not end with is done again."""
        told, self._told = self._told, {}
        for one in told.values():
            if one is not ended:
                self._again(one)

    async def _give_up(self, job: Job) -> None:
        """Ask the process to leave a job; kill it if it does not, when what was let in is done."""
        child = self._child
        if child is None:
            return
        if not child.ready:
            await self._stop(job)
            return
        try:
            await self._send(child, messages.pack({"cancel": job.number}))
            while len(self._told) > 1:
                await self._let_in(child, job)
                await self._hear(child)
            with trio.fail_after(CANCEL_SECONDS):
                while job.number in self._told:
                    await self._hear(child)
        except (trio.TooSlowError, trio.BrokenResourceError, EOFError, ValueError):
            await self._stop(job)

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

    async def _ended(self, job: Job | None = None) -> tuple[str, str]:
        self._forget(job)
        child, self._child = self._child, None
        if child is None:
            return "crashed", "the process is gone"
        return await child.reap()

    async def _stop(self, job: Job | None = None) -> None:
        """End the process, and a job with it."""
        self._forget(job)
        child, self._child = self._child, None
        if child is not None:
            await child.stop()

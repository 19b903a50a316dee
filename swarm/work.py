"""What a person has the worker do: make a task's first checkpoint, draw a sample, score a version, run a segment again."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from storage import cid as cids
from storage.errors import CidError
from swarm import datasets, preparing, reports
from swarm.errors import NotFoundError, RefusedError, SwarmError, UsageError
from swarm.ledger.transactions import Phases, TaskPost
from swarm.refusals import check_free, check_writable
from swarm.training.errors import SpecError, WorkerError
from swarm.training.spec import (
    BYTES,
    MAX_TOKENIZER_BYTES,
    NONE,
    check_posted,
    parse_spec,
    with_data,
    with_tokenizer,
    write_spec,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from swarm.control.api import Json, Progress
    from swarm.level import Level
    from swarm.models import ProvenName
    from swarm.node import Node
    from swarm.shelf import Lease
    from swarm.training.spec import TaskSpec

POOL_CHECK = 64
"""Samples of a pool that are scored before its task is posted: one that holds none is found out here."""


class Work:
    """A person's door to the worker.

    Args:
        node: Whose worker, shelf and ledger.
        level: Says what names point to.
        tree_of: The tree of a commit of a dataset; of any other root, that root.
    """

    def __init__(
        self, node: Node, level: Level, tree_of: Callable[[cids.Cid, Progress], Awaitable[cids.Cid]]
    ) -> None:
        self._node = node
        self._level = level
        self._tree_of = tree_of

    async def post_task(self, spec_text: str, folder: Path, progress: Progress) -> Json:
        """Post a training task.

        Args:
            spec_text: The TOML text of the task.
            folder: What relative paths in it are relative to.
            progress: Told while data is published.

        Returns:
            `task`, `name`, `base`, `samples`, `parameters`, `doubts` (sentences), and of a task with a tokenizer
            `bytes_per_token`.

        Raises:
            UsageError: A field is missing or malformed; the message names it.
        """
        node = self._node
        spec = _spec(spec_text.encode())
        check_writable(node.ledger.view(), node.signer.public_key, spec.name)
        dataset = await self._data("dataset", spec.data.dataset, folder, progress)
        pool = await self._data("pool", spec.data.pool, folder, progress)
        spec = with_data(spec, cids.text(dataset), cids.text(pool))
        progress("base", 0, 1)
        with tempfile.TemporaryDirectory(dir=node.settings.home, prefix="base-") as scratch:
            out = Path(scratch) / "checkpoint"
            with node.shelf.lease() as lease:
                data = await lease.take(dataset)
                held_out = await lease.take(pool)
                try:
                    spec, start = await preparing.take_base(
                        node, spec, folder, lease, partial(self._level.look_up, progress=progress)
                    )
                    spec, tokenizer = await self._tokenizer(spec, folder, lease, progress)
                    spec, data, held_out = await preparing.publish_encodings(
                        node, spec, (data, held_out), start, tokenizer, Path(scratch), lease
                    )
                    encoded = write_spec(spec)
                    checked = await node.worker.check(encoded, data, held_out, tokenizer, start)
                    await node.worker.initial(encoded, data, out, tokenizer, start)
                    first = await node.worker.evaluate(encoded, out, held_out, POOL_CHECK)
                except (SpecError, WorkerError) as error:
                    raise _refusal(error) from error
            label = f"{spec.name}@0"
            adding = partial(datasets.publish, out, node.store, node.network, label=label)
            base = await node.room_for(adding, lambda why: progress(why, 0, 0))
        dataset, pool = cids.parse(spec.data.dataset), cids.parse(spec.data.pool)
        progress("base", 1, 1)
        payload = TaskPost(
            spec.name,
            spec.settled_as,
            encoded,
            base.root,
            dataset,
            pool,
            spec.rounds,
            spec.budget,
            Phases(
                spec.phases.train,
                spec.phases.reveal,
                spec.phases.score_commit,
                spec.phases.score_reveal,
                spec.phases.attest,
            ),
            spec.score.tolerance,
        )
        identifier = await node.wallet.submit(payload)
        await node.wallet.confirm(identifier)
        await trio.to_thread.run_sync(node.participant.accuracies.note, base.root, first.accuracy)
        posted = {"task": identifier.hex(), "name": spec.name, "base": cids.text(base.root)}
        doubts = list(checked.doubts)
        if dataset == pool:
            doubts.insert(0, "the pool is the dataset: scores say nothing of what was learnt")
        about = {"samples": checked.samples, "parameters": checked.parameters, "doubts": doubts}
        ratio = {"bytes_per_token": checked.bytes_per_token} if tokenizer is not None else {}
        return posted | about | ratio

    async def _tokenizer(
        self, spec: TaskSpec, folder: Path, lease: Lease, progress: Progress
    ) -> tuple[TaskSpec, Path | None]:
        """The task with its tokenizer named by CID and the vocabulary that it has, and the tokenizer's file."""
        if spec.data.tokenizer in (BYTES, NONE):
            return spec, None
        node = self._node
        root = await self._data("tokenizer", spec.data.tokenizer, folder, progress)
        path = await lease.take(root, max_bytes=MAX_TOKENIZER_BYTES)
        vocabulary = await node.worker.vocabulary(path)
        # The same bytes cut otherwise have another CID; checkpoints are checked against ours.
        label = f"{spec.name} tokenizer"
        adding = partial(datasets.publish, path, node.store, node.network, label=label)
        published = await node.room_for(adding, lambda why: progress(why, 0, 0))
        return with_tokenizer(spec, cids.text(published.root), vocabulary), path

    async def _data(self, field: str, value: str, folder: Path, progress: Progress) -> cids.Cid:
        """The root of a task's data: its CID (of a commit, its tree's), or what publishing a local path gives."""
        try:
            root = cids.parse(value)
        except CidError:
            path = (folder / value).resolve()
        else:
            return await self._tree_of(root, progress)
        if not path.exists():
            message = f"data.{field}: {value!r} is neither a CID nor a path below {folder}"
            raise UsageError(message)
        node, told = self._node, partial(progress, field)
        adding = partial(datasets.publish, path, node.store, node.network, progress=told)
        return (await node.room_for(adding, lambda why: progress(why, 0, 0))).root

    async def sample(
        self,
        name: str,
        version: int | None,
        prompt: str | None,
        path: Path | None,
        length: int,
        seed: int,
    ) -> Json:
        """Use a checkpoint: `text` of a language model, or the `path` of a PNG grid of a GAN."""
        if path is not None:
            check_free(path)
        proven = await self._level.prove(name, version, _silent)
        target = path if path is not None else self._node.settings.home / f"{name}.png"
        with self._node.shelf.lease() as lease:
            checkpoint = await lease.take(proven.entry.root)
            if not (checkpoint / "config.json").is_file():
                message = f"{name}@{proven.entry.version} is not a model: it holds no config.json"
                raise UsageError(message, "`swarm fetch` writes it as it is")
            try:
                made = await self._node.worker.sample(
                    checkpoint, prompt or "", target, length=length, seed=seed
                )
            except WorkerError as error:
                if error.cause != "failed":
                    raise
                raise UsageError(error.why) from error
        return _of(proven) | ({"path": str(made)} if isinstance(made, Path) else {"text": made})

    async def replay(
        self, task: str, number: int, peer: str, segment: int | None, progress: Progress
    ) -> Json:
        """Run a recorded segment of a peer's round again.

        Args:
            task: Name or id.
            number: Of the round.
            peer: Whose.
            segment: From 1; None: the one that the ledger drew, or the first.
            progress: Told (stage, done, total).

        Returns:
            `task`, `name`, `round`, `peer`, `segment`, `segments`, `first_step`, `last_step`, `outcome` ("match", "within",
            "mismatch", or "unfit" with `why`), `distance`, `tolerance`, `same_machine`, `step` and `step_distance`: the first
            step that went another way and how far apart the two are after it, None where there is none; `seconds`, and
            `stage`: how the ledger's own check stands, None where it drew none.
        """
        await self._level.caught_up(progress)
        found = await trio.to_thread.run_sync(reports.find_task, self._node.ledger.view(), task)
        return await self._node.replays.ask(found, number, peer, segment, progress)

    async def evaluate(self, name: str, version: int | None) -> Json:
        """The validation loss of a version: `loss`, in nats; of a GAN its Fréchet distance."""
        proven = await self._level.prove(name, version, _silent)
        view, root = self._node.ledger.view(), proven.entry.root
        task = await trio.to_thread.run_sync(reports.task_behind, view, name, proven.entry.version)
        if task is None:
            message = f"no task trains {name!r}, so there is no validation pool to score it on"
            raise NotFoundError(message)
        with self._node.shelf.lease() as lease:
            checkpoint = await lease.take(root)
            pool = await lease.take(task.pool)
            found = await self._node.worker.evaluate(task.spec, checkpoint, pool, None)
        await trio.to_thread.run_sync(self._node.participant.accuracies.note, root, found.accuracy)
        share = {} if found.accuracy is None else {"accuracy": found.accuracy}
        return _of(proven) | {"loss": reports.loss_of(found.loss), **share}


def _of(proven: ProvenName) -> Json:
    """Which version was asked about."""
    entry = proven.entry
    return {"name": entry.name, "version": entry.version, "cid": cids.text(entry.root)}


def _refusal(error: SpecError | WorkerError) -> SwarmError:
    """Why a task is not posted; a worker that broke over it is no fault of the task's text."""
    why = error.why if isinstance(error, WorkerError) else str(error)
    message = f"the task cannot be started: {why}"
    if isinstance(error, WorkerError) and error.cause not in ("failed", "memory"):
        return RefusedError(message, "`swarm status` says how the worker is")
    return UsageError(message, "docs/guide/tasks.md explains every key")


def _silent(_stage: str, _done: int, _total: int, _note: str = "", /) -> None:
    """Progress that nobody watches."""


def _spec(data: bytes) -> TaskSpec:
    try:
        spec = parse_spec(data)
        check_posted(spec)
    except SpecError as error:
        raise UsageError(str(error), "docs/guide/tasks.md explains every key") from error
    return spec

"""What a person asks of a model's versions, and how a task is watched while it makes them."""

from __future__ import annotations

import math
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

import trio

from protocols import signing
from storage import cid as cids
from swarm import reports
from swarm.errors import NotFoundError, RefusedError, UsageError
from swarm.ledger.state import SettledRound, history_key, load
from swarm.ledger.transactions import NameUpdate
from swarm.limits.gpu import Nvml
from swarm.training.errors import SpecError, WorkerError
from swarm.training.sizes import FinetuneModel, LmModel
from swarm.training.spec import RESIZES, parse_spec

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from swarm.control.api import Json, Progress
    from swarm.ledger.names import NameEntry, NameVersion
    from swarm.ledger.state import LedgerView
    from swarm.node import Node

CONFIG = "config.json"


class Registry:
    """A person's door to the versions of models.

    Args:
        node: Whose ledger, shelf and worker are asked.
        caught_up: Waits, within bounds, until the ledger is as new as its peers'.
    """

    def __init__(self, node: Node, caught_up: Callable[[Progress], Awaitable[None]]) -> None:
        self._node = node
        self._caught_up = caught_up
        self._accelerators: Nvml | None = None

    async def log(self, name: str, limit: int, progress: Progress) -> Json:
        """The newest versions of a name, the newest first.

        Returns:
            `name`, `owner`, `task` (None, or the id of the task that alone may write it), `more` (there are older
            ones), and `versions`: `version`, `cid`, `height`, `round` (None where a person made it), `task`, `loss`
            and `base_loss` in nats (None where nobody measured), `accuracy` (of a classifier, where this node
            measured it, else None), `accepted` (the workers whose updates it holds).
        """
        await self._caught_up(progress)
        view = self._node.ledger.view()
        entry = _entry(view, name)
        oldest = max(0, entry.version - limit + 1)

        def read() -> list[Json]:
            numbers = range(entry.version, oldest - 1, -1)
            found = [_version(view, entry, number) for number in numbers]
            known = self._node.participant.accuracies
            return [_version_report(view, one) | {"accuracy": known.of(one.root)} for one in found]

        return {
            "name": name,
            "owner": signing.peer_id(entry.owner),
            "task": entry.task.hex() or None,
            "more": oldest > 0,
            "versions": await trio.to_thread.run_sync(read),
        }

    async def diff(
        self, old: tuple[str, int | None], new: tuple[str, int | None], progress: Progress
    ) -> Json:
        """What changed between two versions, of one model or of two.

        Returns:
            `old` and `new` (`name`, `version`, `cid` each), and what `swarm.training.difference` tells.
        """
        await self._caught_up(progress)
        view = self._node.ledger.view()
        sides = [_side(view, *one) for one in (old, new)]
        with self._node.shelf.lease() as lease:
            folders = []
            for side in sides:
                stage = f"{side.name}@{side.version}"
                folder = await lease.take(side.root, progress=partial(progress, "fetch"))
                if not (folder / CONFIG).is_file():
                    message = f"{stage} is not a model: it holds no {CONFIG}"
                    raise UsageError(message, "`swarm dataset diff` compares datasets")
                folders.append(folder)
            found = await self._node.worker.difference(*folders)
        named = [
            {"name": one.name, "version": one.version, "cid": cids.text(one.root)} for one in sides
        ]
        return {"old": named[0], "new": named[1], **found}

    async def rollback(self, name: str, version: int, progress: Progress) -> Json:
        """Make a new version that names what an earlier one did; nothing is lost.

        Returns:
            `name`, `version` (the new one), `restored` (the earlier one), `cid`, `height`.

        Raises:
            RefusedError: The name is another's, an open task writes it, or it names that already.
        """
        await self._caught_up(progress)
        view = self._node.ledger.view()
        entry = _entry(view, name)
        wanted = _version(view, entry, version)
        if entry.owner != self._node.signer.public_key:
            message = f"the name {name!r} belongs to {signing.peer_id(entry.owner)}"
            raise RefusedError(message)
        if entry.task:
            message = f"an open task writes {name!r}"
            raise RefusedError(message, "roll back once it is over: `swarm tasks` says when")
        if wanted.root == entry.root:
            message = f"{name}@{entry.version} names the same as {name}@{version}"
            raise RefusedError(message)
        payload = NameUpdate(name, wanted.root, entry.version + 1, entry.root)
        wallet = self._node.wallet
        included = await wallet.confirm(await wallet.submit(payload))
        return {
            "name": name,
            "version": entry.version + 1,
            "restored": version,
            "cid": cids.text(wanted.root),
            "height": included.height,
        }

    async def classify(
        self,
        name: str,
        version: int | None,
        paths: list[Path],
        top: int,
        resize: str | None,
        progress: Progress,
    ) -> Json:
        """Ask a classifier about files of this machine.

        Args:
            name: The model's.
            version: Which; None: the newest.
            paths: Files, or folders of them.
            top: Labels told of each sample.
            resize: How pictures of another size are made to fit; None: as the task that made the model has it.
            progress: Told while the model comes.

        Returns:
            `name`, `version`, `cid`, and `samples`: `path`, `index` (in that file, from 0), and `labels`: `label` and
            `probability` each, the likeliest first.

        Raises:
            UsageError: It is no classifier, or a file cannot be read or gives no probabilities; the file is named.
        """
        if resize not in (None, *RESIZES):
            message = f"resize: one of {', '.join(RESIZES)}"
            raise UsageError(message)
        await self._caught_up(progress)
        view = self._node.ledger.view()
        side = _side(view, name, version)
        with self._node.shelf.lease() as lease:
            folder = await lease.take(side.root, progress=partial(progress, "fetch"))
            if not (folder / CONFIG).is_file():
                message = f"{name}@{side.version} is not a model: it holds no {CONFIG}"
                raise UsageError(message)
            try:
                found = await self._node.worker.classify(
                    folder, paths, resize=resize or _resize(view, side), top=top
                )
            except WorkerError as error:
                if error.cause != "failed":
                    raise
                raise UsageError(error.why) from error
        cid = cids.text(side.root)
        return {"name": name, "version": side.version, "cid": cid, "samples": labelled(found)}

    async def watch(self, task: str) -> Json:
        """A task as its curve is drawn.

        Returns:
            What `tasks` and `scoreboard` tell of it, where `rounds` are the rounds and `all_rounds` is how many there
            will be; and `activity`, `problem` and `speed` of this node: what it does
            for the task, the last failure, and samples or tokens (of a language model) a second of its last round; None
            if not known. `device` is what its worker computes with, and `gpus` are this machine's, where the node uses
            them: `name`, `busy` (0 to 1), `used` and `total` (bytes of memory), `celsius`, `watts` each. Each round has the `accuracy` of what
            it merged, of a classifier and where this node measured it. `height` is that of the ledger.
        """
        node = self._node
        view = node.ledger.view()
        state = reports.find_task(view, task)

        def read() -> Json:
            summary = reports.task_summary(view, state)
            board = reports.scoreboard(view, state)
            for one in board["rounds"]:
                root = cids.parse(one["root"]) if one["loss"] is not None else None
                one["accuracy"] = None if root is None else node.participant.accuracies.of(root)
            return summary | {"all_rounds": summary["rounds"]} | board

        report = await trio.to_thread.run_sync(read)
        speed = node.worker.speeds.get(state.id)
        if speed is not None:
            speed *= _tokens_a_sample(state.spec)
        return report | {
            "height": view.height,
            "activity": node.participant.activity.get(state.id),
            "problem": node.participant.problems.get(state.id),
            "training_loss": node.participant.losses.get(state.id),
            "speed": speed,
            "device": node.device,
            "gpus": await trio.to_thread.run_sync(self._gpus),
        }

    def _gpus(self) -> list[Json]:
        if not self._node.settings.gpu:
            return []
        self._accelerators = self._accelerators or Nvml()
        return [asdict(one) for one in self._accelerators.read()]


def _entry(view: LedgerView, name: str) -> NameEntry:
    entry = view.name(name)
    if entry is None:
        message = f"no model is called {name!r} on this network at height {view.height:,}"
        raise NotFoundError(message, "`swarm tasks` lists the names")
    return entry


def _version(view: LedgerView, entry: NameEntry, number: int) -> NameVersion:
    found = view.name_version(entry.name, number)
    if found is None:
        message = f"{entry.name} has versions 0 to {entry.version}, not {number}"
        raise NotFoundError(message)
    return found


def _side(view: LedgerView, name: str, version: int | None) -> NameVersion:
    entry = _entry(view, name)
    return _version(view, entry, entry.version if version is None else version)


def _version_report(view: LedgerView, one: NameVersion) -> Json:
    settled = _settled(view, one.task, one.round) if one.round else None
    accepted = () if settled is None else settled.submissions
    return {
        "version": one.version,
        "cid": cids.text(one.root),
        "height": one.height,
        "round": one.round or None,
        "task": one.task.hex() or None,
        "loss": None if settled is None else reports.loss_of(settled.merged_loss),
        "base_loss": None if settled is None else reports.loss_of(settled.base_loss),
        "accepted": [signing.peer_id(entry.worker) for entry in accepted if entry.accepted],
    }


def _settled(view: LedgerView, task: bytes, number: int) -> SettledRound | None:
    data = view.raw.get(history_key(task, number))
    return None if data is None else SettledRound.unpack(task, number, load(data))


def labelled(found: list[Json]) -> list[Json]:
    """What a classifier says of samples, as it is told.

    Raises:
        UsageError: Of one it says no numbers, which happens where the sample's own are too large.
    """
    for one in found:
        if not all(math.isfinite(share) for _, share in one["labels"]):
            message = f"{one['path']}: of sample {one['index']} the model gives no probabilities"
            raise UsageError(message, "scale its numbers as those were that it was trained on")
    return [
        {**one, "labels": [{"label": a, "probability": b} for a, b in one["labels"]]}
        for one in found
    ]


def _tokens_a_sample(spec: bytes) -> int:
    try:
        model = parse_spec(spec).model
    except SpecError:
        return 1
    return model.context if isinstance(model, LmModel | FinetuneModel) else 1


def _resize(view: LedgerView, one: NameVersion) -> str:
    """How the task behind a version lets pictures fit."""
    task = reports.task_behind(view, one.name, one.version)
    try:
        return RESIZES[0] if task is None else parse_spec(task.spec).data.resize
    except SpecError:
        return RESIZES[0]

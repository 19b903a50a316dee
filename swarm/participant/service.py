"""The shell of a participant: watches finalized heights and does what `core.decide` says.

One task of the event loop drives one open training task, so a slow round of one never holds up another;
the worker process still does one job at a time, the most urgent first (`swarm.training.turns`).
"""

from __future__ import annotations

import math
import re
import secrets
import shutil
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import structlog
import trio

from protocols import signing
from protocols.exchange.errors import ExchangeError
from storage import cid as cids
from storage.errors import CanonicalError, CidError, ManifestError, StorageError
from storage.unixfs import add_path
from swarm.care.controls import TRAIN, Controls
from swarm.errors import SwarmError
from swarm.ledger.errors import LedgerError
from swarm.limits.pace import RoundTimes
from swarm.participant import core, replays
from swarm.participant.accuracies import Accuracies
from swarm.participant.memory import SALT_BYTES, MemoryFile, Merged, RoundMemory, Scores
from swarm.participant.samples import Samples
from swarm.participant.tries import Tries
from swarm.reports import loss_of
from swarm.sizes import counted
from swarm.store.retention import Checkpoint, Data, Update
from swarm.training import assignment
from swarm.training.errors import WorkerError
from swarm.training.requests import MergeJob, ScoreJob, TrainJob
from swarm.training.spec import max_update_bytes, parse_spec

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from storage.blockstore import Blockstore
    from storage.cid import Cid
    from swarm.heights import Heights
    from swarm.ledger.state import LedgerView, RoundState, TaskState
    from swarm.participant.announcements import Announcements
    from swarm.ranges import Ranges
    from swarm.shelf import Lease, Shelf
    from swarm.store.retention import Reason
    from swarm.training.supervisor import Worker
    from swarm.wallet import Wallet

_log = structlog.get_logger("swarm.participant")

_EXPECTED = (WorkerError, StorageError, ExchangeError, SwarmError, LedgerError, OSError)
"""What can go wrong with a step; the round goes on without it."""
_MALFORMED = (ManifestError, CidError, CanonicalError)
"""Faults of what a peer gave; any other of a store is this node's own."""
RESEND_BLOCKS = 6
"""A transaction that the chain does not show after so many blocks is sent again."""
PAUSE_LOOK_SECONDS = 0.5
"""Between two looks at whether a person has paused training."""
_NAME_LETTERS = 32
"""Of a task's id, with which the names of its files begin."""
_IS_OF_TASK = re.compile(rf"[0-9a-f]{{{_NAME_LETTERS}}}\.")


@dataclass(slots=True)
class _Drive:
    """What the loop of one task remembers beside the file."""

    task: bytes
    file: MemoryFile
    memory: RoundMemory
    sent: dict[type, int]  # kind of transaction -> height at which it was sent
    tries: Tries[type]  # by kind of step, in one phase
    stage: tuple[int, int, int] | None = None


async def _at_once(work: Callable[[], Awaitable[Cid]]) -> Cid:
    return await work()


class Participant:
    """Takes part in every open task.

    Args:
        me: The account and its roles.
        view: The newest finalized state.
        heights: Tells when that changes.
        wallet: Sends transactions.
        shelf: Unpacks roots for the worker.
        store: Keeps what this node makes.
        worker: Trains, scores and merges.
        announcements: Tells peers of an update, and hears of theirs.
        provide: Announces a root in the DHT.
        folder: Memories, optimiser states and unfinished files; made if need be.
        block_seconds: The time between blocks, for deadlines on the clock.
        ranges: Reads parts of datasets; None: each is taken whole.
        controls: What a person holds back; None: nothing.
        times: How long rounds took, so that none is begun that the schedule cuts off; None: nobody remembers.
        room_for: Stores what this node made, after slots have given way to it if they must.
    """

    def __init__(
        self,
        *,
        me: core.Me,
        view: Callable[[], LedgerView],
        heights: Heights,
        wallet: Wallet,
        shelf: Shelf,
        store: Blockstore,
        worker: Worker,
        announcements: Announcements,
        provide: Callable[[Cid], object],
        folder: Path,
        block_seconds: float,
        ranges: Ranges | None = None,
        controls: Controls | None = None,
        times: RoundTimes | None = None,
        room_for: Callable[[Callable[[], Awaitable[Cid]]], Awaitable[Cid]] = _at_once,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._me = me
        self._view = view
        self._heights = heights
        self._wallet = wallet
        self._shelf = shelf
        self._store = store
        self._worker = worker
        self._announcements = announcements
        self._provide = provide
        self._folder = folder
        self._block_seconds = block_seconds
        self._samples = Samples(ranges)
        self._controls = controls or Controls()
        self._times = times or RoundTimes()
        self._room_for = room_for
        self._tidying = trio.Lock()
        self._held: dict[bytes, str] = {}
        self.activity: dict[bytes, str] = {}
        """What is being done for each task, in words."""
        self.problems: dict[bytes, str] = {}
        """The last failure of each open task, in words, until a step of it succeeds."""
        self.losses: dict[bytes, float] = {}
        """The newest training loss of this node, in nats."""
        self.owing: set[bytes] = set()
        """Tasks for which something was begun that the others wait for, or that is lost where it is not handed in."""
        self._unit_seconds: dict[bytes, float] = {}  # that a unit of each task's work last took
        self.accuracies = Accuracies(folder / "accuracies")
        """Of classifiers, as this node measured them."""
        self.rounds_trained = 0
        """Rounds in which this node made an update, since it started."""
        self.training_seconds: float | None = None
        """How long the last of them took."""

    async def run(self) -> None:
        """Drive every task while it is open; runs until cancelled."""
        driven: set[bytes] = set()
        await self._tidy()
        height = -1
        async with trio.open_nursery() as nursery:
            while True:
                height = await self._heights.above(height)
                for task in self._view().open_tasks():
                    if task not in driven:
                        driven.add(task)
                        nursery.start_soon(self._drive, task)

    async def _drive(self, task: bytes) -> None:
        file = MemoryFile(self._path(task, "round"))
        drive = _Drive(task, file, RoundMemory(task, 0, 0), {}, Tries())
        while True:
            height = self._heights.height
            view = self._view()
            state, round_ = view.task(task), view.round(task)
            if state is None or round_ is None:
                break
            if drive.memory.key != (task, round_.number, round_.attempt):
                try:
                    drive.memory = drive.file.load(task, round_.number, round_.attempt)
                except OSError as error:
                    self.problems[task] = f"{state.name}, round {round_.number}: {error}"
                    _log.warning("round.forgotten", round=round_.number, error=str(error))
                    await self._heights.above(height)
                    continue
            if drive.stage != _stage(round_):
                drive.stage = _stage(round_)
                drive.sent.clear()
                drive.tries.keep()
            if not await self._step(drive, view, state, round_):
                why = self._controls.why(TRAIN) or self._held.get(task, "")
                self.activity[task] = why or "waiting for the others"
                if not core.owes(round_, self._me.account, drive.memory):
                    self.owing.discard(task)
                await self._heights.above(height)
        self.owing.discard(task)
        self._held.pop(task, None)
        self.activity.pop(task, None)
        self.problems.pop(task, None)
        self.losses.pop(task, None)
        self._unit_seconds.pop(task, None)
        await self._tidy()

    def _path(self, task: bytes, kind: str) -> Path:
        return self._folder / f"{_name(task)}.{kind}"

    async def _tidy(self) -> None:
        async with self._tidying:
            try:
                await trio.to_thread.run_sync(self._clear, self._view())
            except OSError as error:
                _log.warning("tasks.not_cleared", error=str(error))

    def _clear(self, view: LedgerView) -> None:
        """Remove what tasks that are over left in the folder: moments can be larger than the model.

        Also of those that ended while this node was off, or had a file half written or a job not quite given up.
        What the ledger does not know yet is kept.
        """
        left = [path for path in self._folder.iterdir() if _IS_OF_TASK.match(path.name)]
        if not left:
            return
        over = {_name(one.id) for one in view.tasks() if not one.open}
        for path in left:
            if path.name[:_NAME_LETTERS] not in over:
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    async def _step(
        self, drive: _Drive, view: LedgerView, state: TaskState, round_: RoundState
    ) -> bool:
        """Do one step; False when there is nothing to do before the next block."""
        step: core.Send | core.Work | None = None
        try:
            step = core.decide(round_, self._me_in(view, round_), drive.memory)
            if step is None or not drive.tries.are_due(type(step), self._heights.height):
                return False
            self._held.pop(drive.task, None)
            if isinstance(step, core.Train) and (why := self._not_now(drive.task)):
                self._held[drive.task] = why
                return False
            self.owing.add(drive.task)
            if isinstance(step, core.Send):
                return await self._send(drive, step, round_)
            return await self._work(drive, step, state, round_)
        except _EXPECTED as error:
            # What could not be sent now, for a full mempool say, is tried again with the next block.
            if not isinstance(step, core.Send):
                drive.tries.failed(type(step), self._heights.height)
            name = type(step).__name__
            self.problems[drive.task] = f"{state.name}, round {round_.number}: {name}: {error}"
            _log.warning("round.failed", step=name, round=round_.number, error=str(error))
            return False
        except Exception as error:  # noqa: BLE001 - the boundary of one task
            # A fault of ours in one task must not end a node that validates and keeps data for others.
            drive.tries.failed(type(step), self._heights.height)
            self.problems[drive.task] = f"{state.name}, round {round_.number}: {error!r}"
            _log.exception("round.broken", step=type(step).__name__, round=round_.number)
            return False

    def _me_in(self, view: LedgerView, round_: RoundState) -> core.Me:
        """The roles that the ledger grants this account in this round."""
        account = self._me.account
        epoch = round_.score_epoch if round_.score_epoch >= 0 else view.epoch
        return core.Me(
            account,
            self._me.trains and core.may_train(round_, view.workers().get(account)),
            self._me.validates and view.validators(epoch).weight_of(account) > 0,
        )

    def _not_now(self, task: bytes) -> str:
        """Why a round is not begun; one that the schedule would cut off is left to others."""
        return self._controls.why_not_now(TRAIN, self._times.of(task))

    async def _send(self, drive: _Drive, step: core.Send, round_: RoundState) -> bool:
        height = self._heights.height
        if height - drive.sent.get(type(step), -RESEND_BLOCKS) < RESEND_BLOCKS:
            return False
        if isinstance(step, core.Reveal):
            await self._announcements.tell(round_.task, round_.number, step.root, step.salt)
        payload = core.payload(step, round_, self._me.account)
        await self._wallet.submit(payload, core.last_height(step, round_))
        drive.sent[type(step)] = height
        return False

    async def _work(
        self, drive: _Drive, step: core.Work, state: TaskState, round_: RoundState
    ) -> bool:
        """Work until it is done or its phase is over, and remember what came of it."""
        failure: Exception | None = None
        memory: RoundMemory | None = None
        async with trio.open_nursery() as nursery:
            scope = nursery.cancel_scope
            # An attempt that nobody was quick enough for is followed by another: what was begun is then finished.
            stage = _phase if isinstance(step, core.Train) else _stage
            nursery.start_soon(self._cancel_after, stage, round_, scope)
            if isinstance(step, core.Train):
                nursery.start_soon(self._cancel_when_paused, scope)
            try:
                with self._shelf.lease() as lease:
                    try:
                        done = await self._perform(step, drive.memory, state, round_, lease)
                    except WorkerError as error:
                        # Once in a phase, at the second failure: what lies on the shelf may not be any more what was written there.
                        if error.cause == "failed" and drive.tries.failures(type(step)) == 1:
                            await lease.give_up()
                        raise
                with trio.CancelScope(shield=True):  # what is done counts once it is on the disk
                    await trio.to_thread.run_sync(drive.file.save, done)
                memory = done
            except _EXPECTED as error:
                failure = error  # raised below: inside the nursery it would come out in a group
            scope.cancel()
        if failure is not None:
            raise failure
        if memory is None:
            _log.info("round.late", step=type(step).__name__, round=round_.number)
            return True
        self.problems.pop(drive.task, None)
        changed, drive.memory = memory != drive.memory, memory
        return changed

    async def _perform(
        self,
        step: core.Work,
        memory: RoundMemory,
        state: TaskState,
        round_: RoundState,
        lease: Lease,
    ) -> RoundMemory:
        match step:
            case core.Train():
                return await self._train(memory, state, round_, lease)
            case core.Prefetch(roots):
                return await self._prefetch(memory, state, round_, roots, lease)
            case core.Score():
                return await self._score(memory, state, round_, lease)
            case core.Merge():
                return await self._merge(memory, state, round_, lease)

    async def _cancel_after(
        self,
        stage: Callable[[RoundState], tuple[int, ...]],
        begun: RoundState,
        scope: trio.CancelScope,
    ) -> None:
        height = self._heights.height
        while True:
            round_ = self._view().round(begun.task)
            if round_ is None or stage(round_) != stage(begun):
                scope.cancel()
                return
            height = await self._heights.above(height)

    async def _cancel_when_paused(self, scope: trio.CancelScope) -> None:
        while True:
            await trio.sleep(PAUSE_LOOK_SECONDS)
            if self._controls.is_paused(TRAIN):
                scope.cancel()
                return

    async def _train(
        self, memory: RoundMemory, state: TaskState, round_: RoundState, lease: Lease
    ) -> RoundMemory:
        task, began = round_.task, trio.current_time()
        self.activity[task] = "fetching the checkpoint and the data"
        await self._hold(round_.base, Checkpoint(state.name, round_.version))
        await self._hold(state.dataset, Data(task))
        base = await lease.take(round_.base)
        peer, data = signing.peer_id(self._me.account), cids.text(state.dataset)

        params = self._view().params
        record = self._path(task, "record") if replays.is_recorded(params, state.kind) else None
        units = 1  # of a first round
        if measured := self._unit_seconds.get(task):
            spec = parse_spec(state.spec)
            blocks = max(0, round_.phase_deadline - self._heights.height)
            units = assignment.units(measured, blocks * self._block_seconds, spec.train.units)

        def draw(total: int) -> list[int]:
            train = parse_spec(state.spec).train
            count = assignment.samples_of(train.steps, train.batch, units)
            return assignment.sample_ids(
                task,
                data,
                round_.number,
                peer,
                round_.start_beacon,
                count=count,
                total=total,
            )

        samples = self._path(task, "samples")
        dataset = await self._samples.take(state.dataset, state.spec, draw, lease, samples)
        out = self._path(task, "update.safetensors")

        def progress(step: int, steps: int, loss: float) -> None:
            self.activity[task] = f"training, step {step} of {steps}"
            if math.isfinite(loss):
                self.losses[task] = loss
            else:  # what a node tells is JSON, which has no such number
                self.losses.pop(task, None)

        result = await self._worker.train(
            TrainJob(
                spec=state.spec,
                task=task,
                round=round_.number,
                peer=peer,
                beacon=round_.start_beacon,
                base_root=cids.text(round_.base),
                base=base,
                dataset=dataset,
                dataset_root=data,
                state=self._path(task, "optimiser"),
                out=out,
                record=record,
                every=params.replay_steps,
                units=units,
            ),
            progress,
        )
        self._unit_seconds[task] = result.seconds / units
        root = await self._keep(out, Update(task, round_.number))
        if record is not None:
            states = replays.States(task, round_.number)
            await self._keep(record, states)
            # Without these nobody can run it again, and the check can last longer than the task.
            for one in (root, round_.base):
                await self._hold(one, states)
            await trio.to_thread.run_sync(shutil.rmtree, record)
        self.rounds_trained += 1
        self.training_seconds = result.seconds
        await trio.to_thread.run_sync(self._times.note, task, trio.current_time() - began)
        _log.info(
            "round.trained",
            round=round_.number,
            loss=round(result.loss_last, 4),
            bytes=result.bytes,
            seconds=round(result.seconds, 1),
        )
        return replace(memory, salt=secrets.token_bytes(SALT_BYTES), update=root)

    async def _prefetch(
        self,
        memory: RoundMemory,
        state: TaskState,
        round_: RoundState,
        roots: Sequence[Cid],
        lease: Lease,
    ) -> RoundMemory:
        self.activity[round_.task] = f"fetching {counted(len(roots), 'update')}"
        workers = {root: worker for worker, root in round_.reveals.items()}
        paths = await self._take_updates(
            [(workers[root], root) for root in roots], state, round_, lease
        )
        fetched = {root for root, path in zip(roots, paths, strict=True) if path is not None}
        return replace(memory, fetched=memory.fetched | fetched)

    async def _score(
        self, memory: RoundMemory, state: TaskState, round_: RoundState, lease: Lease
    ) -> RoundMemory:
        self.activity[round_.task] = f"scoring {counted(len(round_.submissions), 'submission')}"
        pairs = [(one.worker, one.root) for one in round_.submissions]
        await self._hold(round_.base, Checkpoint(state.name, round_.version))
        for root in (state.dataset, state.pool):
            await self._hold(root, Data(round_.task))

        spec, data = parse_spec(state.spec), cids.text(state.dataset)
        peers = [signing.peer_id(one.worker) for one in round_.submissions]
        commits = list(round_.commits)

        def draw(total: int) -> list[int]:
            ids = assignment.scoring_ids(
                round_.task,
                round_.number,
                round_.score_beacon,
                sequences=spec.score.sequences,
                pool_total=1,  # only the dataset's are asked for
                data_total=total,
            )[1]
            for peer in peers:
                ids += assignment.own_ids(
                    round_.task,
                    data,
                    round_.number,
                    peer,
                    (round_.start_beacon, round_.score_beacon),
                    drawn=spec.train.steps * spec.train.batch,
                    count=spec.score.sequences,
                    total=total,
                )
            return ids

        samples = self._path(round_.task, "samples")
        result = await self._worker.score(
            ScoreJob(
                spec=state.spec,
                task=round_.task,
                round=round_.number,
                beacon=round_.score_beacon,
                base_root=cids.text(round_.base),
                base=await lease.take(round_.base),
                dataset=await self._samples.take(state.dataset, state.spec, draw, lease, samples),
                pool=await lease.take(state.pool),
                updates=await self._take_updates(pairs, state, round_, lease),
                peers=peers,
                order=[commits.index(one.worker) for one in round_.submissions],
                start_beacon=round_.start_beacon,
                dataset_root=data,
                evidence=self._path(round_.task, "evidence"),
            )
        )
        salt = secrets.token_bytes(SALT_BYTES)
        return replace(memory, scores=Scores(result.base_loss, tuple(result.scores), salt))

    async def _merge(
        self, memory: RoundMemory, state: TaskState, round_: RoundState, lease: Lease
    ) -> RoundMemory:
        self.activity[round_.task] = f"merging {counted(len(round_.accepted), 'update')}"
        accepted = [round_.submissions[one.index] for one in round_.accepted]
        pairs = [(one.worker, one.root) for one in accepted]
        paths = await self._take_updates(pairs, state, round_, lease)
        missing = [
            cids.text(root) for (_, root), path in zip(pairs, paths, strict=True) if not path
        ]
        if missing:
            message = f"{len(missing)} accepted updates cannot be fetched: {', '.join(missing)}"
            raise SwarmError(message)
        out = self._path(round_.task, "merged")
        result = await self._worker.merge(
            MergeJob(
                spec=state.spec,
                task=round_.task,
                round=round_.number,
                name=state.name,
                version=round_.version + 1,
                beacon=round_.score_beacon,
                base_root=cids.text(round_.base),
                base=await lease.take(round_.base),
                updates=[path for path in paths if path is not None],
                scores=[one.score for one in round_.accepted],
                pool=await lease.take(state.pool),
                out=out,
            )
        )
        root = await self._keep(out, Checkpoint(state.name, round_.version + 1))
        self._provide(root)
        await trio.to_thread.run_sync(self.accuracies.note, root, result.accuracy)
        share = {} if result.accuracy is None else {"accuracy": round(result.accuracy, 4)}
        _log.info("round.merged", round=round_.number, loss=loss_of(result.loss), **share)
        return replace(memory, merged=Merged(root, result.loss))

    async def _take_updates(
        self,
        pairs: Sequence[tuple[bytes, Cid]],
        state: TaskState,
        round_: RoundState,
        lease: Lease,
    ) -> list[Path | None]:
        """Unpack updates, from their workers or from whoever holds them; None for those not had in time, or malformed.

        Half of the blocks that are left to the phase is the time for it.

        Raises:
            StorageError: This node has no room for one, or its store failed; none is refused for that.
            OSError: Likewise.
        """
        paths: list[Path | None] = [None] * len(pairs)
        faults: list[StorageError | OSError] = []
        most = max_update_bytes(parse_spec(state.spec))

        async def one(index: int, worker: bytes, root: Cid) -> None:
            try:
                holders = self._holders(worker)
                paths[index] = await lease.take(root, holders, max_bytes=most, is_file=True)
            except (ExchangeError, SwarmError, *_MALFORMED) as error:
                _log.warning("update.missing", root=cids.text(root), error=str(error))
            except (StorageError, OSError) as error:
                faults.append(error)
            except Exception:  # noqa: BLE001 - one worker's update must not keep the others from being scored
                _log.exception("update.broken", root=cids.text(root))

        left = max(1, round_.phase_deadline - self._heights.height)
        with trio.move_on_after(left * self._block_seconds / 2):
            async with trio.open_nursery() as nursery:
                for index, (worker, root) in enumerate(pairs):
                    nursery.start_soon(one, index, worker, root)
        if faults:  # outside the nursery, where it is no group
            raise faults[0]
        return paths

    def _holders(self, worker: bytes) -> list[str]:
        """Who is asked for an update: its worker, then the validators, which fetch it too."""
        view = self._view()
        keys = [worker, *(one.public_key for one in view.validators(view.epoch).validators)]
        return [signing.peer_id(key) for key in dict.fromkeys(keys) if key != self._me.account]

    async def _keep(self, path: Path, why: Reason | replays.States) -> Cid:
        """Store and hold what this node made."""

        def keep() -> Cid:
            with self._store.lease("round"):
                root = add_path(path, self._store).root
                self._store.hold(root, why.label)
            return root

        return await self._room_for(partial(trio.to_thread.run_sync, keep))

    async def _hold(self, root: Cid, why: Reason | replays.States) -> None:
        """Keep what a task works on, before it is fetched, until `store.retention` says otherwise."""
        await trio.to_thread.run_sync(self._store.hold, root, why.label)


def _name(task: bytes) -> str:
    return task.hex()[:_NAME_LETTERS]


def _phase(round_: RoundState) -> tuple[int, int]:
    return (round_.number, int(round_.phase))


def _stage(round_: RoundState) -> tuple[int, int, int]:
    return (round_.number, round_.attempt, int(round_.phase))

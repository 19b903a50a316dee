"""Work run again: the states that a worker keeps for it, the checks that a validator owes, and those that a person asks for.

A worker's states lie in the store from the end of its training until the round is settled and nothing of it is to be run
again. What a peer would not or could not give is a finding; what went wrong on this node (its disk, its dataset, its worker
process) is none: it is tried again, each time a little later, and until then this node is silent.
A finding is kept on disk, sealed on the ledger, and opened when its time has come; nothing that is only to be sent waits
for a peer or for the worker process.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog
import trio

from protocols import signing
from protocols.exchange.errors import ExchangeError
from storage.errors import StorageError
from swarm.errors import NetworkError, NotFoundError, RefusedError, SwarmError, UsageError
from swarm.ledger import replays as rules
from swarm.ledger.errors import LedgerError
from swarm.ledger.replaying import MAX_DISTANCE, OPEN, OPENING, Found, proof_key, seal_of
from swarm.ledger.replays import is_recorded as is_recorded  # a door: who records asks here
from swarm.ledger.state import Finding, Replay
from swarm.ledger.transactions import ReplayFinding, ReplaySeal
from swarm.participant.again import Again, Asked, WithheldError
from swarm.participant.findings import Findings, Said
from swarm.participant.memory import SALT_BYTES
from swarm.participant.tries import Tries
from swarm.training.errors import TrainingError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from storage.blockstore import Blockstore
    from swarm.heights import Heights
    from swarm.ledger.replaying import Stage
    from swarm.ledger.state import LedgerView, TaskState
    from swarm.participant.core import Me
    from swarm.participant.findings import Key
    from swarm.ranges import Ranges
    from swarm.shelf import Shelf
    from swarm.training.supervisor import Worker
    from swarm.wallet import Wallet

_log = structlog.get_logger("swarm.replays")

FETCH_SECONDS: Final = 120.0
"""For a peer's record and states, where a person asks and no block height ends the wait."""
RESEND_BLOCKS: Final = 6
"""What was sealed or opened, and the chain does not show after so many blocks, is sent again."""
PARTS: Final = 10**6
_OURS = (TrainingError, StorageError, ExchangeError, SwarmError, LedgerError, OSError)
_STATES: Final = "states"


@dataclass(frozen=True, slots=True)
class States:
    """What this node recorded of one round, until nobody can ask for it any more.

    The transcript and the states, the update that names them, and the checkpoint that the round began with.
    """

    task: bytes
    round: int

    @property
    def label(self) -> str:
        """As the hold is called."""
        return f"{_STATES} {self.task.hex()} {self.round}"

    @classmethod
    def of(cls, label: str) -> States | None:
        """What a hold is for; None if it is another part's."""
        try:
            kind, task, round_ = label.split(" ")
            return cls(bytes.fromhex(task), int(round_)) if kind == _STATES else None
        except ValueError:
            return None


class Replays:
    """What this node keeps of its own work, and does about that of others.

    Args:
        me: The account and its roles.
        view: The newest finalized state.
        heights: Tells when that changes.
        wallet: Sends findings.
        shelf: Unpacks what peers give.
        store: Holds this node's own states.
        worker: Runs segments again.
        folder: For parts of datasets.
        block_seconds: The time between blocks, for deadlines on the clock.
        ranges: Reads parts of datasets; None: each is taken whole.
        fetch_seconds: For a peer to give a person its record and states.
    """

    def __init__(
        self,
        *,
        me: Me,
        view: Callable[[], LedgerView],
        heights: Heights,
        wallet: Wallet,
        shelf: Shelf,
        store: Blockstore,
        worker: Worker,
        folder: Path,
        block_seconds: float,
        ranges: Ranges | None = None,
        fetch_seconds: float = FETCH_SECONDS,
    ) -> None:
        self._fetch_seconds = fetch_seconds
        self._me = me
        self._view = view
        self._heights = heights
        self._wallet = wallet
        self._store = store
        self._block_seconds = block_seconds
        self._again = Again(me.account, view, shelf, worker, folder / "replay.samples", ranges)
        # With a folder of its own: what a person waits for, without an end, is nothing that a check waits for.
        self._for_person = Again(me.account, view, shelf, worker, folder / "asked.samples", ranges)
        self._findings = Findings(folder / "replay.found")
        self._said: dict[tuple[Key, Stage], int] = {}  # the height at which it was sent
        self._running: Key | None = None
        self._tries: Tries[Key] = Tries()
        self._silent: dict[Key, str] = {}

    @property
    def problems(self) -> dict[str, str]:
        """Why this node is silent about a submission that is being judged, in words, by peer."""
        return {signing.peer_id(worker): why for (_, _, worker), why in self._silent.items()}

    async def run(self) -> None:
        """Let go of states that nobody can ask for, and run again what this node was drawn for; until cancelled."""
        height = -1
        async with trio.open_nursery() as nursery:
            while True:
                height = await self._heights.above(height)
                try:
                    await trio.to_thread.run_sync(self._tidy, self._view())
                except (StorageError, OSError) as error:
                    _log.warning("states.not_released", error=str(error))
                await self._answer_all(nursery)

    async def _answer_all(self, nursery: trio.Nursery) -> None:
        """Send what was found, and see to it that one segment is run again beside that."""
        owed = {_key(one): one for one in self._view().replays() if self._me.account in one.asked}
        stages, height = {(key, one.stage) for key, one in owed.items()}, self._heights.height
        self._said = {said: at for said, at in self._said.items() if said in stages}
        self._tries.keep(owed)
        self._silent = {key: why for key, why in self._silent.items() if key in owed}
        to_run = []
        for key, one in owed.items():
            sent = self._said.get((key, one.stage), -RESEND_BLOCKS)
            if height - sent < RESEND_BLOCKS or key == self._running:
                continue
            if one.stage in OPENING or self._findings.get(key) is not None:
                if await self._answer(one):
                    self._said[key, one.stage] = height
            elif self._me.validates and self._tries.are_due(key, height):
                to_run.append(one)
        if to_run and self._running is None:
            # What failed makes way for others, and what ends first comes first.
            first = min(to_run, key=lambda one: (self._tries.failures(_key(one)), one.until))
            self._running = _key(first)
            nursery.start_soon(self._run_and_answer, first)

    async def _run_and_answer(self, one: Replay) -> None:
        key = _key(one)
        try:
            if await self._answer(one):
                self._said[key, one.stage] = self._heights.height
            else:
                self._tries.failed(key, self._heights.height)
        finally:
            self._running = None

    def _tidy(self, view: LedgerView) -> None:
        """Forget what is over.

        What was sealed is kept, and opened, also by a node that does not validate any more, and what the ledger does not
        know yet: it may be fetched anew.
        """
        self._findings.keep([key for key in self._findings.known() if not _is_judged(view, key)])
        self._let_go(view)

    def _let_go(self, view: LedgerView) -> None:
        for root, label in self._store.holds():
            states = States.of(label)
            if states is not None and _is_over(view, states, self._me.account):
                self._store.release(root, label)

    async def _answer(self, one: Replay) -> bool:
        """Run it again and seal what came of it, or open that; False where this node could not."""
        peer, key = signing.peer_id(one.worker), _key(one)
        try:
            said = self._findings.get(key)
            if said is None and one.stage in OPENING:
                self._silent[key] = "what was found is not on this node's disk any more"
                return False
            if said is None:
                said = Said(await self._find(one), secrets.token_bytes(SALT_BYTES))
                await trio.to_thread.run_sync(self._findings.put, key, said)
            self._silent.pop(key, None)
            return await self._say(one, said)
        except (*_OURS, trio.TooSlowError) as error:
            self._silent[key] = str(error) or "no time was left"
            _log.warning("replay.failed", peer=peer, error=self._silent[key])
        except Exception as error:  # noqa: BLE001 - the boundary of one check: the others go on
            self._silent[key] = repr(error)
            _log.exception("replay.broken", peer=peer)
        return False

    async def _say(self, one: Replay, said: Said) -> bool:
        """Send what was found, sealed or open as its stage asks; False where that is to be tried again."""
        peer, key = signing.peer_id(one.worker), _key(one)
        found, by = said.found, self._me.account
        payload: ReplayFinding | ReplaySeal
        if one.stage in OPENING:
            finding = int(found.finding)
            payload = ReplayFinding(*key, finding, found.distance, found.proof, said.salt)
        else:
            payload = ReplaySeal(*key, seal_of(*key, by, found, said.salt))
        try:
            await self._wallet.submit(payload)
        except _OURS as error:
            _log.warning("replay.not_said", peer=peer, error=str(error))
            return False
        return True

    async def _find(self, one: Replay) -> Found:
        """Run a drawn segment again.

        Raises:
            SwarmError: This node could not; or another of `_OURS`.
            TooSlowError: No time was left.
        """
        peer = signing.peer_id(one.worker)
        task = self._view().task(one.task)
        if task is None:
            message = "the ledger has no such task"
            raise NotFoundError(message, "is this node at the newest block?")
        asked = Asked(
            task,
            one.round,
            one.worker,
            one.root,
            one.base,
            one.beacon,
            lambda segments: rules.segment_of(one.seed, segments),
        )
        left = max(1, one.until - self._heights.height) * self._block_seconds
        try:
            with trio.fail_after(left):
                key = proof_key(one.seed)
                result = (await self._again.run(asked, left / 3, proof_key=key)).result
        except WithheldError as error:
            _log.info("replay.withheld", peer=peer, why=str(error))
            return Found(Finding.WITHHELD, 0, ())
        _log.info("replayed", peer=peer, outcome=result.outcome, why=result.why)
        if result.outcome in ("match", "within"):
            return Found(Finding.MATCH, 0, tuple(result.proof))
        if result.outcome == "mismatch":
            return Found(Finding.MISMATCH, _parts(result.distance), tuple(result.proof))
        return Found(Finding.WITHHELD, 0, ())

    # What a person asks

    async def ask(
        self,
        task: TaskState,
        number: int,
        peer: str,
        segment: int | None,
        progress: Callable[[str, int, int], None],
    ) -> dict[str, object]:
        """Run a segment of a peer's round again, for a person.

        Args:
            task: Which.
            number: Of the round.
            peer: Whose, as a peer id.
            segment: From 1; None: the one that the beacon drew, or the first.
            progress: Told (stage, done, total).

        Raises:
            UsageError: The network or the task records nothing, or there is no such segment.
            NotFoundError: No such round, or the peer handed nothing in.
            RefusedError: The time in which states are kept is over.
            NetworkError: The peer does not give them.
        """
        asked, drawn = self._of_person(task, number, peer, segment)
        try:
            outcome = await self._for_person.run(
                asked, self._fetch_seconds, progress, is_bisected=True
            )
        except WithheldError as error:
            raise self._explained(error, asked, drawn) from error
        result = outcome.result
        return {
            "task": task.id.hex(),
            "name": task.name,
            "round": number,
            "peer": peer,
            "segment": outcome.segment + 1,
            "segments": outcome.segments,
            "first_step": outcome.steps[0] + 1,
            "last_step": outcome.steps[1],
            "outcome": result.outcome,
            "distance": result.distance,
            "tolerance": self._view().params.replay_tolerance / PARTS,
            "same_machine": result.same_machine,
            "step": result.step,
            "step_distance": result.step_distance,
            "seconds": round(result.seconds, 3),
            "why": result.why,
            "stage": None if drawn is None else drawn.stage.name.lower(),
        }

    def _of_person(
        self, task: TaskState, number: int, peer: str, segment: int | None
    ) -> tuple[Asked, Replay | None]:
        view = self._view()
        if not is_recorded(view.params, task.kind):
            message = f"no round of {task.name} is recorded"
            hint = f"workers record tasks of kind {', '.join(rules.KINDS)}, where the network's "
            raise UsageError(message, hint + "`replay_one_in` is not 0")
        try:
            worker = signing.public_key(peer)
        except ValueError as error:
            raise UsageError(f"{peer!r} is no peer id", "`swarm scoreboard` lists them") from error  # noqa: EM102
        settled, drawn = view.settled(task.id, number), view.replay(task.id, number, worker)
        current = view.round(task.id)
        beacon = None if drawn is None else drawn.beacon
        if settled is not None:
            base = settled.base
            roots = {line.worker: line.root for line in settled.submissions if line.root}
        elif current is not None and current.number == number:
            base, beacon, roots = current.base, current.start_beacon, dict(current.reveals)
        else:
            message = f"{task.name} has no round {number}"
            raise NotFoundError(message, f"`swarm scoreboard {task.name}` lists its rounds")
        if worker not in roots:
            message = f"{peer} revealed nothing in round {number}"
            raise NotFoundError(message, f"`swarm scoreboard {task.name}` says who did")

        def which(segments: int) -> int:
            if segment is None:
                return rules.segment_of(drawn.seed, segments) if drawn is not None else 0
            if not 1 <= segment <= segments:
                message = f"the round has {segments} segments"
                raise UsageError(message, "they count from 1")
            return segment - 1

        return Asked(task, number, worker, roots[worker], base, beacon, which), drawn

    def _explained(self, error: WithheldError, asked: Asked, drawn: Replay | None) -> SwarmError:
        """Whether a peer need not show any more what it recorded, or should."""
        over = _is_over(self._view(), States(asked.task.id, asked.round), asked.worker)
        if over:
            message = f"the states of round {asked.round} need not be kept any more: {error}"
            why = "it was not drawn to be run again"
            if drawn is not None:
                why = f"its check ended: {drawn.stage.name.lower()}"
            return RefusedError(message, f"{why}; run a round again before it is settled")
        message = f"{asked.peer} withholds what it recorded: {error}"
        return NetworkError(message, "is the peer connected? `swarm peers` says so")


def _key(one: Replay) -> Key:
    return one.task, one.round, one.worker


def _is_over(view: LedgerView, states: States, worker: bytes) -> bool:
    """Whether nobody can ask for a round's states any more; what the ledger does not know yet is kept."""
    task = view.task(states.task)
    if task is None:
        return False
    if view.settled(states.task, states.round) is None:
        return not task.open
    return _is_judged(view, (states.task, states.round, worker))


def _is_judged(view: LedgerView, key: Key) -> bool:
    """Whether a round is settled, and what was drawn of it to be run again is over."""
    if view.settled(*key[:2]) is None:
        return False
    drawn = view.replay(*key)
    return drawn is None or drawn.stage not in OPEN


def _parts(distance: float) -> int:
    return min(MAX_DISTANCE, max(0, int(distance * PARTS)))

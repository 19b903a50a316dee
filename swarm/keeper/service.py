"""The shell of a keeper: seals in the background, commits, answers audits, and tells how it does."""

from __future__ import annotations

from collections import Counter, deque
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import structlog
import trio

from protocols import signing
from protocols.audit.draw import answer_root
from protocols.audit.service import AuditService
from storage.errors import DiskFullError, QuotaError, StorageError
from storage.files import DISK
from storage.quota import default_keep_free
from storage.sealer import Pace, Sealer
from storage.slots import Version
from swarm.care.controls import SEAL, Controls
from swarm.errors import SwarmError
from swarm.keeper import core
from swarm.keeper.cellar import Cellar
from swarm.keeper.making_room import MakingRoom
from swarm.keeper.memory import Memory, MemoryFile
from swarm.keeper.prover import Audited, SlotProver
from swarm.keeper.room import SLOT_COST, Room
from swarm.ledger.draws import auditors_of
from swarm.ledger.errors import LedgerError
from swarm.ledger.keeping import AuditPhase, Failure, Report, Verdict
from swarm.ledger.state import load
from swarm.ledger.transactions import CapacityAnswer, CapacityCommit

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from protocols.transport import Transport
    from storage.blockstore import SegmentBlockstore
    from storage.slot_contents import SlotContents
    from storage.slots import SlotStore
    from swarm.heights import Heights
    from swarm.keeper.duties import Duties
    from swarm.keeper.space import LentSpace
    from swarm.ledger.application import Included
    from swarm.ledger.keeping import AuditState, Keeper
    from swarm.ledger.state import LedgerView
    from swarm.wallet import Wallet

LOOK_SECONDS: Final = 1.0
"""Between two looks at the room where no block comes."""
PATIENT_BLOCKS: Final = 200
"""A commitment that is in no block after so many has expired."""
GOAL_STEP: Final = 16
"""Slots by which a goal grows at least: a changed goal wakes the sealer from its rest."""
THREADS: Final = 2
PACE_LOOKS: Final = 120
"""From which the time that is left is told."""

_log = structlog.get_logger("swarm.keeper")
_EXPECTED: Final = (StorageError, SwarmError, LedgerError, OSError)


@dataclass(frozen=True, slots=True)
class _Sent:
    """A commitment on its way."""

    identifier: bytes
    height: int
    slots: int


@dataclass(frozen=True, slots=True)
class _Seen:
    """What stood in the running audit when it was last looked at; the settlement forgets it."""

    audit: int
    named: tuple[Failure, ...] = ()
    missing: frozenset[tuple[bytes, int]] = frozenset()
    due: tuple[core.Due, ...] = ()


class Keeping:
    """What one node lends.

    Args:
        key: Its account's public key.
        view: The newest finalized state.
        included: What became of a transaction.
        heights: Tells of finalized blocks.
        wallet: Sends what it says.
        store: Its chunks.
        space: What is lent, and how much of it is taken.
        slots: Its sealed slots.
        contents: What lies in them.
        duties: The pieces that it keeps.
        transport: Where auditors ask.
        folder: Where it remembers.
        share: Of one core, for sealing; 0 seals nothing.
        controls: What a person holds back; None: nothing.
        released: Called when the store has let go of chunks.
    """

    def __init__(
        self,
        *,
        key: bytes,
        view: Callable[[], LedgerView],
        included: Callable[[bytes], Included | None],
        heights: Heights,
        wallet: Wallet,
        store: SegmentBlockstore,
        space: LentSpace,
        slots: SlotStore,
        contents: SlotContents,
        duties: Duties,
        transport: Transport,
        folder: Path,
        share: float,
        controls: Controls | None = None,
        released: Callable[[], None] = lambda: None,
    ) -> None:
        self._key = key
        self._view = view
        self._included = included
        self._heights = heights
        self._wallet = wallet
        self._store = store
        self._space = space
        self._folder = folder
        self._limiter = trio.CapacityLimiter(THREADS)
        self._file = MemoryFile(folder / "keeper.cbor")
        self._sent: _Sent | None = None
        self._refused_until = -1
        self._answered = 0
        self._seen = _Seen(0)
        self._changed = trio.Event()
        self._failure: str = ""
        self._pace: deque[tuple[float, int]] = deque(maxlen=PACE_LOOKS)
        self.memory: Memory = self._file.load()
        self.slots = slots
        self.duties = duties
        self.share = share
        self._controls = controls or Controls()
        self._was_held = False
        self.prover = SlotProver(key, slots, store, duties.was_whole)
        self.sealer = Sealer(slots, Pace(share or 1.0), self._failed)
        self.making_room = MakingRoom(space, store, slots, self._why_waits, self._limiter)
        self.room = self._measure()
        self.cellar = Cellar(
            slots,
            contents,
            duties,
            pace=lambda: self.sealer.pace if self._may_seal else None,
            batch=lambda: self.room.batch,
            stay=lambda: self.room.stay,
            released=released,
        )
        self.problems: dict[str, str] = {}
        AuditService(transport, self.prover)

    @property
    def is_lending(self) -> bool:
        """Whether there are sealed slots, or are to be."""
        return bool(self.share or len(self.slots))

    @property
    def goal(self) -> int:
        """Slots that are wanted: those that are sealed, where nothing more is sealed."""
        return self.room.goal if self._may_seal else min(self.room.goal, len(self.slots))

    @property
    def _may_seal(self) -> bool:
        return bool(self.share) and not self._controls.holds(SEAL)

    @property
    def lent(self) -> int:
        """Bytes that the person lends."""
        return self._space.lent

    def lend(self, lent: int) -> None:
        """Lend another number of bytes from now on."""
        self._space.lend(lent)
        self.room = replace(self.room, lent=lent)
        self._changed.set()

    async def run(self) -> None:
        """Seal, commit and answer until cancelled; the ledger is that of now when this begins."""
        self.sealer = Sealer(self.slots, Pace(self.share or 1.0), self._failed)
        self.sealer.start()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.duties.run)
                nursery.start_soon(self.cellar.run)
                await self._watch()
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self.sealer.stop)

    async def _watch(self) -> None:
        while True:
            height = self._heights.height
            await self._try("keeper", self._look(height))
            with trio.move_on_after(LOOK_SECONDS):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._wake, nursery.cancel_scope)
                    await self._heights.above(height)
                    nursery.cancel_scope.cancel()

    async def _wake(self, scope: trio.CancelScope) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_until, self._changed, nursery.cancel_scope)
            nursery.start_soon(_until, self.making_room.asked, nursery.cancel_scope)
        scope.cancel()

    async def _try(self, name: str, work: Awaitable[None]) -> None:
        """What fails is told, once, and tried again with the next look; the rest goes on."""
        try:
            await work
        except _EXPECTED as error:
            why = f"{name}: {error}"
            if self.problems.get(name) != why:
                _log.warning("keeper.failed", what=name, error=str(error))
            self.problems[name] = why
        else:
            self.problems.pop(name, None)

    async def _look(self, height: int) -> None:
        self._changed = trio.Event()
        with suppress(QuotaError):  # unpacked files that have no room wait for it themselves
            self._space.look()
        self.making_room.look()
        self.room = await trio.to_thread.run_sync(self._measure, limiter=self._limiter)
        self._aim(self.room)
        view = self._view()
        keeper, audit = view.keeper(self._key), view.audit()
        self._remember(view, keeper, audit)
        self._show(view, keeper, audit)
        if audit is not None and audit.number > self._answered and core.owes_answer(audit, keeper):
            await self._try("audit", self._answer(audit.number))
        await self._try("lending", self._step(height, view, keeper))
        self.making_room.looked()

    def _measure(self) -> Room:
        disk, free = DISK.space(self._folder)
        usage = self._store.usage()
        return Room(
            self.lent,
            usage.used + usage.reserved,
            self._space.shelf,
            self.duties.coming + self.making_room.wanted,
            len(self.slots),
            free,
            default_keep_free(disk),
            self.slots.waiting,
        )

    def _why_waits(self) -> str:
        view = self._view()
        if core.is_open(view.params, view.height):
            return "slots give way"
        return f"slots give way from height {core.opens_at(view.params, view.height):,}"

    def _aim(self, room: Room) -> None:
        """Tell the sealer, lower at once and higher by steps."""
        goal = self.goal
        before, was_held = self.sealer.goal, self._was_held
        self._was_held = self._controls.holds(SEAL)
        is_moved = goal < before or goal >= before + GOAL_STEP or before < goal < GOAL_STEP
        if is_moved or was_held:
            self.sealer.goal = goal
        self._pace.append((trio.current_time(), room.slots))
        if room.slots >= self.sealer.goal:
            self._failure = ""

    def _failed(self, error: Exception) -> None:
        """Called in the sealer's thread."""
        if isinstance(error, QuotaError) and not isinstance(error, DiskFullError):
            return  # chunks were quicker; the next look at the room lowers the goal
        self._failure = f"sealing rests: {error}"

    # The commitment

    async def _step(self, height: int, view: LedgerView, keeper: Keeper | None) -> None:
        params = view.params
        self._settle_sent(height, params.audit_blocks)
        counted = keeper.slots if keeper is not None else 0
        root = await trio.to_thread.run_sync(self.slots.root, counted, limiter=self._limiter)
        staged = self.slots.staged
        is_staged = keeper is not None and staged == Version(keeper.root, counted)
        is_standing = counted <= len(self.slots) and keeper is not None and root == keeper.root
        own = core.Own(
            self.room.slots,  # as measured: slots that were sealed since count with the next look
            self.slots.settled,
            self.goal,
            max(self.room.stay, min(self.slots.top, self.room.slots)),
            self.room.is_urgent,
            is_standing or is_staged,
            self._sent is not None,
            height < self._refused_until,
            self._sent.slots if self._sent is not None else 0,
            self.slots.waiting if self._sent is None else self.slots.unstaged,
            self.cellar.is_ripe,
        )
        account = view.account(self._key)
        if own.goal and core.affordable(params, account, keeper) <= min(counted, own.sealed - 1):
            self.problems["collateral"] = (
                f"{own.sealed:,} slots are sealed, and the balance covers the collateral of {counted:,}"
            )
        else:
            self.problems.pop("collateral", None)
        step = core.next_step(height, params, account, keeper, own)
        match step:
            case core.Adopt() if keeper is not None:
                counts = Version(keeper.root, keeper.slots)
                await trio.to_thread.run_sync(self._adopt, counts, limiter=self._limiter)
            case core.Settle():
                await trio.to_thread.run_sync(self._settle, limiter=self._limiter)
            case core.Shrink(slots):
                self.sealer.goal = min(self.sealer.goal, slots)
                await trio.to_thread.run_sync(self.slots.shrink, slots, limiter=self._limiter)
                self.room = await trio.to_thread.run_sync(self._measure, limiter=self._limiter)
                _log.info("slots.given_back", left=slots)
            case core.Commit(slots):
                root = await trio.to_thread.run_sync(self._stage, slots, limiter=self._limiter)
                identifier = await self._wallet.submit(CapacityCommit(root, slots))
                self._sent = _Sent(identifier, height, slots)
                _log.info("slots.committed", slots=slots)
        if step is not None and not isinstance(step, core.Commit):
            self._changed.set()

    def _stage(self, slots: int) -> bytes:
        """The root to commit for so many slots: with what was replaced, unless they are fewer than stand."""
        if self.slots.staged is not None:
            self.slots.unstage()  # it was refused, or has expired
        if slots < self.slots.settled.slots or not self.slots.waiting:
            return self.slots.root(slots)
        return self.slots.stage(slots).root

    def _adopt(self, counts: Version) -> None:
        """Let what the ledger counts be what stands."""
        if self.slots.staged == counts:
            self.slots.settle(counts.root)
        elif counts.slots < self.slots.settled.slots:
            self.slots.shrink(counts.slots)
        else:
            self.slots.adopt(counts.slots)

    def _settle(self) -> None:
        if self.slots.staged is not None:
            self.slots.unstage()
        self.slots.settle(self.slots.stage().root)

    def _settle_sent(self, height: int, audit_blocks: int) -> None:
        """See what became of the commitment that was sent; a refused one waits for a while."""
        if self._sent is None:
            return
        included = self._included(self._sent.identifier)
        if included is not None:
            if included.error:
                self.problems["commitment"] = f"what is lent is not counted: {included.error}"
                self._refused_until = height + max(8, audit_blocks // 4)
            else:
                self.problems.pop("commitment", None)
            self._sent = None
        elif height > self._sent.height + PATIENT_BLOCKS:
            self._sent = None

    # Audits

    async def _answer(self, number: int) -> None:
        leaves = await trio.to_thread.run_sync(self.prover.leaves, number, limiter=self._limiter)
        root = await trio.to_thread.run_sync(
            answer_root, [one.leaf for one in leaves], limiter=self._limiter
        )
        await self._wallet.submit(CapacityAnswer(number, root))
        self._answered = number
        _log.info("audit.answered", audit=number)

    def _show(self, view: LedgerView, keeper: Keeper | None, audit: AuditState | None) -> None:
        """Let the running audit's auditors ask, and nobody else."""
        if audit is None or keeper is None or audit.phase is AuditPhase.SETTLED:
            self.prover.audited = None
            return
        before = self.prover.audited
        if before is not None and (before.number, before.seed2) == (audit.number, audit.seed2):
            return
        drawn: frozenset[str] = frozenset()
        if audit.seed2:
            members = view.validators(audit.epoch)
            keys = auditors_of(audit.seed2, self._key, members, view.params.auditors)
            drawn = frozenset(signing.peer_id(key) for key in keys)
        duties = {(one.deal, one.piece): one for one in view.duties_of(self._key)}
        self.prover.audited = Audited(
            audit.number,
            audit.seed,
            audit.seed2,
            keeper.root,
            keeper.slots,
            view.params.audit_leaves,
            drawn,
            duties,
        )

    def _remember(self, view: LedgerView, keeper: Keeper | None, audit: AuditState | None) -> None:
        """Keep what a settlement forgets, and count what it paid."""
        if (
            audit is None
            or keeper is None
            or (not keeper.slots and self._seen.audit != audit.number)
        ):
            return
        if audit.phase is AuditPhase.REPORT:
            self._seen = self._read_reports(view, audit)
        elif audit.phase is AuditPhase.SETTLED and audit.number > self.memory.audit:
            if keeper.verdict is Verdict.NONE:
                return
            seen = self._seen if self._seen.audit == audit.number else _Seen(audit.number)
            paid = core.earned(audit, view.keepers(), self._key, seen.due, seen.missing)
            reason = core.reason_of(keeper.verdict, seen.named)
            self.memory = Memory(self.memory.earned + paid, audit.number, reason)
            self._file.save(self.memory)
            _log.info("audit.settled", audit=audit.number, result=reason, paid=paid)

    def _read_reports(self, view: LedgerView, audit: AuditState) -> _Seen:
        named: list[Failure] = []
        missing: Counter[tuple[bytes, int]] = Counter()
        heard = 0
        for _, data in view.raw.scan(b"p/"):
            report = Report.unpack(load(data))
            heard += 1
            if self._key in report.failed:
                named.append(report.failed[self._key])
            missing.update((deal, at) for key, deal, at in report.missing if key == self._key)
        due = tuple(
            core.Due(duty.deal, duty.piece, deal.price * deal.pieces[duty.piece].priced)
            for duty in view.duties_of(self._key)
            if duty.due <= audit.number and (deal := view.deal(duty.deal)) is not None
        )
        lost = frozenset(name for name, count in missing.items() if 2 * count >= heard)
        return _Seen(audit.number, tuple(named), lost, due)

    # Reports

    @property
    def seconds_left(self) -> float | None:
        """Until everything is sealed at this pace; None where nothing is sealed or it is not known yet."""
        if len(self._pace) < 2 or not self.share:
            return None
        (began, first), (now, last) = self._pace[0], self._pace[-1]
        return (self.goal - last) * (now - began) / (last - first) if last > first else None

    def worries(self) -> list[str]:
        """What is wrong now, in sentences."""
        return [
            *([self._failure] if self._failure else []),
            *self.problems.values(),
            *list(self.duties.problems.values())[:2],
        ]

    @property
    def goal_bytes(self) -> int:
        """Bytes that the slots are to take."""
        return self.goal * SLOT_COST

    @property
    def sealed_bytes(self) -> int:
        """Bytes that the slots take."""
        return len(self.slots) * SLOT_COST


async def _until(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()

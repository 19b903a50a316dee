"""A keeper's part in audits: it answers on the ledger, lets its auditors ask, and remembers what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import structlog
import trio

from protocols import signing
from protocols.audit.draw import answer_root
from protocols.audit.service import AuditService
from swarm.keeper import core
from swarm.keeper.memory import Memory, MemoryFile
from swarm.keeper.prover import Audited, SlotProver
from swarm.ledger.capacity import Jury
from swarm.ledger.draws import Panel, auditors_of
from swarm.ledger.keeping import AuditPhase, Failure, Report, Verdict
from swarm.ledger.state import load
from swarm.ledger.transactions import CapacityAnswer

if TYPE_CHECKING:
    from pathlib import Path

    from protocols.transport import Transport
    from swarm.ledger.keeping import AuditState, Keeper
    from swarm.ledger.state import LedgerView
    from swarm.wallet import Wallet

_log = structlog.get_logger("swarm.keeper")


@dataclass(frozen=True, slots=True)
class _Seen:
    """What stood in the running audit when it was last looked at; the settlement forgets it."""

    audit: int
    named: tuple[Failure, ...] = ()
    unpaid: frozenset[tuple[bytes, int]] = frozenset()
    due: tuple[core.Due, ...] = ()


class Answering:
    """What one keeper does in audits.

    Args:
        key: Its account's public key.
        prover: Reads what is asked for.
        wallet: Sends its answers.
        transport: Where auditors ask.
        folder: Where it remembers.
        limiter: Threads.

    Attributes:
        memory: What audits made of it, kept over restarts.
    """

    def __init__(
        self,
        key: bytes,
        prover: SlotProver,
        wallet: Wallet,
        transport: Transport,
        folder: Path,
        limiter: trio.CapacityLimiter,
    ) -> None:
        self._key = key
        self._prover = prover
        self._wallet = wallet
        self._limiter = limiter
        self._file = MemoryFile(folder / "keeper.cbor")
        self._answered = 0
        self._seen = _Seen(0)
        self.memory: Memory = self._file.load()
        AuditService(transport, prover)

    def look(self, view: LedgerView, keeper: Keeper | None, audit: AuditState | None) -> None:
        """A block may have come."""
        self._remember(view, keeper, audit)
        self._show(view, keeper, audit)

    def owes(self, keeper: Keeper | None, audit: AuditState | None) -> bool:
        """Whether the audit that runs waits for an answer that was not sent yet."""
        return (
            audit is not None and audit.number > self._answered and core.owes_answer(audit, keeper)
        )

    async def answer(self, number: int) -> None:
        """Answer an audit.

        Raises:
            StorageError: A drawn leaf cannot be read.
            RefusedError: The ledger does not take it.
        """
        leaves = await trio.to_thread.run_sync(self._prover.leaves, number, limiter=self._limiter)
        root = await trio.to_thread.run_sync(
            answer_root, [one.leaf for one in leaves], limiter=self._limiter
        )
        await self._wallet.submit(CapacityAnswer(number, root))
        self._answered = number
        _log.info("audit.answered", audit=number)

    def _show(self, view: LedgerView, keeper: Keeper | None, audit: AuditState | None) -> None:
        """Let the running audit's auditors ask, and nobody else."""
        if audit is None or keeper is None or audit.phase is AuditPhase.SETTLED:
            self._prover.audited = None
            return
        before = self._prover.audited
        if before is not None and (before.number, before.seed2) == (audit.number, audit.seed2):
            return
        drawn: frozenset[str] = frozenset()
        if audit.seed2:
            members = view.validators(audit.epoch)
            keys = auditors_of(audit.seed2, self._key, members, view.params.auditors)
            drawn = frozenset(signing.peer_id(key) for key in keys)
        duties = {(one.deal, one.piece): one for one in view.duties_of(self._key)}
        self._prover.audited = Audited(
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
            paid = core.earned(audit, view.keepers(), self._key, seen.due, seen.unpaid)
            reason = core.reason_of(keeper.verdict, seen.named)
            self.memory = Memory(self.memory.earned + paid, audit.number, reason)
            self._file.save(self.memory)
            _log.info("audit.settled", audit=audit.number, result=reason, paid=paid)

    def _read_reports(self, view: LedgerView, audit: AuditState) -> _Seen:
        reports = {key[2:]: Report.unpack(load(data)) for key, data in view.raw.scan(b"p/")}
        said = [one.failed[self._key] for one in reports.values() if self._key in one.failed]
        members = view.validators(audit.epoch)
        jury = Jury(Panel(audit.seed2, members, view.params.auditors), reports)
        missing = {name for one in reports.values() for name in one.missing if name[0] == self._key}
        unpaid = frozenset(
            name[1:]
            for name in missing
            if jury.verdict(self._key, partial(_names, name)) is not Verdict.PROVEN
        )
        due = tuple(
            core.Due(duty.deal, duty.piece, deal.price * deal.pieces[duty.piece].priced)
            for duty in view.duties_of(self._key)
            if duty.due <= audit.number and (deal := view.deal(duty.deal)) is not None
        )
        return _Seen(audit.number, tuple(said), unpaid, due)


def _names(name: tuple[bytes, bytes, int], report: Report) -> bool:
    return name in report.missing

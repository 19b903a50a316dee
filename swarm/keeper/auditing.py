"""A validator's audits: it asks the keepers that it was drawn for, and reports what it found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog
import trio

from protocols.audit.draw import draw_slots, held_seed
from protocols.audit.errors import AuditFailedError
from protocols.audit.errors import Failure as Found
from protocols.audit.verify import Commitment
from swarm.errors import SwarmError
from swarm.keeper import core
from swarm.ledger.draws import audited_by
from swarm.ledger.errors import LedgerError
from swarm.ledger.keeping import AuditPhase
from swarm.ledger.payloads import MAX_FAILED, MAX_MISSING
from swarm.ledger.transactions import AuditReport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from protocols.audit.service import Auditor
    from swarm.heights import Heights
    from swarm.ledger.keeping import AuditState, Duty
    from swarm.ledger.state import LedgerView
    from swarm.wallet import Wallet

    Name = tuple[bytes, bytes, int]

SLOTS_FIRST: Final = 2
"""So many of an auditor's pauses a keeper has for its slots before it is asked for its pieces as well."""

_log = structlog.get_logger("swarm.auditing")


class Auditing:
    """Audits keepers for one validator.

    Args:
        key: Its public key.
        view: The newest finalized state.
        heights: Tells when that changes.
        wallet: Sends reports.
        auditor: Asks and checks.
    """

    def __init__(
        self,
        key: bytes,
        view: Callable[[], LedgerView],
        heights: Heights,
        wallet: Wallet,
        auditor: Auditor,
    ) -> None:
        self._key = key
        self._view = view
        self._heights = heights
        self._wallet = wallet
        self._auditor = auditor
        self.found: dict[bytes, str] = {}
        """What the last audit found wrong, in words, by keeper."""

    async def run(self) -> None:
        """Audit whenever this validator is drawn; runs until cancelled."""
        done = 0
        height = -1
        while True:
            height = await self._heights.above(height)
            view = self._view()
            audit = view.audit()
            if audit is None or audit.phase is not AuditPhase.REPORT or audit.number <= done:
                continue
            if self._heights.height < core.asks_from(view.params, audit):
                continue
            done = audit.number
            try:
                await self._report(audit)
            except (SwarmError, LedgerError) as error:
                _log.warning("audit.not_reported", audit=audit.number, error=str(error))

    async def _report(self, audit: AuditState) -> None:
        view = self._view()
        members = view.validators(audit.epoch)
        if self._key in audit.reported or members.find(self._key) is None:
            return
        lending = {one.public_key: one for one in view.keepers() if one.slots}
        drawn = audited_by(self._key, audit.seed2, lending, members, view.params.auditors)
        if not drawn:
            return
        duties: dict[bytes, list[Duty]] = {key: [] for key in drawn}
        for key, duty in view.duties():
            if key in duties and duty.due <= audit.number:
                duties[key].append(duty)
        self._auditor.begin(drawn)
        round_ = _Round(self._auditor, audit, view.params.audit_leaves)
        began, is_over = trio.current_time(), False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._end, core.report_by(view.params, audit), nursery.cancel_scope)
            async with trio.open_nursery() as asking:
                # Who did not answer on the ledger is struck without a word of ours; nobody audits itself.
                for key in drawn:
                    if key in audit.answers and key != self._key:
                        one = lending[key]
                        kept = Commitment(key, one.root, one.slots)
                        asking.start_soon(round_.audit, kept, duties[key])
            is_over = True
            nursery.cancel_scope.cancel()
        asked_s = trio.current_time() - began
        if not is_over and asked_s < core.least_asking_s(view.params, audit):
            _log.warning("audit.too_late", audit=audit.number, asked_s=asked_s)
            return
        round_.end()
        self.found = {key: f"{Found(reason).name.lower()}" for key, reason in round_.failed.items()}
        await self._wallet.submit(
            AuditReport(
                audit.number,
                tuple(sorted(round_.failed.items())[:MAX_FAILED]),
                tuple(sorted(round_.missing)[:MAX_MISSING]),
            )
        )
        _log.info(
            "audit.reported",
            audit=audit.number,
            keepers=len(drawn),
            failed=len(round_.failed),
            missing=len(round_.missing),
        )

    async def _end(self, height: int, scope: trio.CancelScope) -> None:
        await self._heights.above(height - 1)
        scope.cancel()


class _Round:
    """One audit by one validator; a keeper is silent until it has shown everything."""

    def __init__(self, auditor: Auditor, audit: AuditState, leaves: int) -> None:
        self._auditor = auditor
        self._audit = audit
        self._leaves = leaves
        self.failed: dict[bytes, int] = {}
        self.missing: set[tuple[bytes, bytes, int]] = set()

    async def audit(self, kept: Commitment, duties: Sequence[Duty]) -> None:
        """Ask one keeper for its slots, and for its pieces also where it is silent on others."""
        key = kept.keeper
        names = {(key, duty.deal, duty.piece): duty for duty in duties}
        self.failed[key] = Found.SILENT
        self.missing |= names.keys()
        self._auditor.untried |= names.keys()  # also those for which there is no time to begin
        async with trio.open_nursery() as asking:
            shown = trio.Event()
            asking.start_soon(self._slots, kept, shown)
            # One question at a time: behind those for many pieces the slots would come too late.
            with trio.move_on_after(SLOTS_FIRST * self._auditor.pause_s):
                await shown.wait()
            for name in self._in_turn(names):
                asking.start_soon(self._piece, name, names[name])
                # Of those that begin at once the last may queue first.
                await trio.lowlevel.checkpoint()

    def _in_turn(self, names: Iterable[Name]) -> list[Name]:
        """The same for all auditors, and known to no keeper before: who is slow cannot choose what it is not asked for."""
        seed2 = self._audit.seed2
        return sorted(names, key=lambda name: held_seed(seed2, *name))

    def end(self) -> None:
        """Name nobody as silent whose answer waited for this auditor, nor for a piece that it was not asked for although it was prompt."""
        unheard = self._auditor.unheard
        for key in [one for one in self.failed if one in unheard]:
            if self.failed[key] == Found.SILENT:
                del self.failed[key]
        self.missing = {name for name in self.missing if name[0] not in unheard}
        asked = {key for key, _, _ in self.missing} - self.failed.keys()
        prompt = {key for key in asked if self._auditor.is_prompt(key)}
        spared = {name for name in self.missing & self._auditor.untried if name[0] in prompt}
        self.missing -= spared
        if spared:
            _log.warning(
                "audit.not_asked", pieces=len(spared), why="too many for the time there is"
            )

    async def _slots(self, kept: Commitment, shown: trio.Event) -> None:
        audit, key = self._audit, kept.keeper
        try:
            await self._auditor.ask_leaves(
                audit.number, kept, audit.seed, self._leaves, audit.answers[key]
            )
            for slot in draw_slots(audit.seed2, key, kept.slots):
                await self._auditor.ask_slot(audit.number, kept, slot)
            del self.failed[key]
        except AuditFailedError as error:
            self.failed[key] = int(error.failure)
            _log.info("audit.failed", keeper=key.hex(), why=str(error))
        finally:
            shown.set()

    async def _piece(self, name: Name, duty: Duty) -> None:
        key, deal, piece = name
        audit = self._audit
        try:
            await self._auditor.ask_held(audit.number, key, deal, piece, duty.root, audit.seed2)
            self.missing.discard(name)
        except AuditFailedError as error:
            _log.info("audit.missing", keeper=key.hex(), piece=piece, why=str(error))

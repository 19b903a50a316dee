"""What a keeper does to its slots and to the ledger, so that the ledger counts what can be proven: one step a look."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog
import trio

from storage.slots import Version
from swarm.keeper import core
from swarm.ledger.transactions import CapacityCommit

if TYPE_CHECKING:
    from collections.abc import Callable

    from storage.slots import SlotStore
    from swarm.keeper.room import Room
    from swarm.ledger.application import Included
    from swarm.ledger.keeping import Keeper
    from swarm.ledger.state import LedgerView
    from swarm.wallet import Wallet

PATIENT_BLOCKS: Final = 200
"""A commitment that is in no block after so many has expired."""
REFUSED_BLOCKS: Final = 8
"""For which nothing is committed after a refusal, or a quarter of an audit's blocks where those are more."""

_log = structlog.get_logger("swarm.keeper")


@dataclass(frozen=True, slots=True)
class _Sent:
    """A commitment on its way."""

    identifier: bytes
    height: int
    slots: int


class Committing:
    """The commitments of one keeper.

    Args:
        key: Its account's public key.
        slots: Its sealed slots.
        wallet: Sends what it says.
        included: What became of a transaction.
        lower: Told that no more than so many slots are wanted, before the others are given back.
        limiter: Threads.

    Attributes:
        problems: What is wrong now, by what it is about.
    """

    def __init__(
        self,
        key: bytes,
        slots: SlotStore,
        wallet: Wallet,
        included: Callable[[bytes], Included | None],
        lower: Callable[[int], None],
        limiter: trio.CapacityLimiter,
    ) -> None:
        self._key = key
        self._slots = slots
        self._lower = lower
        self._wallet = wallet
        self._included = included
        self._limiter = limiter
        self._sent: _Sent | None = None
        self._refused_until = -1
        self.problems: dict[str, str] = {}

    async def look(
        self,
        height: int,
        view: LedgerView,
        keeper: Keeper | None,
        room: Room,
        goal: int,
        *,
        is_ripe: bool,
        is_held: bool,
    ) -> core.Step | None:
        """Do the next step, if there is one.

        Args:
            height: Of the newest final block.
            view: The state then.
            keeper: This one's record in it.
            room: How what is lent is divided.
            goal: Slots that are wanted.
            is_ripe: Whether what was replaced should be committed now.
            is_held: Whether nothing is committed for the time being.

        Returns:
            What was done.

        Raises:
            StorageError: The slots could not be changed.
            RefusedError: The ledger does not take it.
        """
        params, slots = view.params, self._slots
        self._settle_sent(height, params.audit_blocks)
        counted = keeper.slots if keeper is not None else 0
        root = await trio.to_thread.run_sync(slots.root, counted, limiter=self._limiter)
        is_staged = keeper is not None and slots.staged == Version(keeper.root, counted)
        is_standing = counted <= len(slots) and keeper is not None and root == keeper.root
        own = core.Own(
            room.slots,  # as measured: slots that were sealed since count with the next look
            slots.settled,
            goal,
            max(room.stay, min(slots.top, room.slots)),
            room.is_urgent,
            is_standing or is_staged,
            self._sent is not None,
            height < self._refused_until or is_held,
            self._sent.slots if self._sent is not None else 0,
            slots.waiting if self._sent is None else slots.unstaged,
            is_ripe,
        )
        account = view.account(self._key)
        if own.goal and core.affordable(params, account, keeper) <= min(counted, own.sealed - 1):
            self.problems["collateral"] = (
                f"{own.sealed:,} slots are sealed, and the balance covers the collateral of {counted:,}"
            )
        else:
            self.problems.pop("collateral", None)
        step = core.next_step(height, params, account, keeper, own)
        await self._do(step, height, keeper)
        return step

    async def _do(self, step: core.Step | None, height: int, keeper: Keeper | None) -> None:
        match step:
            case core.Adopt() if keeper is not None:
                counts = Version(keeper.root, keeper.slots)
                await trio.to_thread.run_sync(self._adopt, counts, limiter=self._limiter)
            case core.Settle():
                await trio.to_thread.run_sync(self._settle, limiter=self._limiter)
            case core.Shrink(slots):
                self._lower(slots)
                await trio.to_thread.run_sync(self._slots.shrink, slots, limiter=self._limiter)
                _log.info("slots.given_back", left=slots)
            case core.Commit(slots):
                root = await trio.to_thread.run_sync(self._stage, slots, limiter=self._limiter)
                identifier = await self._wallet.submit(CapacityCommit(root, slots))
                self._sent = _Sent(identifier, height, slots)
                _log.info("slots.committed", slots=slots)

    def _stage(self, slots: int) -> bytes:
        """The root to commit for so many slots: with what was replaced, unless they are fewer than stand."""
        if self._slots.staged is not None:
            self._slots.unstage()  # it was refused, or has expired
        if slots < self._slots.settled.slots or not self._slots.waiting:
            return self._slots.root(slots)
        return self._slots.stage(slots).root

    def _adopt(self, counts: Version) -> None:
        """Let what the ledger counts be what stands."""
        if self._slots.staged == counts:
            self._slots.settle(counts.root)
        elif counts.slots < self._slots.settled.slots:
            self._slots.shrink(counts.slots)
        else:
            self._slots.adopt(counts.slots)

    def _settle(self) -> None:
        if self._slots.staged is not None:
            self._slots.unstage()
        self._slots.settle(self._slots.stage().root)

    def _settle_sent(self, height: int, audit_blocks: int) -> None:
        """See what became of the commitment that was sent; a refused one waits for a while."""
        if self._sent is None:
            return
        included = self._included(self._sent.identifier)
        if included is not None:
            if included.error:
                self.problems["commitment"] = f"what is lent is not counted: {included.error}"
                self._refused_until = height + max(REFUSED_BLOCKS, audit_blocks // 4)
            else:
                self.problems.pop("commitment", None)
            self._sent = None
        elif height > self._sent.height + PATIENT_BLOCKS:
            self._sent = None

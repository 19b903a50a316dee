"""One node's consensus from epoch to epoch: a `Simplex` for the present one, and the last one to answer laggards.

When an epoch's last block is final, the next core starts at the tick after it: by then the shell has carried out the
`Commit`, so the application can name the next validators.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from protocols.consensus.core import Simplex
from protocols.consensus.events import (
    Advanced,
    Behind,
    Commit,
    Effect,
    Event,
    Now,
    Persist,
    Received,
    SetTimer,
    Start,
    Tick,
)
from protocols.consensus.journal import FROM_GENESIS, Standing, next_safe_epoch, since
from protocols.consensus.messages import Ask, Give, Proposal, epoch_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from protocols.consensus.application import Validator
    from protocols.consensus.messages import Block
    from protocols.consensus.views import Timing
    from protocols.signing import Signer

MAX_EARLY: Final = 256
"""Messages of the next epoch that wait until this node gets there."""
MAX_EARLY_PROPOSALS: Final = 4
PRESENT_MS: Final = 60_000
"""A final block whose time is within this of the own clock was made just now."""


class Replica:
    """Agreement on one chain, sans I/O.

    Args:
        chain_id: 32 bytes.
        epoch_length: In blocks.
        signer: This node's key; it votes in the epochs whose validators name it.
        finalized: The application's last final block.
        validators: The set of an epoch, up to the one after the last final block.
        leader: Epoch and view to public key.
        timing: How long to wait.
        standing: What the log says: before its first epoch this node follows without a vote, for it cannot know what
            it has signed.
    """

    def __init__(
        self,
        chain_id: bytes,
        epoch_length: int,
        signer: Signer | None,
        finalized: Block,
        validators: Callable[[int], tuple[Validator, ...]],
        leader: Callable[[int, int], bytes],
        timing: Timing,
        standing: Standing = FROM_GENESIS,
    ) -> None:
        self._chain_id = chain_id
        self._epoch_length = epoch_length
        self._signer = signer
        self._validators = validators
        self._leader = leader
        self._timing = timing
        self._standing = standing
        self._entries: tuple[bytes, ...] = ()
        self._early: deque[Received] = deque(maxlen=MAX_EARLY)
        self._unheeded = 0
        self._silent = False
        self.previous: Simplex | None = None
        self.core = self._build(finalized)

    @property
    def is_voting(self) -> bool:
        """Whether this node votes in the present epoch."""
        signer = self._signer
        return (
            signer is not None
            and not self._silent
            and self.core.epoch >= self._standing.first_epoch
            and signer.public_key in self.core.committee.index
        )

    def fall_silent(self) -> list[Effect]:
        """Cast no vote before the next start, nor then before the next epoch: the log does not hold every vote of the key.

        The key is used elsewhere too, or this log is an old copy.
        """
        self._silent = True
        self.core.fall_silent()
        first = next_safe_epoch(self.core.root.height, self._epoch_length)
        first = max(self._standing.first_epoch, first)
        self._standing = replace(self._standing, first_epoch=first)
        return [Persist(tuple(self._standing.encode()))]

    def handle(self, event: Event, now: Now) -> list[Effect]:
        """Take one event in; see `Simplex.handle`."""
        effects = self._handle(event, now)
        if self._standing.whole_from is None:
            final = [effect.block for effect in effects if isinstance(effect, Commit)]
            final += [event.block] if isinstance(event, Advanced) else []
            effects += self._settle(final, now)
        return effects

    def _handle(self, event: Event, now: Now) -> list[Effect]:
        match event:
            case Start(entries):
                self._entries = entries
                return self._end_of_epoch(self.core.handle(event, now), now)
            case Received(_, message) if message.epoch != self.core.epoch:
                return self._elsewhen(event, now)
            case Tick() if self.core.done:
                return self._next_epoch(now)
            case Advanced(block, _) if block.height > self._reach:
                return self._jump(block, now)
            case Advanced(block, _) if self.core.done and block.height > self.core.last_height:
                effects = self._next_epoch(now)
                return self._end_of_epoch(effects + self.core.handle(event, now), now)
            case _:
                return self._end_of_epoch(self.core.handle(event, now), now)

    def _settle(self, final: list[Block], now: Now) -> list[Effect]:
        """Note that the log was here at the network's present: it is whole from the next epoch on."""
        for block in final:
            if abs(now.utc_ms - block.timestamp_ms) <= PRESENT_MS:
                whole = next_safe_epoch(block.height, self._epoch_length)
                self._standing = replace(self._standing, whole_from=whole)
                return [Persist(tuple(self._standing.encode()))]
        return []

    def snapshot(self) -> list[bytes]:
        """The entries that a log needs in place of all that it holds."""
        later = since(self._entries, self.core.epoch + 1)
        return [*self._standing.encode(), *later, *self.core.snapshot()]

    def _build(self, finalized: Block) -> Simplex:
        epoch = epoch_of(finalized.height + 1, self._epoch_length)
        return Simplex(
            self._chain_id,
            epoch,
            self._validators(epoch),
            None if self._silent or epoch < self._standing.first_epoch else self._signer,
            finalized,
            lambda view: self._leader(epoch, view),
            self._epoch_length,
            self._timing,
        )

    def _end_of_epoch(self, effects: list[Effect], now: Now) -> list[Effect]:
        if self.core.done:
            effects.append(SetTimer(now.tick_ms))
        return effects

    def _next_epoch(self, now: Now) -> list[Effect]:
        self.previous = self.core
        effects = [] if self.core.took_part else self._wait_after(self.core.root)
        self.core = self._build(self.core.root)
        self._entries = since(self._entries, self.core.epoch)
        effects += self.core.handle(Start(self._entries), now)
        early, self._early = self._early, deque(maxlen=MAX_EARLY)
        self._unheeded = 0
        for received in early:
            if received.message.epoch == self.core.epoch:
                effects += self.core.handle(received, now)
        return self._end_of_epoch(effects, now)

    @property
    def _reach(self) -> int:
        """The last height that this epoch's core can take, or the next one's if it is done."""
        return self.core.last_height + (self._epoch_length if self.core.done else 0)

    def _jump(self, block: Block, now: Now) -> list[Effect]:
        """Go on from another epoch's block, though the epochs up to it were not seen here."""
        self.previous = None
        noted = self._wait_after(block)
        self.core = self._build(block)
        return noted + self._end_of_epoch(self.core.handle(Start(self._entries), now), now)

    def _wait_after(self, block: Block) -> list[Effect]:
        """Note the wait, if there is one, of a key that goes on from a block of an epoch in which this node took no part.

        Where the log is whole, every vote of this key in the epoch that runs stands in it, and the node votes at once.
        Where it may not be, the key votes from the next epoch on.
        """
        whole = self._standing.whole_from
        if whole is not None and epoch_of(block.height + 1, self._epoch_length) >= whole:
            return []
        first = next_safe_epoch(block.height, self._epoch_length)
        first = max(self._standing.first_epoch, first)
        self._standing = replace(self._standing, first_epoch=first)
        return [Persist(tuple(self._standing.encode()))]

    @property
    def _patience(self) -> int:
        """Messages of the next epoch after which this node asks what it missed: more than a quick hand-off brings."""
        return 2 * len(self.core.committee.index)

    def _elsewhen(self, event: Received, now: Now) -> list[Effect]:
        epoch = event.message.epoch
        if self.previous is not None and epoch == self.previous.epoch:
            return self.previous.handle(event, now)
        if epoch == self.core.epoch + 1:
            if isinstance(event.message, Ask | Give):  # of no use later, and blocks are long
                return []
            proposals = sum(isinstance(early.message, Proposal) for early in self._early)
            if not isinstance(event.message, Proposal) or proposals < MAX_EARLY_PROPOSALS:
                self._early.append(event)
            # They say the same again and again: who would have helped may have restarted, and only knows its epoch.
            self._unheeded += 1
            return [] if self._unheeded % self._patience else [Behind(epoch)]
        return [Behind(epoch)] if epoch > self.core.epoch else []

"""What this keeper shows its auditors: bytes of the version that the running audit counts, and of its duties."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, overload

import structlog

from protocols.audit.draw import draw_leaves, held_seed
from storage import sampling
from storage.errors import StorageError
from storage.slots import DamagedSlotError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from protocols.transport import PeerId
    from storage.cid import Cid
    from storage.contract import Blockstore
    from storage.slots import LeafProof, SlotProof, SlotStore
    from swarm.ledger.keeping import Duty

MAX_MENDS: Final = 16
"""Damaged slots that are sealed again for one audit: more would not be in time for the answer."""

_log = structlog.get_logger("swarm.keeper")


@dataclass(frozen=True, slots=True)
class Audited:
    """An audit as one keeper sees it.

    Attributes:
        number: Of the audit.
        seed: Draws the leaves.
        seed2: Draws whole slots and held chunks; empty while answers are taken.
        root: That the ledger counts.
        slots: Likewise.
        count: The chain's `audit_leaves`.
        auditors: Peers that may ask.
        duties: By (deal, piece).
    """

    number: int
    seed: bytes
    seed2: bytes
    root: bytes
    slots: int
    count: int
    auditors: frozenset[PeerId]
    duties: Mapping[tuple[bytes, int], Duty]


class SlotProver:
    """The `protocols.audit.service.Prover` of a node.

    Args:
        key: The keeper's public key.
        slots: Its sealed slots.
        store: Its chunks.
        was_whole: Whether all of a duty's piece was once here; called in threads.
    """

    def __init__(
        self, key: bytes, slots: SlotStore, store: Blockstore, was_whole: Callable[[Duty], bool]
    ) -> None:
        self._key = key
        self._slots = slots
        self._store = store
        self._was_whole = was_whole
        self._leaves: tuple[bytes, Sequence[LeafProof]] | None = None
        self._mended: tuple[int, int] = (0, 0)
        self.audited: Audited | None = None
        """The running audit; replaced on the event loop, read in threads."""

    def allows(self, audit: int, peer: PeerId) -> bool:
        audited = self.audited
        return audited is not None and audited.number == audit and peer in audited.auditors

    def pieces(self, audit: int) -> int:
        audited = self.audited
        return len(audited.duties) if audited is not None and audited.number == audit else 0

    def leaves(self, audit: int) -> Sequence[LeafProof]:
        audited = self._audited(audit)
        if self._leaves is None or self._leaves[0] != audited.seed:
            self._leaves = (audited.seed, self._draw(audited))
        return self._leaves[1]

    def slot(self, audit: int, slot: int) -> SlotProof:
        audited = self._audited(audit)
        try:
            return self._slots.prove_slot(audited.root, slot)
        except DamagedSlotError as error:
            self._mend(audited, error)
            return self._slots.prove_slot(audited.root, slot)

    def held(self, audit: int, deal: bytes, piece: int) -> Sequence[bytes]:
        audited = self._audited(audit)
        duty = audited.duties.get((deal, piece))
        if duty is None:
            message = f"this keeper has no duty to keep piece {piece} of {deal.hex()}"
            raise StorageError(message)
        if not (duty.shown or self._was_whole(duty)):
            # Who shows one chunk and lacks the next is struck, and who has shown none only loses the seat: so nothing is
            # shown of a piece whose author may keep the rest of it back.
            message = f"piece {piece} of {deal.hex()} was not all here yet"
            raise StorageError(message)
        seed = held_seed(audited.seed2, self._key, deal, piece)
        return _Blocks(sampling.way(duty.root, seed, self._store.get), self._store)

    def _audited(self, audit: int) -> Audited:
        audited = self.audited
        if audited is None or audited.number != audit:
            message = f"audit {audit} does not run"
            raise StorageError(message)
        return audited

    def _draw(self, audited: Audited) -> list[LeafProof]:
        def prove(slot: int, number: int) -> LeafProof:
            try:
                return self._slots.prove(audited.root, slot, number)
            except DamagedSlotError as error:
                self._mend(audited, error)
                return self._slots.prove(audited.root, slot, number)

        return draw_leaves(audited.seed, self._key, audited.slots, audited.count, prove)

    def _mend(self, audited: Audited, damage: DamagedSlotError) -> None:
        """Seal a slot again as it was: a disk that lost a little does not cost a strike.

        Raises:
            DamagedSlotError: It lost more than that.
            StorageError: The slot held a chunk that the store does not have either.
        """
        number, count = self._mended
        count = count if number == audited.number else 0
        _log.warning("slot.damaged", slot=damage.slot, mended=count < MAX_MENDS)
        if count == MAX_MENDS:
            raise damage
        self._mended = (audited.number, count + 1)
        cid = self._slots.chunk_in(damage.slot)
        self._slots.mend(damage.slot, None if cid is None else (cid, self._store.get(cid)))


class _Blocks(Sequence[bytes]):
    """Blocks that are read when they are taken."""

    def __init__(self, names: Sequence[Cid], store: Blockstore) -> None:
        self._names = names
        self._store = store

    def __len__(self) -> int:
        return len(self._names)

    @overload
    def __getitem__(self, at: int) -> bytes: ...
    @overload
    def __getitem__(self, at: slice) -> _Blocks: ...
    def __getitem__(self, at: int | slice) -> bytes | _Blocks:
        if isinstance(at, slice):
            return _Blocks(self._names[at], self._store)
        return self._store.get(self._names[at])

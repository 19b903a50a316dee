"""What leaving a network takes, in which order, and how long; pure.

1. What was begun in running rounds is handed in.
2. Lent space is taken back as soon as the ledger takes the number 0; its collateral unbonds from then on.
3. The stake is taken out, and with it the vote of the epochs that follow; it unbonds too.
4. The seats at pieces fall free with the next settlement, other keepers are drawn and fetch; until they have shown the
   pieces, or the deals are over, this node keeps and serves them.
5. What has unbonded is withdrawn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from swarm.ledger.transactions import CapacityCommit, Register, Unstake, Withdraw
from swarm.sizes import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swarm.ledger.keeping import Deal, Seats

NO_ROOT: Final = bytes(32)

Step: TypeAlias = CapacityCommit | Unstake | Register | Withdraw


@dataclass(frozen=True, slots=True)
class Facts:
    """How an account that leaves stands, in blocks and units.

    Attributes:
        height: Of the newest final block.
        owing: Rounds for which something is still owed.
        slots: That the ledger counts.
        opens: The height from which another number of slots is taken.
        collateral: Locked for them.
        stake: As a validator.
        bond: As a worker.
        roles: Of the account.
        releases: (amount, height) of what unbonds.
        pieces: That were kept for others when leaving began.
        alone: Of those, the ones that nobody else has shown yet.
        settles: The height at which seats fall free next.
        audit_blocks: From one settlement to the next.
        unbonding_blocks: That stake and collateral take.
    """

    height: int
    owing: int
    slots: int
    opens: int
    collateral: int
    stake: int
    bond: int
    roles: tuple[str, ...]
    releases: tuple[tuple[int, int], ...]
    pieces: int
    alone: int
    settles: int
    audit_blocks: int
    unbonding_blocks: int


@dataclass(frozen=True, slots=True)
class Stage:
    """One part of leaving.

    Attributes:
        name: `rounds`, `capacity`, `stake`, `pieces` or `unbonding`.
        text: How it stands, in words.
        blocks: Until it is done, about; 0: it is; None: not known.
    """

    name: str
    text: str
    blocks: int | None


def stages(facts: Facts) -> list[Stage]:
    """Every part, in order."""
    opens = max(0, facts.opens - facts.height) + 1
    capacity = opens if facts.slots else 0
    pieces = 0
    if facts.alone:
        # The seats fall free with the settlement after the slots are no longer counted; those who take them show the
        # pieces in the audit after.
        pieces = max(capacity, facts.settles - facts.height) + facts.audit_blocks
    release = max((height - facts.height for _, height in facts.releases), default=0)
    if facts.collateral:
        release = max(release, capacity + facts.unbonding_blocks)
    if facts.stake or facts.bond:
        release = max(release, 1 + facts.unbonding_blocks)
    is_locked = bool(facts.releases or facts.collateral or facts.stake or facts.bond)
    return [
        Stage(
            "rounds",
            f"this node still owes work in {counted(facts.owing, 'round')}"
            if facts.owing
            else "no round waits for this node",
            1 if facts.owing else 0,
        ),
        Stage(
            "capacity",
            f"{counted(facts.slots, 'slot')} counted; taken back from height {facts.opens:,}"
            if facts.slots
            else "no space is lent",
            capacity,
        ),
        Stage(
            "stake",
            "stake and bond are to be taken out"
            if facts.stake or facts.bond
            else "nothing is staked",
            1 if facts.stake or facts.bond else 0,
        ),
        Stage(
            "pieces",
            f"{facts.pieces - facts.alone:,} of {facts.pieces:,} pieces are with others"
            if facts.pieces
            else "no pieces are kept for others",
            pieces,
        ),
        Stage(
            "unbonding",
            "unbonding, then withdrawn" if is_locked else "nothing unbonds",
            max(1, release) if is_locked else 0,
        ),
    ]


def blocks_left(parts: Sequence[Stage]) -> int:
    """Until all is done, about."""
    return max((one.blocks or 0 for one in parts), default=0)


def is_done(parts: Sequence[Stage]) -> bool:
    """Whether nothing is left to do."""
    return all(one.blocks == 0 for one in parts)


def steps(facts: Facts, vrf_key: bytes, hardware: str) -> list[Step]:
    """What the account should ask of the ledger now.

    Args:
        facts: How it stands.
        vrf_key: Of the account, which a registration repeats.
        hardware: Likewise.
    """
    found: list[Step] = []
    if facts.slots and facts.opens <= facts.height + 1:
        found.append(CapacityCommit(NO_ROOT, 0))
    if facts.stake:
        found.append(Unstake(facts.stake))
    if facts.bond and not facts.slots and not facts.owing:
        found.append(Register(vrf_key, hardware, ()))
    if any(height <= facts.height for _, height in facts.releases):
        found.append(Withdraw())
    return found


def is_with_others(deal: Deal | None, seats: Seats | None, piece: int, own: bytes) -> bool:
    """Whether a piece needs this keeper no more: its deal is over, or all its seats are shown by others.

    Args:
        deal: As the ledger has it; None: it is over.
        seats: Likewise.
        piece: Its place in the deal.
        own: This keeper's key.
    """
    if deal is None or seats is None or piece >= len(seats.of):
        return True
    shown = sum(one.shown for one in seats.of[piece] if one.keeper != own)
    return shown >= deal.replicas

"""Deals: content that somebody pays to have kept, and the keepers that have a seat at each of its pieces.

Seats are drawn by free proven slots with the beacon of the block in which they are filled: with that in which the deal
was posted, and with each settlement for those that were lost. A keeper has one seat at a piece, and one at all pieces of
a recipe: whoever fails takes one of them along and not two. A seat is kept until its piece was not shown, or its
keeper left or was suspended. A piece has to be shown from `Seat.due` on, so that there is time to fetch it.
One who never showed a piece loses the seat and nothing else: it may be a piece that nobody can fetch.
"""

# ruff: noqa: EM101, EM102 - a refusal's reason is what its receipt keeps
from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from dataclasses import replace
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from swarm.ledger import schedule
from swarm.ledger.draws import seat_draw
from swarm.ledger.errors import Refused
from swarm.ledger.keeping import Deal, Piece, Seat, Seats
from swarm.ledger.validators import WHOLE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Set as AbstractSet

    from swarm.ledger.draft import Draft
    from swarm.ledger.genesis import Params
    from swarm.ledger.transactions import KeepEnd, KeepPost

TRIES: Final = 32
"""Draws for one seat; in the first half of them a keeper of another piece of the deal is passed over."""
MAX_DRAWS: Final = 8_192
"""In one block; seats that are left over wait for the next settlement."""
MAX_STEPS: Final = 65_536
"""Likewise: keepers that are looked at one after another where no draw found one for a piece of a recipe."""


def fee(params: Params, escrow: int) -> int:
    """What a deal pays on top of the units that it puts aside; a unit at least, where there is a fee."""
    return -(-escrow * params.keep_fee // WHOLE)


def post(draft: Draft, deal_id: bytes, owner: bytes, asked: KeepPost, height: int) -> None:
    """Post a deal, escrow what it costs and take its fee; its seats are filled with the end of the block.

    Raises:
        Refused: It pays too little, its owner lacks the funds, or too many deals are open.
    """
    params, account = draft.params, draft.account(owner)
    if asked.price < params.min_keep_price:
        raise Refused(f"a deal pays at least {params.min_keep_price:,} units a GiB and audit")
    deal = Deal(
        deal_id,
        owner,
        tuple(Piece(root, size) for root, size in asked.pieces),
        asked.replicas,
        asked.price,
        asked.recipe,
        height,
        schedule.first_due(params, height),
        asked.audits,
        escrow=0,
    )
    escrow = deal.cost * deal.audits
    taken = fee(params, escrow)
    if account.balance < escrow + taken:
        raise Refused(f"the balance does not cover {escrow + taken:,} units")
    if len(draft.open_deals) >= params.max_deals:
        _displace(draft, deal, height)
    account = draft.account(owner)  # it may have owned the one that gave way
    draft.put_account(replace(account, balance=account.balance - escrow - taken))
    burned, money = taken * params.keep_burn // WHOLE, draft.money
    draft.put_money(
        replace(money, burned=money.burned + burned, treasury=money.treasury + taken - burned)
    )
    draft.put_deal(replace(deal, escrow=escrow))
    draft.put_seats(Seats(deal_id, ((),) * len(deal.pieces)))
    draft.put_open_deals((*draft.open_deals, deal_id))


def end(draft: Draft, owner: bytes, asked: KeepEnd) -> None:
    """Stop a deal with the next settlement.

    Raises:
        Refused: There is none, it is another's, or it is stopped.
    """
    deal = draft.deal(asked.deal)
    if deal is None:
        raise Refused("no such deal is open")
    if deal.owner != owner:
        raise Refused("the deal is another account's")
    if deal.ended:
        raise Refused("the deal ends with the next settlement")
    draft.put_deal(replace(deal, ended=True))


def settle(
    draft: Draft,
    number: int,
    proven: AbstractSet[bytes],
    lost: AbstractSet[tuple[bytes, bytes, int]],
    unpaid: AbstractSet[tuple[bytes, bytes, int]],
) -> dict[bytes, int]:
    """Take from the escrows what an audit earned, vacate seats, and close what is over.

    Args:
        draft: The state; keepers stand as the audit left them.
        number: Of the audit.
        proven: The keepers that are paid for it.
        lost: (keeper, deal, piece) that were not shown.
        unpaid: Likewise, those about which the auditors do not agree.

    Returns:
        What each keeper earned; the caller pays it.
    """
    earned: dict[bytes, int] = {}
    for deal_id in draft.open_deals:
        deal, seats = _both(draft, deal_id)
        spent, standing = 0, []
        for at, (piece, taken) in enumerate(zip(deal.pieces, seats.of, strict=True)):
            price, kept = deal.price * piece.priced, []
            for seat in taken:
                name = (seat.keeper, deal_id, at)
                if name in lost or not _in_order(draft, seat.keeper):
                    continue
                if seat.due <= number and seat.keeper in proven and name not in unpaid:
                    spent += price
                    earned[seat.keeper] = earned.get(seat.keeper, 0) + price
                    kept.append(seat if seat.shown else replace(seat, shown=True))
                else:
                    kept.append(seat)
            standing.append(tuple(kept))
        if spent:
            deal = replace(deal, escrow=deal.escrow - spent)
            draft.put_deal(deal)
        if deal.ended or number >= deal.last:
            close(draft, deal)
        elif tuple(standing) != seats.of:
            draft.put_seats(Seats(deal_id, tuple(standing)))
    return earned


def close(draft: Draft, deal: Deal) -> None:
    """The rest of the escrow goes back, and nobody has a duty any more."""
    owner = draft.account(deal.owner)
    draft.put_account(replace(owner, balance=owner.balance + deal.escrow))
    draft.put_open_deals(tuple(one for one in draft.open_deals if one != deal.id))
    draft.drop_deal(deal.id)


def posted_in(draft: Draft, height: int) -> bool:
    """Whether the newest deal was posted in this block."""
    newest = draft.deal(draft.open_deals[-1]) if draft.open_deals else None
    return newest is not None and newest.posted == height


def fill(draft: Draft, height: int, beacon: bytes) -> None:
    """Draw keepers for all vacant seats, as far as there are any with room."""
    standing = [one for key in draft.keepers if (one := draft.keeper(key)) is not None]
    free = {one.public_key: one.proven for one in standing if one.in_order}
    open_ = [_both(draft, deal_id) for deal_id in draft.open_deals]
    given: Counter[bytes] = Counter()
    for deal, seats in open_:
        for piece, taken in zip(deal.pieces, seats.of, strict=True):
            for seat in taken:
                given[seat.keeper] += piece.slots
    free = {key: proven - given[key] for key, proven in free.items() if proven > given[key]}
    if not free or not open_:
        return
    draw = _Draw(beacon, free)
    due = schedule.first_due(draft.params, height)
    first = int.from_bytes(beacon, "big") % len(open_)
    for deal, seats in (*open_[first:], *open_[:first]):
        if not deal.ended and due <= deal.last:
            filled = draw.fill(deal, seats, due)
            if filled != seats:
                draft.put_seats(filled)


class _Draw:
    """The seats that one block fills."""

    def __init__(self, beacon: bytes, free: Mapping[bytes, int]) -> None:
        self._beacon = beacon
        self._free = dict(free)
        self._all = frozenset(free)
        self._keys = sorted(free)
        self._ends = list(accumulate(free[key] for key in self._keys))
        self._most = max(free.values())
        self._left = MAX_DRAWS
        self._steps = MAX_STEPS

    def fill(self, deal: Deal, seats: Seats, due: int) -> Seats:
        """A deal's seats with those vacant ones taken for which a keeper was found."""
        in_deal = {seat.keeper for taken in seats.of for seat in taken}
        filled = []
        for at, (piece, before) in enumerate(zip(deal.pieces, seats.of, strict=True)):
            taken = list(before)
            while len(taken) < deal.replicas:
                in_piece = in_deal if deal.recipe else {one.keeper for one in taken}
                seat = len(taken)
                key = self._keeper(deal, at, seat, piece.slots, in_piece, in_deal)
                if key is None:
                    break
                self._free[key] -= piece.slots
                in_deal.add(key)
                taken.append(Seat(key, due))
            filled.append(tuple(taken))
        return Seats(deal.id, tuple(filled))

    def _keeper(
        self,
        deal: Deal,
        piece: int,
        seat: int,
        slots: int,
        barred: AbstractSet[bytes],
        in_deal: AbstractSet[bytes],
    ) -> bytes | None:
        """Who takes one seat; a keeper of the deal only if there is no other, and one that is barred never."""
        if slots > self._most or barred >= self._all:
            return None
        distinct = not in_deal >= self._all
        first = 0
        for at in range(min(TRIES, self._left)):
            self._left -= 1
            place = seat_draw(self._beacon, deal.id, piece, seat, at, self._ends[-1])
            first = bisect_right(self._ends, place)
            key = self._keys[first]
            if key in barred or self._free[key] < slots:
                continue
            if not (distinct and at < TRIES // 2 and key in in_deal):
                return key
        return self._next(first, slots, barred) if deal.recipe else None

    def _next(self, first: int, slots: int, barred: AbstractSet[bytes]) -> bytes | None:
        """The first keeper with room behind the last draw: a recipe of nearly all keepers finds the last ones too."""
        keys = len(self._keys)
        for step in range(1, min(keys, self._steps) + 1):
            self._steps -= 1
            key = self._keys[(first + step) % keys]
            if key not in barred and self._free[key] >= slots:
                return key
        return None


def _displace(draft: Draft, deal: Deal, height: int) -> None:
    """Where all places are taken, the deal that pays least an audit gives way to one that pays more."""
    most = draft.params.max_deals
    if schedule.opens(draft.params, height) > height:
        raise Refused(f"{most:,} deals are open, and none gives way while an audit is near or runs")
    open_ = [_both(draft, one)[0] for one in draft.open_deals]
    least = min(open_, key=lambda one: (one.cost, -one.posted, one.id), default=None)
    if least is None or least.cost >= deal.cost:
        raise Refused(f"{most:,} deals are open, and none pays less an audit than {deal.cost:,}")
    close(draft, least)


def _both(draft: Draft, deal_id: bytes) -> tuple[Deal, Seats]:
    deal, seats = draft.deal(deal_id), draft.seats(deal_id)
    if deal is None or seats is None:  # the list of open deals is written with them
        message = f"the open deal {deal_id.hex()} is gone"
        raise LookupError(message)
    return deal, seats


def _in_order(draft: Draft, key: bytes) -> bool:
    keeper = draft.keeper(key)
    return keeper is not None and keeper.in_order

"""What a deal would say and cost, with what the person did not say filled in; pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from storage import cid as cids
from swarm.errors import RefusedError, UsageError
from swarm.ledger import deals
from swarm.ledger.genesis import UNIT
from swarm.ledger.keeping import MAX_REPLICAS, MAX_SEATS
from swarm.ledger.payloads import MAX_DEAL_AUDITS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from storage.cid import Cid
    from swarm.control.api import Json
    from swarm.keeper.coding import Coding
    from swarm.ledger.keeping import Piece
    from swarm.ledger.state import LedgerView

DEFAULT_DAYS: Final = 30
"""How long a deal lasts if nobody says."""
DEFAULT_PRICE: Final = UNIT // 1_000
"""Units a GiB and audit where no deal is open to go by."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What is asked for; None where the default is meant.

    Attributes:
        replicas: Of each piece.
        audits: For how many.
        price: Units a GiB begun and audit.
        is_coded: Cut it into pieces of which some can be lost.
        coding: Into how many; None: as many as there are keepers for.
    """

    replicas: int
    audits: int | None = None
    price: int | None = None
    is_coded: bool = False
    coding: Coding | None = None


def quote(
    view: LedgerView,
    account: bytes,
    root: Cid,
    size: int,
    pieces: Sequence[Piece],
    terms: Terms,
    coding: Coding | None,
) -> Json:
    """The terms of a deal, and what it costs.

    Args:
        view: The state of the ledger.
        account: Who pays.
        root: What is kept.
        size: Its bytes.
        pieces: What keepers keep of it.
        terms: What was asked for.
        coding: How it is cut; None: it is whole.

    Returns:
        As `KeepingOperations.quote` tells it.

    Raises:
        UsageError: Too many replicas, or less than the network's least price.
    """
    params = view.params
    if not 1 <= terms.replicas <= MAX_REPLICAS or len(pieces) * terms.replicas > MAX_SEATS:
        most = min(MAX_REPLICAS, MAX_SEATS // len(pieces))
        message = f"{terms.replicas:,} replicas where 1 to {most} can be kept"
        raise UsageError(message)
    audits_a_day = params.blocks_per_day / params.audit_blocks
    audits = terms.audits or max(1, round(DEFAULT_DAYS * audits_a_day))
    audits = min(audits, MAX_DEAL_AUDITS)
    price = terms.price or max(params.min_keep_price, going_price(view))
    if price < params.min_keep_price:
        message = (
            f"{price / UNIT:,g} tokens a GiB and audit, where this network takes"
            f" {params.min_keep_price / UNIT:,g} at least"
        )
        raise UsageError(message)
    cost = price * terms.replicas * audits * sum(one.priced for one in pieces)
    return {
        "cid": cids.text(root),
        "bytes": size,
        "replicas": terms.replicas,
        "pieces": len(pieces),
        "needed": None if coding is None else coding.needed,
        "audits": audits,
        "days": audits / audits_a_day,
        "price": price,
        "cost": cost,
        "fee": deals.fee(params, cost),
        "seats": len(pieces) * terms.replicas,
        "coded": coding is not None,
        "keepers": sum(one.in_order for one in view.keepers()),
        "balance": view.account(account).balance,
    }


def check_balance(told: Json) -> None:
    """See that a deal can be paid for.

    Raises:
        RefusedError: It cannot.
    """
    if told["cost"] + told["fee"] > told["balance"]:
        message = (
            f"the deal costs {told['cost'] / UNIT:,g} tokens and a fee of {told['fee'] / UNIT:,g},"
            f" and the balance is {told['balance'] / UNIT:,g}"
        )
        raise RefusedError(message, "fewer replicas, fewer audits or a lower price cost less")


def going_price(view: LedgerView) -> int:
    """What open deals pay a GiB and audit: the one in their middle."""
    prices = sorted(one.price for one in view.deals())
    return prices[len(prices) // 2] if prices else DEFAULT_PRICE

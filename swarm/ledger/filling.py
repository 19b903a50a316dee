"""What a block takes of what waits: a share of it is kept for the protocol, the rest goes by tip."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Final, TypeAlias

from swarm.ledger.transactions import PROTOCOL_TYPES

if TYPE_CHECKING:
    from collections.abc import Callable

    from swarm.ledger.state import LedgerView
    from swarm.ledger.transactions import Transaction

RESERVED_PART: Final = 4
"""One in so many parts is for protocol transactions alone."""
_OVERHEAD: Final = 5

_Key: TypeAlias = tuple[int, bool, int, bytes]
"""Lowest first: minus the tip, whether it is ordinary, its place in time, its sender."""


def fill(
    queues: dict[bytes, dict[int, Transaction]],
    order: dict[bytes, int],
    view: LedgerView,
    max_bytes: int,
    max_count: int,
    take: Callable[[Transaction], bool],
) -> list[Transaction]:
    """What a block on top of a state should hold, in order.

    Args:
        queues: What waits of each account, by nonce.
        order: The place in time of each, by its id.
        view: The state of the block's parent.
        max_bytes: Of the transactions and their framing.
        max_count: Transactions at most.
        take: Asked of each in that order whether it can stand in the block; one that cannot takes no room.
    """
    heads = _Heads(queues, order, view)
    parked: list[_Key] = []
    chosen: list[Transaction] = []
    left, gas = max_bytes, view.params.max_block_gas
    ordinary_left, ordinary_gas = left - left // RESERVED_PART, gas - gas // RESERVED_PART
    while len(chosen) < max_count and (heads.heap or parked):
        if not heads.heap:  # what protocol transactions left of their share
            heads.heap, parked = parked, []
            ordinary_left, ordinary_gas = left, gas
            heapq.heapify(heads.heap)
        key = heapq.heappop(heads.heap)
        one = heads.transaction(key)
        size, used = len(one.data) + _OVERHEAD, one.gas_used
        if size > left or used > gas:
            continue
        if key[1] and (size > ordinary_left or used > ordinary_gas):
            parked.append(key)
        elif take(one):
            left, gas = left - size, gas - used
            ordinary_left = min(ordinary_left - size * key[1], left)
            ordinary_gas = min(ordinary_gas - used * key[1], gas)
            chosen.append(one)
            heads.offer(one.sender, one.nonce + 1)
    return chosen


def is_protocol(transaction: Transaction) -> bool:
    """Whether a share of the room is kept for it."""
    return transaction.payload.TYPE in PROTOCOL_TYPES


class _Heads:
    """The next transaction of each sender, best first."""

    def __init__(
        self,
        queues: dict[bytes, dict[int, Transaction]],
        order: dict[bytes, int],
        view: LedgerView,
    ) -> None:
        self.heap: list[_Key] = []
        self._queues = queues
        self._order = order
        self._next: dict[bytes, int] = {}
        head = view.head
        self._height, self._base_fee = head.height, head.base_fee
        for sender in queues:
            self.offer(sender, view.account(sender).nonce)

    def transaction(self, key: _Key) -> Transaction:
        """What an entry of the heap stands for."""
        return self._queues[key[3]][self._next[key[3]]]

    def offer(self, sender: bytes, nonce: int) -> None:
        """Put a sender's next into the heap, if it waits and can pay."""
        one = self._queues[sender].get(nonce)
        if one is None or one.valid_until <= self._height:
            return
        tip = one.tip_at(self._base_fee)
        if tip >= 0:
            self._next[sender] = nonce
            key = (-tip, not is_protocol(one), self._order[one.id], sender)
            heapq.heappush(self.heap, key)

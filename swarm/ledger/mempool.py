"""Transactions that wait for a block: bounded in count, bytes, per sender and nonce gap.

A quarter of the room here, and of each block, is kept for what rounds and slashing need (`PROTOCOL_TYPES`):
payments cannot crowd them out. Otherwise the higher tip goes first, and of equals the earlier.
"""

from __future__ import annotations

import heapq
import threading
from typing import TYPE_CHECKING, Final, NoReturn, TypeAlias

from swarm.ledger import transactions
from swarm.ledger.errors import MempoolError, TransactionError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from swarm.ledger.state import LedgerView
    from swarm.ledger.transactions import Transaction

MAX_COUNT: Final = 8192
MAX_BYTES: Final = 16 * 2**20
MAX_PER_SENDER: Final = 64
MAX_NONCE_GAP: Final = 64
RESERVED_PART: Final = 4
"""One in so many parts is for protocol transactions alone."""
_OVERHEAD: Final = 5

_Key: TypeAlias = tuple[int, bool, int, bytes]
"""Lowest first: minus the tip, whether it is ordinary, its place in time, its sender."""


class Mempool:
    """What was sent and is in no final block yet; safe to call from any thread."""

    def __init__(
        self,
        chain_id: bytes,
        view: Callable[[], LedgerView],
        *,
        max_count: int = MAX_COUNT,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._chain_id = chain_id
        self._view = view
        self._max_count = max_count
        self._max_bytes = max_bytes
        self._lock = threading.RLock()
        self._by_id: dict[bytes, Transaction] = {}
        self._by_sender: dict[bytes, dict[int, Transaction]] = {}
        self._bytes = 0
        self._ordinary = 0
        self._ordinary_bytes = 0

    def __len__(self) -> int:
        """How many wait."""
        return len(self._by_id)

    @property
    def size(self) -> int:
        """What they take, in bytes."""
        return self._bytes

    def add(self, data: bytes) -> bytes:
        """Take the bytes of a transaction from anyone.

        Returns:
            Its id.

        Raises:
            MempoolError: It is malformed, cannot be paid, or does not fit; `reason` says which.
        """
        try:
            transaction = transactions.decode(data)
        except TransactionError as error:
            raise MempoolError(str(error)) from error
        return self.add_transaction(transaction)

    def add_transaction(self, transaction: Transaction) -> bytes:
        """Take a decoded transaction; as `add`."""
        view = self._view()
        with self._lock:
            self._check(transaction, view)
            queue = self._by_sender.get(transaction.sender, {})
            before = queue.get(transaction.nonce)
            if before is not None:
                if before.tip >= transaction.tip:
                    self._refuse("one with that nonce waits already, and its tip is no lower")
                self._remove(before)
            elif len(queue) >= MAX_PER_SENDER:
                self._refuse(f"{MAX_PER_SENDER} of this account wait already")
            try:
                self._make_room(transaction)
            except MempoolError:
                if before is not None:
                    self._insert(before)
                raise
            self._insert(transaction)
        return transaction.id

    def known(self, identifier: bytes) -> Transaction | None:
        """A waiting transaction by its id: decoded and verified, so blocks need not do it again."""
        return self._by_id.get(identifier)

    def pending(self, account: bytes) -> list[Transaction]:
        """What waits of one account, by nonce."""
        with self._lock:
            queue = self._by_sender.get(account, {})
            return [queue[nonce] for nonce in sorted(queue)]

    def next_nonce(self, account: bytes) -> int:
        """The first nonce that neither the state nor a waiting transaction has used."""
        nonce = self._view().account(account).nonce
        with self._lock:
            queue = self._by_sender.get(account, {})
            while nonce in queue:
                nonce += 1
        return nonce

    def select(self, view: LedgerView, max_bytes: int, max_count: int) -> list[Transaction]:
        """What a block on top of a state should hold, in order.

        Args:
            view: The state of the block's parent.
            max_bytes: Of the transactions and their framing.
            max_count: Transactions at most.
        """
        with self._lock:
            queues = {sender: dict(queue) for sender, queue in self._by_sender.items()}
            order = {identifier: at for at, identifier in enumerate(self._by_id)}
        heads = _Heads(queues, order, view)
        parked: list[_Key] = []
        chosen: list[Transaction] = []
        left, ordinary_left = max_bytes, max_bytes - max_bytes // RESERVED_PART
        while len(chosen) < max_count and (heads.heap or parked):
            if not heads.heap:  # what protocol transactions left of their share
                heads.heap, parked, ordinary_left = parked, [], left
                heapq.heapify(heads.heap)
            key = heapq.heappop(heads.heap)
            one = heads.transaction(key)
            size = len(one.data) + _OVERHEAD
            if key[1] and size > ordinary_left and size <= left and ordinary_left < left:
                parked.append(key)
            elif size <= (ordinary_left if key[1] else left):
                ordinary_left = min(ordinary_left - size * key[1], left - size)
                left -= size
                chosen.append(one)
                heads.offer(one.sender, one.nonce + 1)
        return chosen

    def remove_included(self, included: Iterable[bytes], view: LedgerView) -> None:
        """Forget what a final block holds, and what can be in none any more.

        Args:
            included: Ids of its transactions.
            view: The state after it.
        """
        height = view.height
        with self._lock:
            touched: set[bytes] = set()
            for identifier in included:
                one = self._by_id.get(identifier)
                if one is not None:
                    touched.add(one.sender)
                    self._remove(one)
            for sender in touched:
                nonce = view.account(sender).nonce
                for one in self.pending(sender):
                    if one.nonce < nonce:
                        self._remove(one)
            for one in [one for one in self._by_id.values() if one.valid_until <= height]:
                self._remove(one)

    def _check(self, transaction: Transaction, view: LedgerView) -> None:
        if transaction.id in self._by_id:
            self._refuse("it waits already")
        if transaction.chain_id != self._chain_id:
            self._refuse("it is for another network")
        height = view.height
        if transaction.valid_until <= height:
            self._refuse(f"it expired at height {transaction.valid_until}, this is {height}")
        params = view.params
        if transaction.gas_used > params.max_block_gas:
            self._refuse("it uses more gas than a block has")
        if transaction.max_fee < params.base_fee_floor:
            self._refuse(f"it offers less than {params.base_fee_floor} a gas")
        account = view.account(transaction.sender)
        if transaction.nonce < account.nonce:
            self._refuse(f"nonce {transaction.nonce} is used, {account.nonce} is next")
        if transaction.nonce > account.nonce + MAX_NONCE_GAP:
            self._refuse(f"nonce {transaction.nonce} is too far above {account.nonce}")
        if transaction.gas_used * transaction.max_fee > account.balance:
            self._refuse("the balance does not cover the fee")

    def _make_room(self, transaction: Transaction) -> None:
        """Evict lower tips until it fits, or refuse."""
        protocol = _is_protocol(transaction)
        size = len(transaction.data)
        while True:
            count_room = self._max_count
            bytes_room = self._max_bytes
            count, held = len(self._by_id), self._bytes
            if not protocol:
                count_room -= count_room // RESERVED_PART
                bytes_room -= bytes_room // RESERVED_PART
                count = max(self._ordinary, count - self._max_count // RESERVED_PART)
                held = max(self._ordinary_bytes, held - self._max_bytes // RESERVED_PART)
            if count < count_room and held + size <= bytes_room:
                return
            victim = self._cheapest()
            if victim is None or (victim.tip, _is_protocol(victim)) >= (transaction.tip, protocol):
                self._refuse("too many transactions wait; a higher tip would be taken")
            self._remove(victim)

    def _cheapest(self) -> Transaction | None:
        """Of the last ones of their senders the lowest tip, ordinary before protocol."""
        last = [queue[max(queue)] for queue in self._by_sender.values()]
        return min(last, key=lambda one: (_is_protocol(one), one.tip), default=None)

    def _insert(self, transaction: Transaction) -> None:
        self._by_id[transaction.id] = transaction
        self._by_sender.setdefault(transaction.sender, {})[transaction.nonce] = transaction
        self._count(transaction, 1)

    def _remove(self, transaction: Transaction) -> None:
        del self._by_id[transaction.id]
        queue = self._by_sender[transaction.sender]
        del queue[transaction.nonce]
        if not queue:
            del self._by_sender[transaction.sender]
        self._count(transaction, -1)

    def _count(self, transaction: Transaction, sign: int) -> None:
        size = len(transaction.data)
        self._bytes += sign * size
        if not _is_protocol(transaction):
            self._ordinary += sign
            self._ordinary_bytes += sign * size

    @staticmethod
    def _refuse(reason: str) -> NoReturn:
        raise MempoolError(reason)


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
            key = (-tip, not _is_protocol(one), self._order[one.id], sender)
            heapq.heappush(self.heap, key)


def _is_protocol(transaction: Transaction) -> bool:
    return transaction.payload.TYPE in transactions.PROTOCOL_TYPES

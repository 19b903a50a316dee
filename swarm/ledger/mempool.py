"""Transactions that wait for a block: bounded in count, bytes and time, per sender and nonce gap.

A quarter of the room here, and of each block, is kept for what rounds, audits and slashing need (`PROTOCOL_TYPES`):
payments cannot crowd them out. Otherwise the higher tip goes first, and of equals the earlier. When the room is full
the cheapest makes way, and what its sender sent after it goes before it does. One with the same nonce is replaced by
one that offers an eighth more, in tip and in fee. What costs least is checked first, the signature last.
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
MAX_SENDER_BYTES: Final = 2**19
MAX_NONCE_GAP: Final = 64
MAX_WAIT_BLOCKS: Final = 1_000
"""What no block took in that time is dropped, however long it says that it is valid; its wallet may send it again."""
REPLACEMENT_PART: Final = 8
"""A replacement offers one in so many parts more."""
RESERVED_PART: Final = 4
"""One in so many parts is for protocol transactions alone."""
_OVERHEAD: Final = 5

_Key: TypeAlias = tuple[int, bool, int, bytes]
"""Lowest first: minus the tip, whether it is ordinary, its place in time, its sender."""


_Price: TypeAlias = tuple[bool, int]
"""Lowest first: whether it is protocol, what it offers at the base fee."""


def raised(price: int) -> int:
    """The least that replaces a price: an eighth more, and one unit at least."""
    return price + max(1, -(-price // REPLACEMENT_PART))


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
        self._arrived: dict[bytes, int] = {}  # heights
        self._bytes = 0
        self._ordinary = 0
        self._ordinary_bytes = 0
        self._prices: list[tuple[_Price, bytes]] = []  # a heap, with those that have left
        self._prices_at = -1  # the base fee that they were made with

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
            MempoolError: It is malformed, forged, cannot be paid, or does not fit; `reason` says which.
        """
        try:
            return self.take(data)
        except TransactionError as error:
            raise MempoolError(str(error)) from error

    def take(self, data: bytes) -> bytes:
        """As `add`, telling a lie from what does not fit here.

        Raises:
            TransactionError: No honest node passes it on: it is malformed, or not signed by its sender.
            MempoolError: It is not taken; its signature was perhaps not looked at.
        """
        transaction = transactions.parse(data)
        with self._lock:
            self._check(transaction, self._view())
        transactions.verify(transaction)
        return self.add_transaction(transaction)

    def add_transaction(self, transaction: Transaction) -> bytes:
        """Take a decoded transaction; as `add`."""
        view = self._view()
        with self._lock:
            self._check(transaction, view)
            before = self._by_sender.get(transaction.sender, {}).get(transaction.nonce)
            arrived = view.height
            if before is not None:
                arrived = self._arrived[before.id]
                self._remove(before)
            try:
                self._make_room(transaction, view)
            except MempoolError:
                if before is not None:
                    self._insert(before, arrived)
                raise
            self._insert(transaction, view.height)
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
            since = height - MAX_WAIT_BLOCKS
            for one in list(self._by_id.values()):
                if one.valid_until <= height or self._arrived[one.id] < since:
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
        self._check_queue(transaction, account.balance)

    def _check_queue(self, transaction: Transaction, balance: int) -> None:
        """What the sender has here already leaves room for one more."""
        queue = self._by_sender.get(transaction.sender, {})
        before = queue.get(transaction.nonce)
        others = [one for one in queue.values() if one is not before]
        if before is not None:
            self._check_replacement(before, transaction)
        elif len(queue) >= MAX_PER_SENDER:
            self._refuse(f"{MAX_PER_SENDER} of this account wait already")
        if sum(len(one.data) for one in others) + len(transaction.data) > MAX_SENDER_BYTES:
            self._refuse(f"{MAX_SENDER_BYTES:,} bytes of this account wait already")
        fees = sum(one.gas_used * one.max_fee for one in (transaction, *others))
        if fees > balance:
            self._refuse("the balance does not cover the fee, with the fees of what waits already")

    def _check_replacement(self, before: Transaction, transaction: Transaction) -> None:
        for word, old, new in (
            ("tip", before.tip, transaction.tip),
            ("fee", before.max_fee, transaction.max_fee),
        ):
            least = raised(old)
            if new < least:
                self._refuse(f"one with that nonce waits already; a {word} of {least} replaces it")

    def _make_room(self, transaction: Transaction, view: LedgerView) -> None:
        """Evict what is cheaper until it fits, or refuse."""
        protocol, base_fee = _is_protocol(transaction), view.base_fee
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
            if not self._follows(transaction, view.account(transaction.sender).nonce):
                self._refuse("too many transactions wait, and this one could not go before another")
            cheapest = self._cheapest(base_fee)
            if cheapest is None or cheapest.sender == transaction.sender:
                self._refuse("too many transactions wait")
            offers = self._offer(transaction, base_fee), protocol
            if (self._offer(cheapest, base_fee), _is_protocol(cheapest)) >= offers:
                self._refuse("too many transactions wait; a higher tip would be taken")
            queue = self._by_sender[cheapest.sender]
            self._remove(queue[max(queue)])  # what comes after the cheapest cannot go before it

    def _cheapest(self, base_fee: int) -> Transaction | None:
        """The lowest offer at a base fee, ordinary before protocol."""
        if base_fee != self._prices_at or len(self._prices) > 2 * len(self._by_id) + 64:
            self._prices_at = base_fee
            self._prices = [(self._price(one), key) for key, one in self._by_id.items()]
            heapq.heapify(self._prices)
        while self._prices:
            found = self._by_id.get(self._prices[0][1])
            if found is not None:
                return found
            heapq.heappop(self._prices)
        return None

    def _price(self, transaction: Transaction) -> _Price:
        return (_is_protocol(transaction), self._offer(transaction, self._prices_at))

    def _offer(self, transaction: Transaction, base_fee: int) -> int:
        """Its tip at a base fee, or the lowest one that has to go before it."""
        queue = self._by_sender.get(transaction.sender, {}).values()
        before = (one.tip_at(base_fee) for one in queue if one.nonce < transaction.nonce)
        return min(transaction.tip_at(base_fee), min(before, default=transaction.max_fee))

    def _follows(self, transaction: Transaction, nonce: int) -> bool:
        """Whether a block could hold it next, after what waits of its account."""
        queue = self._by_sender.get(transaction.sender, {})
        return all(at in queue for at in range(nonce, transaction.nonce))

    def _insert(self, transaction: Transaction, height: int) -> None:
        self._by_id[transaction.id] = transaction
        self._arrived[transaction.id] = height
        heapq.heappush(self._prices, (self._price(transaction), transaction.id))
        self._by_sender.setdefault(transaction.sender, {})[transaction.nonce] = transaction
        self._count(transaction, 1)

    def _remove(self, transaction: Transaction) -> None:
        del self._by_id[transaction.id]
        del self._arrived[transaction.id]
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

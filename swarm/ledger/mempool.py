"""Transactions that wait for a block: bounded in count, bytes and time, per sender and nonce gap.

A quarter of the room here, and of each block, is kept for what rounds, audits and slashing need (`PROTOCOL_TYPES`):
payments cannot crowd them out. Otherwise the higher tip goes first, and of equals the earlier. When the room is full
what waits for a nonce makes way, then the cheapest, and what its sender sent after it goes before it does. One with the
same nonce is replaced by one that offers an eighth more, in tip and in fee. After a block, what its accounts can pay no
more is dropped: it would cost nothing and keep others out. What costs least is checked first, the signature last.
"""

from __future__ import annotations

import heapq
import threading
from typing import TYPE_CHECKING, Final, NoReturn

from swarm.ledger import transactions
from swarm.ledger.errors import MempoolError, TransactionError
from swarm.ledger.filling import RESERVED_PART, fill, is_protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from swarm.ledger.state import Account, LedgerView
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
_WAITS: Final = -(2**63)
"""The price of what waits for a nonce that is not here: it pays nothing as it stands, whatever it offers."""


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
        self._prices = _no_prices()
        self._prices_at: int | None = None  # the base fee that they are of; None: there are none

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
                    self._price_again(before.sender, view, before.nonce)
                raise
            self._insert(transaction, view.height)
            self._price_again(transaction.sender, view, transaction.nonce)
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

    def select(
        self,
        view: LedgerView,
        max_bytes: int,
        max_count: int,
        take: Callable[[Transaction], bool] = lambda _: True,
    ) -> list[Transaction]:
        """What a block on top of a state should hold, in order.

        Args:
            view: The state of the block's parent.
            max_bytes: Of the transactions and their framing.
            max_count: Transactions at most.
            take: Asked of each in that order whether it can stand in the block; one that cannot takes no room.
        """
        with self._lock:
            queues = {sender: dict(queue) for sender, queue in self._by_sender.items()}
            order = {identifier: at for at, identifier in enumerate(self._by_id)}
        return fill(queues, order, view, max_bytes, max_count, take)

    def forget(self, view: LedgerView, senders: Iterable[bytes] | None = None) -> None:
        """Let go what can be in no block after a final one.

        Args:
            view: The state after it.
            senders: Whose transactions it holds; None: look at everyone's.
        """
        height, base_fee = view.height, view.base_fee
        with self._lock:
            since = height - MAX_WAIT_BLOCKS
            expired = [
                one
                for one in self._by_id.values()
                if one.valid_until <= height or self._arrived[one.id] < since
            ]
            for one in expired:
                self._remove(one)
            for sender in {one.sender for one in expired}:
                self._price_again(sender, view)
            for sender in list(self._by_sender) if senders is None else senders:
                if sender in self._by_sender:
                    self._forget_unpayable(view.account(sender), base_fee)

    def _forget_unpayable(self, account: Account, base_fee: int) -> None:
        """What an account has used the nonce of, and what it can pay no more with what goes before it."""
        left = account.balance
        for one in self.pending(account.public_key):
            if one.nonce >= account.nonce:
                left -= one.gas_used * min(one.max_fee, base_fee + one.tip)
            if one.nonce < account.nonce or left < 0:
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
        protocol, base_fee = is_protocol(transaction), view.base_fee
        size = len(transaction.data)
        ordinary_count = self._max_count - self._max_count // RESERVED_PART
        ordinary_bytes = self._max_bytes - self._max_bytes // RESERVED_PART
        while True:
            full = len(self._by_id) >= self._max_count or self._bytes + size > self._max_bytes
            too_ordinary = not protocol and (
                self._ordinary >= ordinary_count or self._ordinary_bytes + size > ordinary_bytes
            )
            if not full and not too_ordinary:
                return
            if not self._follows(transaction, view.account(transaction.sender).nonce):
                self._refuse("too many transactions wait, and this one could not go before another")
            found = self._cheapest(view, ordinary=too_ordinary)
            if found is None:
                self._refuse("too many transactions wait")
            offer, cheapest = found
            last = max(self._by_sender[cheapest.sender])
            if cheapest.sender == transaction.sender and last < transaction.nonce:
                self._refuse("too many transactions wait")
            if (offer, is_protocol(cheapest)) >= (self._offer(transaction, base_fee), protocol):
                self._refuse("too many transactions wait; a higher tip would be taken")
            # What comes after the cheapest cannot go before it.
            self._remove(self._by_sender[cheapest.sender][last])

    def _cheapest(self, view: LedgerView, *, ordinary: bool) -> tuple[int, Transaction] | None:
        """The lowest price at the next base fee, and whose it is: what waits for a nonce, ordinary, protocol.

        Args:
            view: The last committed state.
            ordinary: Room is asked of these alone.
        """
        if view.base_fee != self._prices_at:
            self._prices, self._prices_at = _no_prices(), view.base_fee
            for sender, queue in self._by_sender.items():
                nonce = view.account(sender).nonce
                for one in queue.values():
                    self._prices[is_protocol(one)].append((self._price(one, nonce), one.id))
            for heap in self._prices:
                heapq.heapify(heap)
        found = self._first(False, view)
        if ordinary or (found is not None and found[0] == _WAITS):
            return found
        other = self._first(True, view)
        if found is None or (other is not None and other[0] == _WAITS):
            return other
        return found

    def _first(self, protocol: bool, view: LedgerView) -> tuple[int, Transaction] | None:
        """The lowest price of a kind; those on the way that are no more are let go or set right."""
        heap = self._prices[protocol]
        while heap:
            price, identifier = heap[0]
            found = self._by_id.get(identifier)
            if found is None:
                heapq.heappop(heap)
                continue
            now = self._price(found, view.account(found.sender).nonce)
            if now == price:
                return price, found
            heapq.heapreplace(heap, (now, identifier))  # what it waited for has come
        return None

    def _price(self, transaction: Transaction, nonce: int) -> int:
        """Of one whose account has a next nonce, at the base fee of all prices."""
        if self._prices_at is None or not self._follows(transaction, nonce):
            return _WAITS
        return self._offer(transaction, self._prices_at)

    def _price_again(self, sender: bytes, view: LedgerView, since: int = 0) -> None:
        """What waits of an account from a nonce on, where one is new or gone."""
        if self._prices_at is None:
            return
        nonce = view.account(sender).nonce
        for one in self._by_sender.get(sender, {}).values():
            if one.nonce >= since:
                heap = self._prices[is_protocol(one)]
                heapq.heappush(heap, (self._price(one, nonce), one.id))
        if sum(map(len, self._prices)) > 2 * len(self._by_id) + 64:
            self._prices, self._prices_at = _no_prices(), None

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
        if not is_protocol(transaction):
            self._ordinary += sign
            self._ordinary_bytes += sign * size

    @staticmethod
    def _refuse(reason: str) -> NoReturn:
        raise MempoolError(reason)


def _no_prices() -> tuple[list[tuple[int, bytes]], list[tuple[int, bytes]]]:
    """Heaps of prices and ids, of ordinary and of protocol transactions."""
    return [], []

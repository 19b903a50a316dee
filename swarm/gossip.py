"""Transactions on the topic `/swarm/<chain id>/tx`, many in one message.

    message = canonical [version, [transaction bytes…]]

Gossip is a hint: what is lost here is sent again by the wallet that made it.
A node gossips only what it has checked, so one transaction that is malformed or not signed by its sender
is a lie of the batch's publisher: the rest of the batch is left unread, and so is what that peer sends later.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TYPE_CHECKING

import structlog
import trio

from protocols.transport import MAX_GOSSIP_BYTES
from storage import canonical
from storage.errors import CanonicalError
from swarm.ledger.errors import MempoolError, TransactionError
from swarm.ledger.transactions import transaction_id

if TYPE_CHECKING:
    from collections.abc import Callable

    from protocols.transport import PeerId, Transport
    from swarm.ledger.application import LedgerApplication

_log = structlog.get_logger("swarm.gossip")

_VERSION = 1
BATCH_SECONDS = 0.05
BATCH_BYTES = MAX_GOSSIP_BYTES - 2048
MAX_QUEUE = 20_000
"""Transactions that wait to be sent; the oldest are dropped, and their wallets send them again."""
MAX_LIARS = 1024
"""Peers whose batches are left unread; the one caught longest ago is forgotten first."""


class TransactionGossip:
    """Both ends of the topic.

    Args:
        transport: The network.
        topic: Its name.
        ledger: Whose mempool takes what arrives.
        on_lie: Told (peer, what it did) on the event loop.
        in_thread: False checks batches on the event loop, for tests on a virtual clock.
    """

    def __init__(
        self,
        transport: Transport,
        topic: str,
        ledger: LedgerApplication,
        on_lie: Callable[[PeerId, str], None] = lambda _peer, _why: None,
        *,
        in_thread: bool = True,
    ) -> None:
        self._transport = transport
        self._topic = topic
        self._ledger = ledger
        self._on_lie = on_lie
        self._in_thread = in_thread
        self._liars: OrderedDict[PeerId, None] = OrderedDict()
        self._queue: deque[bytes] = deque(maxlen=MAX_QUEUE)
        self._waiting = trio.Event()
        self.received = 0
        self.refused = 0

    def queue(self, transaction: bytes) -> None:
        """Send it with the next batch; never waits."""
        self._queue.append(transaction)
        self._waiting.set()

    async def run(self) -> None:
        """Send and receive; runs until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send)
            nursery.start_soon(self._receive)

    async def _send(self) -> None:
        while True:
            await self._waiting.wait()
            self._waiting = trio.Event()
            await trio.sleep(BATCH_SECONDS)
            while self._queue:
                batch, size = [], 0
                while self._queue and size + len(self._queue[0]) <= BATCH_BYTES:
                    size += len(self._queue[0]) + 5
                    batch.append(self._queue.popleft())
                await self._transport.publish(self._topic, canonical.encode([_VERSION, batch]))

    async def _receive(self) -> None:
        async with self._transport.subscribe(self._topic) as messages:
            async for peer, body in messages:
                if peer in self._liars:
                    continue
                try:
                    # Signatures take milliseconds a batch: off the event loop, and one batch at a time.
                    if self._in_thread:
                        await trio.to_thread.run_sync(self._take, body)
                    else:
                        self._take(body)
                except (CanonicalError, TransactionError) as error:
                    self._lied(peer, str(error))
                except Exception:  # noqa: BLE001 - whatever a stranger sends, the node goes on
                    _log.exception("gossip.broken", peer=peer)

    def _lied(self, peer: PeerId, why: str) -> None:
        _log.info("gossip.lie", peer=peer, why=why)
        self._liars[peer] = None
        if len(self._liars) > MAX_LIARS:
            self._liars.popitem(last=False)
        self._on_lie(peer, f"transactions: {why}")

    def _take(self, body: bytes) -> None:
        """Hand a batch to the mempool.

        Raises:
            CanonicalError: Not a message.
            TransactionError: Something in it is no transaction of its sender.
        """
        message = canonical.decode(body, max_bytes=MAX_GOSSIP_BYTES)
        if type(message) is not list or len(message) != 2 or type(message[1]) is not list:
            raise CanonicalError(_MALFORMED)
        version, batch = message
        if version != _VERSION:
            return
        for data in batch:
            if type(data) is not bytes:
                raise CanonicalError(_MALFORMED)
            if self._ledger.mempool.known(transaction_id(data)) is not None:
                continue  # sent again, and checked before
            try:
                self._ledger.mempool.take(data)
                self.received += 1
            except MempoolError:
                # Perhaps before its signature was looked at: no word on its publisher.
                self.refused += 1


_MALFORMED = "a batch is a version and a list of transactions"

"""Transactions on the topic `/swarm/<chain id>/tx`, many in one message.

    message = canonical [version, [transaction bytes…]]

Gossip is a hint: what is lost here is sent again by the wallet that made it.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import structlog
import trio

from protocols.transport import MAX_GOSSIP_BYTES
from storage import canonical
from storage.errors import CanonicalError
from swarm.ledger.errors import LedgerError
from swarm.ledger.transactions import decode

if TYPE_CHECKING:
    from protocols.transport import PeerId, Transport
    from swarm.ledger.application import LedgerApplication

_log = structlog.get_logger("swarm.gossip")

_VERSION = 1
BATCH_SECONDS = 0.05
BATCH_BYTES = MAX_GOSSIP_BYTES - 2048
MAX_QUEUE = 20_000
"""Transactions that wait to be sent; the oldest are dropped, and their wallets send them again."""


class TransactionGossip:
    """Both ends of the topic.

    Args:
        transport: The network.
        topic: Its name.
        ledger: Whose mempool takes what arrives.
    """

    def __init__(self, transport: Transport, topic: str, ledger: LedgerApplication) -> None:
        self._transport = transport
        self._topic = topic
        self._ledger = ledger
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
                self._take(peer, body)

    def _take(self, peer: PeerId, body: bytes) -> None:
        try:
            version, batch = canonical.decode(body, max_bytes=MAX_GOSSIP_BYTES)
            if version != _VERSION or type(batch) is not list:
                return
        except (CanonicalError, ValueError, TypeError):
            _log.info("gossip.malformed", peer=peer)
            return
        for data in batch:
            try:
                self._ledger.submit(decode(data))
                self.received += 1
            except (LedgerError, TypeError):
                self.refused += 1

"""Topics: libp2p's gossipsub 1.2, fenced.

Its faults and what stands against them here: bytes of a stranger that end the process (members only, every task guarded),
a cap of 10 messages a second that also hits our own (off; a bucket of ours for each forwarding peer), subscriber queues of
32 that overflow (messages go straight to bounded queues of ours that lose the oldest), duplicates (dropped by id), a
sequence that starts again within a second of a restart (it counts nanoseconds), a heartbeat of two minutes (one second), a
topic that a new peer never hears of because it was subscribed while the peer was greeted (announced after it), a peer's
topics forgotten when our own stream to it ends (they last as long as the stream on which they were told).
A message is a hint: any may be lost.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import structlog
import trio
from libp2p.custom_types import TProtocol
from libp2p.peer.id import ID
from libp2p.pubsub import gossipsub as gossipsub_module
from libp2p.pubsub import pubsub as pubsub_module
from libp2p.pubsub.gossipsub import GossipSub
from libp2p.pubsub.pubsub import Pubsub
from libp2p.pubsub.score import ScoreParams, TopicScoreParams

from protocols import signing
from protocols.transport import MAX_GOSSIP_BYTES, RemoteProtocolError
from swarm.network.facade import Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio_typing import TaskStatus

    from swarm.network.facade import Facade

PROTOCOLS = ("/meshsub/1.2.0", "/meshsub/1.1.0", "/meshsub/1.0.0")
HEARTBEAT_S = 1
PRUNE_BACK_OFF_S = 3
"""Before a pruned peer may graft again. libp2p waits a minute, in which a node that all have pruned hears nothing."""
DEGREE, DEGREE_LOW, DEGREE_HIGH = 8, 6, 12
"""Peers in a topic's mesh: aimed at, filled below, pruned above."""
QUEUE_MESSAGES = 1024
"""Messages that a subscriber may be behind before the oldest is lost."""
LARGE_BYTES = 4096
"""Below this, telling a neighbour not to send a message costs as much as the message."""
OUTBOUND_MESSAGES = 256
"""RPCs that wait for one peer before the next is lost."""
MAX_SEEN = 2**16
"""Message ids remembered."""
RATE_PER_S = 200.0
BURST = 1000.0
"""Messages that one peer may forward: so many a second, and so many at once."""
EXCESS_STRIKE = 1000
"""Messages over the rate that count as one misbehaviour."""
MAX_TOPIC_CHARS = 160

log = structlog.get_logger("swarm.network")

# Each RPC would carry the sender's signed addresses and cost a signature check, a duplicate as much as a message.
# The handshake tells addresses; none are sent here and none are read.
for _module in (pubsub_module, gossipsub_module):
    _module.env_to_send_in_RPC = lambda host: (b"", False)  # type: ignore[attr-defined]  # not exported, but used there
    _module.maybe_consume_signed_record = lambda message, host, peer=None: True  # type: ignore[attr-defined]  # see above


class Bucket:
    """A token bucket; time comes in as an argument."""

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._at = now
        self.excess = 0

    def take(self, now: float) -> bool:
        """Whether one more is allowed."""
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens < 1:
            self.excess += 1
            return False
        self._tokens -= 1
        return True


class Seen:
    """Message ids, the newest `MAX_SEEN`; libp2p's own holds a thread and any number of them."""

    def __init__(self) -> None:
        self._ids: OrderedDict[bytes, None] = OrderedDict()

    def has(self, message_id: bytes) -> bool:
        """Whether it was added."""
        return message_id in self._ids

    def add(self, message_id: bytes) -> bool:
        """Add it; False when it was there."""
        if message_id in self._ids:
            return False
        self._ids[message_id] = None
        while len(self._ids) > MAX_SEEN:
            self._ids.popitem(last=False)
        return True


class RoomyQueues(dict[ID, Any]):
    """Makes room in each outbound queue that libp2p puts here; its 32 lose every burst."""

    def __setitem__(self, peer: ID, queue: Any) -> None:  # noqa: ANN401 - libp2p's RpcQueue
        queue._queue.max_size = OUTBOUND_MESSAGES
        super().__setitem__(peer, queue)


class FencedRouter(GossipSub):
    """libp2p's gossipsub, which tells its neighbours of each message that they need not send it again."""

    _is_large = False

    async def publish(self, msg_forwarder: ID, pubsub_msg: Any) -> None:  # noqa: ANN401 - libp2p's protobuf
        """Spread a message."""
        self._is_large = len(pubsub_msg.data) >= LARGE_BYTES
        await super().publish(msg_forwarder, pubsub_msg)

    async def _emit_idontwant_for_message(self, msg_id: bytes, topic_ids: Any) -> None:  # noqa: ANN401 - libp2p's
        # No other task runs between `publish` and here.
        if self._is_large:
            await super()._emit_idontwant_for_message(msg_id, topic_ids)


class FencedPubsub(Pubsub):
    """libp2p's Pubsub with our limits; delivers to a callback instead of its queues."""

    def __init__(
        self,
        facade: Facade,
        router: GossipSub,
        deliver: Callable[[str, str, bytes], None],
        accuse: Callable[[str, str], None],
    ) -> None:
        super().__init__(facade, router, strict_signing=True)  # type: ignore[arg-type]  # a facade of a host
        self.counter = _seqno()
        self.peer_queues = RoomyQueues()
        self.seen_messages.stop()
        self.seen_messages = Seen()  # type: ignore[assignment]  # the two methods that libp2p calls
        self._deliver = deliver
        self._accuse = accuse
        self._buckets: dict[ID, Bucket] = {}
        self._delivered = Seen()
        self._heard_on: dict[ID, Any] = {}
        """The newest stream on which each member says what it subscribes."""

    async def stream_handler(self, stream: Any) -> None:  # noqa: ANN401 - libp2p's INetStream
        """Read a member's RPCs; what cannot be read costs its stream and a strike."""
        peer = stream.muxed_conn.peer_id
        super()._forget_all_subscriptions(peer)  # each stream begins with all of them
        self._heard_on[peer] = stream
        try:
            await super().stream_handler(stream)
        except Exception as error:
            self._handle_dead_peer(peer)
            message = f"unreadable gossip: {type(error).__name__}"
            raise RemoteProtocolError(message) from error
        finally:
            if self._heard_on.get(peer) is stream:
                del self._heard_on[peer]
                super()._forget_all_subscriptions(peer)

    def _forget_all_subscriptions(self, peer_id: ID) -> None:
        # libp2p calls this when our own stream to the peer ends; the peer, whose stream goes on, would not tell them again.
        if peer_id not in self._heard_on:
            super()._forget_all_subscriptions(peer_id)

    async def _handle_new_peer(self, peer_id: ID) -> None:
        greeted = set(self.topic_ids)
        await super()._handle_new_peer(peer_id)
        queue = self.peer_queues.get(peer_id)
        if queue is None:
            return
        for topic in set(self.topic_ids) - greeted:
            # The greeting was written before this topic was ours, and the peer became one after it was announced.
            announcement, subscription = self._build_announce_rpc(topic, subscribe=True)
            self._enqueue_or_retry_announce(peer_id, queue, announcement, subscription)

    async def push_msg(self, msg_forwarder: ID, msg: Any) -> None:  # noqa: ANN401 - libp2p's protobuf
        """Take a message, ours or forwarded."""
        if msg_forwarder != self.my_id:
            now = trio.current_time()
            bucket = self._buckets.get(msg_forwarder)
            if bucket is None:
                bucket = self._buckets[msg_forwarder] = Bucket(RATE_PER_S, BURST, now)
            if not bucket.take(now):
                if bucket.excess % EXCESS_STRIKE == 0:
                    self._accuse(msg_forwarder.to_base58(), "too much gossip")
                return
            if len(msg.data) > MAX_GOSSIP_BYTES or len(msg.topicIDs) != 1:
                self._accuse(msg_forwarder.to_base58(), "gossip out of bounds")
                return
        await super().push_msg(msg_forwarder, msg)

    def notify_subscriptions(self, publish_message: Any) -> None:  # noqa: ANN401 - libp2p's protobuf
        """Hand a message that has passed the checks to whoever subscribed, once."""
        if publish_message.from_id == self.my_id.to_bytes():
            return
        message_id = self.get_message_id(publish_message)
        if not self._delivered.add(message_id):
            return
        publisher = ID(publish_message.from_id).to_base58()
        try:
            signing.public_key(publisher)
        except ValueError:
            return
        for topic in publish_message.topicIDs:
            self._deliver(topic, publisher, publish_message.data)

    def member_joined(self, peer: ID) -> None:
        """Exchange gossip with a new member."""
        self._schedule_peer_stream_retry(
            peer
        )  # once, also where libp2p opens a stream again by itself

    def member_lost(self, peer: ID) -> None:
        """Forget a member."""
        self._buckets.pop(peer, None)
        self._handle_dead_peer(peer)


def _seqno() -> int:
    """A start for the sequence that no earlier run has reached."""
    import time

    return time.time_ns()


class Gossip:
    """Topics over the members' links.

    Args:
        facade: The host as libp2p sees it.
        accuse: Called with a peer and what it did.
    """

    def __init__(self, facade: Facade, accuse: Callable[[str, str], None]) -> None:
        router = FencedRouter(
            protocols=[TProtocol(each) for each in PROTOCOLS],
            degree=DEGREE,
            degree_low=DEGREE_LOW,
            degree_high=DEGREE_HIGH,
            heartbeat_interval=HEARTBEAT_S,
            prune_back_off=PRUNE_BACK_OFF_S,
            time_to_live=60,
            score_params=ScoreParams(
                p2_first_message_deliveries=TopicScoreParams(weight=0.1, cap=50.0, decay=0.95),
                p4_invalid_messages=TopicScoreParams(weight=1.0, cap=1000.0, decay=0.95),
                publish_threshold=-100.0,
                gossip_threshold=-50.0,
                graylist_threshold=-200.0,
            ),
            spam_protection_enabled=False,
            adaptive_gossip_enabled=False,
            eclipse_protection_enabled=False,
            do_px=False,
        )
        self.faults = 0
        self._router = router
        self._pubsub = FencedPubsub(facade, router, self._deliver, accuse)
        self._topics: dict[
            str,
            list[
                tuple[
                    trio.MemorySendChannel[tuple[str, bytes]],
                    trio.MemoryReceiveChannel[tuple[str, bytes]],
                ]
            ],
        ] = {}
        self._supervisor: Supervisor | None = None

    async def run(self, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled."""
        async with trio.open_nursery() as nursery:
            await nursery.start(Supervisor(self._router, self._fault).run)
            self._supervisor = Supervisor(self._pubsub, self._fault)
            await nursery.start(self._supervisor.run)
            for topic in list(self._topics):
                self._supervisor.run_task(self._pubsub.subscribe, topic)
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                self._supervisor = None
                for subscriptions in self._topics.values():
                    for send, _ in subscriptions:
                        send.close()
                self._topics.clear()

    def _fault(self, task: str, error: Exception) -> None:
        self.faults += 1
        log.warning("network.gossip_task_failed", task=task, error=repr(error))

    def member_joined(self, peer: str) -> None:
        """Exchange gossip with a new member."""
        if self._supervisor is not None:
            self._pubsub.member_joined(ID.from_base58(peer))

    def member_lost(self, peer: str) -> None:
        """Forget a member."""
        if self._supervisor is not None:
            self._pubsub.member_lost(ID.from_base58(peer))

    def subscribe(self, topic: str) -> trio.MemoryReceiveChannel[tuple[str, bytes]]:
        """Messages of a topic with who published them; a slow reader loses the oldest."""
        if not 0 < len(topic) <= MAX_TOPIC_CHARS:
            message = f"a topic has 1 to {MAX_TOPIC_CHARS} characters"
            raise ValueError(message)
        send, receive = trio.open_memory_channel[tuple[str, bytes]](QUEUE_MESSAGES)
        first = topic not in self._topics
        self._topics.setdefault(topic, []).append((send, receive.clone()))
        if first and self._supervisor is not None:
            self._supervisor.run_task(self._pubsub.subscribe, topic)
        return receive

    async def publish(self, topic: str, data: bytes) -> None:
        """Gossip to the members; lost without an error when there are none.

        Raises:
            ValueError: More than `MAX_GOSSIP_BYTES`.
        """
        if len(data) > MAX_GOSSIP_BYTES:
            message = f"{len(data):,} bytes of gossip where at most {MAX_GOSSIP_BYTES:,} may be"
            raise ValueError(message)
        await trio.lowlevel.checkpoint()
        if self._supervisor is None:
            return
        try:
            await self._pubsub.publish(topic, bytes(data))
        except Exception as error:  # noqa: BLE001 - gossip is a hint; whatever fails in libp2p, a message is lost
            self._fault("publish", error)

    def _deliver(self, topic: str, publisher: str, data: bytes) -> None:
        subscriptions = self._topics.get(topic, [])
        for entry in list(subscriptions):
            send, drain = entry
            if send.statistics().open_receive_channels == 1:
                # Only our own clone is left: the subscriber has gone.
                send.close()
                drain.close()
                subscriptions.remove(entry)
                continue
            try:
                send.send_nowait((publisher, data))
            except trio.WouldBlock:
                drain.receive_nowait()
                send.send_nowait((publisher, data))

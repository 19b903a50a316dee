"""The shell around `Replica`: streams to the other validators, the log on disk, the application's thread, the clock.

It holds no rule. One task takes events in and carries the effects out in order; the others only move bytes.
"""

from __future__ import annotations

import math
import statistics
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import structlog
import trio

from protocols import signing
from protocols.consensus.errors import HaltError
from protocols.consensus.events import (
    Accuse,
    Advanced,
    Behind,
    Blame,
    Broadcast,
    Commit,
    Doubled,
    Effect,
    Event,
    Halt,
    Now,
    Persist,
    Prepare,
    Prepared,
    Process,
    Processed,
    Received,
    SendTo,
    SetTimer,
    Start,
    Tick,
)
from protocols.consensus.finalizer import Finalizer
from protocols.consensus.giving import Accused, Allowance
from protocols.consensus.journal import Skipped, noted_first, standing, standing_at
from protocols.consensus.messages import MAX_MESSAGE_BYTES, Give, decode_message
from protocols.consensus.replica import Replica
from protocols.consensus.views import Timing
from protocols.framing import FrameReader, frame
from protocols.patience import Patience
from protocols.transport import (
    MAX_GOSSIP_BYTES,
    RemoteProtocolError,
    StreamError,
    UnreachableError,
)
from storage import canonical
from storage.consensus_log import MAX_APPEND_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trio_typing import TaskStatus

    from protocols.consensus.application import Application
    from protocols.consensus.messages import Block, Certificate, Message
    from protocols.signing import Signer
    from protocols.transport import Stream, Transport
    from storage.consensus_log import ConsensusLog

PROTOCOL: Final = "/swarm/consensus/1.0.0"
OUT_MESSAGES: Final = 256
OUT_BYTES: Final = 16 * 2**20
"""A peer's queue of unsent messages; beyond either, the oldest goes."""
INBOX: Final = 16
"""Messages that wait for the core; each peer's reader waits its turn."""
STREAMS_PER_PEER: Final = 2
DIAL_SECONDS: Final = 10.0
SEND_SECONDS: Final = 30.0
REDIAL_SECONDS: Final = (0.25, 8.0)
"""First and longest wait between two dials."""
ROTATE_BYTES: Final = 4 * 2**20
"""The log is rewritten with what is still needed when it is longer and a block becomes final, or none does and it is
twice as long as it last was then."""
MARGIN_BYTES: Final = 1024
"""A rewritten log is this much shorter than what one record holds."""
LATENCIES: Final = 512
"""Final blocks over which `stats` speaks."""

_log = structlog.get_logger("swarm.consensus")


def blocks_topic(chain_id: bytes) -> str:
    """Where final blocks are gossiped: `[height, block, finalization]`, up to 64 KiB."""
    return f"/swarm/{chain_id.hex()}/blocks"


@dataclass(frozen=True, slots=True)
class ConsensusSettings:
    """How the service runs."""

    timing: Timing = field(default_factory=Timing)
    in_thread: bool = True
    """False runs the log on the event loop, for tests on a virtual clock."""


@dataclass(frozen=True, slots=True)
class ConsensusStats:
    """What a dashboard shows; latencies are from a block's timestamp to its finality here, in milliseconds.

    `waits_for` is the epoch for which this key waits, since its log does not tell what it has signed before; None where
    it does not wait. Where `is_silent`, it waits for the next start of this node besides.
    """

    epoch: int
    view: int
    height: int
    is_voting: bool
    is_silent: bool
    waits_for: int | None
    connected: int
    validators: int
    finality_last_ms: int | None
    finality_p50_ms: int | None
    finality_p99_ms: int | None


class _Outbox:
    """Frames for one peer."""

    def __init__(self) -> None:
        self.frames: deque[bytes] = deque()
        self.scope = trio.CancelScope()
        self.connected = False
        self._bytes = 0
        self._filled = trio.Event()

    def put(self, data: bytes) -> None:
        self.frames.append(data)
        self._bytes += len(data)
        while len(self.frames) > OUT_MESSAGES or self._bytes > OUT_BYTES:
            self._bytes -= len(self.frames.popleft())
        self._filled.set()

    async def take(self) -> bytes:
        while not self.frames:
            self._filled = trio.Event()
            await self._filled.wait()
        data = self.frames.popleft()
        self._bytes -= len(data)
        return data


class ConsensusService:
    """One node's part in consensus, for as long as it runs.

    A node that is no validator of the present epoch only keeps count, and begins in the epoch that names it.
    Start it when sync has caught up.

    Args:
        transport: The network; the protocol's handler is registered at once.
        finalizer: The way to the application; or the application itself, wrapped in one.
        log: This key's log; closed by who opened it, after `run`.
        signer: This node's key, or None to watch only.
        settings: Timing.
        on_evidence: Gets what proves a validator's fault, for the ledger.
        on_behind: Told when others are ahead by an epoch or more: wake sync.
        on_blame: Told which peer sent what no honest one sends.
        utc_ms: The wall clock.
    """

    def __init__(
        self,
        transport: Transport,
        finalizer: Finalizer | Application,
        log: ConsensusLog,
        signer: Signer | None,
        settings: ConsensusSettings | None = None,
        *,
        on_evidence: Callable[[bytes], None] = lambda _: None,
        on_behind: Callable[[], None] = lambda: None,
        on_blame: Callable[[str, str], None] = lambda _peer, _why: None,
        utc_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._transport = transport
        self._settings = settings or ConsensusSettings()
        self.finalizer = (
            finalizer
            if isinstance(finalizer, Finalizer)
            else Finalizer(finalizer, in_thread=self._settings.in_thread)
        )
        self._application = self.finalizer.application
        self._log = log
        self._log_limiter = trio.CapacityLimiter(1)
        self._patience = Patience("no vote is cast, for it cannot be noted first")
        self._signer = signer
        self._on_evidence, self._on_behind, self._on_blame = on_evidence, on_behind, on_blame
        self._utc_ms = utc_ms
        self._topic = blocks_topic(self._application.chain_id)
        self._replica: Replica | None = None
        self._own: deque[Event] = deque()
        self._waiting: trio.CancelScope | None = None
        self._inbox_send, self._inbox = trio.open_memory_channel[Received](INBOX)
        self._timer: int | None = None
        self._outboxes: dict[bytes, _Outbox] = {}
        self._inbound: dict[bytes, list[trio.CancelScope]] = {}
        self._members: frozenset[bytes] = frozenset()
        self._epoch = -1
        self._latencies: deque[int] = deque(maxlen=LATENCIES)
        self._first_epoch = 0
        self._skipped = Skipped()
        self._grows_to = 0
        self._allowance = Allowance(self._settings.timing.block_interval_ms)
        self._accused = Accused()
        self.doubled: tuple[int, int] | None = None
        """Epoch and view of a vote with this key that this node did not cast; None while there was none."""
        transport.handle(PROTOCOL, self._serve)

    async def run(self, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Take part until cancelled.

        While the log cannot be written, nothing is said: what is not in it is not sent.

        Raises:
            HaltError: The validators agreed on what this node's ledger refuses.
        """
        entries = self._log.entries()
        tip = self.finalizer.tip
        stands = standing_at(entries, tip.height, self._application.epoch_length)
        if stands != standing(entries):
            await self._write(stands.encode())
        self._first_epoch = stands.first_epoch
        self._skipped.note(entries)
        self._replica = Replica(
            self._application.chain_id,
            self._application.epoch_length,
            self._signer,
            tip,
            self._application.validators,
            self._application.leader,
            self._settings.timing,
            stands,
        )
        self.finalizer.listen(self._finalized)
        async with trio.open_nursery() as nursery:
            self._own.append(Start(tuple(entries)))
            task_status.started()
            try:
                await self._loop(self._replica, nursery)
            finally:
                self._members = frozenset()
                self._outboxes.clear()

    @property
    def problem(self) -> str | None:
        """Why this node says nothing, though it would; None if nothing is known to be wrong."""
        return self._patience.problem

    def stats(self) -> ConsensusStats:
        """How it goes."""
        core = None if self._replica is None else self._replica.core
        ordered = sorted(self._latencies)
        epoch = 0 if core is None else core.epoch
        waits = core is not None and (self.doubled is not None or epoch < self._first_epoch)
        return ConsensusStats(
            epoch=epoch,
            view=0 if core is None else core.view,
            height=self.finalizer.height(),
            is_voting=self._replica is not None and self._replica.is_voting,
            is_silent=self.doubled is not None,
            waits_for=self._first_epoch if waits else None,
            connected=sum(outbox.connected for outbox in self._outboxes.values()),
            validators=0 if core is None else len(core.committee.validators),
            finality_last_ms=self._latencies[-1] if ordered else None,
            finality_p50_ms=int(statistics.median_low(ordered)) if ordered else None,
            finality_p99_ms=ordered[len(ordered) * 99 // 100] if ordered else None,
        )

    # Events in, effects out

    async def _loop(self, replica: Replica, nursery: trio.Nursery) -> None:
        while True:
            event = await self._next_event()
            if self._is_spent(event, replica):
                continue
            effects = replica.handle(event, self._now())
            if replica.core.epoch != self._epoch:
                self._meet(replica, nursery)  # before what it says first
            committed = False
            for effect in effects:
                committed |= isinstance(effect, Commit)
                await self._carry_out(effect)
            if self._log.size_bytes > (
                ROTATE_BYTES if committed else max(ROTATE_BYTES, self._grows_to)
            ):
                await self._rotate(replica)

    async def _next_event(self) -> Event:
        while True:
            if self._own:
                await trio.lowlevel.checkpoint()
                return self._own.popleft()
            if self._timer is not None and self._timer <= self._now().tick_ms:
                self._timer = None
                await trio.lowlevel.checkpoint()
                return Tick()
            at = math.inf if self._timer is None else self._timer / 1000
            with trio.CancelScope(deadline=at) as self._waiting:
                return await self._inbox.receive()

    async def _carry_out(self, effect: Effect) -> None:  # noqa: C901 - one case an effect
        match effect:
            case Persist(entries):
                await self._write(entries)
            case Broadcast(message):
                self._broadcast(message)
            case SendTo(peer, message):
                if not isinstance(message, Give) or self._may_give(peer, message.block):
                    self._send(peer, frame(message.encode()))
            case Prepare(parent, epoch, view):
                made = await self.finalizer.prepare(parent, epoch, view, self._utc_ms())
                if made is not None:  # else what became final is on its way to the core
                    self._own.append(Prepared(view, made))
            case Process(block):
                valid = await self.finalizer.call(self._application.process, block)
                self._own.append(Processed(block.id, valid))
            case Commit(block, finalization):
                if await self.finalizer.commit(block, finalization):
                    await self._gossip(block, finalization)
            case SetTimer(tick_ms):
                self._timer = tick_ms
            case Accuse(_, evidence):
                self._accused.note(evidence)
                self._on_evidence(evidence)
            case Doubled(epoch, view):
                self.doubled = (epoch, view)
                await self._fall_silent()
            case Behind():
                self._on_behind()
            case Blame(peer, why):
                self._blame(peer, why)
            case Halt(why):
                raise HaltError(why)

    def _is_spent(self, event: Event, replica: Replica) -> bool:
        """Whether an event is a message that an accused key's earlier votes have made worthless."""
        if not isinstance(event, Received):
            return False
        cores = (replica.core, replica.previous)
        core = next((one for one in cores if one and one.epoch == event.message.epoch), None)
        return core is not None and self._accused.is_spent(event.message, core)

    async def _fall_silent(self) -> None:
        if self._replica is not None:
            for effect in self._replica.fall_silent():
                await self._carry_out(effect)

    def _may_give(self, peer: bytes, block: Block) -> bool:
        """Whether a block is within the peer's allowance; asked before the block is encoded, which takes milliseconds."""
        size = len(block.header_bytes) + len(block.payload)
        return self._allowance.take(peer, size, self._now().tick_ms)

    def _now(self) -> Now:
        """The clocks; a thousandth is added so that a deadline in whole milliseconds is reached when it is."""
        return Now(int(trio.current_time() * 1000 + 0.001), self._utc_ms())

    def _finalized(self, block: Block, finalization: Certificate) -> None:
        self._latencies.append(max(0, self._utc_ms() - block.timestamp_ms))
        self._own.append(Advanced(block, finalization))
        if self._waiting is not None:
            self._waiting.cancel()

    # The log

    async def _write(self, entries: Sequence[bytes]) -> None:
        await self._patience.until_done(lambda: self._in_log_thread(self._log.append, entries))
        self._first_epoch = max(self._first_epoch, noted_first(entries))
        self._skipped.note(entries)

    async def _rotate(self, replica: Replica) -> None:
        """Rewrite the log with what the core holds and with what it must learn again after a restart, if that fits."""
        skipped = self._skipped.after(replica.core.epoch, replica.core.book.final)
        if skipped is not None:
            keep = replica.snapshot()
            keep = [*keep, *(set(skipped) - set(keep))]
            if sum(len(entry) + 4 for entry in keep) < MAX_APPEND_BYTES - MARGIN_BYTES:
                try:
                    await self._in_log_thread(self._log.rotate, keep)
                except OSError as error:  # it is only longer than it need be
                    _log.warning("consensus.log_not_rewritten", error=str(error))
        self._grows_to = 2 * self._log.size_bytes

    async def _in_log_thread(
        self, function: Callable[[Sequence[bytes]], None], entries: Sequence[bytes]
    ) -> None:
        if self._settings.in_thread:
            await trio.to_thread.run_sync(function, entries, limiter=self._log_limiter)
        else:
            await trio.lowlevel.checkpoint()
            function(entries)

    # Streams

    def _meet(self, replica: Replica, nursery: trio.Nursery) -> None:
        """Keep streams to the validators of this epoch and its neighbours, if this node is one of them."""
        self._epoch = epoch = replica.core.epoch
        self._accused.forget(epoch - 1)
        circle = {
            validator.public_key
            for near in range(max(0, epoch - 1), epoch + 2)
            for validator in self._application.validators(near)
        }
        mine = None if self._signer is None else self._signer.public_key
        self._members = frozenset(circle if mine in circle else ())
        for key in self._outboxes.keys() - self._members:
            self._outboxes.pop(key).scope.cancel()
            self._allowance.forget(key)
        for key in sorted(self._members - self._outboxes.keys()):
            if key != mine:
                self._outboxes[key] = outbox = _Outbox()
                nursery.start_soon(self._speak, key, outbox)

    def _broadcast(self, message: Message) -> None:
        data = frame(message.encode())
        for validator in self._application.validators(message.epoch):
            self._send(validator.public_key, data)

    def _send(self, peer: bytes, data: bytes) -> None:
        outbox = self._outboxes.get(peer)
        if outbox is not None:
            outbox.put(data)

    async def _speak(self, key: bytes, outbox: _Outbox) -> None:
        """Keep a stream to one validator open and write its frames."""
        peer = signing.peer_id(key)
        pause = REDIAL_SECONDS[0]
        with outbox.scope:
            while True:
                try:
                    with trio.fail_after(DIAL_SECONDS):
                        stream = await self._transport.open_stream(peer, PROTOCOL)
                except (UnreachableError, StreamError, trio.TooSlowError):
                    await trio.sleep(pause)
                    pause = min(2 * pause, REDIAL_SECONDS[1])
                    continue
                outbox.connected = True
                try:
                    while True:
                        data = await outbox.take()
                        with trio.fail_after(SEND_SECONDS):
                            await stream.send_all(data)
                        pause = REDIAL_SECONDS[0]
                except (StreamError, trio.TooSlowError):
                    await trio.sleep(pause)
                    pause = min(2 * pause, REDIAL_SECONDS[1])
                finally:
                    outbox.connected = False
                    with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                        await stream.reset()

    async def _serve(self, stream: Stream) -> None:
        """Read one validator's frames; what is malformed resets the stream."""
        try:
            key = signing.public_key(stream.peer)
        except ValueError as error:
            raise RemoteProtocolError(str(error)) from error
        if key not in self._members:
            # No fault of the peer: this node may not have begun, or not have entered the epoch that names it.
            await stream.reset()
            return
        scopes = self._inbound.setdefault(key, [])
        if len(scopes) >= STREAMS_PER_PEER:
            scopes[0].cancel()
        scope = trio.CancelScope()
        scopes.append(scope)
        try:
            with scope:
                reader = FrameReader(stream, MAX_MESSAGE_BYTES)
                while key in self._members:
                    data = await reader.read()
                    if data is None:
                        break
                    await self._inbox_send.send(Received(key, decode_message(data)))
        finally:
            scopes.remove(scope)
            if not scopes:
                self._inbound.pop(key, None)
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                await stream.reset()

    def _blame(self, peer: bytes, why: str) -> None:
        for scope in self._inbound.get(peer, ()):
            scope.cancel()
        self._on_blame(signing.peer_id(peer), why)

    async def _gossip(self, block: Block, finalization: Certificate) -> None:
        """Tell those who do not vote: the block's leader does, and one other in turn, lest it is gone."""
        if self._replica is None or self._signer is None:
            return
        validators = self._application.validators(block.epoch)
        second = validators[block.height % len(validators)].public_key
        data = canonical.encode([block.height, block.encode(), finalization.encode()])
        if self._signer.public_key in (block.leader, second) and len(data) <= MAX_GOSSIP_BYTES:
            await self._transport.publish(self._topic, data)

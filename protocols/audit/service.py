"""The shell of an audit: a keeper answers from a `Prover`, an auditor asks and checks."""

from __future__ import annotations

from collections import OrderedDict
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

import structlog
import trio

from protocols.answering import Answering
from protocols.audit.draw import held_seed
from protocols.audit.errors import AuditFailedError, Failure
from protocols.audit.messages import (
    MAX_BLOCK_FRAME,
    MAX_LEAF_FRAME,
    MAX_REQUEST_BYTES,
    MAX_SLOT_FRAME,
    AskHeld,
    AskLeaves,
    AskSlot,
    LeafAnswer,
    Request,
    SlotAnswer,
    decode_block,
    decode_block_count,
    decode_leaf_count,
    decode_request,
    encode_block,
    encode_count,
    encode_nothing,
)
from protocols.audit.verify import Commitment, LeafCheck, Sealing, check_slot
from protocols.framing import FrameReader, frame
from protocols.signing import peer_id
from protocols.transport import RemoteProtocolError, StreamError, UnreachableError
from storage.errors import ManifestError, StorageError
from storage.sampling import Walk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence

    from protocols.transport import PeerId, Stream, Transport
    from storage.cid import Cid
    from storage.slot_tree import Label
    from storage.slots import LeafProof, SlotProof

T = TypeVar("T")

PROTOCOL: Final = "/swarm/audit/1"
REQUEST_S: Final = 10.0
"""A peer that opened a stream has said by then what it wants."""
ANSWER_S: Final = 30.0
"""An auditor waits this long for an answer to begin, with a slot read from a sleeping disk."""
FRAME_S: Final = 20.0
"""For each frame of an answer that has begun, and for each that a keeper sends."""
ASK_S: Final = 120.0
"""One answer from its begin on."""
PAUSE_S: Final = 2.0
"""Before a keeper that was silent is asked again, where blocks are no faster; twice as long after each time."""
MAX_PAUSE_S: Final = 15.0
AT_ONCE: Final = 32
"""Answers that one auditor takes in and checks, one of each keeper; none is held by a keeper that has not begun to answer."""
BATCH_BYTES: Final = 2**20
"""Of an answer, in memory at a time; one frame more at most."""
STREAMS: Final = 16
STREAMS_PER_PEER: Final = 2
ASKS_PER_AUDIT: Final = 256
"""Of one peer, for one audit; more are answered with nothing."""
ASKS_PER_PIECE: Final = 4
"""And for each piece that is to be shown, so that who keeps many can show them all."""
PROMPT_S: Final = 1.0
"""A keeper that answers in less, one answer after another, is not at fault for what it was not asked any more."""
MAX_REMEMBERED: Final = 1_024
THREADS: Final = 2

_log = structlog.get_logger("swarm.audit")


class Prover(Protocol):
    """What a keeper answers from; calls are synchronous and run in threads."""

    def allows(self, audit: int, peer: PeerId) -> bool:
        """Whether the peer is an auditor of this node in that audit, and the answers have closed.

        This one is called on the event loop, and must not block.
        """

    def pieces(self, audit: int) -> int:
        """How many pieces auditors may ask for in that audit; must not block."""

    def leaves(self, audit: int) -> Sequence[LeafProof]:
        """The drawn leaves that this node's answer committed to, in the order drawn.

        Raises:
            StorageError: They cannot be shown.
        """

    def slot(self, audit: int, slot: int) -> SlotProof:
        """A whole slot under the root that the audit counts.

        Raises:
            StorageError, IndexError: It cannot be shown.
        """

    def held(self, audit: int, deal: bytes, piece: int) -> Sequence[bytes]:
        """The blocks from the root of a duty to the challenged chunk (`draw.held_seed`, `storage.sampling.path`).

        They are taken one at a time, in a thread, and may be read only then: together they can be 192 MiB.

        Raises:
            StorageError: They cannot be shown; from here, or when one is taken.
        """


class AuditService:
    """Answers the auditors of a keeper.

    Args:
        transport: The network; the handler is registered at once.
        prover: What is answered from.
    """

    def __init__(self, transport: Transport, prover: Prover) -> None:
        self._prover = prover
        self._limiter = trio.CapacityLimiter(THREADS)
        self._answering = Answering(STREAMS, STREAMS_PER_PEER, MAX_REQUEST_BYTES, REQUEST_S)
        self._asked: OrderedDict[tuple[PeerId, int], int] = OrderedDict()
        transport.handle(PROTOCOL, self._serve)

    async def _serve(self, stream: Stream) -> None:
        await self._answering.serve(
            stream, lambda asked, data: self._answer(asked, decode_request(data))
        )

    async def _answer(self, stream: Stream, request: Request) -> None:
        if not self._may_ask(stream.peer, request.audit):
            await self._send(stream, encode_nothing())
            return
        bodies = self._bodies(request)
        has_begun = False
        while True:
            try:
                ready = await trio.to_thread.run_sync(_some, bodies, limiter=self._limiter)
            except (StorageError, OSError, LookupError) as error:
                _log.warning("audit.not_shown", asked=repr(request), why=str(error))
                ready = [] if has_begun else [encode_nothing()]
            for body in ready:
                await self._send(stream, body)
            if sum(map(len, ready)) < BATCH_BYTES:
                return
            has_begun = True

    @staticmethod
    async def _send(stream: Stream, body: bytes) -> None:
        with trio.fail_after(FRAME_S):
            await stream.send_all(frame(body))

    def _may_ask(self, peer: PeerId, audit: int) -> bool:
        if not self._prover.allows(audit, peer):
            return False
        asked = self._asked.pop((peer, audit), 0) + 1
        self._asked[peer, audit] = asked
        if len(self._asked) > MAX_REMEMBERED:
            self._asked.popitem(last=False)
        return asked <= ASKS_PER_AUDIT + ASKS_PER_PIECE * self._prover.pieces(audit)

    def _bodies(self, request: Request) -> Iterator[bytes]:
        match request:
            case AskLeaves(audit):
                leaves = self._prover.leaves(audit)
                yield encode_count(len(leaves)) if leaves else encode_nothing()
                for one in leaves:
                    yield LeafAnswer(one.leaf, one.label, one.inner, one.path).encode()
            case AskSlot(audit, slot):
                shown = self._prover.slot(audit, slot)
                yield SlotAnswer(shown.sealed, shown.label, shown.path).encode()
            case AskHeld(audit, deal, piece):
                blocks = self._prover.held(audit, deal, piece)
                yield encode_count(len(blocks))
                yield from map(encode_block, blocks)


class Auditor:
    """Asks keepers for what was drawn, and checks it.

    Every method raises `AuditFailedError` with what to report, at once. A keeper that is silent is asked again and again,
    and is no failure here: the caller cancels it when the report is due, and who has not answered by then was silent.

    A keeper that says nothing takes no place of another, and one that drips gives its place up to whoever waits for it.

    Args:
        transport: The network.
        sealing: How slots are sealed on this chain.
        pause_s: Seconds before a keeper that was silent is asked again for the first time; for so long an answer has its
            place although another waits. A small part of the time in which reports are taken.

    Attributes:
        unheard: Keepers whose answer has begun and waits for a place, also where the wait was cancelled: that they have
            not shown all is no fault of theirs.
        untried: (keeper, deal, piece) that were to be asked for and whose turn has not come, or came less than
            `PROMPT_S` before the end; also where the wait was cancelled.
        pause_s: As given.
    """

    def __init__(self, transport: Transport, sealing: Sealing, pause_s: float = PAUSE_S) -> None:
        self.pause_s = pause_s
        self._transport = transport
        self._sealing = sealing
        self._limiter = trio.CapacityLimiter(THREADS)
        self._all = trio.CapacityLimiter(AT_ONCE)
        self._each: dict[bytes, trio.CapacityLimiter] = {}
        self._taken: set[_Answer] = set()
        self.unheard: set[bytes] = set()
        self.untried: set[tuple[bytes, bytes, int]] = set()
        self._paces: dict[bytes, _Pace] = {}

    async def ask_leaves(
        self, audit: int, kept: Commitment, seed: bytes, count: int, answer: bytes
    ) -> None:
        """Ask for all drawn leaves.

        Args:
            audit: Its number.
            kept: What the keeper had committed to.
            seed: The audit's first seed.
            count: The chain's `audit_leaves`.
            answer: The root that the keeper answered on the ledger.

        Raises:
            AuditFailedError: OTHER_LEAVES or NO_PATH.
        """

        async def ask() -> None:
            check = LeafCheck(kept, seed, count, answer)
            async with self._open(kept.keeper, AskLeaves(audit), MAX_LEAF_FRAME) as answers:
                told = decode_leaf_count(await answers.read())
                if told != count:
                    # Leaves that do not come at all are silence; others than were drawn are a lie.
                    failure = Failure.OTHER_LEAVES if told else Failure.SILENT
                    raise AuditFailedError(failure, f"{told} leaves where {count} were drawn")
                for _ in range(count):
                    check.take(LeafAnswer.decode(await answers.read()))
            check.finish()

        await self._patiently(kept.keeper, ask, Failure.OTHER_LEAVES)

    async def ask_slot(self, audit: int, kept: Commitment, slot: int) -> Label:
        """Ask for a whole slot, unseal it and check its content.

        Args:
            audit: Its number.
            kept: What the keeper had committed to.
            slot: Which.

        Returns:
            What it holds.

        Raises:
            AuditFailedError: NO_PATH or OTHER_CONTENT.
        """

        async def ask() -> Label:
            async with self._open(kept.keeper, AskSlot(audit, slot), MAX_SLOT_FRAME) as answers:
                told = SlotAnswer.decode(await answers.read())
                if told is None:
                    raise AuditFailedError(Failure.SILENT, f"slot {slot} was not shown")
                return await trio.to_thread.run_sync(
                    check_slot, kept, slot, told, self._sealing, limiter=self._limiter
                )

        return await self._patiently(kept.keeper, ask, Failure.OTHER_CONTENT)

    async def ask_held(
        self, audit: int, keeper: bytes, deal: bytes, piece: int, root: Cid, seed2: bytes
    ) -> None:
        """Ask for the challenged chunk of a duty.

        Args:
            audit: Its number.
            keeper: Its public key.
            deal: Its id.
            piece: The piece's place in the deal.
            root: The piece's.
            seed2: The audit's second seed.

        Raises:
            AuditFailedError: NOT_HELD: the piece is missing.
        """
        name = (keeper, deal, piece)
        self.untried.add(name)  # stays where the wait is cancelled

        async def ask() -> None:
            self.untried.discard(name)
            began = trio.current_time()
            try:
                await walk_there()
            except trio.Cancelled:
                if trio.current_time() - began < PROMPT_S:
                    self.untried.add(name)
                raise

        async def walk_there() -> None:
            walk = Walk(root, held_seed(seed2, keeper, deal, piece))
            async with self._open(keeper, AskHeld(audit, deal, piece), MAX_BLOCK_FRAME) as answers:
                count = decode_block_count(await answers.read())
                if not count:  # it may not have seen yet that the answers closed
                    raise AuditFailedError(Failure.SILENT, "nothing of the piece was shown")
                for _ in range(count):
                    block = decode_block(await answers.read())
                    await trio.to_thread.run_sync(walk.take, block, limiter=self._limiter)
            if not walk.is_done:
                raise AuditFailedError(Failure.NOT_HELD, f"the way ended after {count} blocks")

        await self._patiently(keeper, ask, Failure.NOT_HELD)

    def begin(self, keepers: Iterable[bytes]) -> None:
        """Forget what an earlier audit showed of the pace of keepers, and what they were not asked in it."""
        for key in keepers:
            self._paces.pop(key, None)
        self.untried = {name for name in self.untried if name[0] in self._paces}

    def is_prompt(self, keeper: bytes) -> bool:
        """Whether a keeper has answered whatever it had time for, in less than `PROMPT_S` each on average."""
        pace = self._paces.get(keeper)
        return pace is not None and pace.is_prompt

    async def _patiently(
        self, keeper: bytes, ask: Callable[[], Awaitable[T]], malformed: Failure
    ) -> T:
        """Ask, and again until something comes or this is cancelled; what is wrong is wrong at once."""
        pause = self.pause_s
        one = self._each.setdefault(keeper, trio.CapacityLimiter(1))
        while True:
            try:
                async with one:
                    self.unheard.discard(keeper)
                    with self._paces.setdefault(keeper, _Pace()).ask(ask):
                        return await ask()
            except AuditFailedError as error:
                if error.failure is not Failure.SILENT:
                    raise
                why = error.why
            except (RemoteProtocolError, ManifestError) as error:
                raise AuditFailedError(malformed, str(error)) from error
            except (UnreachableError, StreamError, trio.TooSlowError) as error:
                why = str(error) or "no answer in time"
            _log.debug("audit.silent", keeper=keeper.hex(), why=why, again_s=pause)
            await trio.sleep(pause)
            pause = min(2 * pause, max(MAX_PAUSE_S, self.pause_s))

    @asynccontextmanager
    async def _open(
        self, keeper: bytes, request: Request, max_bytes: int
    ) -> AsyncIterator[_Answer]:
        with trio.fail_after(REQUEST_S):
            stream = await self._transport.open_stream(peer_id(keeper), PROTOCOL)
        try:
            with trio.fail_after(REQUEST_S):
                await stream.send_all(frame(request.encode()))
                await stream.close()
            with trio.fail_after(ANSWER_S):
                begun = await stream.receive_some(1)
            answer = _Answer(FrameReader(stream, max_bytes, begun))
            async with self._place(keeper, answer):
                yield answer
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                await stream.reset()

    @asynccontextmanager
    async def _place(self, keeper: bytes, answer: _Answer) -> AsyncIterator[None]:
        """A place for an answer that has begun."""
        if not self._all.available_tokens:
            for one in self._taken:
                one.hurry(self.pause_s)
        self.unheard.add(keeper)  # stays where the wait is cancelled
        async with self._all:
            self.unheard.discard(keeper)
            if self._all.statistics().tasks_waiting:
                answer.hurry(self.pause_s)
            self._taken.add(answer)
            try:
                yield
            finally:
                self._taken.discard(answer)


class _Pace:
    """How quickly one keeper answers, one question at a time."""

    def __init__(self) -> None:
        self._asked = 0
        self._seconds = 0.0
        self._owed: set[object] = set()

    @contextmanager
    def ask(self, question: object) -> Iterator[None]:
        """A question is put; it is owed until it was answered, if there was time to."""
        began, is_cut = trio.current_time(), False
        self._asked += 1
        self._owed.add(question)
        try:
            yield
            self._owed.discard(question)
        except trio.Cancelled:
            is_cut = True
            raise
        finally:
            seconds = trio.current_time() - began
            self._seconds += seconds
            if is_cut and seconds < PROMPT_S:
                self._owed.discard(question)

    @property
    def is_prompt(self) -> bool:
        """Whether nothing is owed, and an answer took less than `PROMPT_S` on average."""
        return not self._owed and self._seconds < PROMPT_S * self._asked


class _Answer:
    """The frames of an answer that has begun; what the auditor does between two of them takes none of the keeper's time.

    Args:
        reader: Gives them.
    """

    def __init__(self, reader: FrameReader) -> None:
        self._reader = reader
        self._most = ASK_S
        self._waited = 0.0
        self._began = 0.0
        self._scope = trio.CancelScope()

    def hurry(self, seconds: float) -> None:
        """Another waits for the place: the answer may take so long in all."""
        self._most = min(self._most, seconds)
        self._bound()

    def _bound(self) -> None:
        self._scope.deadline = min(
            self._scope.deadline, self._began + max(0.0, self._most - self._waited)
        )

    async def read(self) -> bytes:
        """The next frame.

        Raises:
            StreamError: There is none.
            trio.TooSlowError: It did not come in time.
        """
        self._began = trio.current_time()
        with trio.fail_after(FRAME_S) as self._scope:
            self._bound()
            data = await self._reader.read()
        self._waited += trio.current_time() - self._began
        if data is None:
            message = "the keeper closed the stream before its answer was complete"
            raise StreamError(message)
        return data


def _some(bodies: Iterator[bytes]) -> list[bytes]:
    """The next of them, of `BATCH_BYTES` or a little more together; fewer only at their end."""
    found: list[bytes] = []
    size = 0
    while size < BATCH_BYTES and (body := next(bodies, None)) is not None:
        found.append(body)
        size += len(body)
    return found

"""The shell: answers from the store and, where it is asked to, from the swarm; asks, and checks what comes."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import structlog
import trio

from protocols.answering import Answering
from protocols.framing import FrameReader, frame
from protocols.retrieval.core import (
    MAX_FETCHED_BYTES,
    STREAMS,
    STREAMS_PER_PEER,
    Fetches,
)
from protocols.retrieval.errors import Reason, RetrievalError
from protocols.retrieval.messages import (
    MAX_ANSWER_BYTES,
    PROTOCOL,
    QUESTION_BYTES,
    Block,
    Failed,
    Question,
    Sources,
    decode,
    encode,
)
from protocols.transport import RemoteProtocolError, StreamError, UnreachableError
from storage.errors import ManifestError, QuotaError, StorageError
from storage.sampling import MAX_BLOCKS, Walk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from protocols.retrieval.messages import Answer
    from protocols.transport import PeerId, Stream, Transport
    from storage.blockstore import Blockstore
    from storage.cid import Cid

QUESTION_S: Final = 10.0
"""A peer that opened a stream has said by then what it wants."""
FRAME_S: Final = 20.0
"""For each frame of an answer, of what is held."""
FETCH_S: Final = 30.0
"""For each frame of an answer, of what is fetched: a search and a chunk."""
LOOKUP_S: Final = 15.0
"""For provider records."""
ASK_S: Final = 60.0
"""One question in all."""
THREADS: Final = 2

_log = structlog.get_logger("swarm.retrieval")


class Fetch(Protocol):
    """Brings one chunk into the store, from these peers."""

    def __call__(self, cid: Cid, providers: Sequence[PeerId]) -> Awaitable[object]: ...


@dataclass(frozen=True, slots=True)
class Shown:
    """A drawn chunk that a peer has shown.

    Attributes:
        blocks: On the way, the chunk among them.
        bytes: Of them.
        seconds: From the question to the chunk.
        sources: Providers that the peer found; None where it was asked for what it holds.
    """

    blocks: int
    bytes: int
    seconds: float
    sources: int | None


class RetrievalService:
    """Answers such questions.

    Args:
        transport: The network; the handler is registered at once.
        store: What is held.
        fetch: Brings a chunk; its errors are told as not fetched.
        limiter: Threads for the disk; None gives the service `THREADS` of its own.
    """

    def __init__(
        self,
        transport: Transport,
        store: Blockstore,
        fetch: Fetch,
        limiter: trio.CapacityLimiter | None = None,
    ) -> None:
        self._transport = transport
        self._store = store
        self._fetch = fetch
        self._limiter = limiter or trio.CapacityLimiter(THREADS)
        self._answering = Answering(STREAMS, STREAMS_PER_PEER, QUESTION_BYTES, QUESTION_S)
        self._fetches = Fetches()
        transport.handle(PROTOCOL, self._serve)

    async def _serve(self, stream: Stream) -> None:
        await self._answering.serve(
            stream, lambda asked, body: self._answer(asked, Question.decode(body))
        )

    async def _answer(self, stream: Stream, question: Question) -> None:
        if question.fetches and not self._fetches.begin(stream.peer, trio.current_time()):
            await _send(stream, Failed(Reason.BUSY))
            return
        try:
            with trio.fail_after(ASK_S):
                await self._show(stream, question)
        except RetrievalError as error:
            _log.debug("retrieval.not_shown", peer=stream.peer, why=str(error))
            await _send(stream, Failed(error.reason))
        finally:
            if question.fetches:
                self._fetches.end()

    async def _show(self, stream: Stream, question: Question) -> None:
        providers: Sequence[PeerId] = ()
        if question.fetches:
            providers = await self._look_up(question.root)
            await _send(stream, Sources(len(providers)))
        walk, fetched = Walk(question.root, question.seed), 0
        while (wanted := walk.wanted) is not None:
            data = await self._held(wanted)
            if data is None and not question.fetches:
                raise RetrievalError(Reason.NOT_HELD)
            if data is None:
                data = await self._fetched(wanted, providers)
                fetched += len(data)
            if fetched > MAX_FETCHED_BYTES:
                raise RetrievalError(Reason.TOO_LARGE)
            try:
                await trio.to_thread.run_sync(walk.take, data, limiter=self._limiter)
            except ManifestError as error:
                raise RetrievalError(Reason.MALFORMED) from error
            await _send(stream, Block(data))

    async def _look_up(self, root: Cid) -> Sequence[PeerId]:
        found: Sequence[PeerId] = ()
        with trio.move_on_after(LOOKUP_S):
            found = await self._transport.find_providers(root)
        if not found:
            raise RetrievalError(Reason.NOT_ANNOUNCED)
        return found

    async def _held(self, cid: Cid) -> bytes | None:
        def get() -> bytes | None:
            try:
                return self._store.get(cid)
            except (StorageError, OSError):
                return None

        return await trio.to_thread.run_sync(get, limiter=self._limiter)

    async def _fetched(self, cid: Cid, providers: Sequence[PeerId]) -> bytes:
        try:
            with trio.fail_after(FETCH_S):
                await self._fetch(cid, providers)
        except QuotaError as error:
            raise RetrievalError(Reason.NO_ROOM) from error
        except Exception as error:
            # Whatever keeps a chunk from coming is an answer to the question, and no fault of the one who asks.
            _log.debug("retrieval.not_fetched", why=str(error))
            raise RetrievalError(Reason.NOT_FETCHED) from error
        data = await self._held(cid)
        if data is None:
            raise RetrievalError(Reason.NOT_FETCHED)
        return data


class Retriever:
    """Asks peers to show drawn chunks.

    Args:
        transport: The network.
        draw: Gives the seed of a question, 32 random bytes.
        limiter: Threads for the hashing; None gives it `THREADS` of its own.
    """

    def __init__(
        self,
        transport: Transport,
        draw: Callable[[], bytes],
        limiter: trio.CapacityLimiter | None = None,
    ) -> None:
        self._transport = transport
        self._draw = draw
        self._limiter = limiter or trio.CapacityLimiter(THREADS)

    async def ask(self, peer: PeerId, root: Cid, *, fetches: bool) -> Shown:
        """Have a peer show one drawn chunk of a root.

        Args:
            peer: Whom.
            root: Of what.
            fetches: Whether it is to get it from the swarm, where it does not hold it.

        Raises:
            RetrievalError: It did not; with the reason.
        """
        try:
            with trio.fail_after(ASK_S):
                return await self._ask(peer, Question(root, self._draw(), fetches))
        except trio.TooSlowError as error:
            raise RetrievalError(Reason.SILENT) from error
        except UnreachableError as error:
            raise RetrievalError(Reason.UNREACHABLE, error.why) from error
        except StreamError as error:
            raise RetrievalError(Reason.SILENT, str(error)) from error
        except (RemoteProtocolError, ManifestError) as error:
            raise RetrievalError(Reason.WRONG, str(error)) from error

    async def _ask(self, peer: PeerId, question: Question) -> Shown:
        started = trio.current_time()
        walk, size, blocks = Walk(question.root, question.seed), 0, 0
        sources: int | None = None
        patience = FETCH_S + LOOKUP_S if question.fetches else FRAME_S
        async with self._open(peer, question) as reader:
            while walk.wanted is not None:
                with trio.fail_after(patience):
                    answer = await _read(reader)
                match answer:
                    case Failed(reason):
                        raise RetrievalError(reason)
                    case Sources(count) if question.fetches and sources is None and not blocks:
                        sources = count
                    case Block(data) if blocks < MAX_BLOCKS:
                        await trio.to_thread.run_sync(walk.take, data, limiter=self._limiter)
                        blocks, size = blocks + 1, size + len(data)
                    case _:
                        message = "an answer that does not belong there"
                        raise RemoteProtocolError(message)
        return Shown(blocks, size, trio.current_time() - started, sources)

    @asynccontextmanager
    async def _open(self, peer: PeerId, question: Question) -> AsyncIterator[FrameReader]:
        with trio.fail_after(QUESTION_S):
            stream = await self._transport.open_stream(peer, PROTOCOL)
        try:
            with trio.fail_after(QUESTION_S):
                await stream.send_all(frame(question.encode()))
                await stream.close()
            yield FrameReader(stream, MAX_ANSWER_BYTES)
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                await stream.reset()


async def _read(reader: FrameReader) -> Answer:
    body = await reader.read()
    if body is None:
        message = "the stream ended before the drawn chunk"
        raise StreamError(message)
    return decode(body)


async def _send(stream: Stream, answer: Answer) -> None:
    with trio.fail_after(FRAME_S):
        await stream.send_all(frame(encode(answer)))

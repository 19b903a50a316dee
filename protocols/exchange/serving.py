"""One stream on which a peer asks this node: read what it wants, answer from the store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from protocols.exchange.lines import Answering
from protocols.exchange.messages import (
    REQUESTS,
    Decoder,
    DontHave,
    Have,
    block_head,
    encode,
    encode_all,
)
from protocols.transport import StreamError
from storage.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from protocols.transport import PeerId, Stream
    from storage.blockstore import Blockstore
    from storage.cid import Cid

BATCH_BYTES = 2**20
"""Read from the store at a time; at most one chunk more. Two batches of a stream are in memory."""
BATCH_WANTS = 256
LARGE_BYTES = 2**16
"""A chunk this large is sent from where it was read to; shorter ones are joined, so that each is not a frame of its own."""
PART_BYTES = 2**18
SEND_SECONDS = 60.0
"""A peer that does not take `PART_BYTES` within this time is given up: who takes 4 KiB a second is served."""
IDLE_SECONDS = 300.0
"""A peer that is owed nothing and asks nothing for this long loses its stream; our own has closed it by then."""
READ_BYTES = 2**16


class Serving:
    """The answers to one stream.

    Args:
        stream: Opened by the peer that asks.
        store: Where chunks are read from.
        limiter: The room's threads.
        on_bytes: Told (peer, bytes sent).

    Attributes:
        is_given_up: It was ended although the peer had not finished.
    """

    def __init__(
        self,
        stream: Stream,
        store: Blockstore,
        limiter: trio.CapacityLimiter,
        on_bytes: Callable[[PeerId, int], None],
    ) -> None:
        self._stream = stream
        self._store = store
        self._limiter = limiter
        self._on_bytes = on_bytes
        self._answering = Answering()
        self._changed = trio.Event()
        self._scope = trio.CancelScope()
        self._is_loading = False
        self._unsent = 0
        self._used = 0.0
        self.is_given_up = False

    @property
    def idle_since(self) -> float | None:
        """When the last question came or was answered; None while an answer is owed."""
        is_owed = not self._answering.is_idle or self._is_loading or self._unsent
        return None if is_owed else self._used

    def stop(self) -> None:
        """End it: the peer has opened a newer stream."""
        self._scope.cancel()

    def give_up(self) -> None:
        """End it: it is idle, and another peer may need the place."""
        self.is_given_up = True
        self._scope.cancel()

    async def run(self) -> None:
        """Serve until the peer has finished, or has asked nothing for `IDLE_SECONDS`.

        Raises:
            RemoteProtocolError: It said what is not allowed.
            StreamError: The stream was lost.
            trio.TooSlowError: The peer did not take its answers.
        """
        self._used = trio.current_time()
        failures: list[Exception] = []

        async def guard(part: Callable[[], object]) -> None:
            try:
                await part()  # type: ignore[misc]  # each part is an async function
            except Exception as error:  # noqa: BLE001 - raised again outside the nursery, so that it is no group
                failures.append(error)
            self._scope.cancel()

        send, receive = trio.open_memory_channel[list[bytes]](0)
        with self._scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(guard, self._read)
                nursery.start_soon(guard, lambda: self._load(send))
                nursery.start_soon(guard, lambda: self._send(receive))
                nursery.start_soon(guard, self._wait_until_idle)
        send.close()
        receive.close()
        if failures:
            raise failures[0]

    async def _read(self) -> None:
        decoder = Decoder(REQUESTS, blocks=False)
        while data := await self._stream.receive_some(READ_BYTES):
            for message in decoder.feed(data):
                self._answering.handle(message)  # type: ignore[arg-type]  # this decoder gives requests only
                self._used = trio.current_time()
            self._changed.set()
        if not decoder.is_between:
            why = "the stream ended inside a frame"
            raise StreamError(why)

    async def _load(self, send: trio.MemorySendChannel[list[bytes]]) -> None:
        while True:
            if self._answering.is_idle:
                self._changed = trio.Event()
                self._is_loading = False
                await self._changed.wait()
            self._is_loading = True
            while (asked := self._answering.take_query()) is not None:
                held = await trio.to_thread.run_sync(self._held, asked, limiter=self._limiter)
                await self._pass_on(send, [encode(Have(held))])
            if dropped := self._answering.take_dropped():
                await self._pass_on(send, [encode_all(DontHave, dropped)])
            wants = self._answering.start(BATCH_WANTS)
            if not wants:
                continue
            data, done = await trio.to_thread.run_sync(self._batch, wants, limiter=self._limiter)
            self._answering.finish(wants[:done], wants[done:])
            await self._pass_on(send, data)

    async def _pass_on(self, send: trio.MemorySendChannel[list[bytes]], parts: list[bytes]) -> None:
        self._unsent += 1
        await send.send(parts)

    async def _send(self, receive: trio.MemoryReceiveChannel[list[bytes]]) -> None:
        async for parts in receive:
            for part in parts:
                await self._send_part(memoryview(part))
            self._unsent -= 1
            self._used = trio.current_time()

    async def _send_part(self, part: memoryview) -> None:
        for at in range(0, len(part), PART_BYTES):
            piece = part[at : at + PART_BYTES]
            with trio.fail_after(SEND_SECONDS):
                await self._stream.send_all(piece)
            self._on_bytes(self._stream.peer, len(piece))

    async def _wait_until_idle(self) -> None:
        left = IDLE_SECONDS
        while left > 0:
            await trio.sleep(left)
            since, now = self.idle_since, trio.current_time()
            left = IDLE_SECONDS if since is None else since + IDLE_SECONDS - now
        self.give_up()

    def _held(self, asked: Sequence[Cid]) -> tuple[Cid, ...]:
        missing = set(self._store.missing(asked, count_on=False))
        return tuple(cid for cid in asked if cid not in missing)

    def _batch(self, wants: Sequence[Cid]) -> tuple[list[bytes], int]:
        """The answers to the first wants, and to how many; in a thread."""
        parts: list[bytes] = []
        short: list[bytes] = []
        lacked: list[Cid] = []
        size = done = 0
        for cid in wants:
            if size >= BATCH_BYTES:
                break
            done += 1
            try:
                data = self._store.get(cid)
            except (StorageError, OSError):
                lacked.append(cid)
                continue
            short.append(block_head(cid, len(data)))
            if len(data) >= LARGE_BYTES:
                parts += (b"".join(short), data)
                short.clear()
            else:
                short.append(data)
            size += len(data)
        if lacked:
            short.append(encode_all(DontHave, lacked))
        if short:
            parts.append(b"".join(short))
        return parts, done

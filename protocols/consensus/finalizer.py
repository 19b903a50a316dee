"""The one way to the application: consensus and sync both go through it, so that they never run it at once.

A call runs in a thread of its own (one at a time, in order); a group of final blocks from a peer is one call.
One that this machine has no room, file or memory for is made again until it has: nothing else could go on meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

import trio

from protocols.consensus.blocks import Block, epoch_of
from protocols.consensus.errors import HaltError, MessageError
from protocols.consensus.votes import Certificate, Kind, verify_certificate
from protocols.patience import Patience

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from protocols.consensus.application import Application

T = TypeVar("T")

FINALIZED_QUEUE: Final = 256
"""Final blocks that a subscriber may be behind before the oldest is lost."""


class Finalizer:
    """Serializes the calls into an application, and tells who wants to know what became final.

    Args:
        application: The ledger.
        in_thread: False runs the calls on the event loop, for tests on a virtual clock.
    """

    def __init__(self, application: Application, *, in_thread: bool = True) -> None:
        self.application = application
        self.tip = application.finalized()
        self._in_thread = in_thread
        self._limiter = trio.CapacityLimiter(1)
        self._lock = trio.Lock()
        self._listeners: list[Callable[[Block, Certificate], None]] = []
        self._patience = Patience("the ledger waits")

    @property
    def problem(self) -> str | None:
        """What this machine lacks for the next call; None while it lacks nothing."""
        return self._patience.problem

    def height(self) -> int:
        """Of the last final block."""
        return self.tip.height

    def listen(self, listener: Callable[[Block, Certificate], None]) -> None:
        """Call this on the event loop for each final block from now on, in order; it must not raise."""
        self._listeners.append(listener)

    def subscribe(self) -> trio.MemoryReceiveChannel[tuple[Block, Certificate]]:
        """Final blocks from now on; a slow reader loses the oldest."""
        send, receive = trio.open_memory_channel[tuple[Block, Certificate]](FINALIZED_QUEUE)
        drain = receive.clone()

        def pass_on(block: Block, certificate: Certificate) -> None:
            try:
                send.send_nowait((block, certificate))
            except trio.WouldBlock:
                drain.receive_nowait()
                send.send_nowait((block, certificate))

        self.listen(pass_on)
        return receive

    async def call(self, function: Callable[..., T], *arguments: object) -> T:
        """Run a function of the application while nothing else does."""
        async with self._lock:
            return await self._run_patiently(function, *arguments)

    async def prepare(self, parent: Block, epoch: int, view: int, now_ms: int) -> Block | None:
        """Have a block made; None if one above its parent became final in the meantime: sync was quicker."""
        async with self._lock:
            if self.tip.height > parent.height:
                return None
            return await self._run_patiently(self.application.prepare, parent, epoch, view, now_ms)

    async def commit(self, block: Block, certificate: Certificate) -> bool:
        """Make a processed block final.

        Returns:
            False if it was final already: sync was quicker.
        """
        async with self._lock:
            if block.height <= self.tip.height:
                return False
            await self._run_patiently(self.application.finalize, block, certificate)
            self._moved(block, certificate)
            return True

    async def apply(self, pairs: Sequence[tuple[bytes, bytes]]) -> int:
        """Check, execute and commit final blocks from a peer.

        Args:
            pairs: Block and finalization bytes, heights in order; the finalization is the block's own or that of
                the next block in the list that has its own. What is final here already is passed over.

        Returns:
            How many became final; blocks at the end without their certified descendant are left out.

        Raises:
            MessageError: The peer lies; what came before the lie is kept.
            HaltError: The blocks are certified and the ledger refuses one.
        """
        async with self._lock:
            done = 0
            group: list[Block] = []
            for block_bytes, certificate_bytes in pairs:
                block = Block.decode(block_bytes)
                if block.height <= self.tip.height:
                    continue
                group.append(block)
                certificate = Certificate.decode(certificate_bytes)
                if certificate.block_id == block.id:
                    await self._run_patiently(self._check, group, certificate)
                    for member in group:
                        await self._run_patiently(self._execute, member, certificate)
                        self._moved(member, certificate)
                    done += len(group)
                    group = []
            return done

    async def adopt(
        self, block: Block, certificate: Certificate, change: Callable[[], None]
    ) -> bool:
        """Go on from a block whose state came otherwise than by execution.

        Args:
            block: Final.
            certificate: Of this block.
            change: Makes the application go on from there.

        Returns:
            False if it was final already: blocks were quicker.
        """
        async with self._lock:
            if block.height <= self.tip.height:
                return False
            await self._run(change)
            self._moved(block, certificate)
            return True

    def _check(self, group: list[Block], certificate: Certificate) -> None:
        application = self.application
        before = self.tip
        epoch = epoch_of(before.height + 1, application.epoch_length)
        for block in group:
            linked = block.parent == before.id and block.height == before.height + 1
            if not linked or block.chain_id != application.chain_id or block.epoch != epoch:
                message = f"block {block.height} does not follow block {before.height}"
                raise MessageError(message)
            before = block
        if before.height > (epoch + 1) * application.epoch_length:
            message = "one finalization cannot speak for blocks of two epochs"
            raise MessageError(message)
        if (
            certificate.kind is not Kind.FINALIZE
            or certificate.epoch != epoch
            or not verify_certificate(
                certificate, application.chain_id, application.validators(epoch)
            )
        ):
            message = f"the finalization of block {before.height} does not hold"
            raise MessageError(message)

    def _execute(self, block: Block, certificate: Certificate) -> None:
        if not self.application.process(block):
            message = f"block {block.height} {block.id.hex()} is final and this ledger refuses it"
            raise HaltError(message)
        self.application.finalize(block, certificate)

    def _moved(self, block: Block, certificate: Certificate) -> None:
        self.tip = block
        for listener in self._listeners:
            listener(block, certificate)

    async def _run_patiently(self, function: Callable[..., T], *arguments: object) -> T:
        return await self._patience.until_done(lambda: self._run(function, *arguments))

    async def _run(self, function: Callable[..., T], *arguments: object) -> T:
        if self._in_thread:
            return await trio.to_thread.run_sync(function, *arguments, limiter=self._limiter)
        await trio.lowlevel.checkpoint()
        return function(*arguments)

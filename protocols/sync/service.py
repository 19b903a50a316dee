"""The shell of sync: answers from a `BlockSource`, and follows peers that are ahead into a `Chain`."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

import trio

from protocols.answering import Answering, Paced
from protocols.patience import Patience
from protocols.sync.asking import ANSWER_SECONDS, FRAME_SECONDS, ask, ask_one, send
from protocols.sync.core import PeerBook
from protocols.sync.errors import (
    CheckpointError,
    NothingProvenError,
    SyncMessageError,
    WrongGenesisError,
)
from protocols.sync.messages import (
    MAX_BLOCKS,
    MAX_FRAME_BYTES,
    MAX_REQUEST_BYTES,
    AskBlocks,
    AskGenesis,
    AskProof,
    AskTip,
    Proof,
    Request,
    decode_genesis,
    decode_gossip,
    decode_pair,
    decode_request,
    decode_tip,
    encode_genesis,
    encode_pair,
    encode_tip,
)
from protocols.transport import RemoteProtocolError, StreamError, UnreachableError
from storage import canonical

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trio_typing import TaskStatus

    from protocols.sync.asking import Encodable
    from protocols.transport import PeerId, Stream, Transport

T = TypeVar("T")

PROTOCOL: Final = "/swarm/sync/1.0.0"
POLL_SECONDS: Final = 5.0
"""Between two looks at the tips of peers; a hint wakes it sooner."""
HINT_SECONDS: Final = 0.1
"""At least, between two looks: a peer that hints without end makes nobody ask without end."""
ALONE_SECONDS: Final = 4.0
"""A node whose peers do not answer for this long counts as caught up: it may be the first."""
PROBES: Final = 3
SLICE: Final = 16
"""Blocks that are read from the source at a time."""
GROUP_BYTES: Final = 64 * 2**20
"""Blocks without a finalization of their own that are held until one comes."""
APPLY_BYTES: Final = 4 * 2**20
"""Blocks that are applied in one go, with the chain's lock held."""
STREAMS: Final = 16
STREAMS_PER_PEER: Final = 4


class BlockSource(Protocol):
    """What a node answers from; calls are synchronous, short reads, and may come from any thread."""

    def genesis_bytes(self) -> bytes:
        """At most 4 MiB; their SHA-256 is the chain id."""

    def finalized_height(self) -> int:
        """Of the last final block."""

    def blocks(self, from_height: int, limit: int) -> Sequence[tuple[Encodable, Encodable]]:
        """Final blocks from a height (1 is the first) on with their finalizations; fewer where fewer are held."""

    def prove(self, key: bytes) -> Proof | None:
        """A value of the state at a final block, with its proof; None if it cannot be had now."""


class Chain(Protocol):
    """Where final blocks go: `protocols.consensus.finalizer.Finalizer`."""

    def height(self) -> int:
        """Of the last final block."""

    async def apply(self, pairs: Sequence[tuple[bytes, bytes]]) -> int:
        """Check, execute and commit blocks; how many became final.

        Raises:
            RemoteProtocolError: They are not what they claim to be.
            CheckpointError: They are not the chain of the checkpoint that this node was given.
        """


class Arriving(Protocol):
    """How a node comes to a state without executing what led to it: `protocols.sync.snapshots.Arrival`."""

    @property
    def behind_for_land(self) -> int:
        """So many blocks behind, a snapshot is looked for; 0 where nothing else will do."""

    def refusal(self) -> str | None:
        """Why nothing may be taken from peers now, and what to do; None if it may."""

    async def land(self, book: PeerBook) -> bool:
        """Take a snapshot, if somebody has one that brings this node on; whether it did.

        Raises:
            CheckpointError: No peer has the chain of the checkpoint that this node was given.
        """

    async def first_block(self, peer: PeerId) -> int:
        """From which height on a peer holds blocks; 0 if it does not tell."""


class SyncService:
    """Answers other nodes, and keeps this one level with them.

    Args:
        transport: The network; the handler is registered at once, for peers of any network (they may ask for genesis).
        chain: Where blocks go; None only answers.
        source: What is answered from.
        on_lie: Told which peer lied and how.
        arrival: How to land on a snapshot; None executes every block.
        in_thread: False reads the source on the event loop, for tests on a virtual clock.
    """

    def __init__(
        self,
        transport: Transport,
        chain: Chain | None,
        source: BlockSource,
        *,
        on_lie: Callable[[PeerId, str], None] = lambda _peer, _why: None,
        arrival: Arriving | None = None,
        in_thread: bool = True,
    ) -> None:
        self._transport = transport
        self._source = source
        self._chain = chain
        self._on_lie = on_lie
        self._arrival = arrival
        self._in_thread = in_thread
        self._limiter = trio.CapacityLimiter(2)
        self._book = PeerBook()
        self._hint = trio.Event()
        self._answering = Answering(STREAMS, STREAMS_PER_PEER, MAX_REQUEST_BYTES, ANSWER_SECONDS)
        self.caught_up = trio.Event()
        self._stuck: str | None = None
        self._patience = Patience("no blocks are taken from peers")
        transport.handle(PROTOCOL, self._serve, members_only=False)

    @property
    def problem(self) -> str | None:
        """Why this node does not come along, and what to do; None if nothing is known to be wrong."""
        refusal = None if self._arrival is None else self._arrival.refusal()
        return refusal or self._stuck or self._patience.problem

    def wake(self) -> None:
        """Look at the tips of peers now: somebody seems to be ahead."""
        self._hint.set()

    async def run(self, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Fetch what peers have finalized and this node has not, until cancelled.

        `caught_up` is set when for the first time no peer that answers is ahead. What this machine lacks room, files or
        memory for is tried again.
        """
        if self._chain is None:
            message = "a sync service without a chain only answers"
            raise ValueError(message)
        async with trio.open_nursery() as nursery:
            genesis = await self._read(self._source.genesis_bytes)
            topic = f"/swarm/{hashlib.sha256(genesis).hexdigest()}/blocks"
            nursery.start_soon(self._listen, self._chain, topic)
            task_status.started()
            began, turn = trio.current_time(), 0
            while True:
                answered, progressed = 0, False
                try:
                    answered = await self._probe(turn)
                    progressed = await self._move(self._chain)
                    self._patience.problem = None
                except Exception as error:  # noqa: BLE001 - what this machine does not lack is raised
                    self._patience.note(error)
                turn += 1
                alone = trio.current_time() - began >= ALONE_SECONDS
                ahead = self._book.best(self._transport.peers(), self._chain.height())
                if ahead is None and (answered or alone) and self.problem is None:
                    self.caught_up.set()
                if not progressed:
                    with trio.move_on_after(POLL_SECONDS):
                        await self._hint.wait()
                    await trio.sleep(HINT_SECONDS)
                    self._hint = trio.Event()

    # Asking

    async def _probe(self, turn: int) -> int:
        peers = self._book.to_probe(self._transport.peers(), trio.current_time(), PROBES, turn)
        answers: list[PeerId] = []

        async def probe(peer: PeerId) -> None:
            try:
                self._book.told(peer, await fetch_tip(self._transport, peer))
                answers.append(peer)
            except (UnreachableError, StreamError, trio.TooSlowError):
                self._book.failed(peer, trio.current_time())
            except RemoteProtocolError as error:
                self._lied(peer, str(error))

        async with trio.open_nursery() as nursery:
            for peer in peers:
                nursery.start_soon(probe, peer)
        return len(answers)

    def _may_take(self) -> bool:
        """Whether what peers say may be believed at all."""
        return self._arrival is None or self._arrival.refusal() is None

    async def _move(self, chain: Chain) -> bool:
        """Come nearer to the peers: by a snapshot if they are far ahead, else by blocks."""
        peer = self._book.best(self._transport.peers(), chain.height())
        if peer is None or not self._may_take():
            return False
        arrival = self._arrival
        claim = self._book.tips[peer]
        try:
            far = arrival is not None and claim - chain.height() > arrival.behind_for_land
            if arrival is not None and far and await arrival.land(self._book):
                self._stuck = None
                return True
            if arrival is not None and not arrival.behind_for_land:
                # Nothing can be built on what is here, and nobody is to blame for that.
                return False
            if await self._catch_up(chain):
                self._stuck = None
                return True
            if arrival is None or peer in self._book.lied:
                return False
            if await arrival.first_block(peer) > chain.height() + 1:
                self._book.told(
                    peer, claim
                )  # it gave nothing since it has pruned what was asked for
                return await arrival.land(self._book)
        except CheckpointError as error:
            self._stuck = str(error)
            self._book.failed(peer, trio.current_time())
        return False

    async def _catch_up(self, chain: Chain) -> bool:
        peer = self._book.best(self._transport.peers(), chain.height())
        if peer is None:
            return False
        before = chain.height()
        try:
            if await self._download(chain, peer, self._book.tips[peer]):
                self._book.gave(peer)
            else:
                self._book.failed(peer, trio.current_time())
        except (UnreachableError, StreamError, trio.TooSlowError):
            self._book.failed(peer, trio.current_time())
        except RemoteProtocolError as error:
            self._lied(peer, str(error))
        return chain.height() > before

    async def _download(self, chain: Chain, peer: PeerId, claim: int) -> bool:
        """Ask one peer for blocks and apply them as they come, also where it ends too early.

        Args:
            chain: Where they go.
            peer: Whom to ask.
            claim: How far it said that it is.

        Returns:
            Whether it gave as many as it claims to have.
        """
        pairs: list[tuple[bytes, bytes]] = []
        held = came = 0
        enough = APPLY_BYTES
        before = chain.height()
        request = AskBlocks(before + 1, MAX_BLOCKS)
        try:
            async with ask(self._transport, peer, PROTOCOL, request, MAX_FRAME_BYTES) as answer:
                while came < MAX_BLOCKS and (data := await answer.read()) is not None:
                    came += 1
                    pairs.append(decode_pair(data))
                    held += len(data)
                    if held > GROUP_BYTES:
                        message = f"{held:,} bytes of blocks without a finalization of their own"
                        raise SyncMessageError(message)
                    if held >= enough:
                        pairs = pairs[await chain.apply(pairs) :]
                        held = sum(len(block) + len(proof) for block, proof in pairs)
                        enough = held + APPLY_BYTES  # what stays is not looked at for each block
        except (StreamError, trio.TooSlowError):
            if pairs:
                await chain.apply(pairs)
            raise
        if pairs:
            await chain.apply(pairs)
        return came >= min(MAX_BLOCKS, claim - before) and chain.height() > before

    async def _listen(self, chain: Chain, topic: str) -> None:
        """Take gossiped final blocks; one with a gap before it only wakes the follower."""
        async with self._transport.subscribe(topic) as messages:
            async for peer, data in messages:
                if peer in self._book.lied or not self._may_take():
                    continue
                try:
                    height, block, finalization = decode_gossip(data)
                    if height == chain.height() + 1:
                        await chain.apply([(block, finalization)])
                    if height > chain.height():
                        self.wake()
                except CheckpointError as error:
                    self._stuck = str(error)
                except RemoteProtocolError as error:
                    self._lied(peer, str(error))
                except Exception as error:  # noqa: BLE001 - as above
                    self._patience.note(error)

    def _lied(self, peer: PeerId, why: str) -> None:
        self._book.caught(peer)
        self._on_lie(peer, why)

    # Answering

    async def _serve(self, stream: Stream) -> None:
        await self._answering.serve(
            stream, lambda asked, data: self._answer(Paced(asked), decode_request(data))
        )

    async def _answer(self, stream: Stream, request: Request) -> None:
        match request:
            case AskGenesis():
                genesis = await self._read(self._source.genesis_bytes)
                await send(stream, encode_genesis(genesis))
            case AskTip():
                await send(stream, encode_tip(await self._read(self._source.finalized_height)))
            case AskProof(key):
                proof = await self._read(self._source.prove, key)
                await send(stream, canonical.encode([]) if proof is None else proof.encode())
            case AskBlocks(height, count):
                await self._send_blocks(stream, max(1, height), count)

    async def _send_blocks(self, stream: Stream, height: int, count: int) -> None:
        while count > 0:
            found = await self._read(self._source.blocks, height, min(SLICE, count))
            for block, finalization in found[: min(SLICE, count)]:
                await send(stream, encode_pair(block.encode(), finalization.encode()))
            if not found:
                return
            height += len(found)
            count -= len(found)

    async def _read(self, function: Callable[..., T], *arguments: object) -> T:
        if self._in_thread:
            return await trio.to_thread.run_sync(function, *arguments, limiter=self._limiter)
        await trio.lowlevel.checkpoint()
        return function(*arguments)


async def _ask(transport: Transport, peer: PeerId, request: Request, seconds: float) -> bytes:
    return await ask_one(transport, peer, PROTOCOL, request, MAX_FRAME_BYTES, seconds)


async def fetch_genesis(
    transport: Transport, peer: PeerId, expected_chain_id: bytes | None = None
) -> bytes:
    """Ask a peer for its network's genesis.

    Args:
        transport: May be of no network yet.
        peer: Whom to ask.
        expected_chain_id: What the bytes must hash to; None takes the peer's word for which network it is.

    Raises:
        WrongGenesisError: Another network.
        UnreachableError, StreamError, RemoteProtocolError, trio.TooSlowError: No answer, or a bad one.
    """
    genesis = decode_genesis(await _ask(transport, peer, AskGenesis(), FRAME_SECONDS))
    found = hashlib.sha256(genesis).digest()
    if expected_chain_id is not None and found != expected_chain_id:
        raise WrongGenesisError(expected_chain_id, found)
    return genesis


async def fetch_pair(transport: Transport, peer: PeerId, height: int) -> tuple[bytes, bytes]:
    """Ask a peer for one block and its finalization.

    Raises:
        UnreachableError, StreamError, RemoteProtocolError, trio.TooSlowError: No answer, or a bad one.
    """
    return decode_pair(await _ask(transport, peer, AskBlocks(height, 1), FRAME_SECONDS))


async def fetch_tip(transport: Transport, peer: PeerId) -> int:
    """Ask a peer for the height of its last final block: a claim.

    Raises:
        UnreachableError, StreamError, RemoteProtocolError, trio.TooSlowError: No answer, or a bad one.
    """
    return decode_tip(await _ask(transport, peer, AskTip(), ANSWER_SECONDS))


async def fetch_proof(transport: Transport, peer: PeerId, key: bytes) -> Proof:
    """Ask a peer for a value of the state with its proof; the caller checks it.

    Raises:
        NothingProvenError: The peer has none.
        UnreachableError, StreamError, RemoteProtocolError, trio.TooSlowError: No answer, or a bad one.
    """
    proof = Proof.decode(await _ask(transport, peer, AskProof(key), ANSWER_SECONDS))
    if proof is None:
        message = f"peer {peer} proves nothing about {key.hex()}"
        raise NothingProvenError(message)
    return proof

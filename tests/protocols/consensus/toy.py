"""A ledger of one hash, and nodes around it on a memory network with a virtual clock."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import trio

from protocols.consensus.application import Validator
from protocols.consensus.finalizer import Finalizer
from protocols.consensus.messages import Block, Certificate, genesis_block
from protocols.consensus.service import ConsensusService, ConsensusSettings
from protocols.consensus.views import Timing
from protocols.signing import Signer
from protocols.sync.messages import Proof
from protocols.sync.service import SyncService
from storage.consensus_log import ConsensusLog

GENESIS = b"the toy network"
CHAIN = hashlib.sha256(GENESIS).digest()
START_UTC = 1_700_000_000_000
SIGNERS = sorted((Signer(bytes([9, n]) * 16) for n in range(6)), key=lambda s: s.public_key)
VALIDATORS = tuple(Validator(signer.public_key, 1) for signer in SIGNERS[:4])
SETTINGS = ConsensusSettings(Timing(delta_ms=200, block_interval_ms=100), in_thread=False)


def utc_ms() -> int:
    return START_UTC + int(trio.current_time() * 1000)


@dataclass
class ToyApplication:
    """State root = hash of the parent's root and the payload; `chain` is what a disk would keep."""

    me: Signer
    chain_id: bytes = CHAIN
    epoch_length: int = 5
    size: int = 16
    sets: dict[int, tuple[Validator, ...]] = field(default_factory=dict)
    chain: list[tuple[Block, Certificate | None]] = field(
        default_factory=lambda: [(genesis_block(CHAIN, START_UTC, bytes(32)), None)]
    )
    executed: dict[bytes, Block] = field(default_factory=dict)
    refuses: bool = False

    def validators(self, epoch):
        newest = max((known for known in self.sets if known <= epoch), default=None)
        return VALIDATORS if newest is None else self.sets[newest]

    def leader(self, epoch, view):
        members = self.validators(epoch)
        return members[(epoch + view) % len(members)].public_key

    def finalized(self):
        return self.chain[-1][0]

    def prepare(self, parent, epoch, view, now_ms):
        tip = self.finalized()
        assert parent.id == tip.id or parent.height > tip.height, "a ledger knows none before"
        payload = hashlib.sha256(b"%d %d" % (epoch, view)).digest() * (self.size // 32 + 1)
        return Block(
            CHAIN,
            epoch,
            view,
            parent.height + 1,
            parent.id,
            max(now_ms, parent.timestamp_ms + 1),
            self.me.public_key,
            hashlib.sha256(parent.state_root + payload).digest(),
            payload,
        )

    def process(self, block):
        tip = self.finalized()
        parent = tip if block.parent == tip.id else self.executed.get(block.parent)
        assert parent is not None, "the parent is executed first"
        if self.refuses:
            return False
        self.executed[block.id] = block
        return block.state_root == hashlib.sha256(parent.state_root + block.payload).digest()

    def finalize(self, block, certificate):
        assert block.parent == self.finalized().id, "final blocks come in order"
        assert block.id in self.executed, "only what was executed becomes final"
        self.chain.append((block, certificate))

    # BlockSource

    def genesis_bytes(self):
        return GENESIS

    def finalized_height(self):
        return self.finalized().height

    def blocks(self, from_height, limit):
        return self.chain[from_height : from_height + limit]

    def prove(self, key):
        if key != b"known" or len(self.chain) < 2:
            return None
        block, certificate = self.chain[-1]
        return Proof(block.header_bytes, certificate.encode(), b"value", b"path")


class ToyNode:
    """Consensus and sync of one key; `start` and `kill` as a process goes."""

    def __init__(self, network, signer, folder, *, votes=True, sync=True, settings=SETTINGS):
        self.network, self.signer, self.folder = network, signer, folder
        self.votes, self.syncs, self.settings = votes, sync, settings
        self.application = ToyApplication(signer)
        self.evidence: list[bytes] = []
        self.blamed: list[str] = []
        self.lies: list[str] = []
        self.scope: trio.CancelScope | None = None

    @property
    def height(self):
        return self.application.finalized_height()

    def ids(self):
        return [block.id for block, _ in self.application.chain]

    async def start(self, nursery):
        self.transport = self.network.join(self.signer.peer_id, CHAIN)
        self.application.executed.clear()
        self.finalizer = Finalizer(self.application, in_thread=False)
        self.log = ConsensusLog(self.folder / f"{self.signer.peer_id}.log")
        self.sync = SyncService(
            self.transport,
            self.finalizer,
            self.application,
            on_lie=lambda peer, why: self.lies.append(why),
            in_thread=False,
        )
        self.service = ConsensusService(
            self.transport,
            self.finalizer,
            self.log,
            self.signer if self.votes else None,
            self.settings,
            on_evidence=self.evidence.append,
            on_behind=self.sync.wake,
            on_blame=lambda peer, why: self.blamed.append(why),
            utc_ms=utc_ms,
        )
        await nursery.start(self._live)

    async def _live(self, task_status=trio.TASK_STATUS_IGNORED):
        with trio.CancelScope() as self.scope:
            try:
                async with trio.open_nursery() as nursery:
                    if self.syncs:
                        await nursery.start(self.sync.run)
                    await nursery.start(self.service.run)
                    task_status.started()
            finally:
                self.log.close()

    def kill(self):
        self.network.leave(self.signer.peer_id)
        self.scope.cancel()


async def reach(nodes, height, seconds=60):
    """Wait on the virtual clock until every node has that height."""
    with trio.fail_after(seconds):
        while min(node.height for node in nodes) < height:  # noqa: ASYNC110 - nodes come and go
            await trio.sleep(0.05)

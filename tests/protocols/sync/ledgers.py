"""Real ledgers for sync: one chain that grows on demand, givers of it, and newcomers to it."""

from __future__ import annotations

import trio

from protocols.consensus.finalizer import Finalizer
from protocols.consensus.messages import Certificate, Kind, Vote
from protocols.sync.service import SyncService
from protocols.sync.snapshots import Arrival, SnapshotService
from storage.state_store import StateStore
from swarm.ledger import transactions
from swarm.ledger.application import LedgerApplication
from swarm.ledger.landing import Landing
from swarm.ledger.snapshots import Snapshots
from swarm.ledger.source import LedgerSource
from swarm.ledger.transactions import Transfer
from swarm.ledger.vrf import VrfKey
from tests.ledger.world import make_genesis, signer

VALIDATORS = [signer(f"validator {at}") for at in range(3)]
ALICE, BOB = signer("alice"), signer("bob")
KEYS = {one.public_key: one for one in (*VALIDATORS, ALICE, BOB)}
START = 1_700_000_000_000
BLOCK_MS = 1_000


class Chain:
    """A ledger whose blocks are made by whoever leads, signed by the epoch's whole set."""

    def __init__(self, folder, *, archive=True, cut_bytes=600, **params):
        params = {"epoch_length": 4, "unbonding": 0, **params}
        self.genesis = make_genesis(VALIDATORS, [ALICE, BOB], **params)
        self.store = StateStore(folder / "ledger")
        self.ledger = LedgerApplication(self.store, self.genesis)
        self.snapshots = Snapshots(
            folder / "snapshots", self.ledger, self.store, archive=archive, cut_bytes=cut_bytes
        )
        self.ledger.on_boundary = self.snapshots.write

    @property
    def height(self):
        return self.ledger.finalized_height()

    def certificate(self, block, signers=None):
        voters = [one.public_key for one in self.ledger.validators(block.epoch)]
        keys = [KEYS[one] for one in voters] if signers is None else signers
        votes = [
            Vote.sign(one, self.genesis.chain_id, Kind.FINALIZE, block.epoch, block.view, block.id)
            for one in keys
        ]
        signatures = tuple((at, vote.signature) for at, vote in enumerate(votes))
        return Certificate(Kind.FINALIZE, block.epoch, block.view, block.id, signatures)

    def make(self):
        tip = self.ledger.finalized()
        epoch, view = tip.height // self.ledger.epoch_length, tip.height + 1
        leader = KEYS[self.ledger.leader(epoch, view)]
        self.ledger._signer, self.ledger._vrf_key = leader, VrfKey.of(leader.seed)
        return self.ledger.prepare(tip, epoch, view, START + BLOCK_MS * view)

    def grow(self, count=1):
        for _ in range(count):
            block = self.make()
            self.ledger.finalize(block, self.certificate(block))

    def send(self, who, payload):
        data = transactions.sign(
            who,
            self.genesis.chain_id,
            self.ledger.next_nonce(who.public_key),
            payload,
            valid_until=self.height + 50,
        )
        return self.ledger.submit(data)

    def pay(self, count, size=1):
        """Transfers to accounts that nobody has used, `size` a block."""
        for at in range(count):
            for more in range(size):
                self.send(ALICE, Transfer(b"%16d%16d" % (self.height, at * size + more), 1))
            self.grow()

    def serve(self, network, name, cls=SnapshotService):
        transport = network.join(name, self.genesis.chain_id)
        SyncService(transport, None, LedgerSource(self.ledger), in_thread=False)
        return cls(transport, self.snapshots, in_thread=False)

    def close(self):
        self.snapshots.close()
        self.store.close()


class Newcomer:
    """A node that joins; `kill` and make another over the same folder."""

    def __init__(self, network, chain, folder, *, checkpoint=None, now=None, far=8, name="new"):
        self.network, self.name = network, name
        self.store = StateStore(folder)
        self.ledger = LedgerApplication(self.store, chain.genesis)
        self.finalizer = Finalizer(self.ledger, in_thread=False)
        self.executed = []
        process = self.ledger.process
        self.ledger.process = lambda block: self.executed.append(block.height) or process(block)
        self.landing = Landing(
            self.ledger,
            self.store,
            self.finalizer,
            checkpoint,
            utc_ms=lambda: START if now is None else now,
            far_blocks=far,
        )
        self.ranges = []
        take = self.landing.take_range

        def count(data):
            self.ranges.append(data)
            return take(data)

        self.landing.take_range = count
        self.lies = []
        transport = network.join(name, chain.genesis.chain_id)
        lied = lambda peer, why: self.lies.append((peer, why))  # noqa: E731
        self.sync = SyncService(
            transport,
            self.landing,
            LedgerSource(self.ledger),
            on_lie=lied,
            arrival=Arrival(transport, self.landing, on_lie=lied, in_thread=False),
            in_thread=False,
        )

    async def reach(self, height, seconds=120):
        with trio.fail_after(seconds):
            while self.ledger.finalized_height() < height:  # noqa: ASYNC110 - a virtual clock
                await trio.sleep(0.05)

    def close(self):
        self.network.leave(self.name)
        self.store.close()

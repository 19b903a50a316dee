"""The ledger as consensus drives it: blocks made, executed over layers, and committed when they are final.

    payload = canonical [VRF proof (80), [transaction bytes, ...]]

A block that is not final is a layer over its parent's; the newest `MAX_LAYERS` are kept, and a commit drops
those that can no longer become final. The leader's proof is checked with the VRF key that its epoch fixed,
so that nobody can look for a luckier key. `block.view` is the view of its first proposal.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog

from protocols.consensus.application import Validator
from protocols.consensus.messages import Block, Certificate, Finalization, genesis_block
from storage import canonical
from storage.errors import CanonicalError
from swarm.ledger import beacon, transactions, validators, vrf
from swarm.ledger.errors import BlockError, LedgerError
from swarm.ledger.execute import Context, Execution, Receipt, genesis_changes
from swarm.ledger.handoff import Handoff, handoff_key
from swarm.ledger.mempool import Mempool
from swarm.ledger.state import EpochSet, Head, LedgerView
from swarm.ledger.vrf import VrfKey

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Set as AbstractSet

    from protocols.signing import Signer
    from storage.state_store import StateStore, View
    from swarm.ledger.genesis import Genesis
    from swarm.ledger.transactions import Transaction

MAX_LAYERS: Final = 128
MAX_BLOCK_TRANSACTIONS: Final = 8192
MAX_BLOCKS: Final = 256
"""That `blocks` gives at once."""
MAX_BLOCKS_BYTES: Final = 8 * 2**20
_KEPT_EPOCHS: Final = 8
_PAYLOAD_OVERHEAD: Final = 96
_FAULTS: Final = (ValueError, ArithmeticError, LookupError, TypeError, AttributeError)
"""What a fault in a rule raises; refusals, which are meant, are caught before."""

_log = structlog.get_logger("swarm.ledger")


class _BrokenRuleError(Exception):
    """A rule failed over a transaction, the id of which this is."""

    def __init__(self, identifier: bytes) -> None:
        super().__init__(identifier.hex())
        self.id = identifier


@dataclass(frozen=True, slots=True)
class Included:
    """A transaction that is final."""

    height: int
    error: str  # why it failed; empty if it did not


@dataclass(frozen=True, slots=True)
class _Final:
    """What was committed last; replaced in one assignment, so that readers see one height."""

    block: Block
    view: View
    certificate: bytes


@dataclass(frozen=True, slots=True)
class _Layer:
    block: Block
    view: View
    receipts: tuple[Receipt, ...]
    senders: frozenset[bytes]


class LedgerApplication:
    """Implements `protocols.consensus.application.Application`, and gives blocks and proofs to peers.

    `validators`, `leader`, `view`, `submit` and the reading methods may be called from any thread;
    `prepare`, `process` and `finalize` from one at a time.
    """

    def __init__(
        self,
        store: StateStore,
        genesis: Genesis,
        signer: Signer | None = None,
        mempool: Mempool | None = None,
    ) -> None:
        """Open the chain, or begin it with genesis.

        Args:
            store: Empty, or of the same genesis.
            genesis: The network.
            signer: Whose blocks `prepare` makes; None for a node that never leads.
            mempool: What waits; one of its own if left out.

        Raises:
            LedgerError: The store holds another chain.
        """
        self.genesis = genesis
        self.chain_id = genesis.chain_id
        self.epoch_length = genesis.params.epoch_length
        self._store = store
        self._signer = signer
        self._vrf_key = VrfKey.of(signer.seed) if signer is not None else None
        self._lock = threading.RLock()
        self._layers: dict[bytes, _Layer] = {}
        self._epochs: dict[int, EpochSet] = {}
        self.on_boundary: Callable[[int, View], None] = lambda _height, _view: None
        """Told of the state after an epoch's last block, in the thread that committed it."""
        if store.height < 0:
            layer = store.view().layer(genesis_changes(genesis))
            block = genesis_block(self.chain_id, genesis.timestamp_ms, layer.root)
            store.commit(layer, block.encode(), b"", 0)
        stored = store.block(store.height)
        if stored is None:
            message = "the ledger on disk lacks its last block"
            raise LedgerError(message)
        tip = Block.decode(stored[0])
        self._final = _Final(tip, store.view(), stored[1])
        if tip.chain_id != self.chain_id or tip.state_root != self._final.view.root:
            message = "the ledger on disk is of another network"
            raise LedgerError(message)
        self.mempool = mempool if mempool is not None else Mempool(self.chain_id, self.view)

    # What consensus asks

    def validators(self, epoch: int) -> tuple[Validator, ...]:
        """The voters of an epoch, by public key.

        Raises:
            UnknownEpochError: The epoch is not fixed yet.
        """
        members = self._epoch(epoch).validators
        return tuple(Validator(one.public_key, one.weight) for one in members)

    def leader(self, epoch: int, view: int) -> bytes:
        """Who proposes in a view."""
        return validators.leader(self._epoch(epoch), view).public_key

    def finalized(self) -> Block:
        """The last committed block."""
        return self._final.block

    def prepare(self, parent: Block, epoch: int, view: int, now_ms: int) -> Block:
        """Make the child of a processed or finalized block.

        Raises:
            LedgerError: This node has no key, is not the view's leader, or does not know the parent.
        """
        signer, key = self._signer, self._vrf_key
        if signer is None or key is None:
            message = "a node without a key makes no block"
            raise LedgerError(message)
        member = validators.leader(self._epoch(epoch), view)
        if member.public_key != signer.public_key or member.vrf_key != key.public_key:
            message = f"this node's keys do not lead view {view} of epoch {epoch}"
            raise LedgerError(message)
        found = self._known(parent.id)
        if found is None:
            message = "the parent of a block to make is not known"
            raise LedgerError(message)
        before = found[1]
        ledger = LedgerView(before)
        head, params = ledger.head, self.genesis.params
        height = parent.height + 1
        proof = key.prove(beacon.vrf_input(head.beacon, height))
        time = max(now_ms, parent.timestamp_ms + 1)
        missed = _missed(self._epoch(epoch), parent, view)
        context = _context(head, height, time, signer.public_key, vrf.output(proof), missed)
        room = params.max_block_bytes - _PAYLOAD_OVERHEAD
        broken: set[bytes] = set()
        while True:
            execution = Execution(before, context)
            receipts: list[Receipt] = []
            try:
                chosen = self._choose(ledger, room, execution, receipts, broken)
            except _BrokenRuleError as error:
                # What it did until then is no state: from the beginning, without it.
                _log.exception("transaction.broken", id=error.id.hex())
                broken.add(error.id)
            else:
                break
        after = before.layer(execution.finish())
        block = Block(
            self.chain_id,
            epoch,
            view,
            height,
            parent.id,
            time,
            signer.public_key,
            after.root,
            canonical.encode([proof, [one.data for one in chosen]]),
        )
        self._keep(_Layer(block, after, tuple(receipts), frozenset(one.sender for one in chosen)))
        return block

    def process(self, block: Block) -> bool:
        """Execute a block on its parent's state; True if every rule holds.

        False also for a block whose parent is neither the last committed one nor processed.
        """
        with self._lock:
            if block.id in self._layers or block.id == self._final.block.id:
                return True
        try:
            self._keep(self._execute(block))
        except LedgerError:
            return False
        except _FAULTS:  # of ours, in a rule: a block that shows it is refused, and does not end every node that reads it
            _log.exception("block.broken", height=block.height, id=block.id.hex())
            return False
        return True

    def _choose(
        self,
        ledger: LedgerView,
        room: int,
        execution: Execution,
        receipts: list[Receipt],
        broken: AbstractSet[bytes],
    ) -> list[Transaction]:
        """Fill a block from the mempool, but for some transactions.

        Raises:
            _BrokenRuleError: A rule is at fault, not the transaction that showed it.
        """

        def take(one: Transaction) -> bool:
            if one.id in broken:
                return False
            try:
                receipts.append(execution.apply(one))
            except BlockError:
                return False
            except _FAULTS as error:
                raise _BrokenRuleError(one.id) from error
            return True

        return self.mempool.select(ledger, room, MAX_BLOCK_TRANSACTIONS, take)

    def finalize(self, block: Block, certificate: Finalization) -> None:
        """Commit the child of `finalized()`; durable when it returns.

        Raises:
            LedgerError: The block is another's child, or breaks a rule.
        """
        tip = self._final.block
        if block.id == tip.id:
            return
        if block.parent != tip.id:
            message = f"block {block.height} is not the child of block {tip.height}"
            raise LedgerError(message)
        with self._lock:
            layer = self._layers.get(block.id)
        if layer is None:
            layer = self._execute(block)
        notes = {
            receipt.id: canonical.encode([receipt.height, receipt.error])
            for receipt in layer.receipts
        }
        signatures = certificate.encode()
        boundary = block.height % self.epoch_length == 0
        if boundary and certificate.block_id == block.id:
            handoff = Handoff.of(block, signatures, layer.view)
            notes[handoff_key(block.epoch)] = handoff.encode()
        self._store.commit(layer.view, block.encode(), signatures, block.height, notes)
        with self._lock:
            self._final = _Final(block, layer.view, signatures)
            kept = {block.id}
            for identifier, one in sorted(
                self._layers.items(), key=lambda item: item[1].block.height
            ):
                if one.block.parent in kept and one.block.height > block.height:
                    kept.add(identifier)
                else:
                    del self._layers[identifier]
        self.mempool.forget(self.view(), layer.senders)
        if boundary:
            self.on_boundary(block.height, layer.view)

    def adopt(self) -> None:
        """Go on from the state that the store has changed over to.

        Raises:
            LedgerError: The store does not hold the block of its height.
        """
        stored = self._store.block(self._store.height)
        if stored is None:
            message = "the ledger on disk lacks its last block"
            raise LedgerError(message)
        with self._lock:
            self._final = _Final(Block.decode(stored[0]), self._store.view(), stored[1])
            self._layers.clear()
            self._epochs.clear()
        self.mempool.forget(self.view())

    # What the rest of the node asks

    def view(self) -> LedgerView:
        """The last committed state."""
        return LedgerView(self._final.view)

    def submit(self, transaction: Transaction | bytes) -> bytes:
        """Put a transaction among those that wait; returns its id.

        Raises:
            MempoolError: It is not taken; `reason` says why.
        """
        if isinstance(transaction, bytes):
            return self.mempool.add(transaction)
        return self.mempool.add_transaction(transaction)

    def next_nonce(self, account: bytes) -> int:
        """The first nonce that neither the state nor a waiting transaction has used."""
        return self.mempool.next_nonce(account)

    def included(self, identifier: bytes) -> Included | None:
        """What became of a transaction; None while it is in no final block."""
        data = self._store.note(identifier)
        if data is None:
            return None
        height, error = canonical.decode(data, max_bytes=4096)
        return Included(height, error)

    def block(self, height: int) -> Block:
        """A committed block.

        Raises:
            LedgerError: There is none of that height.
        """
        return self._decode(height)

    @staticmethod
    def transactions_of(block: Block) -> list[bytes]:
        """The transactions of a committed block, as they stand in it."""
        return _payload(block)[1] if block.height else []

    # What sync gives to peers

    def genesis_bytes(self) -> bytes:
        """The genesis; its SHA-256 is the chain id."""
        return self.genesis.encode()

    def finalized_height(self) -> int:
        """Of the last committed block."""
        return self._final.block.height

    def first_block(self) -> int:
        """From this height on every block is held; those below were pruned, or never here."""
        return max(1, self._store.first_block)

    def handoff(self, epoch: int) -> bytes | None:
        """What hands an epoch's trust on to the next ones, if it is held."""
        return self._store.note(handoff_key(epoch))

    def blocks(self, start: int, limit: int) -> list[tuple[Block, Finalization]]:
        """Committed blocks and their finalizations from a height on, as many as fit.

        Args:
            start: The first height, from 1: genesis has no finalization.
            limit: At most so many, and never over `MAX_BLOCKS` or `MAX_BLOCKS_BYTES`.
        """
        found: list[tuple[Block, Finalization]] = []
        size = 0
        for height in range(max(1, start), max(1, start) + min(limit, MAX_BLOCKS)):
            stored = self._store.block(height)
            if stored is None:
                break
            size += len(stored[0]) + len(stored[1])
            if found and size > MAX_BLOCKS_BYTES:
                break
            found.append((Block.decode(stored[0]), Certificate.decode(stored[1])))
        return found

    def prove(self, key: bytes) -> tuple[Block, Finalization, bytes | None, bytes]:
        """A state value with all that a stranger needs to believe it.

        Returns:
            The last committed block, its finalization (or that of the descendant which made it final), the
            value or None, and the proof against the block's state root.

        Raises:
            LedgerError: No block is final yet.
        """
        final = self._final
        if not final.certificate:
            message = "no block is final yet"
            raise LedgerError(message)
        certificate = Certificate.decode(final.certificate)
        return final.block, certificate, final.view.get(key), final.view.prove(key)

    # Inside

    def _epoch(self, epoch: int) -> EpochSet:
        found = self._epochs.get(epoch)
        if found is None:
            found = self.view().validators(epoch)
            with self._lock:
                self._epochs[epoch] = found
                while len(self._epochs) > _KEPT_EPOCHS:
                    del self._epochs[min(self._epochs)]
        return found

    def _known(self, identifier: bytes) -> tuple[Block, View] | None:
        """A block that another may follow, and the state after it."""
        with self._lock:
            if identifier == self._final.block.id:
                return self._final.block, self._final.view
            layer = self._layers.get(identifier)
            return (layer.block, layer.view) if layer is not None else None

    def _keep(self, layer: _Layer) -> None:
        with self._lock:
            self._layers[layer.block.id] = layer
            while len(self._layers) > MAX_LAYERS:
                del self._layers[next(iter(self._layers))]

    def _execute(self, block: Block) -> _Layer:
        """Run a block.

        Raises:
            LedgerError: It breaks a rule, or its parent is not known.
        """
        found = self._known(block.parent)
        if found is None:
            message = "the parent is neither committed last nor processed"
            raise BlockError(message)
        parent, before = found
        head = LedgerView(before).head
        if block.chain_id != self.chain_id or block.height != head.height + 1:
            message = "a block of another chain or height"
            raise BlockError(message)
        if block.epoch != validators.epoch_of(block.height, self.epoch_length):
            message = f"epoch {block.epoch} is not that of height {block.height}"
            raise BlockError(message)
        members = LedgerView(before).validators(block.epoch)
        member = validators.leader(members, block.view)
        if block.leader != member.public_key:
            message = f"another one leads view {block.view} of epoch {block.epoch}"
            raise BlockError(message)
        proof, data = _payload(block)
        if len(block.payload) > self.genesis.params.max_block_bytes:
            message = f"a payload of {len(block.payload):,} bytes"
            raise BlockError(message)
        output = vrf.verify(member.vrf_key, beacon.vrf_input(head.beacon, block.height), proof)
        missed = _missed(members, parent, block.view)
        context = _context(head, block.height, block.timestamp_ms, block.leader, output, missed)
        execution = Execution(before, context)
        receipts: list[Receipt] = []
        senders: set[bytes] = set()
        for one in map(self._transaction, data):
            receipts.append(execution.apply(one))
            senders.add(one.sender)
        after = before.layer(execution.finish())
        if after.root != block.state_root:
            message = f"the state of height {block.height} has another root than its header"
            raise BlockError(message)
        return _Layer(block, after, tuple(receipts), frozenset(senders))

    def _transaction(self, data: bytes) -> Transaction:
        """Decoded and verified, once: what waits in the mempool was."""
        known = self.mempool.known(transactions.transaction_id(data))
        return known if known is not None else transactions.decode(data)

    def _decode(self, height: int) -> Block:
        stored = self._store.block(height) if height >= 0 else None
        if stored is None and 0 < height < self.first_block():
            message = (
                f"block {height:,} is pruned here: this node keeps blocks from "
                f"{self.first_block():,} on, one with --archive all that it has seen"
            )
            raise LedgerError(message)
        if stored is None:
            message = f"no block of height {height:,} is held here"
            raise LedgerError(message)
        return Block.decode(stored[0])


def _context(
    head: Head, height: int, time: int, leader: bytes, output: bytes, missed: tuple[bytes, ...]
) -> Context:
    return Context(height, time, leader, beacon.following(head.beacon, output), missed)


def _missed(members: EpochSet, parent: Block, view: int) -> tuple[bytes, ...]:
    """The leaders of the views since the parent's, or since the epoch began."""
    after = parent.view if parent.epoch == members.epoch else 0
    return validators.missed_leaders(members, after, view)


def _payload(block: Block) -> tuple[bytes, list[bytes]]:
    """The proof and the transactions, as bytes.

    Raises:
        BlockError: The payload is malformed.
    """
    try:
        value = canonical.decode(block.payload, max_bytes=len(block.payload))
    except CanonicalError as error:
        message = f"not a payload: {error}"
        raise BlockError(message) from error
    if type(value) is not list or len(value) != 2 or type(value[1]) is not list:
        message = "a payload is a proof and a list of transactions"
        raise BlockError(message)
    proof, data = value
    if type(proof) is not bytes or any(type(one) is not bytes for one in data):
        message = "a payload's proof and transactions are bytes"
        raise BlockError(message)
    if len(data) > MAX_BLOCK_TRANSACTIONS:
        message = f"{len(data):,} transactions in a block"
        raise BlockError(message)
    return proof, data

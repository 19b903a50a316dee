"""The composition root: opens the stores of one node and starts every background task it has.

What a person asks of the node stands in `operations`; this module only builds and runs.
"""

from __future__ import annotations

import os
import secrets
import time
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import structlog
import trio

from protocols.audit.service import PAUSE_S, Auditor
from protocols.audit.verify import Sealing
from protocols.consensus.finalizer import Finalizer
from protocols.consensus.service import ConsensusService, ConsensusSettings
from protocols.consensus.views import Timing
from protocols.handshake.messages import ROLE_KEEPER, ROLE_VALIDATOR, ROLE_WORKER, Hello
from protocols.retrieval.service import RetrievalService, Retriever
from protocols.sync.errors import CheckpointError
from protocols.sync.service import SyncService
from protocols.sync.snapshots import Arrival, SnapshotService
from storage.blockstore import SegmentBlockstore
from storage.consensus_log import ConsensusLog
from storage.errors import QuotaError
from storage.sampling import SEED_BYTES
from storage.slot_contents import SlotContents
from storage.state_store import StateStore
from swarm import entry
from swarm.background import again_and_again
from swarm.care.clock import ClockGaps
from swarm.care.controls import FILE as CONTROLS_FILE
from swarm.care.controls import Controls
from swarm.care.finishing import Finishing
from swarm.care.leaving import Leaving
from swarm.care.probes import serve as serve_metrics
from swarm.care.sampled import Sampled
from swarm.control.service import serve
from swarm.errors import SwarmError, UsageError
from swarm.gateway.service import serve as serve_gateway
from swarm.gossip import TransactionGossip
from swarm.heights import Heights
from swarm.hub.app import routes as hub_routes
from swarm.hub.repository import Hub
from swarm.hub.revisions import Revisions
from swarm.identity import Identity, NodeLock
from swarm.keeper.auditing import Auditing
from swarm.keeper.duties import Duties
from swarm.keeper.encodings import EncodingSpace
from swarm.keeper.making_room import PatientBitswap, PatientExchange
from swarm.keeper.memory import Lent
from swarm.keeper.offers import Offers
from swarm.keeper.opening import open_slots
from swarm.keeper.service import Keeping
from swarm.keeper.space import LentSpace
from swarm.ledger.application import LedgerApplication
from swarm.ledger.errors import LedgerError
from swarm.ledger.landing import Landing
from swarm.ledger.snapshots import Snapshots
from swarm.ledger.soundness import Soundness
from swarm.ledger.source import LedgerSource
from swarm.ledger.transactions import Evidence
from swarm.ledger.vrf import VrfKey
from swarm.limits import throttle
from swarm.limits.month import FILE as TRAFFIC_FILE
from swarm.limits.month import Month
from swarm.limits.pace import FILE as ROUND_TIMES_FILE
from swarm.limits.pace import RoundTimes
from swarm.limits.service import Limits
from swarm.limits.traffic import Traffic
from swarm.limits.wishes import FILE as LIMITS_FILE
from swarm.limits.wishes import Wishes
from swarm.machine import Machine, runtime_folder
from swarm.network import Network, NetworkSettings, check_listening
from swarm.operations import Operations
from swarm.page.service import Page
from swarm.page.service import serve as serve_page
from swarm.page.told import Told
from swarm.participant import membership
from swarm.participant.announcements import Announcements
from swarm.participant.core import Me
from swarm.participant.membership import Membership
from swarm.participant.replays import Replays
from swarm.participant.service import Participant
from swarm.payout import Payouts
from swarm.ranges import Ranges
from swarm.receipts.book import FILE as RECEIPTS_FILE
from swarm.receipts.book import Book
from swarm.receipts.service import Receipts
from swarm.release import version
from swarm.shelf import Shelf
from swarm.store import retention
from swarm.store.collector import StoreCollector
from swarm.store.retention import Checkpoint, Retention
from swarm.training.child import WorkerSettings
from swarm.training.errors import WorkerError
from swarm.training.supervisor import Worker
from swarm.wallet import Wallet

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from protocols.consensus.messages import Block, Certificate
    from protocols.signing import Signer
    from protocols.transport import PeerId
    from storage.cid import Cid
    from storage.slots import SlotStore
    from swarm.config import Settings
    from swarm.control.api import NodeApi
    from swarm.entry import Entry
    from swarm.machine import Deciding

_T = TypeVar("_T")

_log = structlog.get_logger("swarm.node")

DECIDE_SECONDS = 0.1
ENTER_SECONDS = 5.0
"""How often the addresses that other nodes of this machine read are written again."""
DISK_THREADS = 4


async def run_node(
    settings: Settings,
    *,
    on_ready: Callable[[NodeApi], None],
    say: Callable[[str], None] = lambda _line: None,
) -> None:
    """Run one node until it is cancelled or told to stop.

    Args:
        settings: What it was told.
        on_ready: Called once, when every part runs.
        say: Tells the person one line while the node starts.

    Raises:
        SwarmError: It cannot start: the folder or an address is in use, or the genesis is not one.
    """
    with NodeLock(settings.home, is_temporary=settings.temporary):
        await check_listening(settings.listen)  # before a network is founded, or one is joined
        signer = Identity.load_or_create(settings.home).signer
        machine = Machine(runtime_folder())
        deciding = await _decide(settings, machine, say)
        try:
            found = await entry.find(
                settings.home,
                signer,
                machine,
                genesis=settings.network,
                bootstrap=settings.bootstrap,
                hello=lambda: Hello(b"", software(), 0, 0),
                say=say,
            )
            node = await trio.to_thread.run_sync(Node, settings, signer, found, machine)
            try:
                await node.run(on_ready, deciding)
            finally:
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(node.close)
        finally:
            if deciding is not None:
                deciding.release()


async def _decide(
    settings: Settings, machine: Machine, say: Callable[[str], None]
) -> Deciding | None:
    """Wait for the lock, where this node may turn out to be the first of this machine's own network."""
    known = (settings.home / entry.GENESIS_FILE).exists()
    if known or settings.bootstrap or settings.network is not None:
        return None
    told = False
    while (deciding := machine.decide()) is None:
        if not told:
            say("another node of this machine is looking for its network; waiting for it")
            told = True
        await trio.sleep(DECIDE_SECONDS)
    return deciding


def software() -> str:
    """Name and version, as peers see them."""
    return f"swarm/{version()}"


class Node:
    """Every part of one node, built but not running.

    Args:
        settings: What it was told.
        signer: Its key.
        found: Its network, and addresses to start from.
        machine: Where other nodes of this machine look for it.
    """

    def __init__(self, settings: Settings, signer: Signer, found: Entry, machine: Machine) -> None:
        home = settings.home
        self.settings = settings
        self.signer = signer
        self.genesis = found.genesis
        self.started = time.monotonic()
        self.pid = os.getpid()
        self.version = version()
        self.device = "no worker has started yet"
        self.page: Page | None = None
        self._machine = machine
        self._stopped = trio.Event()
        self.clock = ClockGaps()
        self.controls = Controls(home / CONTROLS_FILE)
        self.controls.on_gpu = lambda: settings.gpu and not self.device.startswith(("cpu", "no "))
        self.traffic = Traffic(Month(home / TRAFFIC_FILE, time.time()))
        chain_id = found.genesis.chain_id

        self.lent = Lent(home / "lent.cbor", settings.storage, is_temporary=settings.temporary)
        self.store = SegmentBlockstore(home / "chunks", self.lent.now)
        self._state = StateStore(home / "ledger")
        self.ledger = LedgerApplication(self._state, found.genesis, signer)
        self._votes = ConsensusLog(home / "consensus.log")
        self.heights = Heights(self.ledger.finalized_height())

        self.network = Network(
            NetworkSettings(
                listen=settings.listen or NetworkSettings().listen,
                bootstrap=found.addresses,
                known_peers=home / "peers.json",
                upnp=settings.upnp and not settings.temporary,
                mdns=settings.mdns,
                traffic=self.traffic,
            ),
            signer,
            chain_id,
            self._hello,
        )
        self.limits = Limits(
            Wishes(settings, home / LIMITS_FILE),
            self.traffic,
            self.controls,
            stop_serving=self.network.stop_serving,
        )
        topic = f"/swarm/{chain_id.hex()}"
        disk = trio.CapacityLimiter(DISK_THREADS)
        self.exchange = PatientExchange(
            self.network,
            self.store,
            limiter=disk,
            on_misbehaviour=self.network.note_misbehaviour,
        )
        self.bitswap = PatientBitswap(
            self.network, self.store, disk, on_misbehaviour=self.network.note_misbehaviour
        )
        self.bitswap.register()
        self.ranges = Ranges(self.exchange, self.store, self.network, disk)
        RetrievalService(self.network, self.store, self._fetch_alone)
        self.retriever = Retriever(self.network, partial(secrets.token_bytes, SEED_BYTES))
        revisions = Revisions(home / "revisions.log", signer)
        self.hub = Hub(self.ledger.view, self.ranges, revisions)
        params = found.genesis.params
        self._finalizer = Finalizer(self.ledger)
        self._finalizer.listen(self._finalized)
        try:
            landing = Landing(self.ledger, self._state, self._finalizer, settings.checkpoint)
        except (LedgerError, CheckpointError) as error:
            raise UsageError(str(error)) from error
        self.snapshots = Snapshots(
            home / "snapshots", self.ledger, self._state, archive=settings.archive
        )
        SnapshotService(self.network, self.snapshots)
        self.sync = SyncService(
            self.network,
            landing,
            LedgerSource(self.ledger),
            on_lie=self.network.note_misbehaviour,
            arrival=Arrival(self.network, landing, on_lie=self.network.note_misbehaviour),
        )
        self._voting = trio.CancelScope()
        self.soundness = Soundness(self._state, self._voting.cancel)
        self.consensus = ConsensusService(
            self.network,
            self._finalizer,
            self._votes,
            signer if settings.validate else None,
            ConsensusSettings(Timing(params.delta_ms, params.block_interval_ms)),
            on_evidence=self._accuse,
            on_behind=self.sync.wake,
            on_blame=self.network.note_misbehaviour,
        )
        self._gossip = TransactionGossip(
            self.network, f"{topic}/tx", self.ledger, self.network.note_misbehaviour
        )
        self.wallet = Wallet(signer, self.ledger, self.heights, self._gossip.queue)
        self.worker = Worker(
            WorkerSettings(
                device="auto" if settings.gpu else "cpu",
                threads=throttle.threads(settings.cpu, os.cpu_count() or 1),
                encodings=home / "encodings",
            )
        )
        self.throttle = throttle.Throttle(lambda: self.worker.pid, self._worker_part)
        # Whatever is on the shelf lies in the store as well: more than half could not be kept.
        self.shelf = Shelf(home / "shelf", self.store, self.exchange, self.lent.now // 2)
        self.shelf.claim = self._claim_shelf
        self.encodings = EncodingSpace(
            home / "encodings",
            lambda: self.lent.now,
            self._claim_shelf,
            lambda: self.space.look(),
        )
        self.worker.encodings = self.encodings.grant
        self.space = LentSpace(
            self.store, self.lent.now, lambda: self.shelf.used + self.encodings.taken()
        )
        self._announcements = Announcements(
            self.network, f"{topic}/updates", signer.public_key, self.ledger.view, self.shelf
        )
        self.collector = StoreCollector(
            self.store,
            self.ledger.view,
            Retention(settings.keep_rounds, settings.keep_versions),
        )
        self._vrf_key = VrfKey.of(signer.seed).public_key
        self.participant = Participant(
            me=Me(signer.public_key, settings.train, settings.validate),
            view=self.ledger.view,
            heights=self.heights,
            wallet=self.wallet,
            shelf=self.shelf,
            store=self.store,
            worker=self.worker,
            announcements=self._announcements,
            provide=self._provide,
            folder=home / "rounds",
            block_seconds=params.block_interval_ms / 1000,
            ranges=self.ranges,
            controls=self.controls,
            times=RoundTimes(home / ROUND_TIMES_FILE),
            room_for=self.room_for,
        )
        self.replays = Replays(
            me=Me(signer.public_key, settings.train, settings.validate),
            view=self.ledger.view,
            heights=self.heights,
            wallet=self.wallet,
            shelf=self.shelf,
            store=self.store,
            worker=self.worker,
            folder=home / "rounds",
            block_seconds=params.block_interval_ms / 1000,
            ranges=self.ranges,
        )
        self.sampled = Sampled(self.network, self.ledger)
        self.receipts = Receipts(signer, self.ledger, self.heights, Book(home / RECEIPTS_FILE))
        self.finishing = Finishing(self.controls, self.participant.owing, self.stop)
        self.leaving = Leaving(self, self._vrf_key)
        sealing = Sealing(chain_id, params.seal_log_n, params.seal_passes)
        self.auditing = Auditing(
            signer.public_key,
            self.ledger.view,
            self.heights,
            self.wallet,
            Auditor(self.network, sealing, min(PAUSE_S, params.block_interval_ms / 1000)),
        )
        self.slots: SlotStore | None = None
        self.slots_problem: str | None = None
        # A node that keeps nothing reads those of an earlier run.
        if settings.keep or (home / "slots").exists():
            self.slots, self.slots_problem = open_slots(
                home / "slots", signer.public_key, sealing, self.space
            )
        self.keeping: Keeping | None = None
        if self.slots is not None:
            contents = SlotContents(self.slots, self.store)
            self.keeping = self._keeping(self.slots, contents) if settings.keep else None
        making_room = self.keeping.making_room if self.keeping is not None else None
        self.exchange.making_room = self.bitswap.making_room = making_room

    async def room_for(
        self, work: Callable[[], Awaitable[_T]], say: Callable[[str], None] = lambda _: None
    ) -> _T:
        """Do what writes much, after slots have given way to it if they must; `say` is told what is waited for."""
        if self.keeping is None:
            return await work()
        return await self.keeping.making_room.patiently(work, say)

    async def _claim_shelf(self) -> None:
        """Before files are unpacked, or encodings kept: wait until they fit into what is lent."""
        try:
            self.space.look()
        except QuotaError:
            if self.keeping is None:
                raise
            await self.keeping.making_room.wait(0)

    def _keeping(self, slots: SlotStore, contents: SlotContents) -> Keeping:
        """What lends and keeps."""
        key, folder = self.signer.public_key, self.settings.home / "slots"
        disk = trio.CapacityLimiter(DISK_THREADS)
        duties = Duties(
            key, self.ledger.view, self.heights, self.store, self.exchange, self.network, disk
        )
        return Keeping(
            key=key,
            view=self.ledger.view,
            included=self.ledger.included,
            heights=self.heights,
            wallet=self.wallet,
            store=self.store,
            space=self.space,
            slots=slots,
            contents=contents,
            duties=duties,
            transport=self.network,
            folder=folder,
            share=self.settings.seal_share,
            controls=self.controls,
            released=self.collector.released,
            reclaim=self.collector.reclaim,
        )

    async def run(
        self, on_ready: Callable[[NodeApi], None], deciding: Deciding | None = None
    ) -> None:
        """Run every part until cancelled or stopped.

        Args:
            on_ready: Called once everything runs and the control socket answers.
            deciding: Released once other nodes of this machine can find this one.
        """
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            await nursery.start(self.network.run)
            self._enter()
            if deciding is not None:
                deciding.release()
            self.exchange.register()
            for part in (self.exchange.run, self.bitswap.run, self.sync.run, self.worker.run):
                await nursery.start(part)
            nursery.start_soon(self._vote)
            for task in (
                self.soundness.run,
                self._gossip.run,
                self.wallet.run,
                self._announcements.run,
                self._keep_entered,
                self._provide_again,
                self._describe_worker,
                self.finishing.run,
                self.limits.run,
                self.traffic.run,
                self.throttle.run,
            ):
                nursery.start_soon(again_and_again, task)
            for by_now in self._when_level():
                nursery.start_soon(again_and_again, by_now, self.sync.caught_up)
            api = Operations(self)
            nursery.start_soon(again_and_again, api.versions.keep)
            await nursery.start(partial(serve, api, self.settings.home / "control.sock"))
            if self.settings.gateway is not None:
                more = hub_routes(self.hub)
                await nursery.start(serve_gateway, self.ranges, self.settings.gateway, more)
            if self.settings.metrics is not None:
                nursery.start_soon(again_and_again, self.sampled.run)
                await nursery.start(serve_metrics, api.care, self.settings.metrics)
            if self.settings.page is not None and not self.settings.temporary:
                told, home = Told(self, api), self.settings.home
                self.page = await nursery.start(serve_page, told, home, self.settings.page)
            on_ready(api)
            await self._stopped.wait()
            nursery.cancel_scope.cancel()

    def _when_level(self) -> Iterator[Callable[[], Awaitable[None]]]:
        """What goes by the ledger of now, and would do wrong by an old one.

        Old rounds would be begun and given up block by block; duties would be let go, and answers given late.
        """
        settings, view = self.settings, self.ledger.view
        yield from (
            self.snapshots.run,
            self.participant.run,
            self.replays.run,
            self.receipts.run,
            self.collector.run,
            Offers(view, self.heights, self.store, self.collector.released).run,
            self.leaving.run,
        )
        if self.keeping is not None:
            yield self.keeping.run
        if settings.validate:
            yield self.auditing.run
        if settings.temporary:  # for one command: the account's own node comes back
            return
        key, validates = self.signer.public_key, settings.validate
        yield Payouts(settings.home, key, view, self.heights, self.wallet, validates=validates).run
        yield Membership(
            Me(key, settings.train, validates),
            self._vrf_key,
            "gpu" if settings.gpu else "cpu",
            view=view,
            heights=self.heights,
            wallet=self.wallet,
            controls=self.controls,
            is_lending=lambda: self.keeping is not None and self.keeping.is_lending,
            is_doubled=lambda: self.consensus.doubled is not None,
        ).run

    def stop(self) -> None:
        """End `run`; returns at once."""
        self._stopped.set()

    def close(self) -> None:
        """Close the stores; nothing of the node may run any more."""
        with ExitStack() as last_first:
            for close in (
                self.store.close,
                self._state.close,
                self._votes.close,
                self.snapshots.close,
            ):
                last_first.callback(close)
            last_first.callback(self._machine.leave)
            if self.slots is not None:
                last_first.callback(self.slots.close)

    def problems(self) -> list[str]:
        """What is wrong now, in sentences."""
        found = [*self.network.problems(), *self.participant.problems.values()]
        found += [
            f"work of {peer} was not run again: {why}"
            for peer, why in self.replays.problems.items()
        ]
        found += [self.sync.problem] if self.sync.problem is not None else []
        found += [
            one.problem
            for one in (self._finalizer, self.consensus, self.soundness)
            if one.problem is not None
        ]
        found += [membership.DOUBLED] if self.consensus.doubled is not None else []
        found += [self.slots_problem] if self.slots_problem else []
        found += self.collector.problems
        return [*found, *(self.keeping.worries() if self.keeping is not None else ())]

    def members(self) -> list[str]:
        """Connected peers of this network."""
        return [one.peer for one in self.network.peer_info() if one.member]

    async def _fetch_alone(self, cid: Cid, providers: Sequence[PeerId]) -> None:
        await self.exchange.fetch(cid, providers, label="retrieval", alone=True)

    def _worker_part(self) -> float:
        """The part of each second in which the worker runs."""
        processors = os.cpu_count() or 1
        running = throttle.threads(self.settings.cpu, processors)
        return throttle.duty(self.limits.wishes["cpu"], processors, running)

    def best_head(self) -> int:
        """The highest block that a connected member says it holds; 0 with no member."""
        return max((one.head for one in self.network.peer_info() if one.member), default=0)

    def _hello(self) -> Hello:
        roles = ROLE_KEEPER if self.settings.keep else 0
        roles |= ROLE_WORKER if self.settings.train else 0
        roles |= ROLE_VALIDATOR if self.settings.validate else 0
        return Hello(self.genesis.chain_id, software(), self.heights.height, roles)

    def _finalized(self, block: Block, _certificate: Certificate) -> None:
        self.heights.move(block.height)
        if self.sync.caught_up.is_set() and block.leader != self.signer.public_key:
            self.clock.note(time.time_ns() // 10**6, block.timestamp_ms)

    def _accuse(self, evidence: bytes) -> None:
        """Hand evidence to the ledger; what was counted already is refused there."""

        async def send() -> None:
            try:
                await self.wallet.submit(Evidence(evidence))
            except SwarmError as error:
                _log.info("evidence.refused", error=str(error))
            except Exception:  # noqa: BLE001 - another validator's fault, which others tell of too
                _log.exception("evidence.not_sent")

        self._nursery.start_soon(send)

    def _provide(self, root: bytes) -> None:
        self._nursery.start_soon(self.network.provide, root)

    async def _vote(self) -> None:
        """Take part in consensus once this node holds the blocks that others hold."""
        await self.sync.caught_up.wait()
        with self._voting:
            await self.consensus.run()

    async def _provide_again(self) -> None:
        """Announce what an earlier run published."""

        def ours() -> set[Cid]:
            holds = self.store.holds()
            made = [one for one, why in holds if isinstance(retention.reason(why), Checkpoint)]
            return {*self.store.pins(), *(root for root in made if self.store.has(root))}

        for root in await trio.to_thread.run_sync(ours):
            await self.network.provide(root)

    async def _describe_worker(self) -> None:
        if self.settings.train or self.settings.validate:
            try:
                self.device = (await self.worker.describe()).device
            except WorkerError as error:
                self.device = f"no worker: {error}"

    async def _keep_entered(self) -> None:
        """Keep the addresses that this machine's other nodes see up to date."""
        while True:
            self._enter()
            await trio.sleep(ENTER_SECONDS)

    def _enter(self) -> None:
        try:
            self._machine.enter(self.genesis.chain_id, self.network.addresses())
        except OSError as error:  # only nodes that start without an address miss it
            _log.warning("machine.not_entered", error=str(error))

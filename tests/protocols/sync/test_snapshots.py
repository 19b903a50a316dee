"""Newcomers over memory streams, with the real ledger: by snapshot, from several peers, past liars and after a kill."""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.consensus.errors import MessageError
from protocols.consensus.events import Advanced, Now, Start
from protocols.consensus.finalizer import Finalizer
from protocols.consensus.replica import Replica
from protocols.consensus.service import ConsensusService, ConsensusSettings
from protocols.consensus.views import Timing
from protocols.memory import open_memory_network
from protocols.sync.asking import FRAME_SECONDS, ask_one, send
from protocols.sync.core import Pieces, choose
from protocols.sync.errors import CheckpointError, SyncMessageError
from protocols.sync.service import SyncService
from protocols.sync.snapshot_messages import (
    AskHandoffs,
    AskHoldings,
    AskRanges,
    Holdings,
    decode_request,
)
from protocols.sync.snapshots import PROTOCOL, SnapshotService
from storage.consensus_log import ConsensusLog
from storage.incoming import Incoming
from storage.snapshot_file import SnapshotFile
from storage.state_range import Range
from storage.state_store import StateStore
from swarm.config import Settings
from swarm.errors import UsageError
from swarm.ledger.application import LedgerApplication
from swarm.ledger.checkpoint import Checkpoint
from swarm.ledger.errors import LedgerError
from swarm.ledger.execute import check_supply
from swarm.ledger.handoff import WEAK_SUBJECTIVITY_MS, Handoff, Trust
from swarm.ledger.landing import Landing
from swarm.ledger.snapshots import IN_USE_SECONDS, Snapshots, kept_blocks
from swarm.ledger.source import LedgerSource
from swarm.ledger.transactions import Register, Stake, Transfer, Unstake, transaction_id
from swarm.ledger.vrf import VrfKey
from tests.protocols.sync.ledgers import ALICE, BLOCK_MS, BOB, START, VALIDATORS, Chain, Newcomer


@pytest.fixture
async def network():
    async with open_memory_network(latency_s=0.01) as network:
        yield network


@pytest.fixture
async def running():
    async with trio.open_nursery() as nursery:
        yield nursery
        nursery.cancel_scope.cancel()


@pytest.fixture(scope="module")
def chain_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("chain")


@pytest.fixture(scope="module")
def chain(chain_folder):
    made = Chain(chain_folder)
    made.pay(22, size=3)
    yield made
    made.close()


async def replayed(chain, folder):
    """The root of a ledger that executed every block."""
    store = StateStore(folder)
    finalizer = Finalizer(LedgerApplication(store, chain.genesis), in_thread=False)
    pairs = [(b.encode(), c.encode()) for b, c in chain.ledger.blocks(1, 256)]
    assert await finalizer.apply(pairs) == chain.height
    root = store.view().root
    store.close()
    return root


async def test_a_newcomer_by_snapshot_has_the_root_of_a_full_replay(
    autojump_clock, network, running, chain, tmp_path
):
    chain.serve(network, "giver")
    new = Newcomer(network, chain, tmp_path / "new")
    await running.start(new.sync.run)
    await new.reach(22)
    assert new.executed == [21, 22]
    assert new.store.view().root == chain.store.view().root
    assert new.store.view().root == await replayed(chain, tmp_path / "replay")
    with trio.fail_after(20):
        await new.sync.caught_up.wait()
    assert new.lies == []
    new.close()


async def test_two_peers_give_at_once_and_when_one_stops_midway_the_other_gives_the_rest(
    autojump_clock, network, running, chain, tmp_path
):
    class Stopping(SnapshotService):
        given = 0

        async def _send_ranges(self, stream, height, first, last):
            Stopping.given += 1
            if Stopping.given > 3:
                await trio.sleep_forever()
            await super()._send_ranges(stream, height, first, last)

    class Counting(SnapshotService):
        given = 0

        async def _send_ranges(self, stream, height, first, last):
            Counting.given += 1
            await super()._send_ranges(stream, height, first, last)

    chain.serve(network, "stops", Stopping)
    chain.serve(network, "goes on", Counting)
    new = Newcomer(network, chain, tmp_path / "new")
    await running.start(new.sync.run)
    await new.reach(22)
    assert trio.current_time() < FRAME_SECONDS, "nobody waited for the one that hangs"
    assert Stopping.given == 3 + 2, "each of its two streams hangs with one request"
    assert Counting.given > 3
    assert new.store.view().root == chain.store.view().root
    assert (new.executed, new.lies) == ([21, 22], [])
    new.close()


@pytest.mark.parametrize("count", [256, 1], ids=["drips", "drips and ends early"])
async def test_a_peer_that_drips_hand_offs_is_given_up_and_another_gives_the_rest(
    autojump_clock, network, running, chain, tmp_path, count
):
    class Dripping(SnapshotService):
        dripped = 0

        async def _answer(self, stream, request):
            if not isinstance(request, AskHandoffs):
                await super()._answer(stream, request)
                return
            for one in self._source.handoffs(request.from_epoch, min(count, request.count)):
                await trio.sleep(FRAME_SECONDS - 1)
                Dripping.dripped += 1
                await send(stream, one)

    class Later(SnapshotService):
        async def _answer(self, stream, request):
            if isinstance(request, AskHoldings):
                await trio.sleep(1)  # so that the slow one is asked first
            await super()._answer(stream, request)

    chain.serve(network, "slow", Dripping)
    chain.serve(network, "honest", Later)
    new = Newcomer(network, chain, tmp_path / "new")
    await running.start(new.sync.run)
    await new.reach(22, seconds=FRAME_SECONDS + 10)
    assert Dripping.dripped == 1
    assert new.store.view().root == chain.store.view().root
    assert new.lies == []
    new.close()


async def test_a_changed_record_is_refused_and_its_giver_is_blamed_and_another_is_asked(
    autojump_clock, network, running, chain, tmp_path
):
    class Lying(SnapshotService):
        async def _send_ranges(self, stream, height, first, last):
            data, _ = self._source.ranges(height, first, last, 64)
            for one in data:
                part = Range.decode(one)
                key, value = part.records[0]
                changed = (key, value[:-1] + bytes((value[-1] ^ 1,)))
                lie = replace(part, records=(changed, *part.records[1:]))
                await send(stream, lie.encode())

    chain.serve(network, "liar", Lying)
    chain.serve(network, "honest")
    new = Newcomer(network, chain, tmp_path / "new")
    await running.start(new.sync.run)
    await new.reach(22)
    assert new.store.view().root == chain.store.view().root
    assert [peer for peer, _ in new.lies] == ["liar"]
    assert "state root" in new.lies[0][1]
    assert new.executed == [21, 22]
    new.close()


async def test_a_newcomer_that_is_killed_midway_goes_on_where_it_was(
    autojump_clock, network, chain, tmp_path
):
    whole = len(chain.snapshots._files[20])
    assert whole > 12
    chain.serve(network, "giver")
    new = Newcomer(network, chain, tmp_path / "new")
    put = new.landing._incoming.put

    class KilledError(Exception):
        pass

    stored = set()

    def dies(part):
        if len(stored) == whole // 2:
            raise KilledError
        put(part)
        stored.add(part.first)

    new.landing._incoming.put = dies
    with pytest.RaisesGroup(KilledError, allow_unwrapped=True, flatten_subgroups=True):
        await new.sync.run()
    assert new.ledger.finalized_height() == 0
    new.close()
    again = Newcomer(network, chain, tmp_path / "new")
    async with trio.open_nursery() as nursery:
        await nursery.start(again.sync.run)
        await again.reach(22)
        nursery.cancel_scope.cancel()
    assert again.store.view().root == chain.store.view().root
    fetched = {Range.decode(one).first for one in again.ranges}
    assert len(fetched) == whole - whole // 2
    assert not fetched & stored
    again.close()


async def test_trust_is_handed_on_over_changes_of_the_validators(
    autojump_clock, network, running, tmp_path
):
    chain = changed_chain(tmp_path / "chain")
    chain.serve(network, "giver")
    new = Newcomer(network, chain, tmp_path / "new")
    await running.start(new.sync.run)
    await new.reach(chain.height)
    assert new.executed[0] == 25
    assert new.ledger.validators(6) == chain.ledger.validators(6)
    assert new.store.view().root == chain.store.view().root
    new.close()
    chain.close()


def changed_chain(folder):
    """Alice and Bob bond themselves, the first validators leave: the sets of later epochs are others."""
    chain = Chain(folder)
    for who in (ALICE, BOB):
        chain.send(who, Register(VrfKey.of(who.seed).public_key, "", ("validator",)))
        chain.send(who, Stake(5000))
    chain.grow(2)
    for who in VALIDATORS:
        chain.send(who, Unstake(1000))
    chain.grow(24)
    sets = [{one.public_key for one in chain.ledger.validators(epoch)} for epoch in (0, 3, 6)]
    assert sets[0] == {one.public_key for one in VALIDATORS}
    assert sets[2] == {ALICE.public_key, BOB.public_key} != sets[0]
    return chain


def test_what_an_old_set_signs_is_no_hand_off(tmp_path):
    chain = changed_chain(tmp_path)
    store = StateStore(tmp_path / "new")
    fresh = LedgerApplication(store, chain.genesis)
    view = fresh.view()
    trust = Trust(0, (view.validators(0), view.validators(1)), START)
    length = chain.ledger.epoch_length
    handoffs = [Handoff.decode(one) for one in chain.snapshots.handoffs(0, 9)]
    assert len(handoffs) == 6
    for handoff in handoffs[:4]:
        trust = trust.follow(handoff, fresh.chain_id, length)
    old = sorted(VALIDATORS, key=lambda one: one.public_key)
    forged = replace(
        handoffs[4], finalization=chain.certificate(chain.ledger.block(20), signers=old)
    )
    with pytest.raises(MessageError, match="does not hold"):
        trust.follow(forged, fresh.chain_id, length)
    one_voice = replace(
        handoffs[4].finalization, signatures=handoffs[4].finalization.signatures[:1]
    )
    with pytest.raises(MessageError, match="does not hold"):
        trust.follow(replace(handoffs[4], finalization=one_voice), fresh.chain_id, length)
    for wrong in (handoffs[3], handoffs[5]):
        with pytest.raises(MessageError, match="does not end epoch 4"):
            trust.follow(wrong, fresh.chain_id, length)
    swapped = replace(
        handoffs[4],
        values=(handoffs[4].values[0], handoffs[0].values[1]),
    )
    with pytest.raises(MessageError, match="state root"):
        trust.follow(swapped, fresh.chain_id, length)
    assert trust.follow(handoffs[4], fresh.chain_id, length).epoch == 5
    store.close()
    chain.close()


async def test_who_gives_an_old_sets_hand_off_is_blamed_and_another_is_asked(
    autojump_clock, network, running, tmp_path
):
    chain = changed_chain(tmp_path / "chain")
    old = sorted(VALIDATORS, key=lambda one: one.public_key)

    class Forging(SnapshotService):
        async def _answer(self, stream, request):
            if not isinstance(request, AskHandoffs):
                await super()._answer(stream, request)
                return
            for data in self._source.handoffs(request.from_epoch, request.count):
                handoff = Handoff.decode(data)
                block = chain.ledger.block(handoff.header.height)
                forged = replace(handoff, finalization=chain.certificate(block, signers=old))
                await send(stream, forged.encode())

    chain.serve(network, "a forger", Forging)
    chain.serve(network, "b honest")
    new = Newcomer(network, chain, tmp_path / "new")
    await running.start(new.sync.run)
    await new.reach(chain.height)
    assert [peer for peer, _ in new.lies] in (["a forger"], [])
    assert new.executed[0] == 25
    new.close()
    chain.close()


def checkpoint_of(chain, height):
    return Checkpoint(height, chain.ledger.block(height).id)


@pytest.mark.parametrize("height", [8, 20])
async def test_trust_begins_at_a_checkpoint_where_everything_else_is_too_old(
    autojump_clock, network, running, chain, tmp_path, height
):
    chain.serve(network, "giver")
    now = START + WEAK_SUBJECTIVITY_MS + 5 * BLOCK_MS
    stale = Newcomer(network, chain, tmp_path / "stale", now=now, name="stale")
    await running.start(stale.sync.run)
    await trio.sleep(60)
    assert stale.ledger.finalized_height() == 0
    assert not stale.sync.caught_up.is_set()
    assert "14 days" in stale.sync.problem
    assert "--checkpoint" in stale.sync.problem
    stale.close()
    new = Newcomer(
        network,
        chain,
        tmp_path / "new",
        now=now,
        checkpoint=checkpoint_of(chain, height),
        far=10**6,
    )
    await running.start(new.sync.run)
    await new.reach(22)
    assert new.executed == [21, 22]
    assert new.sync.problem is None
    new.close()


async def test_a_checkpoint_that_is_itself_too_old_is_refused(
    autojump_clock, network, running, chain, tmp_path
):
    chain.serve(network, "giver")
    now = START + WEAK_SUBJECTIVITY_MS + 9 * BLOCK_MS
    new = Newcomer(network, chain, tmp_path / "new", now=now, checkpoint=checkpoint_of(chain, 8))
    await running.start(new.sync.run)
    await trio.sleep(60)
    assert new.ledger.finalized_height() == 0
    assert "the checkpoint is 14 days old" in new.sync.problem
    new.close()


async def test_blocks_are_not_built_on_what_is_too_old_even_with_a_checkpoint(
    autojump_clock, network, running, chain, tmp_path
):
    transport = network.join("gives blocks alone", chain.genesis.chain_id)
    SyncService(transport, None, LedgerSource(chain.ledger), in_thread=False)
    now = START + WEAK_SUBJECTIVITY_MS + 5 * BLOCK_MS
    new = Newcomer(network, chain, tmp_path / "new", now=now, checkpoint=checkpoint_of(chain, 20))
    await running.start(new.sync.run)
    await trio.sleep(60)
    assert new.executed == []
    new.close()


async def test_a_finalization_that_comes_with_a_checkpoint_and_does_not_hold_is_asked_of_another(
    autojump_clock, network, running, chain, tmp_path
):
    class OneVoice(SnapshotService):
        async def _answer(self, stream, request):
            if not isinstance(request, AskHandoffs):
                await super()._answer(stream, request)
                return
            handoff = Handoff.decode(self._source.handoffs(request.from_epoch, 1)[0])
            few = replace(handoff.finalization, signatures=handoff.finalization.signatures[:1])
            await send(stream, replace(handoff, finalization=few).encode())

    chain.serve(network, "liar", OneVoice)
    new = Newcomer(network, chain, tmp_path / "new", checkpoint=checkpoint_of(chain, 20))
    await running.start(new.sync.run)
    await trio.sleep(60)
    assert new.executed == [], "it does not land, and asks again"
    new.close()
    network.leave("liar")
    chain.serve(network, "honest")
    again = Newcomer(network, chain, tmp_path / "again", checkpoint=checkpoint_of(chain, 20))
    await running.start(again.sync.run)
    await again.reach(22)
    assert again.executed == [21, 22]
    again.close()


async def test_a_snapshot_from_before_the_checkpoint_of_an_earlier_run_is_passed_over(
    autojump_clock, network, running, chain, tmp_path
):
    new = Newcomer(network, chain, tmp_path / "new", checkpoint=checkpoint_of(chain, 20))
    new.landing.take_handoff(chain.snapshots.handoffs(4, 1)[0])
    new.landing.begin(20)
    new.close()

    class Old(SnapshotService):
        async def _answer(self, stream, request):
            if isinstance(request, AskHoldings):
                await send(stream, Holdings(1, (16,)).encode())
            else:
                await super()._answer(stream, request)

    chain.serve(network, "old", Old)
    again = Newcomer(network, chain, tmp_path / "new")
    await running.start(again.sync.run)
    await again.reach(22)
    assert again.executed == list(range(1, 23))
    assert again.lies == []
    again.close()


async def test_who_is_quick_with_a_finalization_that_does_not_hold_keeps_no_node_from_landing(
    autojump_clock, network, running, chain, tmp_path
):
    class OneVoice(SnapshotService):
        async def _answer(self, stream, request):
            if not isinstance(request, AskHandoffs):
                await super()._answer(stream, request)
                return
            handoff = Handoff.decode(self._source.handoffs(request.from_epoch, 1)[0])
            few = replace(handoff.finalization, signatures=handoff.finalization.signatures[:1])
            await send(stream, replace(handoff, finalization=few).encode())

    class Slow(SnapshotService):
        async def _answer(self, stream, request):
            await trio.sleep(0.1)
            await super()._answer(stream, request)

    chain.serve(network, "liar", OneVoice)
    chain.serve(network, "honest", Slow)
    now = START + WEAK_SUBJECTIVITY_MS + 5 * BLOCK_MS  # no way past the snapshot
    new = Newcomer(network, chain, tmp_path / "new", now=now, checkpoint=checkpoint_of(chain, 20))
    await running.start(new.sync.run)
    await new.reach(22, seconds=120)
    assert new.executed == [21, 22]
    assert "honest" not in dict(new.lies)
    new.close()


async def test_another_block_for_the_snapshots_height_is_refused_and_blamed(
    autojump_clock, network, running, chain, tmp_path
):
    class OtherBlock(LedgerSource):
        def blocks(self, from_height, limit):
            return super().blocks(from_height - (limit == 1), limit)

    transport = network.join("liar", chain.genesis.chain_id)
    SyncService(transport, None, OtherBlock(chain.ledger), in_thread=False)
    SnapshotService(transport, chain.snapshots, in_thread=False)
    new = Newcomer(network, chain, tmp_path / "new")
    await running.start(new.sync.run)
    await trio.sleep(60)
    assert new.store.height == 0
    assert [peer for peer, _ in new.lies] == ["liar"]
    chain.serve(network, "honest")
    await new.reach(22)
    assert new.executed == [21, 22]
    assert len(new.ranges) <= 40, "what had arrived was not fetched again"
    new.close()


@pytest.mark.parametrize("far", [8, 1000], ids=["by snapshot", "by blocks"])
async def test_a_chain_that_contradicts_the_checkpoint_is_refused_with_what_to_do(
    autojump_clock, network, running, chain, tmp_path, far
):
    chain.serve(network, "giver")
    other = Checkpoint(20, b"x" * 32)
    new = Newcomer(network, chain, tmp_path / "new", checkpoint=other, far=far)
    await running.start(new.sync.run)
    await trio.sleep(60)
    assert new.ledger.finalized_height() < 20
    assert not new.sync.caught_up.is_set()
    assert "ask somebody you trust" in new.sync.problem
    assert new.lies == [], "which of the two is wrong is not known"
    new.close()


def test_a_checkpoint_that_contradicts_the_own_ledger_ends_the_start(chain):
    finalizer = Finalizer(chain.ledger, in_thread=False)
    with pytest.raises(CheckpointError, match="own ledger"):
        Landing(chain.ledger, chain.store, finalizer, Checkpoint(8, b"x" * 32))
    with pytest.raises(LedgerError, match="as 20 or 24 are"):
        Landing(chain.ledger, chain.store, finalizer, Checkpoint(21, b"x" * 32))
    Landing(chain.ledger, chain.store, finalizer, checkpoint_of(chain, 8))


async def test_a_pruned_node_says_what_it_holds_and_gives_its_snapshot(
    autojump_clock, network, running, tmp_path
):
    chain = Chain(tmp_path / "chain", archive=False)
    chain.pay(36)
    sent = transaction_id(chain.ledger.transactions_of(chain.ledger.block(1))[0])
    assert chain.ledger.included(sent).height == 1
    assert kept_blocks(chain.genesis.params) == 24
    assert chain.snapshots.prune() == 12
    assert chain.ledger.included(sent) is None
    assert chain.ledger.first_block() == 13
    assert chain.ledger.block(0).height == 0
    with pytest.raises(LedgerError, match=r"block 12 is pruned here.*from 13 on"):
        chain.ledger.block(12)
    chain.serve(network, "giver")
    me = network.join("me", chain.genesis.chain_id)
    data = await ask_one(me, "giver", PROTOCOL, AskHoldings(), 256)
    assert Holdings.decode(data) == Holdings(13, (36, 32))
    new = Newcomer(network, chain, tmp_path / "new", far=10**6)
    await running.start(new.sync.run)
    await new.reach(36)
    assert new.executed == [], "it did not look for a snapshot, and had to take one"
    assert new.ledger.first_block() == 36
    assert new.store.view().root == chain.store.view().root
    new.close()
    chain.close()


async def test_a_node_that_runs_and_lags_behind_what_is_kept_takes_a_snapshot_and_counts_on(
    autojump_clock, network, running, tmp_path
):
    chain = Chain(tmp_path / "chain", archive=False)
    chain.grow(3)
    chain.serve(network, "giver")
    new = Newcomer(network, chain, tmp_path / "new")
    await running.start(new.sync.run)
    with trio.fail_after(20):
        await new.sync.caught_up.wait()
    log = ConsensusLog(tmp_path / "log")
    settings = ConsensusSettings(Timing(60_000, 60_000), in_thread=False)
    transport = network.join("votes", chain.genesis.chain_id)
    consensus = ConsensusService(transport, new.finalizer, log, BOB, settings)
    await running.start(consensus.run)
    assert (consensus.stats().epoch, consensus._replica._standing.first_epoch) == (0, 1)
    network.leave("giver")
    chain.grow(36)
    chain.snapshots.prune()
    chain.serve(network, "giver")
    await new.reach(39)
    assert new.executed == [1, 2, 3, 37, 38, 39]
    await trio.sleep(1)
    assert (consensus.stats().epoch, consensus._replica._standing.first_epoch) == (9, 10)
    chain.grow(6)
    await new.reach(45)
    await trio.sleep(1)
    assert consensus.stats().epoch == 11
    new.close()
    log.close()
    chain.close()


async def test_a_newcomer_on_a_short_chain_executes_it(autojump_clock, network, running, tmp_path):
    chain = Chain(tmp_path / "chain")
    chain.grow(7)
    chain.serve(network, "giver")
    new = Newcomer(network, chain, tmp_path / "new")
    await running.start(new.sync.run)
    await new.reach(7)
    assert new.executed == list(range(1, 8))
    new.close()
    chain.close()


async def test_a_running_node_writes_a_snapshot_each_epoch_and_prunes(tmp_path):
    chain = Chain(tmp_path, archive=False)
    chain.grow(29)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(chain.snapshots.run)
        with trio.fail_after(10):
            while chain.ledger.first_block() != 6:  # noqa: ASYNC110 - it works in a thread
                await trio.sleep(0.01)
            assert chain.snapshots.snapshots() == [28, 24]
            await trio.to_thread.run_sync(chain.grow, 3)
            while (chain.snapshots.snapshots(), chain.ledger.first_block()) != ([32, 28], 9):  # noqa: ASYNC110
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    with contextlib.closing(
        SnapshotFile(tmp_path / "snapshots" / f"{32:020d}.snapshot")
    ) as written:
        assert written.root == chain.ledger.block(32).state_root
    chain.close()


def test_an_archive_removes_nothing(tmp_path):
    chain = Chain(tmp_path, archive=True)
    chain.grow(29)
    assert chain.snapshots.prune() == 0
    assert chain.ledger.block(1).height == chain.ledger.first_block() == 1
    chain.close()


async def test_a_node_that_blocks_carry_past_a_snapshot_while_it_arrives_goes_on_from_the_blocks(
    autojump_clock, network, running, chain, tmp_path
):
    class Gossiping(SnapshotService):
        async def _send_ranges(self, stream, height, first, last):
            if new.landing.height() < 21:
                pairs = [(b.encode(), c.encode()) for b, c in chain.ledger.blocks(1, 21)]
                await new.landing.apply(pairs)
            await super()._send_ranges(stream, height, first, last)

    chain.serve(network, "gossips", Gossiping)
    new = Newcomer(network, chain, tmp_path / "new")
    await running.start(new.sync.run)
    await new.reach(22)
    assert new.executed == list(range(1, 23))
    assert new.store.view().root == chain.store.view().root
    assert new.landing.arriving() == -1, "what arrived is of no use to anybody"
    assert new.lies == []
    assert new.sync._book.failures == {}, "nobody is to blame"
    new.close()


def test_a_part_of_a_snapshot_that_blocks_have_passed_is_dropped(tmp_path):
    chain = Chain(tmp_path)
    chain.grow(9)
    incoming = Incoming(chain.store)
    incoming.begin(8, b"r" * 32)
    finalizer = Finalizer(chain.ledger, in_thread=False)
    assert Landing(chain.ledger, chain.store, finalizer).arriving() == -1
    assert Incoming(chain.store).height == -1
    incoming.begin(12, b"r" * 32)
    assert Landing(chain.ledger, chain.store, finalizer).arriving() == 12
    chain.close()


def test_the_last_two_snapshots_are_kept_and_found_again(chain, chain_folder):
    assert chain.snapshots.snapshots() == [20, 16]
    folder = chain_folder / "snapshots"
    assert len(list(folder.iterdir())) == 2
    (folder / "7.snapshot.part").write_bytes(b"torn")
    (folder / "00000000000000000004.snapshot").write_bytes(b"no snapshot")
    again = Snapshots(folder, chain.ledger, chain.store)
    assert again.snapshots() == [20, 16]
    assert len(list(folder.iterdir())) == 2
    again.close()


def test_older_snapshots_stay_while_somebody_fetches_them(tmp_path):
    chain, now = Chain(tmp_path), [0.0]
    chain.snapshots._clock = lambda: now[0]

    def ask(height: int) -> bool:
        return bool(chain.snapshots.ranges(height, bytes(32), b"\xff" * 32, 1)[0])

    chain.pay(8)
    assert ask(4)
    chain.pay(4)
    assert chain.snapshots.snapshots() == [12, 8, 4]
    assert ask(8)
    assert ask(12)
    chain.pay(8)  # four at most, the newest of those that are asked for
    assert chain.snapshots.snapshots() == [20, 16, 12, 8]
    assert not ask(4)
    now[0] += IN_USE_SECONDS
    chain.pay(4)
    assert chain.snapshots.snapshots() == [24, 20]
    assert len(list((tmp_path / "snapshots").iterdir())) == 2
    chain.close()


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_refused(data):
    for decode in (decode_request, Holdings.decode):
        with contextlib.suppress(SyncMessageError):
            decode(data)
    with contextlib.suppress(MessageError):
        Handoff.decode(data)


@pytest.mark.parametrize(
    "request_", [AskHoldings(), AskHandoffs(3, 9), AskRanges(8, bytes(32), b"\xff" * 32)]
)
def test_a_request_is_read_back(request_):
    assert decode_request(request_.encode()) == request_


def test_the_bytes_of_requests_and_answers_are_pinned():
    assert AskHoldings().encode().hex() == "8101"
    assert AskHandoffs(3, 9).encode().hex() == "83020309"
    ranges = AskRanges(600, bytes(32), b"\xff" * 32).encode()
    assert ranges.hex() == "8403190258" + "5820" + "00" * 32 + "5820" + "ff" * 32
    assert Holdings(13, (36, 32)).encode().hex() == "820d8218241820"
    part = Range(1, b"\x80" + bytes(31), ((b"k", b"v"),), b"\x80" + b"s" * 32).encode()
    assert part.hex() == "84015820" + "80" + "00" * 31 + "8182416b4176" + "582180" + "73" * 32


def test_the_snapshot_that_was_begun_is_taken_on_and_else_the_one_that_most_have():
    offers = {"a": (12, 8), "b": (8, 4), "c": (8,)}
    assert choose(offers, [4, 8, 12], arriving=4) == 4
    assert choose(offers, [4, 8, 12], arriving=-1) == 8
    assert choose(offers, [4, 12], arriving=8) == 12
    assert choose(offers, [], arriving=8) is None


def test_pieces_are_each_asked_once_and_again_only_at_the_end():
    pieces = Pieces([(0, 40), (60, 100)], 5, 100)
    taken = [pieces.take() for _ in range(4)]
    assert [(one.low, one.high) for one in taken] == [(0, 20), (20, 40), (60, 80), (80, 100)]
    assert pieces.take() is None
    pieces.arrived(0, 40)
    pieces.arrived(60, 70)
    assert pieces.take(again=True).low in (70, 80)
    pieces.arrived(90, 100)
    assert not pieces.done, "a range that does not begin at a piece's low leaves it as it was"
    pieces.arrived(64, 100)
    assert pieces.done
    assert pieces.take(again=True) is None


@pytest.mark.parametrize("at", [3, 4], ids=["within an epoch", "at its end"])
@pytest.mark.parametrize("to", [8, 12, 20])
def test_consensus_leaves_its_epoch_for_that_of_a_snapshot(chain, at, to):
    replica = Replica(
        chain.ledger.chain_id,
        4,
        None,
        chain.ledger.block(0),
        chain.ledger.validators,
        chain.ledger.leader,
        Timing(),
    )
    now = Now(0, START)
    replica.handle(Start(()), now)
    for height in (*range(1, at + 1), to, to + 1):
        block = chain.ledger.block(height)
        replica.handle(Advanced(block, chain.certificate(block)), now)
    assert (replica.core.epoch, replica.core.root.height) == (to // 4, to + 1)


deeds = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 400)), max_size=3)


@settings(max_examples=10, deadline=None)
@given(st.lists(deeds, min_size=4, max_size=14))
def test_snapshot_plus_replay_gives_the_root_of_a_full_replay(blocks):
    with tempfile.TemporaryDirectory() as folder:
        chain = Chain(Path(folder) / "chain")
        for inside in blocks:
            for kind, amount in inside:
                who = (ALICE, BOB)[amount % 2]
                payloads = (
                    Transfer(bytes((amount % 7,)) * 32, amount),
                    Stake(amount),
                    Unstake(amount),
                    Register(VrfKey.of(who.seed).public_key, "", ("validator",)),
                )
                chain.send(who, payloads[kind])
            chain.grow()
        roots = {chain.store.view().root, trio.run(replayed, chain, Path(folder) / "replay")}
        for height in chain.snapshots.snapshots():
            roots.add(trio.run(landed, chain, Path(folder) / str(height), height))
        assert len(roots) == 1
        chain.close()


async def landed(chain, folder, height):
    """The root of a ledger that took a snapshot and executed the blocks after it."""
    store = StateStore(folder)
    ledger = LedgerApplication(store, chain.genesis)
    landing = Landing(ledger, store, Finalizer(ledger, in_thread=False), utc_ms=lambda: START)
    for handoff in chain.snapshots.handoffs(0, height // 4):
        landing.take_handoff(handoff)
    assert landing.begin(height) == [(0, 1 << 256)]
    for one in chain.snapshots.ranges(height, bytes(32), b"\xff" * 32, 999)[0]:
        landing.take_range(one)
    await landing.finish(chain.ledger.block(height).encode())
    check_supply(ledger.view().raw)
    pairs = [(b.encode(), c.encode()) for b, c in chain.ledger.blocks(height + 1, 256)]
    assert await landing.apply(pairs) == chain.height - height
    root = store.view().root
    store.close()
    return root


def test_a_checkpoint_is_typed_as_swarm_blocks_shows_it():
    typed = Settings.build({"checkpoint": "9,600:" + "Ab" * 32, "archive": True}, {})
    assert (typed.checkpoint, typed.archive) == (Checkpoint(9600, b"\xab" * 32), True)
    assert str(typed.checkpoint) == "9600:" + "ab" * 32
    for wrong in ("9600", "9600:abc", ":" + "ab" * 32, "-1:" + "ab" * 32):
        with pytest.raises(UsageError, match="not a checkpoint"):
            Settings.build({"checkpoint": wrong}, {})

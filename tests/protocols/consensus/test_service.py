"""The shell over memory streams and a virtual clock: real service, real log, a toy ledger."""

from __future__ import annotations

import errno
import os

import pytest
import trio

from protocols.consensus.errors import HaltError
from protocols.consensus.events import Prepare, Received, SendTo
from protocols.consensus.evidence import contradict, verify_evidence
from protocols.consensus.journal import Standing, decode_entries, standing
from protocols.consensus.messages import (
    MAX_MESSAGE_BYTES,
    Block,
    Cast,
    Certificate,
    Give,
    Kind,
    Proposal,
    Vote,
    decode_message,
)
from protocols.consensus.service import PROTOCOL
from protocols.framing import FrameReader, frame
from protocols.memory import open_memory_network
from protocols.transport import StreamError
from storage.consensus_log import ConsensusLog
from storage.errors import DiskFullError
from storage.files import Files
from tests.protocols.consensus.toy import CHAIN, SIGNERS, START_UTC, VALIDATORS, ToyNode, reach


class World:
    def __init__(self, network, nursery, folder):
        self.network, self.nursery, self.folder = network, nursery, folder

    async def start(self, count=4, **kind):
        nodes = [ToyNode(self.network, SIGNERS[n], self.folder, **kind) for n in range(count)]
        for node in nodes:
            await node.start(self.nursery)
        return nodes


@pytest.fixture
async def world(tmp_path):
    async with open_memory_network(latency_s=0.01) as network, trio.open_nursery() as nursery:
        yield World(network, nursery, tmp_path)
        nursery.cancel_scope.cancel()


def agree(nodes):
    shortest = min(node.height for node in nodes)
    assert len({tuple(node.ids()[: shortest + 1]) for node in nodes}) == 1


async def test_four_nodes_finalize_the_same_blocks_across_epochs(autojump_clock, world):
    nodes = await world.start()
    await reach(nodes, 12)
    agree(nodes)
    stats = nodes[0].service.stats()
    assert stats.is_voting
    assert (stats.connected, stats.validators, stats.epoch) == (3, 4, 2)
    assert stats.finality_p50_ms < 200, "two hops of 10 ms after the leader's, and no waiting"
    assert not any(node.evidence or node.blamed for node in nodes)


async def test_one_silent_node_does_not_stop_the_others(autojump_clock, world):
    nodes = await world.start()
    await reach(nodes, 3)
    nodes[3].kill()
    await reach(nodes[:3], 10)
    agree(nodes)


async def test_with_two_gone_the_rest_halts_and_with_one_back_it_goes_on(autojump_clock, world):
    nodes = await world.start()
    await reach(nodes, 3)
    nodes[2].kill()
    nodes[3].kill()
    await trio.sleep(5)
    halted = nodes[0].height
    await trio.sleep(20)
    assert nodes[0].height == halted, "two of four are no quorum"
    await nodes[3].start(world.nursery)
    await reach([nodes[0], nodes[1], nodes[3]], halted + 5)
    agree(nodes)


async def test_a_partition_without_a_quorum_on_either_side_halts_and_resumes(autojump_clock, world):
    nodes = await world.start()
    await reach(nodes, 3)
    peers = [node.signer.peer_id for node in nodes]
    world.network.partition(peers[:2], peers[2:])
    await trio.sleep(5)
    halted = [node.height for node in nodes]
    await trio.sleep(20)
    assert [node.height for node in nodes] == halted
    world.network.heal()
    await reach(nodes, max(halted) + 5)
    agree(nodes)


async def test_a_node_that_was_killed_again_and_again_never_contradicts_itself(
    autojump_clock, world
):
    nodes = await world.start()
    victim, votes = nodes[0], []
    for round_number in range(8):
        await reach(nodes, 2 * round_number + 1)
        await trio.sleep(0.013 * round_number)
        victim.kill()
        await trio.sleep(0.05)
        with ConsensusLog(world.folder / f"{victim.signer.peer_id}.log") as log:
            entries = decode_entries(log.entries())
            votes += [entry for entry in entries if isinstance(entry, Vote)]
        await victim.start(world.nursery)
    await reach(nodes, 20)
    agree(nodes)
    assert {vote.kind for vote in votes} >= {Kind.NOTARIZE, Kind.FINALIZE}
    assert not any(contradict(one, other) for one in votes for other in votes)
    assert not any(node.evidence for node in nodes)


async def test_a_late_joiner_follows_without_a_vote(autojump_clock, world):
    nodes = await world.start()
    await reach(nodes, 8)
    late = ToyNode(world.network, SIGNERS[5], world.folder)
    await late.start(world.nursery)
    with trio.fail_after(10):
        await late.sync.caught_up.wait()
    assert late.height >= 8
    await reach([*nodes, late], 20)
    agree([*nodes, late])
    assert not late.service.stats().is_voting


async def test_a_node_that_joins_the_set_begins_with_its_epoch(autojump_clock, world):
    nodes = [ToyNode(world.network, SIGNERS[n], world.folder) for n in range(5)]
    joined = tuple(
        sorted(
            (*VALIDATORS, type(VALIDATORS[0])(SIGNERS[4].public_key, 1)), key=lambda v: v.public_key
        )
    )
    for node in nodes:
        node.application.sets = {0: VALIDATORS, 2: joined}
        await node.start(world.nursery)
    await reach(nodes, 4)
    assert not nodes[4].service.stats().is_voting
    await reach(nodes, 18)
    assert nodes[4].service.stats().is_voting
    leaders = {block.leader for block, _ in nodes[0].application.chain[11:]}
    assert SIGNERS[4].public_key in leaders
    agree(nodes)


async def test_a_validator_that_lost_its_log_waits_for_the_next_epoch(autojump_clock, world):
    nodes = await world.start()
    await reach(nodes, 7)
    nodes[0].kill()
    await trio.sleep(0.05)
    (world.folder / f"{SIGNERS[0].peer_id}.log").unlink()
    await nodes[0].start(world.nursery)
    assert not nodes[0].service.stats().is_voting
    assert nodes[0].service.stats().waits_for == 2
    await reach(nodes, 17)
    assert nodes[0].service.stats().waits_for is None
    assert nodes[0].service.stats().is_voting
    nodes[0].kill()
    await trio.sleep(0.05)
    with ConsensusLog(world.folder / f"{SIGNERS[0].peer_id}.log") as log:
        voted = {e.epoch for e in decode_entries(log.entries()) if isinstance(e, Vote)}
    assert min(voted) == 2, "its last block was of epoch 1"
    assert not any(node.evidence for node in nodes)


async def test_a_log_that_was_begun_and_left_empty_tells_no_more_than_none(autojump_clock, world):
    nodes = await world.start()
    await reach(nodes, 7)
    nodes[0].kill()
    await trio.sleep(0.05)
    path = world.folder / f"{SIGNERS[0].peer_id}.log"
    path.unlink()
    ConsensusLog(path).close()  # the process ended before sync had caught up
    await nodes[0].start(world.nursery)
    assert not nodes[0].service.stats().is_voting
    await reach(nodes, 12)
    assert not any(node.evidence for node in nodes)


async def test_a_log_from_before_epochs_that_sync_brought_tells_nothing_of_the_one_that_runs(
    autojump_clock, world
):
    """The process that began it found no peer, and ended; when the next one votes, sync has caught up."""
    nodes = await world.start()
    await reach(nodes, 16)
    nodes[0].kill()
    await trio.sleep(0.05)
    path = world.folder / f"{SIGNERS[0].peer_id}.log"
    path.unlink()
    with ConsensusLog(path) as log:
        log.append(Standing(2).encode())
    await nodes[0].start(world.nursery)
    assert nodes[0].service.stats().waits_for == 4
    await reach(nodes, 17)
    assert not nodes[0].service.stats().is_voting
    await reach(nodes, 22)
    assert nodes[0].service.stats().is_voting
    assert not any(node.evidence for node in nodes)


async def test_a_node_that_comes_back_says_at_once_what_it_has_said(autojump_clock, world):
    """Else nodes that all were restarted would lose the view, and wait for four D besides."""
    (node,) = await world.start(1)
    await trio.sleep(0.6)
    node.kill()
    await trio.sleep(0.05)
    heard = []

    async def listen(stream):
        reader = FrameReader(stream, MAX_MESSAGE_BYTES)
        while (data := await reader.read()) is not None:
            heard.append(decode_message(data))

    world.network.join(SIGNERS[1].peer_id, CHAIN).handle(PROTOCOL, listen)
    await node.start(world.nursery)
    await trio.sleep(0.2)
    assert heard == [Cast(Vote.sign(SIGNERS[0], CHAIN, Kind.NULLIFY, 0, 1))]


@pytest.mark.parametrize(
    "garbage",
    [b"\xff\xff\xff\xff", frame(b"\x00" * 50), frame(b"\x82\x02\x80"), b"\x00\x00\x01\x00half"],
)
async def test_garbage_on_a_stream_resets_it_and_consensus_lives(autojump_clock, world, garbage):
    nodes = await world.start(3)
    liar = world.network.join(SIGNERS[3].peer_id, CHAIN)
    stream = await liar.open_stream(SIGNERS[0].peer_id, PROTOCOL)
    await stream.send_all(garbage)
    await stream.close()
    with trio.fail_after(5), pytest.raises(StreamError):
        await stream.receive_some()
    await reach(nodes, 6)
    agree(nodes)


async def test_a_stranger_is_not_listened_to(autojump_clock, world):
    nodes = await world.start()
    await reach(nodes, 1)
    stranger = world.network.join(SIGNERS[5].peer_id, CHAIN)
    stream = await stranger.open_stream(SIGNERS[0].peer_id, PROTOCOL)
    with trio.fail_after(5), pytest.raises(StreamError):
        await stream.receive_some()


async def test_a_liar_is_accused_and_its_forged_vote_blamed(autojump_clock, world):
    nodes = await world.start(3)
    liar = world.network.join(SIGNERS[3].peer_id, CHAIN)
    stream = await liar.open_stream(SIGNERS[0].peer_id, PROTOCOL)
    for block_id in (b"a" * 32, b"b" * 32):
        vote = Vote.sign(SIGNERS[3], CHAIN, Kind.NOTARIZE, 0, 2, block_id)
        await stream.send_all(frame(Cast(vote).encode()))
    await trio.sleep(0.1)
    assert len(nodes[0].evidence) == 1
    forged = Vote(Kind.NULLIFY, 0, 2, bytes(32), SIGNERS[1].public_key, bytes(64))
    await stream.send_all(frame(Cast(forged).encode()))
    await trio.sleep(0.1)
    assert nodes[0].blamed == ["a vote with a bad signature"]
    await reach(nodes, 5)


async def test_a_leader_that_shows_each_half_another_block_is_accused(autojump_clock, world):
    nodes = await world.start(3)
    liar, view = world.network.join(SIGNERS[3].peer_id, CHAIN), 3
    key = SIGNERS[3].public_key
    assert nodes[0].application.leader(0, view) == key
    parent = nodes[0].application.finalized()
    for node, salt in zip(nodes, (b"1", b"2", b"2"), strict=True):
        stream = await liar.open_stream(node.signer.peer_id, PROTOCOL)
        block = Block(CHAIN, 0, view, 1, parent.id, START_UTC, key, bytes(32), salt)
        vote = Vote.sign(SIGNERS[3], CHAIN, Kind.NOTARIZE, 0, view, block.id)
        await stream.send_all(frame(Proposal(view, block, None, (), vote).encode()))
    await reach(nodes, 5)
    for node in nodes:
        assert {verify_evidence(one, CHAIN) for one in node.evidence} == {key}


async def test_a_key_that_is_used_elsewhere_too_is_noticed(autojump_clock, world):
    nodes = await world.start(3)
    assert nodes[0].service.doubled is None
    other = world.network.join(SIGNERS[3].peer_id, CHAIN)
    stream = await other.open_stream(SIGNERS[0].peer_id, PROTOCOL)
    vote = Vote.sign(SIGNERS[0], CHAIN, Kind.NULLIFY, 0, 9)
    await stream.send_all(frame(Cast(vote).encode()))
    await trio.sleep(0.1)
    assert nodes[0].service.doubled == (0, 9)
    assert not nodes[0].service.stats().is_voting
    assert (nodes[0].service.stats().is_silent, nodes[0].service.stats().waits_for) == (True, 1)
    with ConsensusLog(nodes[0].folder / f"{SIGNERS[0].peer_id}.log") as log:
        assert standing(log.entries()).first_epoch == 1


async def test_no_block_is_made_upon_one_that_sync_has_left_behind(autojump_clock, world):
    (node,) = await world.start(1)
    finalizer, old = node.service.finalizer, node.application.finalized()
    one = node.application.prepare(old, 0, 1, START_UTC)
    vote = Vote.sign(SIGNERS[0], CHAIN, Kind.FINALIZE, 0, 1, one.id)
    certificate = Certificate(Kind.FINALIZE, 0, 1, one.id, ((0, vote.signature),))

    async def from_sync():
        async with finalizer._lock:
            await trio.sleep(0.1)
            node.application.process(one)
            node.application.finalize(one, certificate)
            finalizer._moved(one, certificate)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(from_sync)
        await trio.sleep(0.05)
        await node.service._carry_out(Prepare(old, 0, 2))
    assert (await finalizer.prepare(one, 0, 2, START_UTC)).parent == one.id


async def test_large_blocks_travel_whole(autojump_clock, world):
    nodes = [ToyNode(world.network, SIGNERS[n], world.folder) for n in range(4)]
    for node in nodes:
        node.application.size = 900_000
        await node.start(world.nursery)
    await reach(nodes, 3)
    agree(nodes)


async def test_a_ledger_that_refuses_what_is_final_stops_the_node(autojump_clock, world):
    nodes = await world.start(3)
    sick = ToyNode(world.network, SIGNERS[3], world.folder, sync=False)
    sick.application.refuses = True
    with pytest.RaisesGroup(HaltError, flatten_subgroups=True):
        async with trio.open_nursery() as nursery:
            await sick.start(nursery)
    await reach(nodes, 3)


async def test_the_log_does_not_grow_for_ever(autojump_clock, world, monkeypatch):
    monkeypatch.setattr("protocols.consensus.service.ROTATE_BYTES", 20_000)
    nodes = await world.start()
    await reach(nodes, 30)
    assert all(node.log.size_bytes < 40_000 for node in nodes)
    nodes[1].kill()
    await trio.sleep(0.05)
    await nodes[1].start(world.nursery)
    await reach(nodes, 35)
    agree(nodes)


@pytest.mark.slow
async def test_while_nothing_is_final_the_log_drops_old_votes_and_keeps_which_views_came_to_nothing(
    autojump_clock, world, monkeypatch
):
    monkeypatch.setattr("protocols.consensus.service.ROTATE_BYTES", 150_000)
    node = ToyNode(world.network, SIGNERS[0], world.folder)
    node.application.sets = {0: VALIDATORS[:1]}
    node.application.refuses = True
    await node.start(world.nursery)
    with trio.fail_after(3600):
        while node.service.stats().view < 700:  # noqa: ASYNC110 - a view is no event
            await trio.sleep(0.1)
    node.kill()
    await trio.sleep(0.05)
    with ConsensusLog(world.folder / f"{SIGNERS[0].peer_id}.log") as log:
        held = list(decode_entries(log.entries()))
    voted = {entry.view for entry in held if isinstance(entry, Vote)}
    assert 1 < min(voted - {1}) - 1 < 700 - 256, "where nobody votes again, nothing need be known"
    assert voted >= set(range(700 - 256, 700))
    skipped = {entry.view for entry in held if isinstance(entry, Certificate)}
    assert skipped == set(range(1, max(skipped) + 1)), "the core forgets those before the last 256"
    node.application.refuses = False
    await node.start(world.nursery)
    await reach([node], 2)
    assert node.application.chain[2][0].view >= 700


async def test_blocks_are_given_to_a_peer_within_its_allowance(autojump_clock, world, monkeypatch):
    nodes = [ToyNode(world.network, SIGNERS[n], world.folder) for n in range(3)]
    for node in nodes:
        node.application.size = 900_000
        await node.start(world.nursery)
    await reach(nodes, 1)
    given = []
    peer = SIGNERS[3].public_key
    service = nodes[0].service
    service._send = lambda to, data: given.append(len(data)) if to == peer else None
    block = nodes[0].application.chain[1][0]
    encode, encoded = Give.encode, []
    monkeypatch.setattr(Give, "encode", lambda give: encoded.append(give) or encode(give))
    for _ in range(50):
        await service._carry_out(SendTo(peer, Give(0, block)))
    assert 8 <= len(given) <= 10
    assert len(encoded) == len(given), "a question beyond the allowance costs next to nothing"
    await trio.sleep(0.1)
    for _ in range(50):
        await service._carry_out(SendTo(peer, Give(0, block)))
    assert 10 <= len(given) <= 12


async def test_a_second_vote_of_an_accused_key_is_not_checked_again(autojump_clock, world):
    nodes = await world.start(3)
    core = nodes[0].service._replica.core
    liar = SIGNERS[3]
    fourth = Cast(Vote.sign(liar, CHAIN, Kind.NULLIFY, 0, 3))

    def second(salt):
        vote = Vote.sign(liar, CHAIN, Kind.NOTARIZE, 0, 2, salt * 32)
        return Received(liar.public_key, Cast(vote))

    service, replica = nodes[0].service, nodes[0].service._replica
    for salt in (b"a", b"b"):
        assert not service._is_spent(second(salt), replica)
        for effect in core.handle(second(salt), service._now()):
            await service._carry_out(effect)
    assert len(nodes[0].evidence) == 1
    assert service._is_spent(second(b"c"), replica)
    assert not service._is_spent(second(b"a"), replica)
    assert not service._is_spent(Received(liar.public_key, fourth), replica)
    key = nodes[0].application.leader(0, 3)
    block = Block(CHAIN, 0, 2, 1, core.root.id, START_UTC, key, bytes(32), b"missed")
    spent = Proposal(2, block, None, (), second(b"d").message.vote)
    assert service._is_spent(Received(liar.public_key, spent), replica)
    core.tree.missing.add(block.id)
    assert not service._is_spent(Received(liar.public_key, spent), replica)


class FullDisk(Files):
    """A disk without room, until it has some."""

    is_full = False

    def write(self, descriptor, buffers, offset):
        if self.is_full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(descriptor, buffers, offset)


async def test_a_validator_that_can_note_no_vote_says_nothing_until_there_is_room(
    autojump_clock, world
):
    nodes = await world.start()
    await reach(nodes, 3)
    disk = nodes[3].log._files = FullDisk()
    disk.is_full = True
    await reach(nodes[:3], nodes[0].height + 6)
    assert "No space left" in nodes[3].service.problem
    disk.is_full = False
    await reach(nodes, nodes[0].height + 3)
    assert nodes[3].service.problem is None
    agree(nodes)


async def test_a_ledger_without_room_on_its_disk_waits_for_it(autojump_clock, world):
    nodes = await world.start()
    await reach(nodes, 3)
    ledger = nodes[3].application
    finalize, has_room = ledger.finalize, trio.Event()

    def finalize_with_room(block, certificate):
        if not has_room.is_set():
            raise DiskFullError(1, 0)
        finalize(block, certificate)

    ledger.finalize = finalize_with_room
    await reach(nodes[:3], nodes[0].height + 6)
    assert nodes[3].finalizer.problem == f"the ledger waits: {DiskFullError(1, 0)}"
    has_room.set()
    await reach(nodes, nodes[0].height + 3)
    assert nodes[3].finalizer.problem is None
    agree(nodes)


async def test_a_log_that_cannot_be_rewritten_only_grows(autojump_clock, world, monkeypatch):
    monkeypatch.setattr("protocols.consensus.service.ROTATE_BYTES", 20_000)
    nodes = await world.start()
    monkeypatch.setattr(FullDisk, "create", no_file, raising=False)
    nodes[1].log._files = FullDisk()
    await reach(nodes, 30)
    assert nodes[1].log.size_bytes > 20_000
    nodes[1].kill()
    await trio.sleep(0.05)
    await nodes[1].start(world.nursery)
    await reach(nodes, 35)
    agree(nodes)


def no_file(*_):
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

"""Updates that a validator unpacks: what their workers did not give is not had, and what this node could not keep is its own fault."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
import trio

from protocols.exchange.errors import ContentNotFoundError, ContentTooLargeError
from storage import canonical
from storage import cid as cids
from storage.errors import CorruptChunkError, DiskFullError, ManifestError, QuotaError
from storage.memory import MemoryBlockstore
from storage.unixfs import add_path
from swarm.heights import Heights
from swarm.participant import core
from swarm.participant.service import Participant
from swarm.shelf import Shelf
from tests.protocols.exchange.conftest import open_neighbourhood
from tests.training.conftest import SPEC

GOOD, BAD = cids.of_raw(b"good"), cids.of_raw(b"bad")


class Lease:
    """Where a shelf would be: has one, and fails with the other."""

    def __init__(self, error) -> None:
        self.error = error

    async def take(self, root, *_, **__):
        await trio.lowlevel.checkpoint()
        if root == BAD:
            raise self.error
        return root


async def take(lease, roots):
    node = object.__new__(Participant)
    node._heights, node._block_seconds = Heights(1), 1.0
    node._holders = lambda _worker: []
    pairs = [(b"w" * 32, root) for root in roots]
    task, round_ = SimpleNamespace(spec=SPEC), SimpleNamespace(phase_deadline=60)
    return await node._take_updates(pairs, task, round_, lease)


async def test_a_commitment_to_scores_is_sent_for_its_phase_and_no_longer() -> None:
    sent = []

    async def submit(_payload, last) -> None:
        await trio.lowlevel.checkpoint()
        sent.append(last)

    node = object.__new__(Participant)
    node._heights = Heights(1)
    node._me, node._wallet = SimpleNamespace(account=b"m" * 32), SimpleNamespace(submit=submit)
    round_ = SimpleNamespace(task=b"t" * 32, number=3, phase_deadline=60)
    salt = b"s" * 32
    for step in (core.CommitScores(5, (7,), salt), core.RevealScores(5, (7,), salt)):
        await node._send(SimpleNamespace(sent={}), step, round_)
    assert sent == [60, None]


@pytest.mark.parametrize(
    "error",
    [
        ContentNotFoundError(BAD, [], 1.0),
        ContentTooLargeError(BAD, 2, 1),
        ManifestError("a lie"),
        ZeroDivisionError("a fault of ours"),
    ],
)
async def test_what_a_worker_does_not_give_or_gives_malformed_is_not_had_and_the_others_are(
    error,
) -> None:
    assert await take(Lease(error), [BAD, GOOD]) == [None, GOOD]


@pytest.mark.parametrize(
    "error",
    [DiskFullError(10, 0), QuotaError(10, 0), CorruptChunkError("x"), OSError(5, "the disk")],
)
async def test_a_fault_of_this_nodes_own_disk_fails_the_step_and_refuses_no_update(error) -> None:
    with pytest.raises(type(error), match=re.escape(str(error)[:20])):
        await take(Lease(error), [BAD, GOOD])


async def test_nothing_that_a_worker_publishes_as_an_update_is_a_fault_of_this_node(
    tmp_path,
) -> None:
    store = MemoryBlockstore()
    folder = tmp_path / "a folder" / "below"
    folder.mkdir(parents=True)
    (folder / ("n" * 255)).write_bytes(b"x")
    blocks = {
        of(data): data
        for of in (cids.of_dag_pb, cids.of_dag_cbor)
        for data in (b"", b"\x80", b"no node", canonical.encode([1, b"x"]))
    }
    store.put_many(list(blocks.items()))
    roots = [add_path(folder.parent, store).root, *blocks]
    good = add_path(folder / ("n" * 255), store).root
    async with open_neighbourhood() as there:
        node = await there.node(store)
        with Shelf(tmp_path / "shelf", store, node.exchange).lease() as lease:
            paths = await take(lease, [*roots, good])
    assert paths[:-1] == [None] * len(roots)
    assert paths[-1].read_bytes() == b"x"

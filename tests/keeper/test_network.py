"""Whole nodes: capacity is sealed, committed, audited and paid."""

from __future__ import annotations

import os

import pytest
import trio

from storage import cid as cids
from storage.dag import tree_size
from storage.errors import QuotaError
from storage.sealing import SLOT_BYTES
from storage.slots import SLOT_COST
from swarm import datasets
from swarm.errors import RefusedError
from swarm.keeper import core
from swarm.keeper.space import bytes_below
from swarm.ledger.keeping import Verdict
from swarm.ledger.transactions import KeepPost
from tests.keeper.network import LENT, QuietNode, network

pytestmark = pytest.mark.slow


def overwrite(node, size=None) -> None:
    """Put noise over the first bytes of a node's slots."""
    left = 2**60 if size is None else size
    for path in sorted((node.settings.home / "slots").glob("*.slots")):
        part = min(left, path.stat().st_size)
        with path.open("r+b") as file:
            file.write(os.urandom(part))
        left -= part


async def test_lent_space_is_sealed_committed_proven_by_three_validators_and_paid(tmp_path) -> None:
    async with network(tmp_path, 2, all_validate=True, auditors=9) as (net, nursery):
        for name in ("keeper-0", "keeper-1"):
            await net.start(nursery, name)
        view = net.nodes["validator"].ledger.view

        def proven():
            found = [view().keeper(net.key(name)) for name in ("keeper-0", "keeper-1")]
            return all(one is not None and one.verdict is Verdict.PROVEN for one in found)

        await net.until("both to be proven", proven)
        node = net.nodes["keeper-0"]
        await net.until("what was earned to be told", lambda: node.keeping.memory.earned > 0)
        earned = view().account(net.key("keeper-0")).earned
        assert earned >= node.keeping.memory.earned > 0
        assert node.keeping.memory.reason == "proven"
        assert node.problems() == []


class CheapNode(QuietNode):
    """A node that seals with half the work that the network asks for."""

    def _keeping(self, slots, contents):
        slots._passes //= 2
        return super()._keeping(slots, contents)


async def test_cheap_seals_and_lost_slots_are_struck_and_a_damaged_slot_is_sealed_again(
    tmp_path,
) -> None:
    # Long enough to seal again what may be: who is late here has lost more than is mended.
    times = {"audit_blocks": 100, "audit_answer_blocks": 60}
    async with network(tmp_path, 3, audit_leaves=48, **times) as (net, nursery):
        cheap, wiped, damaged = (f"keeper-{at}" for at in range(3))
        await net.start(nursery, cheap, kind=CheapNode)
        await net.start(nursery, wiped, storage=45_000_000)
        await net.start(nursery, damaged)
        view = net.nodes["validator"].ledger.view

        def record(name):
            return view().keeper(net.key(name))

        def all_commit():
            slots = {name: record(name) for name in (cheap, wiped, damaged)}
            return all(one is not None and one.slots >= 10 for one in slots.values()) and (
                slots[wiped].slots >= 32
            )

        await net.until("all to commit", all_commit)
        overwrite(net.nodes[wiped])
        overwrite(net.nodes[damaged], 3 * SLOT_BYTES)
        verdicts = {cheap: Verdict.FAILED, wiped: Verdict.NO_ANSWER, damaged: Verdict.PROVEN}
        audit = view().audit()
        after = 1 if audit is None else audit.number + 1
        said: dict[str, tuple[Verdict, str]] = {}

        def all_audited():
            for name in verdicts:
                memory = net.nodes[name].keeping.memory
                if memory.audit == after and record(name).verdict in verdicts.values():
                    said.setdefault(name, (record(name).verdict, memory.reason))
            return len(said) == len(verdicts)

        await net.until("the next audit to be known to all", all_audited)
        assert {name: verdict for name, (verdict, _) in said.items()} == verdicts
        assert "does not unseal" in said[cheap][1]
        assert "no answer" in said[wiped][1]


async def test_a_deal_is_kept_by_the_drawn_keeper_and_another_takes_over_when_it_stops(
    tmp_path,
) -> None:
    async with network(tmp_path, 2, strike_limit=1) as (net, nursery):
        owner = net.nodes["validator"]
        for name in ("keeper-0", "keeper-1"):
            await net.start(nursery, name)
        view = owner.ledger.view

        def free():
            return [one.proven for one in view().keepers() if one.in_order]

        await net.until("both to be proven", lambda: len(free()) == 2)
        file = tmp_path / "plays"
        file.write_bytes(os.urandom(700_000))
        published = await datasets.publish(file, owner.store, owner.network)
        size = tree_size(published.root, owner.store.get(published.root))
        await owner.wallet.submit(KeepPost(((published.root, size),), 1, 50, 1_000, b""))

        def seat():
            return next((one for one in view().duties()), None)

        keeper, duty = await net.until("a seat", seat)
        first = next(name for name in net.nodes if net.key(name) == keeper)
        await net.until("the piece to be fetched", lambda: net.nodes[first].keeping.duties.here)
        assert (published.root, core.label(duty)) in net.nodes[first].store.holds()
        await net.until("it to be shown", lambda: (now := seat()) is not None and now[1].shown)
        await net.stop(first)
        second = next(name for name in ("keeper-0", "keeper-1") if name != first)
        await net.until(
            "another to take over",
            lambda: (now := seat()) is not None and now[0] == net.key(second),
        )
        await net.until("it to fetch", lambda: net.nodes[second].keeping.duties.here)
        assert net.nodes[second].store.has(published.root)


async def test_a_publish_for_which_there_is_no_room_waits_for_slots_and_never_goes_beyond_the_number(
    tmp_path,
) -> None:
    async with network(tmp_path, 1) as (net, nursery):
        node = await net.start(nursery, "keeper-0")
        view = node.ledger.view

        def proven():
            keeper = view().keeper(net.key("keeper-0"))
            return keeper is not None and keeper.in_order and keeper.slots == node.keeping.goal

        await net.until("all slots to be proven", proven)
        most, told = 0, []

        async def watch():
            nonlocal most
            while True:
                home = node.settings.home
                files = [*(home / "chunks").glob("*.seg"), *(home / "slots").rglob("*.slot*")]
                most = max(most, sum(one.stat().st_size for one in files if one.exists()))
                await trio.sleep(0.02)

        file = tmp_path / "large"
        file.write_bytes(os.urandom(8_000_000))
        async with trio.open_nursery() as watching:
            watching.start_soon(watch)
            await net.apis["keeper-0"].publish(file, None, lambda *step: told.append(step))
            watching.cancel_scope.cancel()
        assert any("slots give way" in stage for stage, _, _ in told)
        assert 8_000_000 < most <= LENT
        assert bytes_below(node.settings.home / "slots") < 8_000_000
        # Nothing was promised that was not kept: the next audit finds what is counted now.
        number = view().audit().number
        await net.until("another audit", lambda: node.keeping.memory.audit > number)
        assert view().keeper(net.key("keeper-0")).strikes == 0
        other = tmp_path / "larger"
        other.write_bytes(os.urandom(9_000_000))
        with pytest.raises((QuotaError, RefusedError)):
            await net.apis["keeper-0"].publish(other, None, lambda *_: None)


async def test_a_reader_counts_the_slots_of_an_earlier_start_and_reads_what_lies_in_them(
    tmp_path,
) -> None:
    async with network(tmp_path, 1) as (net, nursery):
        node = await net.start(nursery, "keeper-0")
        slots = node.keeping.slots
        await net.until("slots to be counted", lambda: slots.settled.slots >= 8)
        data = os.urandom(SLOT_BYTES)
        cid = cids.of_raw(data)
        sealed = len(slots)
        await trio.to_thread.run_sync(slots.replace, 0, (cid, data))
        await net.stop("keeper-0")
        node = await net.start(nursery, "keeper-0", keep=False)
        assert node.keeping is None
        assert node.store.get(cid) == data
        assert node.store.usage().limit <= LENT - sealed * SLOT_COST
        file = tmp_path / "large"
        file.write_bytes(os.urandom(8_000_000))
        with pytest.raises((QuotaError, RefusedError)):
            await net.apis["keeper-0"].publish(file, None, lambda *_: None)

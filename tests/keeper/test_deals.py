"""Deals as a person makes them: quoted, posted, listed, coded, restored, ended; and another number lent."""

from __future__ import annotations

import os

import pytest
import trio

from storage import cid as cids
from storage import erasure, unixfs
from storage.collection import Collector
from storage.dag import tree_size
from storage.memory import MemoryBlockstore
from swarm.errors import RefusedError, UsageError
from swarm.keeper.coding import Coding
from swarm.keeper.quotes import Terms
from swarm.keeper.room import SLOT_COST
from swarm.ledger.transactions import KeepPost
from tests.keeper.network import LENT, network

pytestmark = pytest.mark.slow


def silent(*_):
    pass


async def all_proven(net, *names) -> None:
    view = net.nodes["validator"].ledger.view

    def proven():
        found = [view().keeper(net.key(name)) for name in names]
        return all(one is not None and one.in_order for one in found)

    await net.until("all to be proven", proven)


async def test_lending_less_gives_slots_back_and_the_ledger_counts_fewer(tmp_path) -> None:
    async with network(tmp_path, 1) as (net, nursery):
        node = await net.start(nursery, "keeper-0")
        await all_proven(net, "keeper-0")
        before = await net.apis["keeper-0"].keeping.storage()
        assert before["slots"]["sealed"] == before["slots"]["counted"] == before["slots"]["goal"]
        assert before["lent"] == LENT
        told = await net.apis["keeper-0"].keeping.lend(LENT // 2)
        assert told["lent"] == LENT // 2
        less = (LENT // 2 - LENT // 10) // SLOT_COST

        def counted():
            keeper = node.ledger.view().keeper(net.key("keeper-0"))
            return keeper is not None and 0 < keeper.slots <= less

        await net.until("the ledger to count fewer", counted)
        await net.until("the slots to be given back", lambda: len(node.keeping.slots) <= less)
        folder = node.settings.home / "slots"
        assert sum(one.stat().st_size for one in folder.glob("*.slots")) <= less * SLOT_COST
        number = node.ledger.view().audit().number
        await net.until("another audit", lambda: node.keeping.memory.audit > number)
        assert node.keeping.memory.reason == "proven"
        # A stop and a start go on where it was.
        await net.stop("keeper-0")
        node = await net.start(nursery, "keeper-0", storage=LENT // 2)
        assert 0 < len(node.keeping.slots) <= less
        assert node.keeping.memory.audit > number


KEEPERS = ("keeper-0", "keeper-1", "keeper-2")


def sealed(net):
    """The chunks that lie in the keepers' slots, by keeper."""
    return {name: net.nodes[name].keeping.slots.chunks() for name in KEEPERS}


async def test_a_coded_deal_lies_in_slots_survives_a_lost_piece_and_gives_the_content_back(
    tmp_path,
) -> None:
    async with network(tmp_path, 3) as (net, nursery):
        owner, api = net.nodes["validator"], net.apis["validator"].keeping
        for name in KEEPERS:
            node = await net.start(nursery, name)
            node.keeping.duties.patience = 1.0
        file = tmp_path / "plays"
        file.write_bytes(os.urandom(1_900_000))
        elsewhere = MemoryBlockstore(2**30)
        added = unixfs.add_path(file, elsewhere)
        recipe = erasure.encode_root(added.root, elsewhere, 2, 3)
        sizes = [tree_size(one, elsewhere.get(one)) for one in recipe.pieces]
        for one in (*recipe.pieces[1:], recipe.cid):  # nobody has the first piece
            for cid, block in blocks_below(one, elsewhere):
                owner.store.put_many([(cid, block)])
            owner.store.pin(one, "a piece")
            await owner.network.provide(one)
        await all_proven(net, *KEEPERS)
        pieces = tuple(zip(recipe.pieces, sizes, strict=True))
        deal = await owner.wallet.submit(KeepPost(pieces, 1, 50, 1_000, recipe.cid))
        view = owner.ledger.view

        def kept():
            return all(len(here(net, name)) == 1 for name in KEEPERS)

        await net.until("each keeper to have a piece", kept, 60)
        assert [len(piece) for piece in view().seats(deal).of] == [1, 1, 1]
        leaves = [cid for one in recipe.pieces for cid, _ in blocks_below(one, elsewhere)]
        leaves = {cid for cid in leaves if cids.codec(cid) == cids.RAW}

        def in_slots():
            held = [set(chunks) for chunks in sealed(net).values()]
            return all(held) and set().union(*held) == leaves

        await net.until("the pieces to lie in slots", in_slots)

        def only_in_slots():
            for name, chunks in sealed(net).items():
                store = net.nodes[name].store
                assert all(store.has(cid) for cid in chunks)
                if any(store.index.find(cid) is not None for cid in chunks):
                    return False
            return True

        await net.until("the pieces to lie nowhere else", only_in_slots)
        # What is proven from now on is a root over slots with pieces in them, whole slots among them.
        await net.until(
            "the ledger to count them",
            lambda: all(net.nodes[name].keeping.slots.waiting == 0 for name in KEEPERS),
        )
        number = view().audit().number + 1
        await net.until("another audit", lambda: shown_in(net, number), 60)
        assert [duty.shown for _, duty in view().duties()] == [True] * 3
        for one in (*recipe.pieces[1:], recipe.cid):
            owner.store.unpin(one)
        # What the owner fetches now is served out of slots.
        await trio.to_thread.run_sync(Collector(owner.store, dead_share=0.0).run_once)
        assert not owner.store.has(recipe.pieces[1])
        [told] = await api.deals()
        assert (told["seats"], told["coded"]) == (3, True)
        restored = await api.restore(told["deal"][:12], silent)
        assert restored["cid"] == cids.text(added.root)
        again = b"".join(unixfs.read_file(added.root, owner.store))
        assert again == file.read_bytes()
        await api.end(told["deal"])
        await net.until("the deal to close", lambda: not view().deals())
        await net.until(
            "the pieces to be let go",
            lambda: not [why for node in net.nodes.values() for _, why in node.store.holds()],
        )
        await net.until("the slots to hold zeros", lambda: not any(sealed(net).values()))
        await net.until(
            "zeros to be counted",
            lambda: all(net.nodes[name].keeping.slots.waiting == 0 for name in KEEPERS),
        )


def shown_in(net, number):
    return all(
        net.nodes[name].keeping.memory.audit >= number
        and net.nodes[name].keeping.memory.reason == "proven"
        for name in KEEPERS
    )


async def test_a_deal_is_quoted_and_posted_from_a_person(tmp_path) -> None:
    async with network(tmp_path, 1) as (net, nursery):
        owner, api = net.nodes["validator"], net.apis["validator"].keeping
        await net.start(nursery, "keeper-0")
        file = tmp_path / "plays"
        file.write_bytes(os.urandom(300_000))
        published = await net.apis["validator"].publish(file, None, silent)
        quote = await api.quote(published["cid"], Terms(replicas=2, audits=5, price=7))
        assert (quote["cost"], quote["fee"]) == (2 * 5 * 7, 4)
        with pytest.raises(UsageError, match="at least"):
            await api.quote(published["cid"], Terms(replicas=2, audits=5, price=4))
        with pytest.raises(RefusedError, match="the balance"):
            await api.keep(published["cid"], Terms(1, 10_000, 10**15), silent)
        posted = await api.keep(published["cid"], Terms(1, 5, 7), silent)
        with pytest.raises(RefusedError, match="where 4 have to"):
            await api.quote(published["cid"], Terms(1, 5, 7, is_coded=True))
        asked = Terms(1, 5, 7, is_coded=True, coding=Coding(10, 4))
        coded = await api.keep(published["cid"], asked, silent)
        deals = {one["deal"]: one for one in await api.deals()}
        assert deals.keys() == {posted["deal"], coded["deal"]}
        assert deals[posted["deal"]]["escrow"] == 5 * 7
        assert deals[coded["deal"]]["pieces"] == 14
        assert len([why for _, why in owner.store.holds() if why.startswith("offer ")]) == 15


def here(net, name):
    return net.nodes[name].keeping.duties.here


def blocks_below(root, store):
    from storage.dag import links

    block = store.get(root)
    yield root, block
    for link in links(root, block):
        yield from blocks_below(link.cid, store)

"""Deals as a person makes them: quoted, posted, listed, coded, restored, ended; and another number lent."""

from __future__ import annotations

import os

import pytest

from storage import cid as cids
from storage import erasure, unixfs
from storage.dag import tree_size
from storage.memory import MemoryBlockstore
from swarm.errors import RefusedError
from swarm.keeper.operations import Terms
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


async def test_a_coded_deal_survives_a_lost_piece_and_gives_the_content_back(tmp_path) -> None:
    async with network(tmp_path, 2) as (net, nursery):
        owner, api = net.nodes["validator"], net.apis["validator"].keeping
        for name in ("keeper-0", "keeper-1"):
            node = await net.start(nursery, name, storage=2 * LENT)
            node.keeping.duties.patience = 1.0
        file = tmp_path / "plays"
        file.write_bytes(os.urandom(300_000))
        elsewhere = MemoryBlockstore(2**30)
        added = unixfs.add_path(file, elsewhere)
        recipe = erasure.encode_root(added.root, elsewhere)
        sizes = [tree_size(one, elsewhere.get(one)) for one in recipe.pieces]
        for one in (*recipe.pieces[1:], recipe.cid):  # nobody has the first piece
            for cid, block in blocks_below(one, elsewhere):
                owner.store.put_many([(cid, block)])
            owner.store.pin(one, "a piece")
            await owner.network.provide(one)
        await all_proven(net, "keeper-0", "keeper-1")
        pieces = tuple(zip(recipe.pieces, sizes, strict=True))
        deal = await owner.wallet.submit(KeepPost(pieces, 1, 50, 1_000, recipe.cid))
        view = owner.ledger.view

        def kept():
            duties = [one for name in net.nodes if name != "validator" for one in here(net, name)]
            return len(duties) == erasure_pieces(view, deal) == 14

        await net.until("every piece to be kept", kept, 60)
        [told] = await api.deals()
        assert (told["seats"], told["coded"]) == (14, True)
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


async def test_a_deal_is_quoted_and_posted_from_a_person(tmp_path) -> None:
    async with network(tmp_path, 1) as (net, nursery):
        owner, api = net.nodes["validator"], net.apis["validator"].keeping
        await net.start(nursery, "keeper-0")
        file = tmp_path / "plays"
        file.write_bytes(os.urandom(300_000))
        published = await net.apis["validator"].publish(file, None, silent)
        quote = await api.quote(published["cid"], Terms(replicas=2, audits=5, price=7))
        assert quote["cost"] == 2 * 5 * 7
        with pytest.raises(RefusedError, match="the balance"):
            await api.keep(published["cid"], Terms(1, 10_000, 10**15), silent)
        posted = await api.keep(published["cid"], Terms(1, 5, 7), silent)
        coded = await api.keep(published["cid"], Terms(1, 5, 7, is_coded=True), silent)
        deals = {one["deal"]: one for one in await api.deals()}
        assert deals.keys() == {posted["deal"], coded["deal"]}
        assert deals[posted["deal"]]["escrow"] == 5 * 7
        assert deals[coded["deal"]]["pieces"] == 14
        assert len([why for _, why in owner.store.holds() if why.startswith("offer ")]) == 15


def here(net, name):
    return net.nodes[name].keeping.duties.here


def erasure_pieces(view, deal):
    seats = view().seats(deal)
    return 0 if seats is None else sum(map(len, seats.of))


def blocks_below(root, store):
    from storage.dag import links

    block = store.get(root)
    yield root, block
    for link in links(root, block):
        yield from blocks_below(link.cid, store)

"""Coded content: cut into pieces that keepers take, and put together again."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from protocols.exchange.errors import ExchangeError
from storage import cid as cids
from storage import dag, erasure
from swarm.errors import RefusedError
from swarm.keeper import offers
from swarm.ledger.keeping import Piece

if TYPE_CHECKING:
    from storage.cid import Cid
    from swarm.control.api import Progress
    from swarm.keeper.coding import Coding
    from swarm.ledger.keeping import Deal
    from swarm.node import Node

PIECE_PATIENCE: Final = 20.0
"""Seconds for which a piece is waited for where others are enough."""


async def cut(node: Node, root: Cid, coding: Coding, progress: Progress) -> tuple[list[Piece], Cid]:
    """Cut a root into coded pieces, hold them until the deal is over, and announce them.

    Returns:
        The pieces, and the name of their recipe.

    Raises:
        RefusedError: Pieces of so little content are alike.
    """
    await node.exchange.fetch(root, progress=partial(progress, "fetch"))
    encode = partial(erasure.encode_root, root, node.store, coding.needed, coding.pieces)
    progress("encode", 0, 1)

    def work() -> tuple[erasure.Recipe, list[Piece]]:
        with node.store.lease(f"encode {cids.text(root)}", root):
            recipe = encode()
            sizes = [dag.tree_size(one, node.store.get(one)) or 0 for one in recipe.pieces]
            pieces = [Piece(*one) for one in zip(recipe.pieces, sizes, strict=True)]
            for one in (*recipe.pieces, recipe.cid):
                node.store.hold(one, offers.label(recipe.cid))
        return recipe, pieces

    coded = partial(trio.to_thread.run_sync, work)
    recipe, pieces = await node.room_for(coded, lambda why: progress(why, 0, 0))
    progress("encode", 1, 1)
    if len({one.root for one in pieces}) != len(pieces):
        message = "content this small gives pieces that are alike"
        raise RefusedError(message, "keep it whole, without --erasure")
    for one in (*recipe.pieces, recipe.cid):
        await node.network.provide(one)
    return pieces, recipe.cid


async def restore(node: Node, deal: Deal, progress: Progress) -> tuple[Cid, int, int]:
    """Put a coded deal's content together again, and pin it.

    Returns:
        Its root, the bytes that were fetched, and how many pieces they are.

    Raises:
        TooFewPiecesError: Too little can be had.
    """
    await node.exchange.fetch(deal.recipe, max_bytes=erasure.MAX_RECIPE_BYTES)
    data = await trio.to_thread.run_sync(node.store.get, deal.recipe)
    recipe = erasure.Recipe.decode(data)
    most = max(one.size for one in deal.pieces)
    fetched = count = 0
    with node.store.lease(f"restore {deal.id.hex()}"):
        for piece in recipe.pieces:
            if count == recipe.k:
                break
            try:
                told = await node.exchange.fetch(
                    piece,
                    progress=partial(progress, "fetch"),
                    max_bytes=most,
                    patience=PIECE_PATIENCE,
                )
            except ExchangeError:
                continue
            fetched += told.bytes
            count += 1
        root = await trio.to_thread.run_sync(erasure.restore, recipe, node.store)
        await trio.to_thread.run_sync(node.store.pin, root, f"deal {deal.id.hex()[:16]}")
    return root, fetched, count

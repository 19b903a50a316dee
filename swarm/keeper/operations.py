"""What a person asks about lent space and kept content: how it does, another number, deals; and what they cost."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from protocols import signing
from protocols.exchange.errors import ExchangeError
from storage import cid as cids
from storage import dag, erasure
from storage.errors import CidError
from swarm.errors import NotFoundError, RefusedError, UsageError
from swarm.keeper import core, offers
from swarm.ledger import deals, schedule
from swarm.ledger.genesis import UNIT
from swarm.ledger.keeping import MAX_REPLICAS, MAX_SEATS, Piece
from swarm.ledger.payloads import MAX_DEAL_AUDITS
from swarm.ledger.transactions import KeepEnd, KeepPost

if TYPE_CHECKING:
    from storage.cid import Cid
    from swarm.control.api import Json, Progress
    from swarm.ledger.keeping import Deal
    from swarm.ledger.state import LedgerView
    from swarm.node import Node

DEFAULT_DAYS: Final = 30
"""How long a deal lasts if nobody says."""
DEFAULT_PRICE: Final = UNIT // 1_000
"""Units a GiB and audit where no deal is open to go by."""
NEEDED_PIECES: Final = 10
CODED_PIECES: Final = 14
"""With erasure coding any 10 of 14 pieces give the whole back, for 1.4 times its size."""
SECONDS_PER_TRANSACTION: Final = 60.0
PIECE_PATIENCE: Final = 20.0


@dataclass(frozen=True, slots=True)
class Terms:
    """What is asked for; None where the default is meant.

    Attributes:
        replicas: Of each piece.
        audits: For how many.
        price: Units a GiB begun and audit.
        is_coded: Cut it into pieces of which some can be lost.
    """

    replicas: int
    audits: int | None = None
    price: int | None = None
    is_coded: bool = False


class KeepingOperations:
    """A person's door to what one node lends and has kept.

    Args:
        node: The node.
    """

    def __init__(self, node: Node) -> None:
        self._node = node

    # Lending

    def summary(self) -> Json:
        """What is lent, in a line of the node's status, in bytes: `lent`, `used`, `free`, `in_place`, `reclaimable`.

        Of a node that lends slots also `sealed`, `goal`, and `seconds_left` until all is sealed (None: not known).
        """
        node, usage = self._node, self._node.store.usage()
        keeping = node.keeping
        told: Json = {
            "lent": node.lent.now if keeping is None else keeping.lent,
            "used": usage.used,
            "free": usage.free,
            "in_place": usage.in_place,
            "reclaimable": usage.reclaimable,
        }
        if keeping is not None and keeping.is_lending:
            told["sealed"] = keeping.sealed_bytes
            told["goal"] = keeping.goal_bytes
            told["seconds_left"] = keeping.seconds_left
        return told

    async def storage(self) -> Json:
        """Everything about this node's disk and what it lends.

        Returns:
            What `summary` tells, and `shelf`, `own` (bytes), `slots` (`sealed`, `goal`, `holding` (chunks of pieces),
            `counted`, `proven`, `share`), `duties` (`pieces`, `here`, `bytes`), `collateral`, `earned`, `strikes`,
            `suspended`, `audit` (the last one that counted this keeper), `verdict`, `next_audit`, `opens` (heights) and
            `problems` (sentences).
        """
        node = self._node
        return await trio.to_thread.run_sync(
            self._storage, node.ledger.view(), dict(self.summary())
        )

    def _storage(self, view: LedgerView, told: Json) -> Json:
        node, key, params = self._node, self._node.signer.public_key, view.params
        usage, keeper, keeping = node.store.usage(), view.keeper(key), node.keeping
        duties = view.duties_of(key)
        here = keeping.duties.here if keeping is not None else set()
        number = view.height // params.audit_blocks + 1
        return told | {
            "shelf": node.shelf.used,
            "own": usage.pinned or self._pinned(),
            "slots": {
                "sealed": 0 if keeping is None else len(keeping.slots),
                "goal": 0 if keeping is None else keeping.goal,
                "holding": 0 if keeping is None else keeping.slots.holding,
                "counted": 0 if keeper is None else keeper.slots,
                "proven": 0 if keeper is None else keeper.proven,
                "share": 0 if keeping is None else keeping.share,
            },
            "duties": {
                "pieces": len(duties),
                "here": sum(core.label(one) in here for one in duties),
                "bytes": sum(one.size for one in duties if core.label(one) in here),
            },
            "collateral": 0 if keeper is None else keeper.collateral,
            "earned": 0 if keeping is None else keeping.memory.earned,
            "strikes": 0 if keeper is None else keeper.strikes,
            "suspended": keeper is not None and keeper.suspended,
            "audit": 0 if keeping is None else keeping.memory.audit,
            "verdict": (keeping.memory.reason if keeping is not None else "") or "no audit yet",
            "height": view.height,
            "next_audit": schedule.start(params, number),
            "opens": core.opens_at(params, view.height),
            "block_seconds": params.block_interval_ms / 1000,
            "problems": [] if keeping is None else keeping.worries(),
        }

    def _pinned(self) -> int:
        """Bytes that the pins claim, where no collection has counted them yet; shared chunks count twice."""
        store = self._node.store
        roots = [root for root in store.pins() if store.has(root)]
        return sum(dag.tree_size(root, store.get(root)) or 0 for root in roots)

    async def lend(self, size: int) -> Json:
        """Lend another number of bytes, until the node is started with another one; slots that no longer fit go.

        Returns:
            What `storage` tells, and `waits`: whether an audit is near or runs, so that slots that the ledger counts
            stay until `opens`.

        Raises:
            RefusedError: This node lends nothing.
        """
        keeping = self._node.keeping
        if keeping is None:
            message = "this node keeps nothing for others"
            raise RefusedError(message, "it was started as a reader, or for one command")
        keeping.lend(size)
        await trio.to_thread.run_sync(self._node.lent.change, size)
        view = self._node.ledger.view()
        told = await self.storage()
        return told | {"waits": not core.is_open(view.params, view.height)}

    # Deals

    async def quote(self, text: str, terms: Terms) -> Json:
        """What a deal would cost; posts nothing.

        Returns:
            `cid`, `bytes`, `replicas`, `audits`, `price`, `cost` (units, put aside), `fee` (units, on top, not returned),
            `days`, `coded`, `seats` (places to be taken), `keepers` (in good standing).
        """
        root = self._root(text)
        size = await self._size(root)
        pieces = self._pieces_of(size) if terms.is_coded else [Piece(root, size)]
        return self._terms(root, size, pieces, terms)

    async def keep(self, text: str, terms: Terms, progress: Progress) -> Json:
        """Post a deal.

        Returns:
            What `quote` tells, and `deal`, `height`, `recipe` (None without coding).

        Raises:
            NotFoundError: The name is not known, or nobody has the content.
            RefusedError: The balance does not cover it, or the ledger does not take it.
        """
        node, root = self._node, self._root(text)
        recipe: Cid | None = None
        size = await self._size(root)
        pieces = [Piece(root, size)]
        self._check_balance(self._terms(root, size, pieces, terms))
        if terms.is_coded:
            pieces, recipe = await self._encode(root, progress)
        told = self._terms(root, size, pieces, terms)
        self._check_balance(told)
        payload = KeepPost(
            tuple((one.root, one.size) for one in pieces),
            terms.replicas,
            told["audits"],
            told["price"],
            recipe or cids.Cid(b""),
        )
        identifier = await node.wallet.submit(payload)
        included = await node.wallet.confirm(identifier, SECONDS_PER_TRANSACTION)
        return told | {
            "deal": identifier.hex(),
            "height": included.height,
            "recipe": None if recipe is None else cids.text(recipe),
        }

    async def deals(self, *, is_all: bool = False) -> list[Json]:
        """Open deals of this account, or of everybody.

        Returns:
            `deal`, `owner`, `pieces`, `bytes`, `replicas`, `seats` (taken), `shown` (proven to be held), `price`,
            `escrow`, `audits_left`, `ended`, `coded`, `keepers` and `roots` each.
        """
        view, own = self._node.ledger.view(), self._node.signer.public_key
        number = view.height // view.params.audit_blocks
        return [
            self._deal(view, deal, number) for deal in view.deals() if is_all or deal.owner == own
        ]

    def _deal(self, view: LedgerView, deal: Deal, number: int) -> Json:
        seats = view.seats(deal.id)
        taken = [one for piece in seats.of for one in piece] if seats is not None else []
        return {
            "deal": deal.id.hex(),
            "owner": signing.peer_id(deal.owner),
            "roots": [cids.text(one.root) for one in deal.pieces],
            "pieces": len(deal.pieces),
            "bytes": sum(one.size for one in deal.pieces),
            "replicas": deal.replicas,
            "seats": len(taken),
            "shown": sum(one.shown for one in taken),
            "keepers": sorted({signing.peer_id(one.keeper) for one in taken}),
            "price": deal.price,
            "escrow": deal.escrow,
            "audits_left": max(0, deal.last - max(number, deal.first - 1)),
            "ended": deal.ended,
            "coded": bool(deal.recipe),
        }

    async def end(self, text: str) -> Json:
        """Stop a deal of this account with the next settlement.

        Returns:
            `deal`, `height`.
        """
        node, deal = self._node, self._find(text)
        identifier = await node.wallet.submit(KeepEnd(deal.id))
        included = await node.wallet.confirm(identifier, SECONDS_PER_TRANSACTION)
        return {"deal": deal.id.hex(), "height": included.height}

    async def restore(self, text: str, progress: Progress) -> Json:
        """Fetch what a deal keeps, from any of its pieces that it takes.

        Returns:
            `cid`, `bytes`, `pieces` (that were fetched).
        """
        node, deal = self._node, self._find(text)
        if not deal.recipe:
            fetched = 0
            for piece in deal.pieces:
                told = await node.exchange.fetch(
                    piece.root, progress=partial(progress, "fetch"), max_bytes=piece.size
                )
                fetched += told.bytes
            root, count = deal.pieces[0].root, len(deal.pieces)
        else:
            root, fetched, count = await self._restore_coded(deal, progress)
        await trio.to_thread.run_sync(node.store.pin, root, f"deal {deal.id.hex()[:16]}")
        await node.network.provide(root)
        return {"cid": cids.text(root), "bytes": fetched, "pieces": count}

    async def _restore_coded(self, deal: Deal, progress: Progress) -> tuple[Cid, int, int]:
        node = self._node
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

    # What deals are made of

    def _root(self, text: str) -> Cid:
        try:
            return cids.parse(text)
        except CidError:
            entry = self._node.ledger.view().name(text)
        if entry is None:
            message = f"{text[:80]!r} is neither a CID nor a name on the ledger"
            raise NotFoundError(message)
        return entry.root

    async def _size(self, root: Cid) -> int:
        """Bytes of all blocks of a root, as its author claims; keepers fetch no more than that."""
        node = self._node
        await node.exchange.fetch(root, alone=True)
        size = dag.tree_size(root, await trio.to_thread.run_sync(node.store.get, root))
        if size is None:
            message = f"{cids.text(root)} does not tell how large it is"
            raise RefusedError(message, "publish it as a file or folder")
        return size

    @staticmethod
    def _pieces_of(size: int) -> list[Piece]:
        """Pieces of the sizes that coding will give, for a quote."""
        each = max(1, -(-size // NEEDED_PIECES))
        return [Piece(cids.Cid(b""), each)] * CODED_PIECES

    async def _encode(self, root: Cid, progress: Progress) -> tuple[list[Piece], Cid]:
        """Cut a root into coded pieces, hold them until the deal is over, and announce them."""
        node = self._node
        await node.exchange.fetch(root, progress=partial(progress, "fetch"))
        encode = partial(erasure.encode_root, root, node.store, NEEDED_PIECES, CODED_PIECES)
        progress("encode", 0, 1)

        def work() -> tuple[erasure.Recipe, list[Piece]]:
            with node.store.lease(f"encode {cids.text(root)}", root):
                recipe = encode()
                sizes = [dag.tree_size(one, node.store.get(one)) or 0 for one in recipe.pieces]
                pieces = [Piece(*one) for one in zip(recipe.pieces, sizes, strict=True)]
                for one in (*recipe.pieces, recipe.cid):
                    node.store.hold(one, offers.label(recipe.cid))
            return recipe, pieces

        coding = partial(trio.to_thread.run_sync, work)
        recipe, pieces = await node.room_for(coding, lambda why: progress(why, 0, 0))
        progress("encode", 1, 1)
        if len({one.root for one in pieces}) != len(pieces):
            message = "content this small gives pieces that are alike"
            raise RefusedError(message, "keep it whole, without --erasure")
        for one in (*recipe.pieces, recipe.cid):
            await node.network.provide(one)
        return pieces, recipe.cid

    def _terms(self, root: Cid, size: int, pieces: list[Piece], terms: Terms) -> Json:
        """The terms with what was not said filled in."""
        view = self._node.ledger.view()
        params = view.params
        if not 1 <= terms.replicas <= MAX_REPLICAS or len(pieces) * terms.replicas > MAX_SEATS:
            most = min(MAX_REPLICAS, MAX_SEATS // len(pieces))
            message = f"{terms.replicas:,} replicas where 1 to {most} can be kept"
            raise UsageError(message)
        audits_a_day = params.blocks_per_day / params.audit_blocks
        audits = terms.audits or max(1, round(DEFAULT_DAYS * audits_a_day))
        audits = min(audits, MAX_DEAL_AUDITS)
        price = terms.price or max(params.min_keep_price, going_price(view))
        if price < params.min_keep_price:
            message = (
                f"{price / UNIT:,g} tokens a GiB and audit, where this network takes"
                f" {params.min_keep_price / UNIT:,g} at least"
            )
            raise UsageError(message)
        cost = price * terms.replicas * audits * sum(one.priced for one in pieces)
        return {
            "cid": cids.text(root),
            "bytes": size,
            "replicas": terms.replicas,
            "pieces": len(pieces),
            "audits": audits,
            "days": audits / audits_a_day,
            "price": price,
            "cost": cost,
            "fee": deals.fee(params, cost),
            "seats": len(pieces) * terms.replicas,
            "coded": terms.is_coded,
            "keepers": sum(one.in_order for one in view.keepers()),
            "balance": view.account(self._node.signer.public_key).balance,
        }

    @staticmethod
    def _check_balance(told: Json) -> None:
        if told["cost"] + told["fee"] > told["balance"]:
            message = (
                f"the deal costs {told['cost'] / UNIT:,g} tokens and a fee of {told['fee'] / UNIT:,g},"
                f" and the balance is {told['balance'] / UNIT:,g}"
            )
            raise RefusedError(message, "fewer replicas, fewer audits or a lower price cost less")

    def _find(self, text: str) -> Deal:
        view = self._node.ledger.view()
        found = [one for one in view.deals() if one.id.hex().startswith(text.lower())]
        if len(found) != 1 or not text:
            message = f"{'no open deal begins' if not found else 'several deals begin'} with {text[:80]!r}"
            raise NotFoundError(message, "`swarm keep list` lists them")
        return found[0]


def going_price(view: LedgerView) -> int:
    """What open deals pay a GiB and audit: the one in their middle."""
    prices = sorted(one.price for one in view.deals())
    return prices[len(prices) // 2] if prices else DEFAULT_PRICE

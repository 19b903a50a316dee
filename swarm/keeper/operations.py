"""What a person asks about content that others keep: what it costs, to have it kept, how that does, and to have it back."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import trio

from protocols import signing
from storage import cid as cids
from storage import dag
from storage.errors import CidError
from swarm.errors import NotFoundError, RefusedError
from swarm.keeper import coded, quotes
from swarm.keeper.coding import choose, free_slots
from swarm.keeper.lending import LendingOperations
from swarm.ledger.keeping import Piece
from swarm.ledger.transactions import KeepEnd, KeepPost

if TYPE_CHECKING:
    from storage.cid import Cid
    from swarm.control.api import Json, Progress
    from swarm.keeper.coding import Coding
    from swarm.keeper.quotes import Terms
    from swarm.ledger.keeping import Deal
    from swarm.ledger.state import LedgerView


class KeepingOperations(LendingOperations):
    """A person's door to what one node lends and has kept.

    Args:
        node: The node.
    """

    # Deals

    async def quote(self, text: str, terms: Terms) -> Json:
        """What a deal would cost; posts nothing.

        Returns:
            `cid`, `bytes`, `replicas`, `pieces`, `needed` (of them; None without coding), `audits`, `price`, `cost` (units, put aside), `fee` (units, on top, not returned),
            `days`, `coded`, `seats` (places to be taken), `keepers` (in good standing).
        """
        root = self._root(text)
        size = await self._size(root)
        coding = self._coding(size, terms)
        pieces = [Piece(root, size)] if coding is None else coding.cut(size)
        return self._terms(root, size, pieces, terms, coding)

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
        coding = self._coding(size, terms)
        pieces = [Piece(root, size)]
        if coding is not None:
            planned = self._terms(root, size, coding.cut(size), terms, coding)
            quotes.check_balance(planned)
            pieces, recipe = await coded.cut(node, root, coding, progress)
        told = self._terms(root, size, pieces, terms, coding)
        quotes.check_balance(told)
        payload = KeepPost(
            tuple((one.root, one.size) for one in pieces),
            terms.replicas,
            told["audits"],
            told["price"],
            recipe or cids.Cid(b""),
        )
        identifier = await node.wallet.submit(payload)
        included = await node.wallet.confirm(identifier)
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
        included = await node.wallet.confirm(identifier)
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
            root, fetched, count = await coded.restore(node, deal, progress)
        await trio.to_thread.run_sync(node.store.pin, root, f"deal {deal.id.hex()[:16]}")
        await node.network.provide(root)
        return {"cid": cids.text(root), "bytes": fetched, "pieces": count}

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

    def _coding(self, size: int, terms: Terms) -> Coding | None:
        """How content of so many bytes is cut, if it is."""
        if not terms.is_coded:
            return None
        return terms.coding or choose(size, free_slots(self._node.ledger.view()))

    def _terms(
        self, root: Cid, size: int, pieces: list[Piece], terms: Terms, coding: Coding | None
    ) -> Json:
        node = self._node
        key = node.signer.public_key
        return quotes.quote(node.ledger.view(), key, root, size, pieces, terms, coding)

    def _find(self, text: str) -> Deal:
        view = self._node.ledger.view()
        found = [one for one in view.deals() if one.id.hex().startswith(text.lower())]
        if len(found) != 1 or not text:
            message = f"{'no open deal begins' if not found else 'several deals begin'} with {text[:80]!r}"
            raise NotFoundError(message, "`swarm keep list` lists them")
        return found[0]

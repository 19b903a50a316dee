"""What a person asks about lent space: how it does, and another number."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from storage import dag
from swarm.errors import RefusedError
from swarm.keeper import core
from swarm.ledger import schedule

if TYPE_CHECKING:
    from swarm.control.api import Json
    from swarm.ledger.state import LedgerView
    from swarm.node import Node


class LendingOperations:
    """A person's door to what one node lends.

    Args:
        node: The node.
    """

    def __init__(self, node: Node) -> None:
        self._node = node

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
            What `summary` tells, and `shelf`, `encodings`, `own` (bytes), `slots` (`sealed`, `goal`, `holding` (chunks of pieces),
            `counted`, `proven`, `share`), `duties` (`pieces`, `here`, `bytes`), `collateral`, `earned`, `strikes`,
            `suspended`, `audit` (the last one that counted this keeper), `verdict`, `next_audit`, `opens` (heights) and
            `problems` (sentences).
        """
        node = self._node
        await node.collector.recount()
        told = self.summary() | {"encodings": node.encodings.taken()}
        return await trio.to_thread.run_sync(self._storage, node.ledger.view(), told)

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

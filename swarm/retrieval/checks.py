"""Asks peers about a root: who holds it, and whether somebody who knows its CID alone gets it."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Final

import trio

from protocols.retrieval.errors import RetrievalError
from storage import cid as cids

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from protocols.retrieval.service import Retriever, Shown
    from protocols.transport import PeerId, Transport
    from storage.blockstore import Blockstore
    from storage.cid import Cid

    Json = dict[str, Any]

LOOKUP_S: Final = 20.0
"""For provider records."""
MAX_PROVIDERS: Final = 16
MAX_CONNECTED: Final = 16
"""Connected peers that are asked beside the providers."""
MAX_FETCHING: Final = 3
"""Peers that hold nothing of it and are asked to fetch."""
AT_ONCE: Final = 4
DRAWS: Final = 3
"""Chunks that each holder shows."""
MAX_DRAWS: Final = 16
ALONE_S: Final = 3.0
"""A node that nobody is connected to waits so long for somebody to ask."""
LOOK_S: Final = 0.25
"""Between two looks at who is connected."""
PROOF_S: Final = 30.0
"""In all, until a peer has fetched what was published."""
MAX_PROOF_S: Final = 3_600
AGAIN_S: Final = 3.0
"""Before peers are asked again."""


class Checks:
    """Who has a root.

    Args:
        transport: The network.
        store: What this node holds.
        retriever: Asks peers.
        members: Connected peers of this network.
    """

    def __init__(
        self,
        transport: Transport,
        store: Blockstore,
        retriever: Retriever,
        members: Callable[[], Sequence[PeerId]],
    ) -> None:
        self._transport = transport
        self._store = store
        self._retriever = retriever
        self._members = members

    async def check(self, root: Cid, draws: int, progress: Callable[[str, int, int], None]) -> Json:
        """Ask providers and connected peers for drawn chunks, and others to fetch one.

        Args:
            root: Of what.
            draws: Chunks that each is asked for.
            progress: Told (stage, done, total).

        Returns:
            `cid`, `here` (whether this node holds the root), `announced` (peers that the DHT names), `replicas` (other
            peers that showed every drawn chunk), `fetched` and `asked_to_fetch` (peers that hold nothing of it), and
            `peers`: `peer`, `announced`, `way` (`held` or `fetch`), `shown`, `drawn`, `bytes`, `seconds`,
            `rate` (bytes a second; None where nothing came) and `reason` (None: all was shown) each.
        """
        progress("providers", 0, 1)
        announced: Sequence[PeerId] = ()
        with trio.move_on_after(LOOKUP_S):
            announced = await self._transport.find_providers(root, MAX_PROVIDERS)
        progress("providers", 1, 1)
        connected = [one for one in self._members() if one not in announced][:MAX_CONNECTED]
        held = await self._ask_all(
            [*announced, *connected], root, draws, progress, announced, fetches=False
        )
        holders = [one["peer"] for one in held if one["reason"] is None]
        # A connected peer that was never expected to hold it is no failure.
        told = [one for one in held if one["announced"] or one["shown"]]
        without = [one for one in connected if one not in holders][:MAX_FETCHING]
        fetched = await self._ask_all(without, root, 1, progress, announced, fetches=True)
        return {
            "cid": cids.text(root),
            "here": await trio.to_thread.run_sync(self._store.has, root),
            "announced": len(announced),
            "replicas": len(holders),
            "fetched": sum(one["reason"] is None for one in fetched),
            "asked_to_fetch": len(fetched),
            "peers": told + fetched,
        }

    async def _ask_all(
        self,
        peers: Sequence[PeerId],
        root: Cid,
        draws: int,
        progress: Callable[[str, int, int], None],
        announced: Sequence[PeerId],
        *,
        fetches: bool,
    ) -> list[Json]:
        stage = "fetch by others" if fetches else "held"
        found: dict[PeerId, Json] = {}
        places = trio.CapacityLimiter(AT_ONCE)

        async def ask(peer: PeerId) -> None:
            async with places:
                shown, reason = await self._draw(peer, root, draws, fetches=fetches)
            found[peer] = _told(peer, shown, draws, reason, fetches=fetches) | {
                "announced": peer in announced
            }
            progress(stage, len(found), len(peers))

        async with trio.open_nursery() as nursery:
            for peer in peers:
                nursery.start_soon(ask, peer)
        return [found[peer] for peer in peers]

    async def _draw(
        self, peer: PeerId, root: Cid, draws: int, *, fetches: bool
    ) -> tuple[list[Shown], str | None]:
        shown: list[Shown] = []
        for _ in range(draws):
            try:
                shown.append(await self._retriever.ask(peer, root, fetches=fetches))
            except RetrievalError as error:
                return shown, error.reason.words
        return shown, None

    async def wait(
        self, root: Cid, seconds: float, progress: Callable[[str, int, int], None]
    ) -> Json:
        """Wait until one other peer has fetched a drawn chunk, found by the CID alone.

        Args:
            root: Of what.
            seconds: At most; less where nobody is connected.
            progress: Told (stage, done, total).

        Returns:
            `peer` (who did; None: nobody has), `bytes`, `sources` (providers that it found), `seconds`, `asked` (peers),
            and `reasons` (what the others said, by peer).
        """
        started = trio.current_time()
        reasons: dict[PeerId, str] = {}
        proof: tuple[PeerId, Shown] | None = None
        progress("proof", 0, 1)
        with trio.move_on_after(ALONE_S):
            while not self._members():  # noqa: ASYNC110 - the network tells nobody who comes
                await trio.sleep(LOOK_S)
        with trio.move_on_after(seconds):
            while proof is None and self._members():
                proof = await self._first(root, reasons)
                if proof is None:
                    await trio.sleep(AGAIN_S)
        told = {"seconds": trio.current_time() - started, "asked": len(reasons)}
        if proof is None:
            return {"peer": None, "bytes": 0, "sources": 0, "reasons": reasons, **told}
        progress("proof", 1, 1)
        peer, shown = proof
        told["asked"] = len(reasons | {peer: ""})
        return {
            "peer": peer,
            "bytes": shown.bytes,
            "sources": shown.sources,
            "reasons": reasons,
            **told,
        }

    async def _first(self, root: Cid, reasons: dict[PeerId, str]) -> tuple[PeerId, Shown] | None:
        """Ask a few members at once; the first that shows the chunk."""
        members = list(self._members())
        asked = random.sample(
            members, min(MAX_FETCHING, len(members))
        )  # who is asked matters to nobody
        proof: list[tuple[PeerId, Shown]] = []

        async def ask(peer: PeerId) -> None:
            try:
                proof.append((peer, await self._retriever.ask(peer, root, fetches=True)))
            except RetrievalError as error:
                reasons[peer] = error.reason.words
            else:
                reasons.pop(peer, None)
                nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            for peer in asked:
                nursery.start_soon(ask, peer)
        return proof[0] if proof else None


def _told(
    peer: PeerId, shown: Sequence[Shown], drawn: int, reason: str | None, *, fetches: bool
) -> Json:
    size, seconds = sum(one.bytes for one in shown), sum(one.seconds for one in shown)
    return {
        "peer": peer,
        "way": "fetch" if fetches else "held",
        "shown": len(shown),
        "drawn": drawn,
        "bytes": size,
        "seconds": seconds,
        "rate": size / seconds if shown and seconds else None,
        "reason": reason,
    }

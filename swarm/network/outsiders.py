"""Peers that speak no handshake of ours: nodes of other kinds, which exchange chunks by Bitswap.

A connection counts as an outsider's when the peer opens a stream of one of the protocols for outsiders and has said no Hello,
or when this node dialled it as one. Outsiders have few places, are closed when nothing moves, and make room for others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from protocols.handshake.core import Standing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from swarm.network.link import Link

IDLE_S = 60.0
"""An outsider whose streams move no byte for this long is disconnected; at most a quarter later."""
LOOKS = 4


class Outsiders:
    """Which links are outsiders', and whether one more may be.

    Args:
        links: All links of the host, by peer.
        limit: Outsiders at a time.
    """

    def __init__(self, links: Mapping[str, list[Link]], limit: int) -> None:
        self.protocols: set[str] = set()
        self._links = links
        self._limit = limit

    def all(self) -> list[Link]:
        """The outsiders that are connected, the longest connected first."""
        found = [
            link
            for links in self._links.values()
            for link in links
            if link.is_outsider and not link.session.closed.is_set()
        ]
        return sorted(found, key=lambda link: link.since)

    def admit(self, link: Link) -> bool:
        """Let a link be an outsider's; false, and the link is closed, where there is no place for it."""
        if not link.is_outsider:
            is_full = len(self.all()) >= self._limit
            if is_full and not (link.dialled and self.make_room()):
                link.session.close(f"{self._limit} peers without a handshake are connected")
                return False
            link.is_outsider = True
            link.standing = Standing.STRANGER
            link.greeted.set()
            link.judged.set()
        return True

    def make_room(self) -> bool:
        """Close the outsider that has been connected the longest; whether there was one."""
        for link in self.all()[:1]:
            link.session.close("its place is needed")
            return True
        return False

    async def watch(self, link: Link) -> None:
        """Close a link once it has been an outsider's and moved nothing for `IDLE_S`; runs as long as the link."""
        moved, still = -1, 0
        while still < LOOKS:
            await trio.sleep(IDLE_S / LOOKS)
            still = still + 1 if link.is_outsider and link.session.moved == moved else 0
            moved = link.session.moved
        link.session.close(f"nothing moved for {IDLE_S:g} s")

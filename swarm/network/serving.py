"""Which protocols this node serves, to whom, and how many streams of each.

A handler is fenced: whatever leaves it resets its stream and no more.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import structlog
import trio

from protocols.transport import RemoteProtocolError, StreamError
from swarm.network import multistream

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Awaitable, Callable

    from swarm.limits.traffic import Traffic
    from swarm.network.link import Link
    from swarm.network.muxed_stream import MuxedStream
    from swarm.network.outsiders import Outsiders

    StreamHandler: TypeAlias = Callable[[MuxedStream], Awaitable[None]]

NEGOTIATE_S = 15.0
"""For a stream to choose its protocol."""
FLUSH_S = 120.0
"""After a handler is done, for what it has written to reach the socket."""
LINGER_S = 10.0
"""After a handler is done, for the peer to finish its side."""
LINGER_BYTES = 2**20
MAX_STREAMS_PER_PROTOCOL = 64
"""Inbound streams that one connection may have open on one protocol."""
MAX_STRANGER_STREAMS = 16
"""Inbound streams of a connection that has not shown our chain id."""
MAX_OUTSIDER_STREAMS = 256
"""The same of an outsider's: Kubo opens one for each block that it sends, and does not send again what was reset."""
OURS = "/swarm/"
"""Protocols that only nodes of this kind speak start so."""

log = structlog.get_logger("swarm.network")


@dataclass(frozen=True, slots=True)
class Served:
    """A protocol that this node serves."""

    handler: StreamHandler
    members_only: bool
    limit: int


class Serving:
    """The protocols that a node serves.

    Args:
        outsiders: Who may be served without a handshake.
        traffic: Says what is not served now; None: everything is.
        faults: Where what went wrong is counted, by protocol.
        accuse: Called with a peer and what it did.
    """

    def __init__(
        self,
        outsiders: Outsiders,
        traffic: Traffic | None,
        faults: Counter[str],
        accuse: Callable[[str, str], None],
    ) -> None:
        self.served: dict[str, Served] = {}
        self._outsiders = outsiders
        self._traffic = traffic
        self._faults = faults
        self._accuse = accuse

    def handle(
        self,
        protocol: str,
        handler: StreamHandler,
        *,
        members_only: bool,
        limit: int | None = None,
    ) -> None:
        """Serve a protocol from now on; `limit` streams of one connection at a time."""
        most = MAX_STREAMS_PER_PROTOCOL
        if not members_only and not protocol.startswith(OURS):
            self._outsiders.protocols.add(protocol)
            most = MAX_OUTSIDER_STREAMS
        self.served[protocol] = Served(handler, members_only, most if limit is None else limit)

    def told_to(self, link: Link) -> list[str]:
        """The protocols that a peer would be served."""
        return [name for name, one in self.served.items() if link.is_member or not one.members_only]

    async def serve(self, link: Link, stream: MuxedStream) -> None:
        """One inbound stream, from its protocol's choice to its end."""
        most = MAX_OUTSIDER_STREAMS if link.is_outsider else MAX_STRANGER_STREAMS
        if not link.is_member and sum(other.inbound for other in link.session.streams) > most:
            stream.break_off("too many streams of a stranger")
            self._faults["too many streams"] += 1
            return
        protocol = ""

        async def admit(wanted: str) -> bool:
            if wanted in self._outsiders.protocols and link.hello is None and not link.dialled:
                return self._outsiders.admit(link)
            return not self.served[wanted].members_only or await link.settled()

        try:
            with trio.fail_after(NEGOTIATE_S):
                protocol = await multistream.accept(stream, self.served, admit)
            served = self.served[protocol]
            if self._traffic is not None and self._traffic.refuses(protocol):
                stream.break_off("this node does not serve now")
                return
            if link.inbound[protocol] >= served.limit:
                stream.break_off(f"more than {served.limit} streams of {protocol}")
                self._faults["too many streams"] += 1
                return
            link.inbound[protocol] += 1
            try:
                stream.protocol = protocol
                await served.handler(stream)
                await _linger(stream)
            finally:
                link.inbound[protocol] -= 1
        except (StreamError, trio.TooSlowError, trio.ClosedResourceError) as error:
            log.debug("network.stream_lost", peer=link.peer, protocol=protocol, error=str(error))
        except RemoteProtocolError as error:
            self._faults[protocol or "multistream"] += 1
            self._accuse(link.peer, f"{protocol or 'multistream'}: {error}")
        except Exception as error:  # noqa: BLE001 - the transport's promise: it resets this stream and no more
            self._faults[protocol or "multistream"] += 1
            log.warning(
                "network.handler_failed", peer=link.peer, protocol=protocol, error=repr(error)
            )
        finally:
            if not stream.is_over:
                stream.break_off("the handler is done")


async def _linger(stream: MuxedStream) -> None:
    """Finish a stream whose handler is done, and give the peer a while to finish its side."""
    stream.finish()
    with trio.move_on_after(FLUSH_S):
        await stream.flushed()
    left = LINGER_BYTES
    with trio.move_on_after(LINGER_S), suppress(StreamError):
        while left > 0:
            data = await stream.receive_some()
            if not data:
                return
            left -= len(data)

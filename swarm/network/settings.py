"""What can be set about the network, and what it tells of its peers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from swarm.limits.traffic import Traffic


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    """How a node listens, finds others and bounds them.

    Attributes:
        listen: Multiaddrs to listen on; port 0 takes any, 0.0.0.0 all interfaces.
        announce: Multiaddrs that others should dial, such as a router's public address; beside what is found.
        bootstrap: Peers to start from, `/ip4/…/tcp/…/p2p/<peer id>`.
        known_peers: File that remembers peers from run to run; None remembers nothing.
        max_connections: Live connections in total.
        max_connections_per_ip: Live inbound connections from one address; the loopback is free.
        max_strangers: Live connections to peers that are not members.
        max_outsiders: Live connections to peers that speak no handshake of ours, such as nodes of IPFS.
        target_connections: Below this many members the node looks for more.
        relay: Take places at relays where nobody can dial this node, and relay for members where everybody can.
        upnp: Ask the router to forward the port that this node listens on.
        mdns: Look for nodes of the same network on the local one.
        traffic: Limits and counts what goes to other machines; None: nobody does.
    """

    listen: tuple[str, ...] = ("/ip4/127.0.0.1/tcp/0",)
    announce: tuple[str, ...] = ()
    bootstrap: tuple[str, ...] = ()
    known_peers: Path | None = None
    max_connections: int = 256
    max_connections_per_ip: int = 32
    max_strangers: int = 64
    max_outsiders: int = 32
    target_connections: int = 16
    relay: bool = True
    upnp: bool = False
    mdns: bool = False
    traffic: Traffic | None = None


@dataclass(frozen=True, slots=True)
class PeerInfo:
    """A live connection's other side.

    Attributes:
        peer: Its peer id, proven.
        address: Where its socket is; the port is its own only when this node dialled.
        dialled: This node opened the connection.
        member: It has shown the same chain id.
        chain_id: What it has shown; empty while it asks, or before it has said anything.
        software: What it says it runs.
        head: Height of the last block it says it holds.
        roles: Sum of `protocols.handshake.messages.ROLE_…`.
        connected_since: Trio time.
        bytes_in: Received on the socket.
        bytes_out: Sent on the socket.
    """

    peer: str
    address: str
    dialled: bool
    member: bool
    chain_id: bytes
    software: str
    head: int
    roles: int
    connected_since: float
    bytes_in: int
    bytes_out: int

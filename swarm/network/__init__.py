"""Peers: the only room that imports libp2p.

`Network` implements `protocols.transport.Transport`. The rest of the folder is its workshop: `host` holds the connections,
`secure` and `muxer` make them, `gossip` and `routing` fence libp2p's gossipsub and Kademlia, `peerbook` knows whom to dial.
"""

from __future__ import annotations

from swarm.network import unused

unused.leave_out()

from swarm.network.listening import check as check_listening  # noqa: E402 - only now
from swarm.network.network import Network  # noqa: E402
from swarm.network.settings import NetworkSettings, PeerInfo  # noqa: E402

__all__ = ["Network", "NetworkSettings", "PeerInfo", "check_listening"]

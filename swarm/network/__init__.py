"""Peers: the only room that imports libp2p.

`Network` implements `protocols.transport.Transport`. The rest of the folder is its workshop: `host` holds the connections,
`secure` and `muxer` make them, `gossip` and `routing` fence libp2p's gossipsub and Kademlia, `peerbook` knows whom to dial.
"""

from __future__ import annotations

from swarm.network.network import Network
from swarm.network.settings import NetworkSettings, PeerInfo

__all__ = ["Network", "NetworkSettings", "PeerInfo"]

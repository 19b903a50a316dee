"""A node in a process of its own: `child.py <port> <seconds>`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import trio

from protocols.handshake import Hello
from protocols.signing import Signer
from swarm.network import Network, NetworkSettings


async def main(port: str, seconds: str) -> None:
    settings = NetworkSettings(listen=(f"/ip4/127.0.0.1/tcp/{port}",))
    network = Network(
        settings, Signer(b"child" * 6 + b"!!"), b"c" * 32, lambda: Hello(b"", "c", 0, 1)
    )
    with trio.move_on_after(float(seconds)):
        await network.run()


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])

"""A node in a namespace: `bed_node.py <number> <settings as JSON>`; a question a line in, an answer a line out."""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import structlog
import trio

from protocols.handshake import Hello
from protocols.signing import Signer
from protocols.transport import StreamError, UnreachableError
from swarm.network import Network, NetworkSettings

ECHO = "/test/echo/1.0.0"
structlog.configure(
    wrapper_class=structlog.make_filtering_bound_logger(
        logging.DEBUG if os.environ.get("BED_DEBUG") else logging.CRITICAL
    ),
    logger_factory=structlog.PrintLoggerFactory(sys.stderr),
)


async def echo(stream) -> None:
    while data := await stream.receive_some():
        await stream.send_all(data)


async def said(network: Network, peer: str) -> dict:
    """Send a word to a peer and get it back."""
    try:
        with trio.fail_after(20):
            stream = await network.open_stream(peer, ECHO)
            await stream.send_all(b"to and fro")
            await stream.close()
            return {"echo": (await stream.receive_some()).decode()}
    except (UnreachableError, StreamError, trio.TooSlowError) as error:
        return {"error": f"{type(error).__name__} {error}"}


async def main(number: str, text: str) -> None:
    settings = json.loads(text)
    listen = tuple(settings.pop("listen", ["/ip4/0.0.0.0/tcp/4001"]))
    settings["bootstrap"] = tuple(settings.get("bootstrap", ()))
    network = Network(
        NetworkSettings(listen=listen, **settings),
        Signer(int(number).to_bytes(32, "big")),
        b"c" * 32,
        lambda: Hello(b"", "bed", 0, 1),
    )
    network.handle(ECHO, echo)
    lines = trio.lowlevel.FdStream(os.dup(0))
    data = b""
    async with trio.open_nursery() as nursery:
        await nursery.start(network.run)
        while part := await lines.receive_some(2**16):
            data += part
            while b"\n" in data:
                line, _, data = data.partition(b"\n")
                what, *more = json.loads(line)
                if what == "addresses":
                    answer = {"addresses": network.addresses(), "me": network.me}
                elif what == "reach":
                    answer = network.reachability() | {"addresses": network.addresses()}
                elif what == "peers":
                    answer = {one.peer: one.address for one in network.peer_info() if one.member}
                elif what == "echo":
                    answer = await said(network, more[0])
                else:
                    answer = {"stopping": True}
                sys.stdout.write(json.dumps(answer) + "\n")
                sys.stdout.flush()
                if what == "stop":
                    nursery.cancel_scope.cancel()
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])

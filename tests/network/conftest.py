from __future__ import annotations

from collections.abc import Callable

import pytest
import trio

from protocols.handshake import Hello
from protocols.signing import Signer
from swarm.network import Network, NetworkSettings

CHAIN = b"c" * 32


@pytest.fixture
def make():
    """`make(3, bootstrap=…)`: a network that is not running, with a key of its own."""

    def build(number: int, *, chain: bytes = CHAIN, head: int = 0, **settings) -> Network:
        signer = Signer(number.to_bytes(32, "big"))
        return Network(
            NetworkSettings(**settings), signer, chain, lambda: Hello(b"", "swarm/test", head, 1)
        )

    return build


@pytest.fixture
def start(nursery, make):
    """`await start(3, bootstrap=…)`: a network that runs until the test ends."""

    async def begin(number: int, **kinds) -> Network:
        network = make(number, **kinds)
        await nursery.start(network.run)
        return network

    return begin


@pytest.fixture
def until():
    """`await until(lambda: …)`: wait for something to become true, so long that a slow machine is in time."""

    async def wait(true: Callable[[], object], seconds: float = 60) -> None:
        with trio.fail_after(seconds):
            while not true():  # noqa: ASYNC110 - what is waited for has no event
                await trio.sleep(0.01)

    return wait


@pytest.fixture
def pair(start, until):
    """Two members of one network that know each other."""

    async def begin(first: dict | None = None, second: dict | None = None):
        one = await start(1, **(first or {}))
        two = await start(2, bootstrap=tuple(one.addresses()), **(second or {}))
        await until(lambda: two.me in one.peers() and one.me in two.peers())
        return one, two

    return begin

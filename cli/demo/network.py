"""The demo's nodes: a genesis, a data folder and a process each, and an end to all of them."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cli import connection
from swarm.client import Client
from swarm.errors import NetworkError

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

NODES = 4
NETWORK = "swarm-demo"
LISTEN = "127.0.0.1:0"
STORAGE = "2GB"
STAKE_TOKENS = 1_000
ALLOCATION_TOKENS = 10_000
MEET_SECONDS = 60
ENDING_SECONDS = 5

PARAMS = {
    "block_interval_ms": 600,
    "delta_ms": 2_000,
    "epoch_length": 60,
    "blocks_per_day": 144_000,
}
"""Quick blocks, and patience with four nodes that share two cores."""


@dataclass(slots=True)
class DemoNode:
    """One node's process.

    Attributes:
        name: `node 1` to `node 5`.
        home: Its data folder.
        log: What it says.
        child: The process.
        client: Speaks to it.
    """

    name: str
    home: Path
    log: Path
    child: subprocess.Popen[bytes]
    client: Client

    def status(self) -> dict[str, Any]:
        """Its status.

        Raises:
            NetworkError: It has ended; the message names its log.
        """
        try:
            return self.client.status()
        except NetworkError as error:
            pause(self.child, ENDING_SECONDS)
            if self.child.poll() is None:
                message = f"{self.name} does not answer"
                raise NetworkError(message, f"its log is {self.log}") from error
            why, hint = connection.last_error(self.log)
            message = f"{self.name} ended with code {self.child.returncode}: {why}"
            raise NetworkError(message, hint or f"its log is {self.log}") from error


class DemoNetwork:
    """The nodes of one demo.

    Args:
        folder: Where data folders and logs go.
    """

    def __init__(self, folder: Path) -> None:
        self.nodes: list[DemoNode] = []
        self._folder = folder
        self._genesis = folder / "genesis.cbor"
        self._stack = contextlib.ExitStack()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """While the block runs, nodes may be started; afterwards none is left."""
        try:
            with self._stack:
                yield
        finally:
            for node in self.nodes:  # the stack stopped them one by one; whatever interrupted that
                if node.child.poll() is None:
                    node.child.kill()
                    node.child.wait()

    def start_validators(self) -> None:
        """Write the genesis of four validators, start them, and wait until each sees the others."""
        self._write_genesis()
        starting: list[DemoNode] = []
        for number in range(1, NODES + 1):
            starting.append(self._spawn(number, ["--network", str(self._genesis)], starting[:1]))
            if number == 1:
                connection.wait_for_node(starting[0].child, starting[0].home, starting[0].log)
        for node in starting:
            connection.wait_for_node(node.child, node.home, node.log)
        deadline = time.monotonic() + MEET_SECONDS
        while any(node.status()["peers"] < NODES - 1 for node in starting):
            if time.monotonic() > deadline:
                message = f"the nodes have not found each other within {MEET_SECONDS} s"
                raise NetworkError(message, f"their logs are in {self._folder}")
            pause(starting[0].child, 0.2)

    def start_late(self) -> DemoNode:
        """Start a fifth node that is told the first one's address and nothing else."""
        node = self._spawn(NODES + 1, ["--no-train"], self.nodes[:1])
        connection.wait_for_node(node.child, node.home, node.log)
        return node

    def _home(self, number: int) -> Path:
        return self._folder / f"node-{number}"

    def _write_genesis(self) -> None:
        from swarm.identity import Identity
        from swarm.ledger.genesis import UNIT, Genesis, GenesisValidator, Params
        from swarm.ledger.vrf import VrfKey

        signers = [
            Identity.load_or_create(self._home(number)).signer for number in range(1, NODES + 1)
        ]
        genesis = Genesis.create(
            NETWORK,
            time.time_ns() // 10**6,
            [
                GenesisValidator(
                    signer.public_key, VrfKey.of(signer.seed).public_key, STAKE_TOKENS * UNIT
                )
                for signer in signers
            ],
            allocations=[(signer.public_key, ALLOCATION_TOKENS * UNIT) for signer in signers],
            params=Params(**PARAMS),
        )
        genesis.save(self._genesis)

    def _spawn(self, number: int, flags: list[str], first: list[DemoNode]) -> DemoNode:
        home = self._home(number)
        home.mkdir(mode=0o700, exist_ok=True)
        log = self._folder / f"node-{number}.log"
        flags = [*flags, "--listen", LISTEN, "--storage", STORAGE, "--no-seal"]
        for one in first:
            flags += ["--bootstrap", one.status()["addresses"][0]]
        child = connection.start_node(home, flags, log, self._environment())
        self._stack.callback(connection.stop_child, child)
        client = self._stack.enter_context(Client.of_home(home))
        node = DemoNode(f"node {number}", home, log, child, client)
        self.nodes.append(node)
        return node

    def _environment(self) -> dict[str, str]:
        """This user's, without settings and other networks of the machine."""
        environ = {name: value for name, value in os.environ.items() if name[:6] != "SWARM_"}
        for name in ("runtime", "config"):
            (self._folder / name).mkdir(mode=0o700, exist_ok=True)
        environ["XDG_RUNTIME_DIR"] = str(self._folder / "runtime")
        environ["XDG_CONFIG_HOME"] = str(self._folder / "config")
        environ.setdefault("OMP_NUM_THREADS", "1")  # several workers share the cores
        return environ


def pause(child: subprocess.Popen[bytes], seconds: float) -> None:
    """Wait, but no longer than a child lives."""
    import subprocess

    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(seconds)

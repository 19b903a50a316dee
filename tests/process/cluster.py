"""Real nodes in real processes on loopback, driven through their control sockets."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swarm.client import Client
from swarm.errors import SwarmError
from swarm.identity import Identity
from swarm.ledger.genesis import UNIT, Genesis, GenesisValidator, Params
from swarm.ledger.vrf import VrfKey

if TYPE_CHECKING:
    from collections.abc import Callable

POLL_SECONDS = 0.2
PARAMS = Params(
    block_interval_ms=250,
    delta_ms=1_000,
    epoch_length=50,
    min_bond=100 * UNIT,
    worker_bond=0,
    base_fee_floor=0,
    blocks_per_day=345_600,
)


@dataclass
class Node:
    """One `swarm join` and its data folder."""

    home: Path
    arguments: list[str]
    process: subprocess.Popen[bytes] | None = None
    log: Path = field(init=False)

    def __post_init__(self) -> None:
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.log = self.home / "node.log"

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "cli", "join", "--home", str(self.home), *self.arguments],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=os.environ | {"XDG_RUNTIME_DIR": str(self.home)},
            )

    def ask(self, question: Callable[[Client], Any]) -> Any:
        with Client.of_home(self.home) as client:
            return question(client)

    def status(self) -> dict[str, Any] | None:
        """None while it does not answer."""
        try:
            return self.ask(lambda client: client.status())
        except SwarmError:
            return None

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(timeout=20)

    def end(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Cluster:
    """Four validators that know one address each, and whoever comes later."""

    def __init__(
        self, folder: Path, count: int = 4, params: Params = PARAMS, flags: tuple[str, ...] = ()
    ) -> None:
        self.folder = folder
        self.nodes: list[Node] = []
        homes = [folder / f"node-{number}" for number in range(1, count + 1)]
        signers = [Identity.load_or_create(home).signer for home in homes]
        genesis = Genesis.create(
            "process-test",
            0,
            [
                GenesisValidator(one.public_key, VrfKey.of(one.seed).public_key, 1_000 * UNIT)
                for one in signers
            ],
            allocations=[(one.public_key, 10_000 * UNIT) for one in signers],
            params=params,
        )
        self.chain_id = genesis.chain_id.hex()
        genesis.save(folder / "genesis.cbor")
        for home in homes:
            arguments = [
                *(() if "--seal-share" in flags else ("--no-seal",)),
                "--network",
                str(folder / "genesis.cbor"),
                "--storage",
                "200MB",
                "--listen",
                "127.0.0.1:0",
                *flags,
            ]
            if self.nodes:
                arguments += ["--bootstrap", self.address(0)]
            node = Node(home, arguments)
            node.start()
            self.nodes.append(node)
            self.wait(lambda node=node: node.status() is not None, f"{home.name} to answer", 60)

    def address(self, index: int) -> str:
        status = self.nodes[index].status()
        assert status is not None
        return status["addresses"][0]

    def join(self, *arguments: str) -> Node:
        """A node that comes late and is told one address."""
        home = self.folder / f"late-{len(self.nodes)}"
        node = Node(
            home,
            [
                "--bootstrap",
                self.address(0),
                "--storage",
                "200MB",
                "--listen",
                "127.0.0.1:0",
                *arguments,
            ],
        )
        node.start()
        self.nodes.append(node)
        return node

    def wait(self, condition: Callable[[], Any], what: str, seconds: float = 60) -> Any:
        """Poll until it holds; fails with the end of every log."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = condition()
            if found:
                return found
            time.sleep(POLL_SECONDS)  # noqa: TID251 - real processes have no virtual clock
        logs = "\n".join(
            f"--- {one.home.name}\n{one.log.read_text(errors='replace')[-3000:]}"
            for one in self.nodes
        )
        message = f"waited {seconds} s for {what}\n{logs}"
        raise AssertionError(message)

    def height(self, index: int) -> int:
        status = self.nodes[index].status()
        return -1 if status is None else int(status["height"])

    def wait_for_height(self, index: int, height: int, seconds: float = 60) -> None:
        self.wait(lambda: self.height(index) >= height, f"node {index} at height {height}", seconds)

    def same_block(self, height: int) -> bool:
        """Whether every node that answers holds the same block."""
        found = set()
        for node in self.nodes:
            if node.process is not None and node.process.poll() is None:
                found.add(node.ask(lambda client: client.block(height))["id"])
        return len(found) == 1

    def end(self) -> None:
        for node in self.nodes:
            node.end()

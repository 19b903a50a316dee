"""A real node in a process of its own: a network of one reader on loopback, with everything that it serves."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cli.connection import START_SECONDS, answers
from cli.demo.network import pause
from swarm.client import Client
from swarm.page import access

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).parents[2]


class Running:
    """One node.

    Args:
        home: Its data folder.
        gateway: The gateway's port.
        process: It.
        log: What it says.
    """

    def __init__(self, home: Path, gateway: int, process: subprocess.Popen, log: Path) -> None:
        self.home = home
        self.gateway = gateway
        self.process = process
        self.log = log

    @property
    def token(self) -> str:
        """The page's secret."""
        return (self.home / access.FILE).read_text().strip()

    @property
    def socket(self) -> str:
        return str(self.home / "control.sock")

    def ask(self, question):
        with Client.of_home(self.home) as client:
            return question(client)

    def page(self) -> str:
        """The page's address."""
        return self.ask(Client.status)["page"].rstrip("/")

    def said(self) -> str:
        """All that it has logged and told."""
        files = [self.log, *(self.home / "logs").glob("*")]
        return "".join(file.read_text(errors="replace") for file in files)


@contextmanager
def running(folder: Path, *flags: str, environ: dict[str, str] | None = None) -> Iterator[Running]:
    """Start a node below a folder; it is ended afterwards."""
    home, runtime, log = folder / "home", folder / "runtime", folder / "said.log"
    runtime.mkdir(mode=0o700, parents=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    line = [sys.executable, "-m", "cli", "join", "--reader", "--home", str(home), "--no-view"]
    line += ["--listen", "127.0.0.1:0", "--no-upnp", "--no-mdns", "--page", "0"]
    line += ["--gateway", str(port), *flags]
    settings = os.environ | {
        "XDG_RUNTIME_DIR": str(runtime),
        "XDG_CONFIG_HOME": str(folder / "config"),
        **(environ or {}),
    }
    with log.open("wb") as said:
        child = subprocess.Popen(
            line, cwd=REPOSITORY, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=settings
        )
    try:
        for _ in range(START_SECONDS * 10):
            if answers(home) and Running(home, port, child, log).ask(Client.status)["page"]:
                break
            assert child.poll() is None, log.read_text()
            pause(child, 0.1)
        yield Running(home, port, child, log)
    finally:
        child.kill()
        child.wait()

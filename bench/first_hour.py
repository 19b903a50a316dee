"""What a person waits for, and what an idle node costs: `python -m bench.first_hour`.

`swarm --help` and `swarm status` are whole processes, from their start to their end. The page is opened in a Chromium, where
there is one, with a link as `swarm page` gives it: its first paint as the browser tells it, and the bytes that it took.
The idle node is a network of one reader, whose CPU and memory are read for `IDLE_SECONDS`; a second reader beside it follows a
chain of a block a second where `--chain` is given. Prints medians, with the machine and its load before and after.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import trio

from bench.machine import describe
from swarm.client import Client
from swarm.errors import SwarmError

if TYPE_CHECKING:
    from collections.abc import Iterator

ROUNDS = 9
START_SECONDS = 120
SETTLE_SECONDS = 10
IDLE_SECONDS = 60
PAINTED = (
    "JSON.stringify([performance.getEntriesByName('first-contentful-paint')[0]?.startTime,"
    "[...performance.getEntriesByType('resource'), performance.getEntriesByType('navigation')[0]]"
    ".reduce((sum, one) => sum + one.transferSize, 0)])"
)


@contextmanager
def _node(folder: Path, *flags: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A node in a process of its own, once it answers."""
    home, runtime = folder / "home", folder / "runtime"
    runtime.mkdir(mode=0o700, parents=True)
    line = [sys.executable, "-m", "cli", "join", "--home", str(home), "--no-view", "--page", "0"]
    line += ["--listen", "127.0.0.1:0", "--no-upnp", "--no-mdns", *flags]
    with (folder / "said").open("wb") as said:
        child = subprocess.Popen(
            line,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            env=os.environ | {"XDG_RUNTIME_DIR": str(runtime)},
        )
    try:
        ends = time.monotonic() + START_SECONDS
        while not _has_page(home):
            if child.poll() is not None or time.monotonic() > ends:
                raise SystemExit((folder / "said").read_text())
            time.sleep(0.1)
        yield child, home
    finally:
        child.terminate()
        child.wait()


def _has_page(home: Path) -> bool:
    try:
        with Client.of_home(home) as client:
            return bool(client.status()["page"])
    except SwarmError:
        return False


def _command(*arguments: str) -> str:
    """Wall time and CPU time of a command, the medians of `ROUNDS`; the latter is what a busy machine leaves alone."""

    def once() -> tuple[float, float]:
        start, before = time.perf_counter(), os.times()
        subprocess.run(
            [sys.executable, "-m", "cli", *arguments], stdout=subprocess.DEVNULL, check=True
        )
        after = os.times()
        used = after.children_user + after.children_system
        used -= before.children_user + before.children_system
        return time.perf_counter() - start, used

    once()  # so that its bytecode is there
    wall, cpu = zip(*(once() for _ in range(ROUNDS)), strict=True)
    return f"{statistics.median(wall):.3f} s, of CPU {statistics.median(cpu):.3f} s"


def _idle(child: subprocess.Popen[bytes]) -> str:
    """CPU and memory of a node that is left alone."""
    process = psutil.Process(child.pid)
    time.sleep(SETTLE_SECONDS)
    before, start = process.cpu_times(), time.monotonic()
    time.sleep(IDLE_SECONDS)
    after, seconds = process.cpu_times(), time.monotonic() - start
    used = after.user + after.system - before.user - before.system
    workers = len(process.children(recursive=True))
    memory = process.memory_info().rss / 1e6
    return f"{100 * used / seconds:.2f} % of a core, {memory:.1f} MB, {workers} worker processes"


async def _paint(home: Path, profile: Path) -> str:
    from tests.page import chromium

    program = chromium.find()
    if program is None:
        return "no Chromium here"
    with Client.of_home(home) as client:
        links = [client.page_link()["link"] for _ in range(3)]
    paints, sizes = [], []
    async with chromium.opened(program, profile) as tab:
        await tab.call("Network.setCacheDisabled", cacheDisabled=True)
        for link in links:
            await tab.call("Page.navigate", url="about:blank")
            await tab.call("Page.navigate", url=link)
            await tab.until(
                "!document.getElementById('views')?.hidden && "
                "performance.getEntriesByName('first-contentful-paint').length > 0"
            )
            told = await tab.js(PAINTED)
            paint, size = (float(one) for one in told.strip("[]").split(","))
            paints.append(paint)
            sizes.append(size)
    return f"{statistics.median(paints):.0f} ms, {max(sizes) / 1000:.1f} kB"


def _say(text: str) -> None:
    print(text, flush=True)


def _measure(folder: Path) -> None:
    _say(f"{describe()}, load {os.getloadavg()[0]:.1f}")
    _say(f"swarm --help: {_command('--help')}")
    with _node(folder / "reader", "--reader") as (child, home):
        _say(f"swarm status: {_command('status', '--home', str(home))}")
        _say(
            f"first paint of the page, with its bytes: {trio.run(_paint, home, folder / 'chromium')}"
        )
        _say(f"an idle node: {_idle(child)}")
    if "--chain" in sys.argv[1:]:
        with _node(folder / "chain", "--no-train", "--no-seal") as (_, home):
            following = _following(home)
            with _node(folder / "follower", "--reader", *following) as (child, _):
                _say(f"an idle node that follows a block a second: {_idle(child)}")
    _say(f"load {os.getloadavg()[0]:.1f}")


def _following(home: Path) -> list[str]:
    with Client.of_home(home) as client:
        status = client.status()
    return ["--bootstrap", status["addresses"][0], "--network", status["chain_id"]]


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory(prefix="swarm-bench-", ignore_cleanup_errors=True) as folder:
        _measure(Path(folder))


if __name__ == "__main__":
    main()

"""`swarm serve` as a person runs it: a node, the command, and a program that speaks OpenAI's API over a socket."""

from __future__ import annotations

import errno
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from tests.process.cluster import Cluster
from tests.serving.test_real import write_model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.process.cluster import Node

pytestmark = pytest.mark.slow

FLAGS = ("--no-train", "--no-page", "--no-upnp", "--no-mdns")
SECONDS = 60
INTERRUPTED = 130


class Served:
    """A running `swarm serve gpt --port 0`."""

    def __init__(self, node: Node) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "cli", "serve", "gpt", "--port", "0", "--home", str(node.home)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"XDG_RUNTIME_DIR": str(node.home), "COLUMNS": "200"},
        )
        self._lines: dict[str, queue.Queue[str]] = {"out": queue.Queue(), "err": queue.Queue()}
        self._readers = [
            threading.Thread(target=self._read, args=each)
            for each in (("out", self.process.stdout), ("err", self.process.stderr))
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, name: str, stream: Any) -> None:
        with stream:
            for line in stream:
                self._lines[name].put(line.rstrip("\n"))

    def says(self, stream: str) -> str:
        """The next line of its stdout or stderr."""
        return self._lines[stream].get(timeout=SECONDS)

    def interrupt(self) -> tuple[int, str]:
        """Ctrl-C; the exit code, and what it still says."""
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(SECONDS)
        for reader in self._readers:
            reader.join()
        return code, "\n".join([*self._lines["out"].queue, *self._lines["err"].queue]).strip()


@contextmanager
def running(node: Node) -> Iterator[Served]:
    served = Served(node)
    try:
        yield served
    finally:
        if served.process.poll() is None:
            served.process.kill()
        served.process.wait()


def stream(url: str, body: dict[str, Any]) -> tuple[list[dict[str, Any]], str]:
    """The events of a streamed answer, and the line that ends it."""
    events, last = [], ""
    with httpx.stream("POST", url, json=body | {"stream": True}, timeout=SECONDS) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            last = line or last
            if line.startswith("data: {"):
                events.append(json.loads(line.removeprefix("data: ")))
    return events, last


def workers(node: Node) -> set[psutil.Process]:
    """Its child processes: its own worker, and one with the model that it serves."""
    assert node.process is not None
    return set(psutil.Process(node.process.pid).children())


def is_closed(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(SECONDS)
        return probe.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED


def test_a_model_is_served_a_newer_one_takes_its_place_and_ctrl_c_ends_it(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, 1, flags=FLAGS)
    (node,) = cluster.nodes

    def publish(version: int) -> str:
        write_model(tmp_path / f"v{version}", version)
        folder = tmp_path / f"v{version}"
        published = node.ask(lambda client: client.publish(folder, "gpt"))
        assert published["version"] == version
        return published["cid"]

    try:
        first = publish(0)
        with running(node) as served:
            url = served.says("out")
            assert served.says("err") == f"gpt@0 is {first}; Ctrl-C ends it"
            (model,) = httpx.get(f"{url}/models").json()["data"]
            assert (model["id"], model["swarm"]["cid"]) == ("gpt", first)

            ask = {"model": "gpt", "prompt": "to be", "max_tokens": 8, "seed": 3}
            answer = httpx.post(f"{url}/completions", json=ask, timeout=SECONDS)
            assert (answer.status_code, answer.headers["x-swarm-cid"]) == (200, first)
            assert answer.json()["usage"]["completion_tokens"] == 8
            older = answer.json()["choices"][0]["text"]

            talk = {"model": "gpt", "messages": [{"role": "user", "content": "hi"}]}
            events, last = stream(f"{url}/chat/completions", talk | {"max_tokens": 8, "seed": 3})
            assert last == "data: [DONE]"
            assert {one["system_fingerprint"] for one in events} == {first}
            assert events[0]["choices"][0]["delta"]["role"] == "assistant"
            assert events[-1]["choices"][0]["finish_reason"] == "length"

            newer = publish(1)
            assert served.says("err") == f"gpt@1 is {newer}, and answers from now on"
            answer = httpx.post(f"{url}/completions", json=ask, timeout=SECONDS)
            assert answer.headers["x-swarm-cid"] == answer.json()["system_fingerprint"] == newer
            assert answer.json()["choices"][0]["text"] != older

            serving = workers(node)
            assert served.interrupt() == (INTERRUPTED, "")
            port = urlsplit(url).port
            cluster.wait(lambda: is_closed(port), "its port to be closed")
            cluster.wait(lambda: workers(node) < serving, "the model's worker to end")
        assert node.status() is not None
        assert node.stop() == 0
    finally:
        cluster.end()

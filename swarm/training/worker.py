"""The worker process: `python -m swarm.training.worker FD DEVICE THREADS NICE ENCODINGS BYTES`.

The node starts it with one end of a socket pair and speaks `messages` with it.
The main thread does one job at a time; one that comes while another is under way is more urgent, and is done between
two steps of that (`turns`). A second thread reads, so that a job can be given up between two steps and so that the
process ends when the node's end closes, even in the middle of a job.
"""

from __future__ import annotations

import os
import queue
import socket
import sys
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from swarm.training.sources import Bench

from swarm.training import messages
from swarm.training.drawers import Drawers
from swarm.training.errors import TrainingError


class _CancelledError(Exception):
    """The node gave the job up."""


class _Link:
    """The worker's end of the socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.jobs: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self.cancelled: set[int] = set()

    def send(self, message: dict[str, Any]) -> None:
        self._sock.sendall(messages.pack(message))

    def check(self, number: int) -> None:
        """End a job that was given up."""
        if number in self.cancelled:
            raise _CancelledError

    def read_all(self) -> None:
        """Take in messages until the node's end closes, then end the process."""
        try:
            while True:
                size = messages.length(self._exactly(messages.PREFIX))
                message = messages.unpack(self._exactly(size))
                if "cancel" in message:
                    self.cancelled.add(message["cancel"])
                else:
                    self.jobs.put(message)
        except (OSError, EOFError, ValueError):
            os._exit(0)

    def _exactly(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            part = self._sock.recv(count - len(data))
            if not part:
                raise EOFError
            data += part
        return bytes(data)


def main(arguments: list[str]) -> None:
    """Serve jobs until the node's end of the socket closes."""
    fd, device, threads, nice, encodings, encodings_bytes = arguments
    os.nice(int(nice))
    link = _Link(socket.socket(fileno=int(fd)))
    threading.Thread(target=link.read_all, daemon=True).start()
    drawers = Drawers(Path(encodings) if encodings else None, int(encodings_bytes))
    kept = _bench(_prepare(device, int(threads)), drawers)
    link.send({"ready": {"pid": os.getpid()}})
    while True:
        _serve(link, link.jobs.get(), kept)


def _prepare(device: str, threads: int) -> torch.device:
    """Load torch and pin what makes its results repeatable."""
    from swarm.training import devices

    return devices.prepare(device, threads)


def _bench(device: torch.device, drawers: Drawers) -> Bench:
    """What is kept from job to job."""
    from swarm.training import jobs
    from swarm.training.finetune import Encoders

    return jobs.Bench(device, lambda _step, _steps, _loss: None, encoders=Encoders(drawers))


@dataclass(slots=True)
class _Pause:
    """How long a job stood still for others."""

    seconds: float = 0.0


def _speaking(kept: Bench, link: _Link, number: int, pause: _Pause | None) -> Bench:
    """The same bench for one job: what it says goes to the node, unless it gave the job up.

    Args:
        kept: The bench.
        link: To the node.
        number: The job's.
        pause: Of a job that lets others in; None: this one was let in itself.
    """

    def send(**said: object) -> None:
        link.check(number)
        link.send({"id": number, **said})

    def report(step: int, steps: int, loss: float) -> None:
        send(progress=[step, steps, loss])
        if pause is None or link.jobs.empty():
            return
        began = time.monotonic()
        while not link.jobs.empty():
            _serve(link, link.jobs.get(), kept, was_let_in=True)
        pause.seconds += time.monotonic() - began

    def alive() -> None:
        send(progress=[])

    def tell(piece: str) -> None:
        send(text=piece)

    return replace(kept, report=report, alive=alive, tell=tell)


def _serve(link: _Link, job: dict[str, Any], kept: Bench, *, was_let_in: bool = False) -> None:
    from swarm.training import devices, jobs

    if (allowed := job.pop("encodings_bytes", None)) is not None:
        kept.encoders.allow(allowed)
    pause = None if was_let_in else _Pause()
    try:
        link.check(job["id"])
        result = jobs.run(job, _speaking(kept, link, job["id"], pause))
        if pause is not None and "seconds" in result:
            result["seconds"] = max(0.0, result["seconds"] - pause.seconds)
        answer: dict[str, Any] = {"result": result}
    except _CancelledError:
        answer = {"error": "given up", "cause": "cancelled"}
    except TrainingError as error:
        answer = {"error": str(error), "cause": "failed"}
    except Exception as error:  # noqa: BLE001 - a job must not end the process; the node is told
        words = (
            str(error) if isinstance(error, RuntimeError) else f"{type(error).__name__}: {error}"
        )
        answer = {"error": words[:2000], "cause": "failed"}
        if devices.is_out_of_memory(error):
            answer = {"error": f"out of memory: {error}"[:2000], "cause": "memory"}
    link.cancelled.discard(job["id"])
    link.send({"id": job["id"], **answer})


if __name__ == "__main__":
    main(sys.argv[1:])

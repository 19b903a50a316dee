"""The worker's process and the node's end of its socket."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import trio

import swarm
from swarm.training import messages
from swarm.training.drawers import DEFAULT_BYTES
from swarm.training.errors import WorkerError

STOP_SECONDS: Final = 1
"""How long the process may take to end by itself when the node stops."""
STDERR_BYTES: Final = 4096
"""The last words of the process that an error quotes."""


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """How the worker process runs."""

    device: str = "cpu"  # "cpu", or "auto": an accelerator when there is one
    threads: int = 1
    nice: int = 10
    job_seconds: float = 3600.0  # a job that takes longer is given up and the process killed
    silence_seconds: float = 600.0  # likewise after so long without progress
    encodings: Path | None = None  # folder for encodings; None: they are not kept
    encodings_bytes: int = DEFAULT_BYTES


class Child:
    """One process and the node's end of its socket."""

    def __init__(self, process: trio.Process, stream: trio.SocketStream, errors: int) -> None:
        self._process = process
        self._stream = stream
        self._errors = errors
        self._buffer = bytearray()
        self._words = ""
        self.ready = False

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    @classmethod
    async def start(cls, settings: WorkerSettings) -> Child:
        """Start the process; it says that it is ready later.

        Raises:
            WorkerError: The operating system did not start it.
        """
        ours, theirs, errors = _ends()
        command = [sys.executable, "-m", "swarm.training.worker", str(theirs.fileno())]
        command += [settings.device, str(settings.threads), str(settings.nice)]
        command += [str(settings.encodings or ""), str(settings.encodings_bytes)]
        try:
            with trio.CancelScope(shield=True):
                process = await trio.lowlevel.open_process(
                    command,
                    pass_fds=(theirs.fileno(),),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=errors if errors >= 0 else subprocess.DEVNULL,
                    env=_environment(settings),
                    start_new_session=True,  # Ctrl-C in a terminal is for the node, which then stops us
                )
        except OSError as error:
            ours.close()
            if errors >= 0:
                os.close(errors)
            raise WorkerError(cause="start", why=str(error)) from error
        finally:
            theirs.close()
        return cls(process, trio.SocketStream(trio.socket.from_stdlib_socket(ours)), errors)

    async def send(self, message: bytes) -> None:
        """Send what `messages.pack` gave."""
        await self._stream.send_all(message)

    async def receive(self) -> dict[str, Any]:
        """The next message; what is half read when cancelled is kept.

        Raises:
            EOFError: The process ended.
            ValueError: It said something that is no message.
        """
        await self._fill(messages.PREFIX)
        size = messages.PREFIX + messages.length(bytes(self._buffer[: messages.PREFIX]))
        await self._fill(size)
        body = bytes(self._buffer[messages.PREFIX : size])
        del self._buffer[:size]
        return messages.unpack(body)

    async def _fill(self, count: int) -> None:
        while len(self._buffer) < count:
            data = await self._stream.receive_some(2**16)
            if not data:
                raise EOFError
            self._buffer += data

    async def reap(self) -> tuple[str, str]:
        """Collect a process whose socket closed: (cause, what happened)."""
        await self.stop()
        code = self._process.returncode or 0
        words = self._last_words()
        if code < 0:
            name = signal.Signals(-code).name
            hint = ", as the system does when memory runs out" if -code == signal.SIGKILL else ""
            return "killed", f"the process was ended by {name}{hint}{words}"
        return "crashed", f"the process ended with status {code}{words}"

    async def stop(self) -> None:
        """End the process: close its socket, then kill it if it stays."""
        with trio.CancelScope(shield=True):
            await self._stream.aclose()
            with trio.move_on_after(STOP_SECONDS):
                await self._process.wait()
            if self._process.returncode is None:
                self._process.kill()
                await self._process.wait()
        self._words = self._read_errors()

    def _last_words(self) -> str:
        return f": {self._words}" if self._words else ""

    def _read_errors(self) -> str:
        if self._errors < 0:
            return ""
        size = os.fstat(self._errors).st_size
        data = os.pread(self._errors, STDERR_BYTES, max(0, size - STDERR_BYTES))
        os.close(self._errors)
        self._errors = -1
        lines = data.decode(errors="replace").strip().splitlines()
        # Rust ends with advice on debugging.
        lines = [line for line in lines if not line.startswith("note: ")]
        return lines[-1][:500] if lines else ""


def _ends() -> tuple[socket.socket, socket.socket, int]:
    """Both ends of the socket, and where the process writes its errors; -1 for nowhere.

    Raises:
        WorkerError: The system gives no more files.
    """
    try:
        # What it writes to stderr goes to a nameless file: no pipe can fill up and no task has to read it.
        errors = (
            os.memfd_create("swarm-worker-stderr", os.MFD_CLOEXEC)
            if hasattr(os, "memfd_create")
            else -1
        )
        try:
            return *socket.socketpair(), errors
        except OSError:
            if errors >= 0:
                os.close(errors)
            raise
    except OSError as error:
        raise WorkerError(cause="start", why=str(error)) from error


def _environment(settings: WorkerSettings) -> dict[str, str]:
    """The node's own environment, with the threads of torch's libraries and the path of our packages."""
    root = str(Path(swarm.__file__).parents[1])
    inherited = os.environ.get("PYTHONPATH")
    return {
        **os.environ,
        "PYTHONPATH": root if not inherited else f"{root}{os.pathsep}{inherited}",
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": str(settings.threads),
        "MKL_NUM_THREADS": str(settings.threads),
        "OPENBLAS_NUM_THREADS": str(settings.threads),
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        # The tokenizers' own threads; without a backtrace a panic's words are short.
        "TOKENIZERS_PARALLELISM": "true" if settings.threads > 1 else "false",
        "RAYON_NUM_THREADS": str(settings.threads),
        "RUST_BACKTRACE": "0",
    }

"""The file in which a node remembers its peers from run to run."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING

import structlog
import trio

from protocols.patience import lack
from swarm.network.peerbook import MAX_FILE_BYTES

if TYPE_CHECKING:
    from swarm.network.peerbook import PeerBook

SAVE_FIRST_S = 1.0
"""Until the first peers are saved: a machine may lose its power soon after it joined. Doubles up to `SAVE_S`."""
SAVE_S = 30.0
SAVE_AT_END_S = 1.0

log = structlog.get_logger("swarm.network")


class KnownPeers:
    """Loads and saves a peer book.

    Args:
        book: What is remembered.
        path: Where; None: nowhere.

    Attributes:
        problem: What went wrong last, for people; empty when nothing did.
    """

    def __init__(self, book: PeerBook, path: Path | None) -> None:
        self.problem = ""
        self._book = book
        self._path = path

    async def load(self) -> None:
        path = self._path
        if path is None:
            return
        try:
            data = await trio.to_thread.run_sync(_read, path)
            if data is not None:
                self._book.load(data)
        except (OSError, ValueError, RecursionError) as error:
            self.problem = f"the known peers in {path} cannot be read: {error}"
            log.warning("network.known_peers_unreadable", path=str(path), error=str(error))

    async def save(self) -> None:
        path = self._path
        if path is None or not self._book.changed:
            return
        data = self._book.dump()
        try:
            await trio.to_thread.run_sync(_write, path, data)
        except BaseException as error:
            self._book.changed = True  # not saved yet
            if not isinstance(error, Exception) or lack(error) is None:
                raise
            self.problem = f"the known peers cannot be written to {path}: {error}"
            log.warning("network.known_peers_unwritable", path=str(path), error=str(error))
        else:
            self.problem = ""

    async def run(self) -> None:
        pause = SAVE_FIRST_S
        while True:
            await trio.sleep(pause)
            await self.save()
            pause = min(2 * pause, SAVE_S)

    async def save_at_end(self) -> None:
        """Save although the node is being stopped, for at most `SAVE_AT_END_S`."""
        with trio.CancelScope(deadline=trio.current_time() + SAVE_AT_END_S, shield=True):
            await self.save()


def _read(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            return file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        return None


def _write(path: Path, data: bytes) -> None:
    """Replace a file in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            file.close()
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise

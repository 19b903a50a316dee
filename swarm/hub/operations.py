"""What a person asks of the Hub's side of a node: a version in the cache of the Hub's clients."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

import structlog
import trio

from storage import cid as cids
from swarm.errors import NotFoundError, UsageError
from swarm.hub import cache, cards
from swarm.hub.errors import HubError
from swarm.hub.repository import MAIN
from swarm.hub.revisions import Revision

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from storage.cid import Cid
    from swarm.control.api import Json, Progress
    from swarm.hub.repository import Hub
    from swarm.ledger.state import LedgerView
    from swarm.shelf import Shelf

CONFIG = "config.json"
"""What a model's folder holds and a dataset's does not."""

_log = structlog.get_logger("swarm.hub")


class HubOperations:
    """A person's door to the Hub's side.

    Args:
        hub: Finds versions.
        shelf: Where their files lie.
        caught_up: Waits, within bounds, until the ledger is as new as its peers'.
    """

    def __init__(
        self, hub: Hub, shelf: Shelf, caught_up: Callable[[Progress], Awaitable[None]]
    ) -> None:
        self._hub = hub
        self._shelf = shelf
        self._caught_up = caught_up

    async def add_card(
        self, view: LedgerView, name: str, version: int, root: Cid, folder: Path
    ) -> bool:
        """Write the card of a version that has none into the folder that it was fetched to; whether it did.

        A folder that cannot take it does not make what was fetched a failure.
        """

        def write() -> bool:
            target = folder / cards.CARD
            if not folder.is_dir() or os.path.lexists(target):
                return False
            files = {path.name for path in folder.iterdir()}
            kind = "models" if CONFIG in files else "datasets"
            revision = Revision(kind, name, version, root)
            made = cards.make(revision, cards.record(view, revision), files)
            with target.open("xb") as card:  # through no link, wherever it leads
                card.write(made)
            return True

        try:
            return await trio.to_thread.run_sync(write)
        except OSError as error:
            _log.warning("hub.no_card", path=str(folder), error=str(error))
            return False

    async def link(
        self, kind: str, name: str, version: int | None, folder: Path, progress: Progress
    ) -> Json:
        """Make a version appear in a cache of the Hub's clients, with its card.

        Args:
            kind: "models" or "datasets".
            name: Of the ledger, or a CID.
            version: Which one; None is the latest, and what `main` stands for from then on.
            folder: The cache.
            progress: Told while the files come.

        Returns:
            `repository` (as clients call it), `name`, `version` (None of a CID), `cid`, `revision`, `path` (the
            snapshot), `files`, `copied` (bytes), and `ways`: how many files were `kept`, `made` (a card), or
            came by `reflink`, `hard link` or `copy`.

        Raises:
            NotFoundError: No such name or version.
        """
        await self._caught_up(progress)
        wanted = MAIN if version is None else f"v{version}"
        try:
            found = await self._hub.version(kind, name, wanted)
            files = await found.files()
        except HubError as error:
            raise NotFoundError(str(error), "`swarm tasks` lists the names") from error
        revision = found.revision
        refs = [MAIN] if version is None else []
        refs += [] if revision.version is None else [f"v{revision.version}"]
        with self._shelf.lease() as lease:
            tree = await found.tree()
            source = await lease.take(tree, progress=partial(progress, "fetch"))
            if not source.is_dir():
                message = f"{name} is a file and no folder"
                raise UsageError(message)
            linked = await trio.to_thread.run_sync(
                partial(cache.link, folder, revision, source, files, refs)
            )
        return {
            "repository": f"swarm/{revision.name}",
            "name": revision.name,
            "version": revision.version,
            "cid": cids.text(revision.root),
            "revision": revision.alias,
            "path": str(linked.snapshot),
            "files": linked.files,
            "copied": linked.copied,
            "ways": dict(linked.ways),
        }

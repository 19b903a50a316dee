"""Samples of versions: text that a model writes, or a grid of its pictures; made once, kept by CID.

A version never changes and a sample is drawn with one seed, so what was made is right for ever.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from typing import TYPE_CHECKING, Any, Final

import trio

from storage.files import DISK
from swarm.errors import NotFoundError, RefusedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    Json = dict[str, Any]
    Make = Callable[[str, int | None, str | None, Path | None, int, int], Awaitable[Json]]

LENGTH: Final = 400
"""Tokens of a text."""
SEED: Final = 0
MAX_KEPT: Final = 64
MAX_TEXT: Final = 20_000
MAX_FILE_BYTES: Final = 2**20
MAX_IMAGE_BYTES: Final = 8 * 2**20
MAKE_SECONDS: Final = 600.0
"""The worker trains first; a sample that is not made after so long is given up."""
_CID: Final = re.compile(r"[a-z2-7]{20,120}", re.ASCII)


class Samples:
    """The samples that a node holds.

    Args:
        folder: Where they lie; made with the first.
        make: `Work.sample`.
        root_of: The CID of a name's version; None where there is none.
    """

    def __init__(self, folder: Path, make: Make, root_of: Callable[[str, int], str | None]) -> None:
        self._folder = folder
        self._make = make
        self._root_of = root_of
        self._one = trio.CapacityLimiter(1)

    async def kept(self) -> list[Json]:
        """Samples by version, the newest made first: `name`, `version`, `cid`, `text` (None: it is an image)."""
        return await trio.to_thread.run_sync(self._kept)

    async def image(self, cid: str) -> bytes:
        """The PNG of a version.

        Raises:
            NotFoundError: None was made.
        """
        if _CID.fullmatch(cid) is None:
            message = f"{cid[:80]!r} is no CID"
            raise NotFoundError(message)

        def read() -> bytes:
            with (self._folder / f"{cid}.png").open("rb") as file:
                return file.read(MAX_IMAGE_BYTES)

        try:
            return await trio.to_thread.run_sync(read)
        except FileNotFoundError as error:
            message = f"no image of {cid} was made here"
            raise NotFoundError(message) from error

    async def make(self, name: str, version: int) -> Json:
        """Draw a sample, or give the one that is kept; what `kept` tells of it.

        Raises:
            NotFoundError: There is no such version.
            RefusedError: One is being drawn already, or it takes too long.
        """
        cid = self._root_of(name, version)
        if cid is None:
            message = f"{name[:80]!r} has no version {version:,} here"
            raise NotFoundError(message)
        for one in await self.kept():
            if one["cid"] == cid:
                return one
        if self._one.available_tokens < 1:
            message = "another sample is being drawn"
            raise RefusedError(message, "it waits while the node trains; try again then")
        async with self._one:
            try:
                with trio.fail_after(MAKE_SECONDS):
                    return await self._draw(name, version, cid)
            except trio.TooSlowError as error:
                message = f"no sample came within {MAKE_SECONDS:.0f} s"
                raise RefusedError(message, "the node trains first") from error

    async def _draw(self, name: str, version: int, cid: str) -> Json:
        image = self._folder / f"{cid}.png"
        await trio.to_thread.run_sync(self._make_room, image)
        made = await self._make(name, version, None, image, LENGTH, SEED)
        text = made.get("text")
        told = {
            "name": name,
            "version": version,
            "cid": cid,
            "text": None if text is None else str(text)[:MAX_TEXT],
        }
        data = json.dumps(told).encode()
        await trio.to_thread.run_sync(DISK.replace, self._folder / f"{cid}.json", data)
        return told

    def _make_room(self, image: Path) -> None:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        image.unlink(missing_ok=True)  # of a drawing that was broken off
        for path in self._files()[MAX_KEPT - 1 :]:
            path.unlink(missing_ok=True)
            path.with_suffix(".png").unlink(missing_ok=True)

    def _files(self) -> list[Path]:
        found = [(_made(path), path) for path in self._folder.glob("*.json")]
        return [path for _, path in sorted(found, reverse=True)]

    def _kept(self) -> list[Json]:
        found = []
        for path in self._files()[:MAX_KEPT]:
            with contextlib.suppress(OSError, ValueError, KeyError), path.open("rb") as file:
                one = json.loads(file.read(MAX_FILE_BYTES))
                found.append({key: one[key] for key in ("name", "version", "cid", "text")})
        return found


def _made(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return -math.inf

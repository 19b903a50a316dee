"""Repositories: a name or a CID as the Hub's clients see it, with its revisions and its files."""

from __future__ import annotations

import re
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import trio

from storage import cid as cids
from storage.errors import CidError, ManifestError, PathNotFoundError
from swarm.hub import cards
from swarm.hub.errors import (
    EntryNotFoundError,
    RepoNotFoundError,
    RevisionNotFoundError,
    TooManyFilesError,
)
from swarm.hub.revisions import ALIAS, Revision

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from storage.cid import Cid
    from swarm.hub.revisions import Revisions
    from swarm.ledger.names import NameEntry
    from swarm.ledger.state import LedgerView
    from swarm.ranges import Ranges, Reading

NAMESPACE: Final = "swarm"
"""Who owns every repository, as the Hub's paths have it."""
MAIN: Final = "main"
MAX_FILES: Final = 10_000
"""In one listing."""
MAX_SEARCHED: Final = 10_000
"""Newest versions of a name among which an alias is looked for."""
MAX_TAGS: Final = 1_000
"""Newest versions that `refs` lists."""

_VERSION = re.compile(r"[v@](\d{1,18})")
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


@dataclass(frozen=True, slots=True)
class File:
    """A file or folder of a version.

    Attributes:
        path: Below the version's root, with `/`.
        cid: Its root.
        size: Bytes of content; 0 of a folder.
        is_folder: Whether it is one.
        content: Of a card that was made; None of what is read by its CID.
    """

    path: str
    cid: Cid
    size: int
    is_folder: bool = False
    content: bytes | None = field(default=None, repr=False)


class Hub:
    """Finds versions and their files.

    Args:
        view: The ledger's finalized state.
        ranges: What content is read with.
        revisions: Where aliases are kept.
    """

    def __init__(
        self, view: Callable[[], LedgerView], ranges: Ranges, revisions: Revisions
    ) -> None:
        self._view = view
        self._ranges = ranges
        self._revisions = revisions

    async def version(self, kind: str, name: str, revision: str) -> Version:
        """A version of a repository.

        Args:
            kind: "models" or "datasets".
            name: Of the ledger, or a CID.
            revision: `main`, `v3`, `@3`, or an alias.

        Raises:
            RepoNotFoundError: No such name.
            RevisionNotFoundError: No such version.
            ExchangeError: Nobody has the folder's first block.
        """
        view = self._view()
        found = await trio.to_thread.run_sync(self._find, view, kind, name, revision)
        reading = self._ranges.of(found.root)
        try:
            root = await reading.find("")
            is_folder = (await reading.look(root)).kind == "folder"
            has_card = is_folder and await _has(reading, cards.CARD)
        except ManifestError as error:
            raise RepoNotFoundError(str(error)) from error
        if not is_folder:
            message = f"{name} is a file and no folder: `swarm fetch` or `swarm get` writes it"
            raise RepoNotFoundError(message)
        await trio.to_thread.run_sync(self._revisions.note, found)
        card = None
        if not has_card:
            known = await trio.to_thread.run_sync(cards.record, view, found)
            files = [name for name in cards.TELLING if await _has(reading, name)]
            card = cards.make(found, known, files)
        return Version(found, reading, card)

    def tags(self, kind: str, name: str) -> list[Revision]:
        """The newest versions of a repository, the newest first.

        Raises:
            RepoNotFoundError: No such name.
        """
        view = self._view()
        entry = self._entry(view, name)
        if entry is None:
            return [self._bare(kind, name)]
        oldest = max(0, entry.version - MAX_TAGS + 1)
        numbers = range(entry.version, oldest - 1, -1)
        return [self._numbered(view, kind, entry, number) for number in numbers]

    def record(self, revision: Revision) -> bytes:
        """This node's signed word for a revision."""
        return self._revisions.record(revision)

    def _find(self, view: LedgerView, kind: str, name: str, revision: str) -> Revision:
        entry = self._entry(view, name)
        if entry is None:
            bare = self._bare(kind, name)
            if revision not in (MAIN, bare.alias):
                message = f"a CID has one revision, {MAIN}, and not {revision[:80]!r}"
                raise RevisionNotFoundError(message)
            return bare
        if revision == MAIN:
            return self._numbered(view, kind, entry, entry.version)
        if (match := _VERSION.fullmatch(revision)) is not None:
            return self._numbered(view, kind, entry, int(match[1]))
        if ALIAS.fullmatch(revision) is not None:
            return self._aliased(view, kind, entry, revision)
        message = f"{name} has no revision {revision[:80]!r}: main, v0 to v{entry.version}, or 40 hex digits"
        raise RevisionNotFoundError(message)

    def _aliased(self, view: LedgerView, kind: str, entry: NameEntry, alias: str) -> Revision:
        known = self._revisions.find(alias)
        if known is not None and (known.kind, known.name) == (kind, entry.name):
            return known
        oldest = max(0, entry.version - MAX_SEARCHED + 1)
        for number in range(entry.version, oldest - 1, -1):
            found = self._numbered(view, kind, entry, number)
            if found.alias == alias:
                return found
        message = f"{entry.name} has no version with the revision {alias}"
        raise RevisionNotFoundError(message)

    def _entry(self, view: LedgerView, name: str) -> NameEntry | None:
        """The ledger's entry of a name; None where it is a CID, even if somebody registered one that reads like it."""
        try:
            cids.parse(name)
        except CidError:
            if _NAME.fullmatch(name) is not None and (entry := view.name(name)) is not None:
                return entry
        else:
            return None
        message = f"the ledger has no name {name[:80]!r} at height {view.height:,}"
        raise RepoNotFoundError(message)

    @staticmethod
    def _bare(kind: str, name: str) -> Revision:
        root = cids.parse(name)
        return Revision(kind, cids.text(root), None, root)

    @staticmethod
    def _numbered(view: LedgerView, kind: str, entry: NameEntry, number: int) -> Revision:
        found = view.name_version(entry.name, number)
        if found is None:
            message = f"{entry.name} has versions 0 to {entry.version}, not {number}"
            raise RevisionNotFoundError(message)
        return Revision(kind, entry.name, number, found.root)


class Version:
    """One version's files.

    Args:
        revision: The version.
        reading: Reads what is below its root.
        card: The README that it has not itself; None where it has one.
    """

    def __init__(self, revision: Revision, reading: Reading, card: bytes | None) -> None:
        self.revision = revision
        self._reading = reading
        self._card = (
            None if card is None else File(cards.CARD, cids.of_raw(card), len(card), content=card)
        )

    async def file(self, path: str) -> File:
        """The file or folder at a path.

        Raises:
            EntryNotFoundError: Nothing is there, or a symbolic link.
        """
        if path == cards.CARD and self._card is not None:
            return self._card
        try:
            cid = await self._reading.find(path)
            found = await self._reading.look(cid)
        except PathNotFoundError as error:
            raise self._absent(path) from error
        if found.kind == "symlink":
            raise self._absent(path)
        is_folder = found.kind == "folder"
        return File(path, cid, 0 if is_folder else found.size, is_folder)

    async def tree(self) -> Cid:
        """The folder's root; of a commit of a dataset, that of its files."""
        return await self._reading.find("")

    async def files(self, path: str = "", *, recursive: bool = True) -> list[File]:
        """What stands below a path, folders before what is in them; symbolic links are left out.

        Raises:
            EntryNotFoundError: It is no folder.
            TooManyFilesError: There is more than `MAX_FILES`.
        """
        path = path.strip("/")
        top = await self.file(path)
        if not top.is_folder:
            raise self._absent(path)
        found = [self._card] if self._card is not None and not path else []
        folders = [top]
        while folders:
            folder = folders.pop()
            # Counted by name first: to list an entry, its first block is fetched.
            self._check_count(
                len(found) + len(await self._reading.names(folder.cid, MAX_FILES + 1))
            )
            for entry in await self._reading.listing(folder.cid):
                if entry.kind == "symlink":
                    continue
                is_folder = entry.kind == "folder"
                below = f"{folder.path}/{entry.name}" if folder.path else entry.name
                file = File(below, entry.cid, 0 if is_folder else entry.size, is_folder)
                found.append(file)
                if is_folder and recursive:
                    folders.append(file)
        return sorted(found, key=lambda file: file.path)

    @staticmethod
    def _check_count(files: int) -> None:
        if files > MAX_FILES:
            message = f"more than {MAX_FILES:,} files: list folder by folder, without recursion"
            raise TooManyFilesError(message)

    async def read(self, file: File, start: int, length: int) -> AsyncGenerator[bytes, None]:
        """Bytes of a file from `start` on, a window at a time."""
        if file.content is not None:
            yield file.content[start : start + length]
            return
        async with aclosing(self._reading.read(file.cid, start, length)) as parts:
            async for part in parts:
                yield part

    async def front(self) -> dict[str, object]:
        """The front matter of its card; nothing where the card is a folder or a symbolic link, or cannot be read."""
        try:
            file = await self.file(cards.CARD)
        except EntryNotFoundError:
            return {}
        if file.is_folder:
            return {}
        length = min(file.size, cards.MAX_FRONT_BYTES)
        async with aclosing(self.read(file, 0, length)) as parts:
            return cards.read(b"".join([part async for part in parts]))

    def _absent(self, path: str) -> EntryNotFoundError:
        return EntryNotFoundError(
            f"{self.revision.name} has no {path[:200]!r} at {self.revision.alias}"
        )


async def _has(reading: Reading, name: str) -> bool:
    """Whether a folder has an entry, however many others it has."""
    try:
        await reading.find(name)
    except PathNotFoundError:
        return False
    return True

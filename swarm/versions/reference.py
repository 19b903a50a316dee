"""Versions as people write them.

    HEAD            what the working folder holds
    main            a branch of the working folder's dataset
    bafyrei…        a commit, or the beginning of its CID
    shakespeare     a dataset of this node, or a name on the ledger: its newest version
    shakespeare:try a branch of a dataset of this node
    shakespeare@3   a version of a name on the ledger; `@latest` is its newest

Each may be followed by `~N`: so many commits before, always to the first parent.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from swarm.errors import UsageError
from swarm.versions.history import MAX_COMMITS

HEAD = "HEAD"
LATEST = "latest"
MAX_CHARACTERS = 200
MIN_PREFIX = 10
"""Characters of a CID's beginning; the first seven are the same in every commit."""

_DATASET = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_BRANCH = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_VERSION = re.compile(
    r"(?P<word>[A-Za-z0-9][A-Za-z0-9._-]{0,127})"
    r"(?::(?P<branch>[A-Za-z0-9][A-Za-z0-9._-]{0,62})|@v?(?P<version>\d{1,18}|latest))?"
    r"(?:~(?P<steps>\d{0,6}))?"
)


@dataclass(frozen=True, slots=True)
class Reference:
    """A version as written.

    Attributes:
        word: A branch, a CID, a dataset or a name.
        branch: Of the dataset `word`; None if not given.
        version: Of the name `word` on the ledger: its number, or `latest`; None if not given.
        steps: How many commits before.
    """

    word: str
    branch: str | None
    version: str | None
    steps: int


def parse(text: str) -> Reference:
    """Read a version.

    Raises:
        UsageError: Of another form.
    """
    match = _VERSION.fullmatch(text)
    if match is None:
        message = f"VERSION: {text[:80]!r} is not a version"
        raise UsageError(
            message,
            "write HEAD, a branch, a commit's CID, NAME, NAME:BRANCH or NAME@3; ~2 after it",
        )
    steps = 0 if match["steps"] is None else int(match["steps"] or 1)
    if steps > MAX_COMMITS:
        message = f"VERSION: {text[:80]!r} goes back more than {MAX_COMMITS:,} commits"
        raise UsageError(message)
    return Reference(match["word"], match["branch"], match["version"], steps)


def check_dataset(name: str) -> str:
    """A name that a dataset may have, which is one that the ledger takes.

    Raises:
        UsageError: Of another form.
    """
    if _DATASET.fullmatch(name) is None:
        message = f"NAME: {name[:80]!r} is not a dataset's name"
        raise UsageError(message, "1 to 63 of a-z, 0-9 and -, and the first is no -")
    return name


def check_branch(name: str) -> str:
    """A name that a branch may have.

    Raises:
        UsageError: Of another form, or one that means something else already.
    """
    if _BRANCH.fullmatch(name) is None or name == HEAD or name.startswith("bafyrei"):
        message = f"BRANCH: {name[:80]!r} is not a branch's name"
        raise UsageError(message, "1 to 63 of A-Z, a-z, 0-9, '.', '_' and '-'; not HEAD, not a CID")
    return name

"""What the Hub's clients are told when something is not there; the code is the one that they look at."""

from __future__ import annotations

from typing import ClassVar


class HubError(Exception):
    """A request that cannot be answered."""

    status: ClassVar[int] = 404
    code: ClassVar[str]


class RepoNotFoundError(HubError):
    """The ledger has no such name, and it is no CID of a folder."""

    code = "RepoNotFound"


class RevisionNotFoundError(HubError):
    """The name has no such version."""

    code = "RevisionNotFound"


class EntryNotFoundError(HubError):
    """The version has no such file."""

    code = "EntryNotFound"


class TooManyFilesError(HubError):
    """A listing would be longer than it may be: ask for its folders one by one."""

    status = 413
    code = "TooManyFiles"

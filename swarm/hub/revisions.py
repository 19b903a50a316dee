"""Revisions: 40 hex digits for a version, since a Hub's client takes no CID for a commit.

    statement = canonical [kind, name, version, root]         kind "models" or "datasets"; version None of a bare CID
    alias     = first 40 hex digits of SHA-256("swarm/revision/1" || 0x00 || statement)
    record    = canonical [statement, public key, signature]  the signature over the statement, tag "swarm/revision/1"

The same version has the same alias on every node of every network on which its name, number and root are the same.
What a node has named is kept, signed with its key, in a file of records, so that the alias stays known when the ledger
is not at hand; an alias that is not in the file is looked for among the versions of its name.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog

from protocols import signing
from storage import canonical, records
from storage import cid as cids
from storage.errors import CidError

if TYPE_CHECKING:
    from pathlib import Path

    from protocols.signing import Signer
    from storage.cid import Cid

_log = structlog.get_logger("swarm.hub")

TAG: Final = b"swarm/revision/1"
ALIAS: Final = re.compile(r"[0-9a-f]{40}")
KINDS: Final = ("models", "datasets")
MAX_RECORDS: Final = 65_536
"""Kept in the file; later ones are still answered, from the ledger."""
MAX_RECORD_BYTES: Final = 1_024


@dataclass(frozen=True, slots=True)
class Revision:
    """A version as the Hub's clients know it.

    Attributes:
        kind: "models" or "datasets".
        name: Of the ledger, or a CID.
        version: Its number; None of a CID.
        root: What it names.
    """

    kind: str
    name: str
    version: int | None
    root: Cid

    @property
    def statement(self) -> bytes:
        """What is hashed and signed."""
        return canonical.encode([self.kind, self.name, self.version, self.root])

    @property
    def alias(self) -> str:
        """Its 40 hex digits."""
        return hashlib.sha256(TAG + b"\0" + self.statement).hexdigest()[:40]


def sign(revision: Revision, signer: Signer) -> bytes:
    """The record of a revision."""
    statement = revision.statement
    return canonical.encode([statement, signer.public_key, signer.sign(TAG, statement)])


def read(record: bytes) -> Revision | None:
    """The revision of a record; None where it is none, or not signed by the key that it names."""
    try:
        outer = canonical.decode(record, max_bytes=MAX_RECORD_BYTES)
        statement, key, signature = outer
        if not all(isinstance(one, bytes) for one in (statement, key, signature)):
            return None
        inner = canonical.decode(statement, max_bytes=MAX_RECORD_BYTES)
        kind, name, version, root = inner
        if kind not in KINDS or not isinstance(name, str) or type(version) not in (int, type(None)):
            return None
        revision = Revision(kind, name, version, cids.from_bytes(root))
    except (ValueError, TypeError, CidError):
        return None
    return revision if signing.verify(key, TAG, statement, signature) else None


class Revisions:
    """The revisions that this node has named; many threads may ask at once.

    Args:
        path: The file of records; made when the first is kept.
        signer: Whose word a new record is.
    """

    def __init__(self, path: Path, signer: Signer) -> None:
        self._path = path
        self._signer = signer
        self._lock = threading.Lock()
        self._known: dict[str, Revision] = {}
        data = path.read_bytes() if path.exists() else b""
        self._end = 0
        for at, body in records.scan(data):
            self._end = at + len(body)
            found = read(bytes(body))
            if found is not None:
                self._known[found.alias] = found

    def note(self, revision: Revision) -> str:
        """Keep a revision; its alias. Where the disk takes none, it is answered from the ledger."""
        alias = revision.alias
        with self._lock:
            if alias not in self._known and len(self._known) < MAX_RECORDS:
                try:
                    self._append(records.pack(sign(revision, self._signer)))
                except OSError as error:
                    _log.warning("revision.not_kept", alias=alias, error=str(error))
                else:
                    self._known[alias] = revision
        return alias

    def record(self, revision: Revision) -> bytes:
        """This node's signed word for a revision, which `read` checks."""
        return sign(revision, self._signer)

    def find(self, alias: str) -> Revision | None:
        """What an alias stands for, if this node has named it."""
        return self._known.get(alias)

    def _append(self, record: bytes) -> None:
        """Write behind the last good record: what is torn after a crash is written over."""
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.ftruncate(descriptor, self._end)
            os.pwrite(descriptor, record, self._end)
        finally:
            os.close(descriptor)
        self._end += len(record)

"""What a verification found, by root and path; pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from storage import cid as cids

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from storage.cid import Cid
    from swarm.store.repair import Lost

MAX_PATHS = 1_000
"""That are told one by one."""
NOT_UNDERSTOOD = "nobody here can tell what it names"


class _Kept(Protocol):
    @property
    def label(self) -> str: ...


@dataclass(slots=True)
class _Bad:
    """What is bad at one path of one root.

    Attributes:
        chunks: That were bad.
        remaining: Of these, and of what showed to be lost below them.
        why: These could not be fetched.
    """

    chunks: set[Cid] = field(default_factory=set)
    remaining: set[Cid] = field(default_factory=set)
    why: str | None = None


class Verification:
    """Gathers what was found and what was repaired.

    Attributes:
        files: In which of the user's files chunks were, that are not there any more.
        wanted: Every chunk that was bad and that something keeps.
    """

    def __init__(self) -> None:
        self.files: dict[Cid, str] = {}
        self.wanted: set[Cid] = set()
        self._bad: dict[tuple[Cid, str], _Bad] = {}

    def found(self, root: Cid, lost: Iterable[Lost]) -> None:
        """Chunks are lost below a root."""
        for one in lost:
            self.wanted.add(one.cid)
            bad = self._bad.setdefault((root, one.path), _Bad())
            bad.chunks.add(one.cid)
            bad.remaining.add(one.cid)
            if not one.is_understood:
                bad.why = NOT_UNDERSTOOD

    def repaired(self, root: Cid, lost: Iterable[Lost], why: Mapping[Cid, str]) -> None:
        """A root was repaired, and this is what is still lost below it."""
        for (whose, _), bad in self._bad.items():
            if whose == root:
                bad.remaining.clear()
        still = list(lost)
        self.found(root, still)
        for one in still:
            bad = self._bad[root, one.path]
            bad.why = bad.why or why.get(one.cid)

    def report(self, kept: Mapping[Cid, _Kept]) -> dict[str, Any]:
        """`bad`, `more` and `remaining`, as `StoreOperations.verify` tells them."""
        listed = sorted(self._bad.items(), key=lambda item: item[0])[:MAX_PATHS]
        return {
            "bad": [
                {
                    "root": cids.text(root),
                    "label": kept[root].label,
                    "path": path,
                    "chunks": len(bad.chunks),
                    "remaining": len(bad.remaining),
                    "file": next((self.files[c] for c in bad.chunks if c in self.files), None),
                    "why": bad.why,
                }
                for (root, path), bad in listed
            ],
            "more": len(self._bad) - len(listed),
            "remaining": len({cid for bad in self._bad.values() for cid in bad.remaining}),
        }

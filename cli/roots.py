"""Roots as people type them."""

from __future__ import annotations

from swarm.errors import UsageError
from swarm.retrieval.link import without_scheme


def parse_root(text: str) -> str:
    """A CID in its usual form; `swarm://` or `ipfs://` before it does no harm.

    Raises:
        UsageError: Not a CID.
    """
    from storage import cid as cids
    from storage.errors import CidError

    try:
        return cids.text(cids.parse(without_scheme(text)))
    except CidError as error:
        message = f"CID: {error}"
        raise UsageError(message, "a CID looks like bafybei… or bafkrei…") from error


def parse_place(text: str) -> tuple[str, str]:
    """A CID and the path below it, as `CID/PATH`."""
    root, _, path = without_scheme(text).partition("/")
    return parse_root(root), path.strip("/")

"""What every store accepts as a chunk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from storage import cid as cids
from storage.errors import ChunkTooLargeError, CidError, CorruptChunkError

if TYPE_CHECKING:
    from storage.cid import Cid

MAX_CHUNK_BYTES = 2 * 2**20
"""What other implementations send at most; our own leaves are at most 1 MiB."""


def check_chunk(cid: Cid, data: bytes | memoryview, *, verify: bool) -> None:
    """Refuse what no store may hold.

    Args:
        cid: The name the chunk is to have.
        data: Its bytes.
        verify: Whether to hash them; false where the caller has done so.

    Raises:
        CidError: The name is not 36 bytes.
        ChunkTooLargeError: More than `MAX_CHUNK_BYTES`.
        CorruptChunkError: The bytes do not hash to the name.
    """
    if len(cid) != cids.CID_BYTES:
        message = f"a CID has {cids.CID_BYTES} bytes, not {len(cid)}"
        raise CidError(message)
    if len(data) > MAX_CHUNK_BYTES:
        raise ChunkTooLargeError(len(data), MAX_CHUNK_BYTES)
    if verify and not cids.matches(cid, data):
        raise CorruptChunkError(cids.text(cid))

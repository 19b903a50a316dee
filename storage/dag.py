"""What a block names, whatever its codec: nothing (raw), its links (dag-pb), every CID inside (dag-cbor).

A block may come from a stranger, so each codec is read strictly and within bounds.
DAG-CBOR is walked here and not decoded: a decoder that gives CIDs as bytes cannot tell them from bytes.
Source: https://ipld.io/specs/codecs/dag-cbor/spec/.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from storage import cid as cids
from storage import dag_pb
from storage.chunks import MAX_CHUNK_BYTES
from storage.dag_pb import MAX_LINKS, Link, target
from storage.errors import ManifestError

if TYPE_CHECKING:
    from storage.cid import Cid

__all__ = ["MAX_DEPTH", "MAX_VALUES", "Link", "is_manifest", "links", "tree_size"]

MAX_DEPTH = 128
"""Lists and maps inside each other in one DAG-CBOR block."""
MAX_VALUES = 2**18
"""Values in one DAG-CBOR block, keys counted."""

_BYTES, _TEXT, _SIMPLE = 2, 3, 7
"""Major types of CBOR."""
_CID_TAG = 42
_FLOAT64 = 27


def is_manifest(cid: Cid) -> bool:
    """Whether a chunk may name others."""
    return cids.codec(cid) != cids.RAW


def links(cid: Cid, block: bytes) -> list[Link]:
    """What a block names, in its order; nothing for a leaf.

    A link of DAG-CBOR has no name, and the size of what is below it is not known.

    Raises:
        ManifestError: The block is malformed, not canonical or too large, or names what no CID of ours can.
    """
    match cids.codec(cid):
        case cids.RAW:
            return []
        case cids.DAG_PB:
            return list(dag_pb.decode(block).links)
        case _:
            return [Link(found, "", None) for found in _Walk(block).cids()]


def tree_size(cid: Cid, block: bytes) -> int | None:
    """Bytes of all blocks at and below this one, as its author claims; None where he does not say."""
    sizes = [link.size for link in links(cid, block)]
    known = [size for size in sizes if size is not None]
    return len(block) + sum(known) if len(known) == len(sizes) else None


@dataclass(slots=True)
class _Frame:
    """A list or a map that the walk is in.

    Attributes:
        left: Values still to come, a map's keys counted.
        key: The last key of a map; None in a list.
        is_key: Whether a key comes next.
    """

    left: int
    key: bytes | None = None
    is_key: bool = False


class _Walk:
    """One pass over a DAG-CBOR block.

    Args:
        block: Its bytes.
    """

    def __init__(self, block: bytes) -> None:
        if len(block) > MAX_CHUNK_BYTES:
            message = (
                f"a DAG-CBOR block of {len(block):,} bytes where {MAX_CHUNK_BYTES:,} are allowed"
            )
            raise ManifestError(message)
        self._block = block
        self._at = 0
        self._found: list[Cid] = []

    def cids(self) -> list[Cid]:
        """Every CID, in the order of the block.

        Raises:
            ManifestError: Not one canonical DAG-CBOR value.
        """
        frames = [_Frame(1)]
        for _ in range(MAX_VALUES):
            while frames and not frames[-1].left:
                frames.pop()
            if not frames:
                break
            frame = frames[-1]
            frame.left -= 1
            if frame.is_key:
                frame.key = self._key(frame.key)
                frame.is_key = False
                continue
            frame.is_key = frame.key is not None
            inside = self._value()
            if inside is None:
                continue
            if len(frames) > MAX_DEPTH:
                message = f"a DAG-CBOR block is nested deeper than {MAX_DEPTH}"
                raise ManifestError(message)
            frames.append(inside)
        else:
            message = f"a DAG-CBOR block has more than {MAX_VALUES:,} values"
            raise ManifestError(message)
        if self._at != len(self._block):
            message = "a DAG-CBOR block goes on after its value"
            raise ManifestError(message)
        return self._found

    def _value(self) -> _Frame | None:
        """Pass one value, or the head of a list or map."""
        major, info, number = self._head()
        match major:
            case 2:
                self._take(number)
            case 3:
                self._text(number)
            case 4:
                return _Frame(number)
            case 5:
                return _Frame(2 * number, b"", is_key=True)
            case 6:
                self._link(number)
            case 7:
                self._simple(info, number)
        return None

    def _head(self) -> tuple[int, int, int]:
        first = self._take(1)[0]
        major, info = first >> 5, first & 31
        if info < 24:
            return major, info, info
        if info > _FLOAT64:
            _refuse("a length that is not definite")
        number = int.from_bytes(self._take(1 << info - 24))
        least = 24 if info == 24 else 1 << (8 << info - 25)
        if number < least and major != _SIMPLE:
            _refuse("an integer that is not minimal")
        return major, info, number

    def _take(self, size: int) -> bytes:
        end = self._at + size
        if end > len(self._block):
            _refuse("an end before its value's")
        taken = self._block[self._at : end]
        self._at = end
        return taken

    def _text(self, size: int) -> bytes:
        taken = self._take(size)
        try:
            taken.decode()
        except UnicodeDecodeError:
            _refuse("text that is not UTF-8")
        return taken

    def _key(self, last: bytes | None) -> bytes:
        """Pass a map's key; with its length before it, so that bytes compare as the codec sorts them."""
        major, _, size = self._head()
        if major != _TEXT:
            _refuse("a key that is no text")
        key = size.to_bytes(8) + self._text(size)
        if last is not None and key <= last:
            _refuse("keys that are not sorted, or one twice")
        return key

    def _link(self, tag: int) -> None:
        major, _, size = self._head()
        if tag != _CID_TAG or major != _BYTES:
            _refuse("a tag that is no link")
        body = self._take(size)
        if body[:1] != b"\0":
            _refuse("a link without its prefix")
        if len(self._found) == MAX_LINKS:
            message = f"a DAG-CBOR block has more than {MAX_LINKS:,} links"
            raise ManifestError(message)
        self._found.append(target(body[1:]))

    def _simple(self, info: int, number: int) -> None:
        if info == _FLOAT64:
            if not math.isfinite(struct.unpack(">d", number.to_bytes(8))[0]):
                _refuse("a number that is not finite")
        elif info not in {20, 21, 22}:  # false, true, null
            _refuse("a simple value other than true, false and null")


def _refuse(what: str) -> NoReturn:
    message = f"a DAG-CBOR block has {what}"
    raise ManifestError(message)

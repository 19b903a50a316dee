"""What a DAG-PB node means in UnixFS: a file's node, a folder, a shard of a large folder, or a symbolic link.

    Data { Type = 1; bytes Data = 2; uint64 filesize = 3; repeated uint64 blocksizes = 4; hashType = 5; fanout = 6;
           mode = 7; mtime = 8 }

The profile is `unixfs-v1-2025`: raw leaves of 1 MiB, 1,024 links in a file's node, folders as one node up to 256 KiB
and as a HAMT of 256 above. Source: https://specs.ipfs.tech/unixfs/ and IPIP-499.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from storage import cid as cids
from storage import dag_pb
from storage.dag_pb import Link
from storage.errors import ManifestError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from storage.cid import Cid

LEAF_BYTES = 2**20
FILE_LINKS = 1_024
FOLDER_NODE_BYTES = 256 * 2**10
"""A folder whose node would be larger is sharded."""
FANOUT = 256
MURMUR3_X64_64 = 0x22
MAX_NAME_BYTES = 255
MAX_TARGET_BYTES = 4_095
"""Of a symbolic link's target; what Linux takes."""
MAX_FILE_BYTES = 2**50
MODE_BITS = 0o777
"""Of a mode; the rest (setuid, setgid, sticky) is never written nor honoured."""
FILE_MODE = 0o644
FOLDER_MODE = 0o755
"""The modes that a node without one has."""


class Kind(IntEnum):
    """UnixFS's types of node; the two that we do not use are refused."""

    RAW = 0
    FOLDER = 1
    FILE = 2
    SYMLINK = 4
    SHARD = 5


@dataclass(frozen=True, slots=True)
class UnixFsNode:
    """A node as we read it.

    Attributes:
        kind: What it is; a raw leaf is a file.
        links: To its children.
        data: A file's own bytes, which come before those of its children; a shard's bit field; a link's target.
        size: A file's bytes, its children's included.
        block_sizes: Of a file's children, bytes.
        mode: Who may read, write and execute it; None if it does not say.
    """

    kind: Kind
    links: tuple[Link, ...]
    data: bytes
    size: int
    block_sizes: tuple[int, ...]
    mode: int | None = None


@dataclass(frozen=True, slots=True)
class Built:
    """A node that we made.

    Attributes:
        cid: Its name.
        size: Bytes of content in a file; 0 for folders.
        tree: Bytes of all blocks of the tree, which is the size that a link to it carries.
    """

    cid: Cid
    size: int
    tree: int


def file_node(children: Sequence[Built], mode: int | None = None) -> tuple[Built, bytes]:
    """The node above some leaves or nodes of a file; its root may carry a mode."""
    size = sum(child.size for child in children)
    data = dag_pb.varint_field(1, Kind.FILE) + dag_pb.varint_field(3, size)
    data += b"".join(dag_pb.varint_field(4, child.size) for child in children)
    data += _mode_field(mode, FILE_MODE)
    return _built([Link(child.cid, "", child.tree) for child in children], data, size)


def folder_node(links: Sequence[Link], mode: int | None = None) -> tuple[Built, bytes]:
    """The one node of a folder; links sorted by the bytes of their names."""
    data = dag_pb.varint_field(1, Kind.FOLDER) + _mode_field(mode, FOLDER_MODE)
    return _built(links, data)


def symlink_node(target: str) -> tuple[Built, bytes]:
    """A symbolic link, in the bytes that Kubo gives it."""
    return _built([], dag_pb.varint_field(1, Kind.SYMLINK) + dag_pb.bytes_field(2, target.encode()))


def shard_node(links: Sequence[Link], bits: int, mode: int | None = None) -> tuple[Built, bytes]:
    """A shard of a large folder; `bits` has a one for each slot that is taken, and its root may carry a mode."""
    field = bits.to_bytes((bits.bit_length() + 7) // 8, "big")
    data = (
        dag_pb.varint_field(1, Kind.SHARD)
        + dag_pb.bytes_field(2, field)
        + dag_pb.varint_field(5, MURMUR3_X64_64)
        + dag_pb.varint_field(6, FANOUT)
        + _mode_field(mode, FOLDER_MODE)
    )
    return _built(links, data)


def read_node(cid: Cid, block: bytes) -> UnixFsNode:
    """Understand a block that somebody else may have made.

    Raises:
        ManifestError: It is malformed, or says of itself what cannot be.
    """
    if cids.codec(cid) == cids.RAW:
        return UnixFsNode(Kind.FILE, (), block, len(block), ())
    if cids.codec(cid) != cids.DAG_PB:
        message = f"{cids.text(cid)} is neither a chunk nor a manifest"
        raise ManifestError(message)
    node = dag_pb.decode(block)
    numbers, data, block_sizes = _read_data(node.data)
    try:
        kind = Kind(numbers.get(1, -1))
    except ValueError as error:
        message = f"{cids.text(cid)} is of a type that UnixFS does not have"
        raise ManifestError(message) from error
    if kind is Kind.RAW:
        kind = Kind.FILE
    size = 0
    if kind is Kind.FILE:
        size = numbers.get(3, len(data) + sum(block_sizes))
        _check_file(cid, len(node.links), len(data), size, block_sizes)
    elif kind is Kind.SHARD and (
        numbers.get(5) != MURMUR3_X64_64
        or numbers.get(6) != FANOUT
        or len(data) > FANOUT // 8
        or int.from_bytes(data, "big").bit_count() != len(node.links)
    ):
        message = f"{cids.text(cid)} is a folder sharded in a way that we do not know"
        raise ManifestError(message)
    elif kind is Kind.SYMLINK and (node.links or not 0 < len(data) <= MAX_TARGET_BYTES):
        message = f"{cids.text(cid)} is a symbolic link that leads nowhere"
        raise ManifestError(message)
    mode = numbers.get(7)
    return UnixFsNode(
        kind, node.links, data, size, block_sizes, None if mode is None else mode & MODE_BITS
    )


def check_name(name: str) -> str:
    """A name that may stand in a folder on disk.

    Raises:
        ManifestError: Empty, `.` or `..`, longer than 255 bytes, or with a slash or a zero byte.
    """
    try:
        size = len(name.encode())
    except UnicodeEncodeError as error:
        message = f"the name {name!r} is not UTF-8"
        raise ManifestError(message) from error
    if name in {"", ".", ".."} or "/" in name or "\0" in name or size > MAX_NAME_BYTES:
        message = f"{name[:64]!r} cannot be the name of a file"
        raise ManifestError(message)
    return name


def check_target(target: str, folders: int) -> str:
    """A symbolic link's target that stays below the root in which the link stands.

    `..` may stand at its start only: after a name, which may be a link itself, nobody can say where it leads.

    Args:
        target: Where the link leads, as it is written in it.
        folders: How many stand between the root and the link.

    Raises:
        ManifestError: Absolute, out of the root, longer than 4,095 bytes, or no path.
    """
    parts = [part for part in target.split("/") if part not in {"", "."}]
    ups = next((at for at, part in enumerate(parts) if part != ".."), len(parts))
    try:
        size = len(target.encode())
    except UnicodeEncodeError as error:
        message = f"a symbolic link leads to {target!r}, which is not UTF-8"
        raise ManifestError(message) from error
    if not 0 < size <= MAX_TARGET_BYTES or "\0" in target:
        why = "which is no path"
    elif target.startswith("/"):
        why = "an absolute path"
    elif ups > folders:
        why = "which is not within what is published"
    elif ".." in parts[ups:]:
        why = "where `..` stands after a name"
    else:
        return target
    message = f"a symbolic link leads to {target[:64]!r}, {why}"
    raise ManifestError(message)


def _mode_field(mode: int | None, default: int) -> bytes:
    return b"" if mode is None or mode == default else dag_pb.varint_field(7, mode & MODE_BITS)


def _built(links: Sequence[Link], data: bytes, size: int = 0) -> tuple[Built, bytes]:
    block = dag_pb.encode(links, data)
    tree = len(block) + sum(link.size or 0 for link in links)
    return Built(cids.of_dag_pb(block), size, tree), block


def _read_data(message: bytes) -> tuple[dict[int, int], bytes, tuple[int, ...]]:
    numbers: dict[int, int] = {}
    data = b""
    block_sizes: list[int] = []
    for field, value in dag_pb.fields(message):
        if field == 4 and isinstance(value, int):
            block_sizes.append(value)
        elif field in {1, 3, 5, 6, 7} and isinstance(value, int) and field not in numbers:
            numbers[field] = value
        elif field == 2 and isinstance(value, bytes):
            data = value
        elif field != 8:
            text = f"a UnixFS node has a field {field} that we do not know"
            raise ManifestError(text)
    return numbers, data, tuple(block_sizes)


def _check_file(cid: Cid, links: int, inline: int, size: int, block_sizes: tuple[int, ...]) -> None:
    # A child of no bytes is refused: a tree of them would have no end, and hold nothing.
    if (
        len(block_sizes) != links
        or 0 in block_sizes
        or size != inline + sum(block_sizes)
        or size > MAX_FILE_BYTES
    ):
        message = f"{cids.text(cid)} says of its size what cannot be"
        raise ManifestError(message)

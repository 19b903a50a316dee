"""Large folders: a hash array mapped trie of 256 slots, as IPFS shards them.

The k-th byte of murmur3-x64-64 of a name, high byte first, says its slot in the shard at depth k.
A link's name is the slot in two upper-case hexadecimal digits, followed by the entry's name, or by nothing if the link
goes to a shard below. Source: https://specs.ipfs.tech/unixfs/#hamt-sharded-directory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import mmh3

from storage.dag_pb import Link
from storage.errors import ManifestError
from storage.unixfs_nodes import FANOUT, Built, Kind, UnixFsNode, read_node, shard_node

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from storage.cid import Cid

MAX_DEPTH = 8
"""A 64-bit hash has eight bytes, so a trie has at most eight levels."""
PREFIX_CHARACTERS = 2


def build(
    links: Iterable[Link], emit: Callable[[Cid, bytes], None], mode: int | None = None
) -> Built:
    """Shard a folder.

    Args:
        links: Its entries.
        emit: Called with each shard's CID and block, children first.
        mode: Of the folder; None if it is not kept.

    Returns:
        The root shard.

    Raises:
        ManifestError: Two names have the same hash in all 64 bits.
    """
    return _build([(name_hash(link.name), link) for link in links], 0, emit, mode)


def name_hash(name: str) -> bytes:
    """The eight bytes that lead through the trie."""
    return mmh3.hash64(name.encode(), signed=False)[0].to_bytes(8, "big")


def entries(node: UnixFsNode, get: Callable[[Cid], bytes]) -> Iterator[Link]:
    """The entries of a sharded folder, in the order of their hashes; names lose their prefix.

    Raises:
        ManifestError: A shard is malformed, or an entry is not where its hash leads.
    """
    yield from _entries(node, b"", get)


def find(node: UnixFsNode, name: str, get: Callable[[Cid], bytes]) -> Link | None:
    """The entry of that name, reading only the shards that lead to it."""
    hashed = name_hash(name)
    for depth in range(MAX_DEPTH):
        prefix = f"{hashed[depth]:02X}"
        for link in node.links:
            if link.name == prefix + name:
                return Link(link.cid, name, link.size)
        below = next((link for link in node.links if link.name == prefix), None)
        if below is None:
            return None
        node = _read_shard(below, get)
    return None


def shards(node: UnixFsNode) -> Iterator[Cid]:
    """The shards that a shard names."""
    return (link.cid for link in node.links if len(link.name) == PREFIX_CHARACTERS)


def _build(
    hashed: list[tuple[bytes, Link]],
    depth: int,
    emit: Callable[[Cid, bytes], None],
    mode: int | None = None,
) -> Built:
    if depth == MAX_DEPTH:
        message = f"{hashed[0][1].name!r} and {hashed[1][1].name!r} cannot stand in one folder"
        raise ManifestError(message)
    slots: dict[int, list[tuple[bytes, Link]]] = {}
    for pair in hashed:
        slots.setdefault(pair[0][depth], []).append(pair)
    links = []
    bits = 0
    for slot in sorted(slots):
        bits |= 1 << slot
        inside = slots[slot]
        if len(inside) == 1:
            link = inside[0][1]
            links.append(Link(link.cid, f"{slot:02X}{link.name}", link.size))
        else:
            below = _build(inside, depth + 1, emit)
            links.append(Link(below.cid, f"{slot:02X}", below.tree))
    built, block = shard_node(links, bits, mode)
    emit(built.cid, block)
    return built


def _entries(node: UnixFsNode, path: bytes, get: Callable[[Cid], bytes]) -> Iterator[Link]:
    taken = int.from_bytes(node.data, "big")
    slots = [slot for slot in range(FANOUT) if taken >> slot & 1]
    for slot, link in zip(slots, node.links, strict=True):
        if link.name[:PREFIX_CHARACTERS] != f"{slot:02X}":
            message = "a shard's links do not follow its bit field"
            raise ManifestError(message)
        here = path + bytes((slot,))
        name = link.name[PREFIX_CHARACTERS:]
        if not name:
            if len(here) == MAX_DEPTH:
                message = f"a folder is sharded deeper than {MAX_DEPTH} levels"
                raise ManifestError(message)
            yield from _entries(_read_shard(link, get), here, get)
        elif not name_hash(name).startswith(here):
            message = f"the entry {name!r} is not where its hash leads"
            raise ManifestError(message)
        else:
            yield Link(link.cid, name, link.size)


def _read_shard(link: Link, get: Callable[[Cid], bytes]) -> UnixFsNode:
    node = read_node(link.cid, get(link.cid))
    # A shard without links is refused: a tree of them would have no end, and hold nothing.
    if node.kind is not Kind.SHARD or not node.links:
        message = "a link in a sharded folder leads to what is no shard, or an empty one"
        raise ManifestError(message)
    return node

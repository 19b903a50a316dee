"""A folder's tree as maps of names, and maps of names as a tree; without a disk.

`Get` gives a block's bytes by its CID. Blocks may come from a stranger: names that leave their folder, two entries of one
name, and trees deeper or wider than allowed are refused, as `storage.unixfs` refuses them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from storage import cid as cids
from storage import hamt
from storage.errors import ManifestError
from storage.unixfs import MAX_ENTRIES
from storage.unixfs_nodes import FOLDER_NODE_BYTES, Kind, check_name, folder_node, read_node

if TYPE_CHECKING:
    from collections.abc import Iterable

    from storage.cid import Cid
    from storage.dag_pb import Link
    from storage.unixfs_nodes import Built

Get: TypeAlias = Callable[["Cid"], bytes]
Emit: TypeAlias = Callable[["Cid", bytes], None]


def is_folder(cid: Cid, get: Get) -> bool:
    """Whether a root is a folder; a symbolic link is none, wherever it leads.

    Raises:
        ManifestError: It is malformed.
    """
    if cids.codec(cid) == cids.RAW:
        return False
    return read_node(cid, get(cid)).kind in {Kind.FOLDER, Kind.SHARD}


def file_size(link: Link, get: Get) -> int:
    """Bytes of a file, by its manifest; a chunk's by the link to it, or by itself."""
    if cids.codec(link.cid) != cids.RAW:
        return read_node(link.cid, get(link.cid)).size
    return len(get(link.cid)) if link.size is None else link.size


def entries(folder: Cid, get: Get) -> dict[str, Link]:
    """What stands in a folder, by name, sorted by the names' bytes.

    Raises:
        ManifestError: It is a file or malformed, a name occurs twice or cannot be one, or there are too many.
    """
    node = read_node(folder, get(folder))
    if node.kind not in {Kind.FOLDER, Kind.SHARD}:
        message = f"{cids.text(folder)} is not a folder"
        raise ManifestError(message)
    found: dict[str, Link] = {}
    for link in hamt.entries(node, get) if node.kind is Kind.SHARD else node.links:
        if link.name in found or len(found) == MAX_ENTRIES:
            message = (
                f"a folder has two entries {link.name[:64]!r}"
                if link.name in found
                else f"a folder holds more than {MAX_ENTRIES:,} entries"
            )
            raise ManifestError(message)
        found[check_name(link.name)] = link
    return dict(sorted(found.items(), key=lambda item: item[0].encode()))


def build(links: Iterable[Link], emit: Emit) -> Built:
    """The folder that holds these entries: the one that adding the same files gives.

    Args:
        links: Its entries, each name once.
        emit: Called with each new block.
    """
    ordered = sorted(links, key=lambda link: link.name.encode())
    built, block = folder_node(ordered)
    if len(block) > FOLDER_NODE_BYTES:
        return hamt.build(ordered, emit)
    emit(built.cid, block)
    return built


def without(root: Cid, names: Iterable[str], get: Get, emit: Emit) -> Cid:
    """The folder without some of its entries; the folder itself where it has none of them."""
    found = entries(root, get)
    left = [link for name, link in found.items() if name not in set(names)]
    return root if len(left) == len(found) else build(left, emit).cid

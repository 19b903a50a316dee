"""Content that owners pay to have kept: real files of UnixFS, of bytes that follow from the seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from storage import cid as cids
from storage.unixfs_nodes import Built, file_node
from swarm.simulator.chance import Chance

if TYPE_CHECKING:
    from collections.abc import Mapping

    from storage.cid import Cid

LEAF_BYTES: Final = 64 * 2**10


@dataclass(frozen=True, slots=True)
class Content:
    """One piece with all of its blocks.

    Attributes:
        root: Its name.
        size: Bytes of the file.
        blocks: By name.
    """

    root: Cid
    size: int
    blocks: Mapping[Cid, bytes]


def content(seed: int, deal: int, piece: int, kib: int) -> Content:
    """A file of so many KiB.

    Args:
        seed: Of the run.
        deal: Which deal it is for.
        piece: Its place in the deal.
        kib: Its size.
    """
    data = Chance("piece", seed, deal, piece).bytes(kib * 2**10)
    blocks: dict[Cid, bytes] = {}
    children: list[Built] = []
    for at in range(0, len(data), LEAF_BYTES):
        leaf = data[at : at + LEAF_BYTES]
        built = Built(cids.of_raw(leaf), len(leaf), len(leaf))
        blocks[built.cid] = leaf
        children.append(built)
    root, node = file_node(children)
    blocks[root.cid] = node
    return Content(root.cid, len(data), blocks)

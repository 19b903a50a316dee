"""Small trees of chunks, and stores of small segments."""

from __future__ import annotations

from storage import cid as cids
from storage.blockstore import SegmentBlockstore
from storage.dag_pb import Link
from storage.unixfs_nodes import folder_node

SEGMENT = 4_096


def leaf(seed, size=300):
    data = (str(seed).encode() + b"-") * size
    return cids.of_raw(data[:size]), data[:size]


def tree(name, leaves):
    """A folder of leaves: (root, {cid: bytes})."""
    chunks = dict(leaves)
    links = [Link(cid, f"{name}-{at}", len(data)) for at, (cid, data) in enumerate(chunks.items())]
    built, block = folder_node(links)
    chunks[built.cid] = block
    return built.cid, chunks


def numbered(name, count=8, size=300):
    return tree(name, [leaf(f"{name}/{at}", size) for at in range(count)])


def open_store(folder, **options):
    return SegmentBlockstore(folder, 2**30, **{"segment_bytes": SEGMENT, "keep_free": 0} | options)


def put(store, name, **options):
    """Publish a tree as it ought to be done."""
    root, chunks = numbered(name, **options)
    with store.lease(name):
        store.put_many(chunks.items())
        store.pin(root, name)
    return root, chunks


def accounted(store):
    """Whether the quota says what is there."""
    count, _ = store.index.totals()
    return store.usage().used == store.log.size + 212 * (count + store.references.count)

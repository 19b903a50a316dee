"""How large what is kept is, whatever its manifests claim."""

from storage import cid as cids
from storage import unixfs
from storage.memory import MemoryBlockstore
from storage.unixfs_nodes import Link, folder_node
from swarm.store import sizes
from swarm.store.sizes import Size, Sizes

RAW = cids.of_raw(b"leaf")


def folder(store, *links):
    built, block = folder_node(list(links))
    store.put_many([(built.cid, block)])
    return built.cid


def test_a_manifest_that_claims_too_much_is_as_large_as_what_is_here():
    store = MemoryBlockstore()
    store.put_many([(RAW, b"leaf")])
    lying = folder(store, Link(RAW, "file", 10**15))
    assert Sizes(store).of(lying) == Size(store.size(lying) + 4, is_counted=True)


def test_a_chunk_that_is_named_twice_counts_once(tmp_path):
    store = MemoryBlockstore()
    for name in ("one", "two"):
        (tmp_path / "plays").mkdir(exist_ok=True)
        (tmp_path / "plays" / name).write_bytes(bytes(3 * 2**20))
    root = unixfs.add_path(tmp_path / "plays", store).root
    assert Sizes(store).of(root).bytes == sum(map(len, store.chunks.values()))


def test_of_what_is_not_all_here_only_the_claim_is_known():
    store = MemoryBlockstore()
    root = folder(store, Link(RAW, "file", 77))
    assert Sizes(store).of(root) == Size(store.size(root) + 77, is_counted=False)
    assert Sizes(store).of(RAW) == Size(None, is_counted=False)


def test_what_has_too_many_chunks_is_not_counted(monkeypatch):
    monkeypatch.setattr(sizes, "MAX_CHUNKS", 1)
    store = MemoryBlockstore()
    store.put_many([(RAW, b"leaf")])
    root = folder(store, Link(RAW, "file", 4))
    assert not Sizes(store).of(root).is_counted


def test_a_size_is_remembered_and_the_oldest_let_go(monkeypatch):
    monkeypatch.setattr(sizes, "MAX_KNOWN", 1)
    store = MemoryBlockstore()
    first, second = cids.of_raw(b"1"), cids.of_raw(b"22")
    store.put_many([(first, b"1"), (second, b"22")])
    looked = Sizes(store)
    assert looked.of(first).bytes == 1
    store.chunks.pop(first)
    assert looked.of(first).bytes == 1
    assert looked.of(second).bytes == 2
    assert looked.of(first).bytes is None

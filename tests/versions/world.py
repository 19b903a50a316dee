"""Trees, commits and nodes for the tests of versions."""

from __future__ import annotations

from pathlib import Path

from protocols.signing import Signer
from storage import cid as cids
from storage.cid import Cid
from storage.importer import add_path
from storage.memory import MemoryBlockstore
from swarm.errors import NotFoundError
from swarm.versions.commit import Commit, encode, make
from swarm.versions.operations import Versions
from swarm.versions.source import Door

ALICE = Signer(b"a" * 32)
BOB = Signer(b"b" * 32)
TREE = cids.of_dag_pb(b"a tree")


def write(folder: Path, files: dict[str, str | bytes]) -> Path:
    """Make a folder hold exactly these files."""
    for path in sorted(folder.rglob("*"), reverse=True) if folder.exists() else ():
        if path.name.startswith(".swarm"):
            continue
        path.rmdir() if path.is_dir() else path.unlink()
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def read(folder: Path) -> dict[str, str]:
    """The files of a folder, without the marker."""
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".swarm")
    }


class Trees:
    """Trees in a store that lives in memory."""

    def __init__(self, folder: Path) -> None:
        self.store = MemoryBlockstore()
        self._folder = folder
        self._count = 0

    def add(self, files: dict[str, str | bytes]) -> Cid:
        self._count += 1
        return add_path(write(self._folder / str(self._count), files), self.store).root

    def emit(self, cid: Cid, block: bytes) -> None:
        self.store.put_many([(cid, block)], verify=True)


class Commits:
    """Commits by hand, in a map."""

    def __init__(self) -> None:
        self.by_cid: dict[Cid, Commit] = {}

    def add(self, *parents: Cid, time_s: int = 0, message: str = "m") -> Cid:
        known = [(cid, self.by_cid[cid]) for cid in parents]
        commit = make(ALICE, TREE, known, message, time_s)
        cid = cids.of_dag_cbor(encode(commit))
        self.by_cid[cid] = commit
        return cid


class Names:
    """A ledger that has nothing but names."""

    def __init__(self) -> None:
        self.roots: dict[str, list[Cid]] = {}

    async def point(self, name, published):
        self.roots.setdefault(name, []).append(published.root)
        return {"name": name, "version": len(self.roots[name]) - 1}

    async def look_up(self, name, version, _progress):
        roots = self.roots.get(name, [])
        if not roots:
            raise NotFoundError(f"no name {name}")
        return roots[-1 if version is None else version]


def versions_of(node, signer: Signer, home: Path, names: Names) -> Versions:
    """The datasets of a node of `open_neighbourhood`, whose clock ticks once a commit."""
    ticks = iter(range(1_700_000_000, 1_800_000_000))
    return Versions(
        Door(
            signer,
            node.store,
            node.exchange,
            node.transport,
            home / "datasets",
            names.point,
            names.look_up,
            lambda: next(ticks),
        )
    )


def silent(*_) -> None:
    """Progress that nobody watches."""

"""What a person asks about versions of datasets; see `swarm.versions`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import trio

from storage import cid as cids
from swarm.datasets import Published
from swarm.errors import NotFoundError, RefusedError, SwarmError, UsageError
from swarm.versions import history, working
from swarm.versions.branches import Branches
from swarm.versions.folders import EMPTY, Folders, with_empty
from swarm.versions.merge import merge
from swarm.versions.reference import HEAD, check_branch, check_dataset
from swarm.versions.report import clear_rooms, commit_report, diff_report
from swarm.versions.repository import Dataset, Repository
from swarm.versions.source import Source
from swarm.versions.working import Marker

if TYPE_CHECKING:
    from pathlib import Path

    from storage.cid import Cid
    from storage.importer import Added
    from storage.leases import Lease
    from swarm.control.api import Json, Progress
    from swarm.versions.merge import Merged, Side
    from swarm.versions.source import Door, Version
    from swarm.versions.tree import Get
    from swarm.versions.working import Switched


class Versions:
    """The datasets of one node.

    Args:
        door: The node.
    """

    def __init__(self, door: Door) -> None:
        self._door = door
        self._repository = Repository(door.folder)
        self._source = Source(door, self._repository)
        self._branches = Branches(door, self._repository)
        self._folders = Folders(door.store)

    async def keep(self) -> None:
        """Pin what the branches of this node point to, and remove what a kill has left; once after a start."""
        await trio.to_thread.run_sync(clear_rooms, self._door.folder)
        await self._branches.keep()

    async def let_go(self, root: Cid) -> str | None:
        """End a person's pin: the label of the branch that keeps the root from then on, or None."""
        return await self._branches.let_go(root)

    async def datasets(self) -> list[Json]:
        """The datasets of this node: `dataset`, `head`, `branches` (name to CID)."""
        return [
            {
                "dataset": one.name,
                "head": one.head,
                "branches": {branch: cids.text(cid) for branch, cid in one.branches.items()},
            }
            for one in await trio.to_thread.run_sync(self._repository.all)
        ]

    async def init(self, name: str, folder: Path) -> Json:
        """Make a dataset without a commit, and a folder its working folder: `dataset`, `branch`, `folder`.

        Raises:
            RefusedError: There is a dataset of that name, or the folder is a working folder already.
        """
        dataset = Dataset(check_dataset(name))
        async with self._folders.held(folder), self._branches.lock(name):
            if working.find_marker(folder) is not None:
                message = f"{folder} is a working folder already"
                raise RefusedError(message)
            await trio.Path(folder).mkdir(parents=True, exist_ok=True)
            await self._branches.create(dataset)
            await self._folders.mark(folder, Marker(name, dataset.head, None))
        return {"dataset": name, "branch": dataset.head, "folder": str(folder)}

    async def commit(
        self, folder: Path, message: str | None, progress: Progress, *, publish: bool = False
    ) -> Json:
        """Make what a working folder holds a version, and let its name on the ledger point to it if asked.

        Returns:
            `dataset`, `branch`, `commit`, `root`, `parents`, `height`, `size`, `chunks`, `new_bytes`, `added`, `removed`,
            `changed` (files); published also `name` and `version`.

        Raises:
            RefusedError: Nothing has changed, the branch has moved on, or the name is another's.
        """
        async with (
            self._folders.held(folder),
            self._branches.lock(_marker(folder).dataset),
        ):
            marker = _marker(folder)
            dataset, branch = self._branches.followed(marker)
            parents = []
            if marker.commit is not None:
                parents = [(marker.commit, await self._source.commit(marker.commit))]
            before = parents[0][1].root if parents else EMPTY
            report: Json = {"dataset": dataset.name, "branch": branch}
            with self._lease():
                adding = partial(self._folders.add, folder, progress)
                added = await self._door.room_for(adding, lambda why: progress(why, 0, 0))
                is_new = added.root != before
                if not is_new and not (publish and parents):
                    text = f"nothing has changed in {folder}"
                    raise RefusedError(text)
                if is_new and message is None:
                    text = "a commit needs a message"
                    raise UsageError(text, 'write it like -m "what changed"')
                if is_new and message is not None:
                    cid, commit = await self._branches.commit(
                        dataset, branch, added.root, parents, message
                    )
                    await self._folders.mark(folder, Marker(dataset.name, branch, cid))
                else:
                    cid, commit = parents[0]
            report |= await self._folders.count(before, added.root)
            report |= {"size": added.size, "chunks": added.chunks}
            report |= {"new_bytes": added.new_bytes if is_new else 0, **commit_report(cid, commit)}
            if publish:
                progress("name", 0, 1)
                report |= await self._publish(dataset.name, cid, added)
                progress("name", 1, 1)
            return report

    async def _publish(self, name: str, cid: Cid, added: Added) -> Json:
        """Let a dataset's name on the ledger point to a commit.

        Raises:
            SwarmError: It cannot; the commit stays on this node, and the message says so.
        """
        try:
            return await self._door.point(name, Published(cid, added.size, added.chunks + 1, 0))
        except SwarmError as error:
            message = f"{error.message}; the commit {cids.text(cid)} is kept on this node"
            raise type(error)(message, error.hint) from error

    async def log(self, folder: Path | None, version: str, limit: int, progress: Progress) -> Json:
        """The newest commits of a version's history.

        Returns:
            `commits`: `commit`, `root`, `parents`, `author`, `message`, `time_s`, `height`, `branches` each; and `more`,
            whether there are older ones.
        """
        marker = _find(folder)
        at = await self._source.resolve(version, marker, progress)
        found = await self._source.ask(history.log(at.cid, limit), at.cid, progress)
        heads: dict[Cid, list[str]] = {}
        if at.dataset is not None and self._repository.has(at.dataset):
            for branch, cid in self._repository.load(at.dataset).branches.items():
                heads.setdefault(cid, []).append(branch)
        listed = {cid for cid, _ in found}
        return {
            "commits": [
                commit_report(cid, commit) | {"branches": heads.get(cid, [])}
                for cid, commit in found
            ],
            "more": any(not listed.issuperset(commit.parents) for _, commit in found),
        }

    async def diff(
        self, folder: Path | None, old: str | None, new: str | None, progress: Progress
    ) -> Json:
        """What changed between two versions, or from one (`HEAD` if none is given) to what a working folder holds.

        Returns:
            `old`, `new` (a commit, or None for the working folder), `files`, `more`; see `report.diff_report`.
        """
        marker = _find(folder)
        first = None
        if old is not None or marker is None or marker.commit is not None:
            first = await self._source.resolve(old or HEAD, marker, progress)
            await self._source.bring_tree(first.commit.root, first.cid, progress)
        store = self._door.store
        if new is not None:
            second = await self._source.resolve(new, marker, progress)
            await self._source.bring_tree(second.commit.root, second.cid, progress)
            get: Get = store.get
            root, beside, name = second.commit.root, None, cids.text(second.cid)
        elif folder is None or marker is None:
            message = "one version is compared with what a working folder holds, and this is none"
            raise UsageError(message, "name two versions")
        else:
            async with self._folders.held(folder):
                snapshot = await self._folders.snapshot(folder, progress)
            root, get, beside, name = snapshot.root, snapshot.over(store.get), folder, None
        before = EMPTY if first is None else first.commit.root
        scratch = self._door.folder
        await trio.Path(scratch).mkdir(mode=0o700, parents=True, exist_ok=True)
        return {
            "old": None if first is None else cids.text(first.cid),
            "new": name,
            **await diff_report(before, root, with_empty(get), store, beside, scratch),
        }

    async def branch(
        self,
        folder: Path | None,
        dataset: str | None,
        new: str | None,
        version: str | None,
        delete: str | None,
        progress: Progress,
    ) -> Json:
        """List branches; or make one at a version (`HEAD`, or the dataset's newest, if none is given), or remove one.

        Returns:
            `dataset`, `branches`: `branch`, `commit`, `current` each.
        """
        marker = _find(folder)
        if dataset is None:
            if marker is None:
                message = "this is no working folder"
                raise UsageError(message, "name the dataset: --dataset NAME")
            dataset = marker.dataset
        if marker is not None and marker.dataset != dataset:
            marker = None
        async with self._branches.lock(dataset):
            found = self._repository.load(dataset)
            if new is not None:
                if check_branch(new) in found.branches:
                    message = f"{dataset} has a branch {new!r} already"
                    raise RefusedError(message)
                base = version or (dataset if marker is None else HEAD)
                at = await self._source.resolve(base, marker, progress)
                await self._branches.move(found, new, at.cid)
            elif delete is not None:
                current = found.head if marker is None else marker.branch
                if delete not in found.branches:
                    message = f"{dataset} has no branch {delete!r}"
                    raise NotFoundError(message, "`swarm dataset branch` lists them")
                if delete in {current, found.head}:
                    message = f"the branch {delete!r} is in use"
                    raise RefusedError(message, "check another one out first; the first one stays")
                await self._branches.move(found, delete, None)
            found = self._repository.load(dataset)
        here = None if marker is None else marker.branch
        return {
            "dataset": dataset,
            "branches": [
                {"branch": name, "commit": cids.text(cid), "current": name == here}
                for name, cid in found.branches.items()
            ],
        }

    async def checkout(
        self,
        folder: Path | None,
        here: Path,
        version: str,
        output: Path | None,
        progress: Progress,
        *,
        force: bool = False,
    ) -> Json:
        """Make a folder hold a version, writing only the files that differ.

        Args:
            folder: The working folder that the person is in; None outside of one.
            here: Where the person is: a dataset that is named is checked out into a folder of its name there.
            version: Which version.
            output: Which folder; None takes `folder`, or one in `here`.
            progress: Told of what is fetched and written.
            force: Give up what was not committed.

        Returns:
            `folder`, `dataset`, `branch`, `commit`, `root`, `written`, `removed` (files), `fetched` (bytes from peers).
        """
        marker = _find(folder)
        at = await self._source.resolve(version, marker, progress)
        target = self._target(folder, here, marker, at, output)
        _there(target, at)  # refused before anything is fetched
        with self._lease(at.cid):
            await self._source.ask(history.count(at.cid), at.cid, progress)
            fetched = await self._source.bring_tree(at.commit.root, at.cid, progress)
            async with self._folders.held(target):
                after, switched = await self._show(target, at, progress, force=force)
        return {
            "folder": str(target),
            "dataset": None if after is None else after.dataset,
            "branch": None if after is None else after.branch,
            "commit": cids.text(at.cid),
            "root": cids.text(at.commit.root),
            "written": switched.written,
            "removed": switched.removed,
            "fetched": fetched,
        }

    async def _show(
        self, target: Path, at: Version, progress: Progress, *, force: bool
    ) -> tuple[Marker | None, Switched]:
        """Make a folder hold a version that is here; what it follows then."""
        there, held = _there(target, at), None
        if there is not None:
            held = EMPTY if there.commit is None else (await self._source.commit(there.commit)).root
        switched = await self._folders.show(target, held, at.commit.root, progress, force=force)
        name = at.dataset
        if name is None and there is not None:
            name = there.dataset
        if name is None:
            return None, switched
        after = await self._branches.adopt(name, at)
        await self._folders.mark(target, after)
        return after, switched

    async def merge(
        self,
        folder: Path,
        version: str,
        message: str | None,
        prefer: Side | None,
        progress: Progress,
    ) -> Json:
        """Bring what another version changed into a working folder's branch.

        Returns:
            `result`: `merged`, `fast-forward`, `up-to-date` or `conflicts`; `commit` (the branch's newest), `conflicts`
            (`path`, `why` each; with conflicts and no `prefer` nothing has changed), `written`, `removed`.
        """
        async with (
            self._folders.held(folder),
            self._branches.lock(_marker(folder).dataset),
        ):
            marker = _marker(folder)
            dataset, branch = self._branches.followed(marker)
            ours = await self._source.resolve(HEAD, marker, progress)
            theirs = await self._source.resolve(version, marker, progress)
            base = await self._source.ask(
                history.merge_base(ours.cid, theirs.cid), theirs.cid, progress
            )
            report: Json = {"result": "up-to-date", "commit": cids.text(ours.cid), "conflicts": []}
            report |= {"written": 0, "removed": 0}
            if base == theirs.cid:
                return report
            with self._lease(theirs.cid):
                await self._source.bring_tree(theirs.commit.root, theirs.cid, progress)
                snapshot = await self._folders.clean(folder, ours.commit.root, progress)
                if base == ours.cid:
                    root, report["result"] = theirs.commit.root, "fast-forward"
                    switch = await self._folders.prepare(folder, snapshot, root, progress)
                    cid = theirs.cid
                    await self._branches.move(dataset, branch, cid)
                else:
                    merged, fresh = await self._merge_trees(base, ours, theirs, prefer, progress)
                    report["conflicts"] = [
                        {"path": one.path, "why": one.why} for one in merged.conflicts
                    ]
                    if merged.conflicts and prefer is None:
                        return report | {"result": "conflicts"}
                    await trio.to_thread.run_sync(self._door.store.put_many, fresh)
                    root, report["result"] = merged.root, "merged"
                    switch = await self._folders.prepare(folder, snapshot, root, progress)
                    parents = [(ours.cid, ours.commit), (theirs.cid, theirs.commit)]
                    text = message or f"merge {version} into {branch}"
                    cid, _ = await self._branches.commit(dataset, branch, root, parents, text)
            switched = await self._folders.apply(switch)
            await self._folders.mark(folder, Marker(dataset.name, branch, cid))
            report |= {"commit": cids.text(cid), "written": switched.written}
            return report | {"removed": switched.removed}

    async def _merge_trees(
        self,
        base: Cid | None,
        ours: Version,
        theirs: Version,
        prefer: Side | None,
        progress: Progress,
    ) -> tuple[Merged, list[tuple[Cid, bytes]]]:
        """The merged tree, and the blocks of it that are new; nothing is kept yet."""
        common = None if base is None else (await self._source.commit(base)).root
        if common is not None:
            await self._source.bring_tree(common, theirs.cid, progress)
        await self._source.bring_tree(ours.commit.root, ours.cid, progress)
        fresh: list[tuple[Cid, bytes]] = []
        merged = await trio.to_thread.run_sync(
            merge,
            common,
            ours.commit.root,
            theirs.commit.root,
            self._door.store.get,
            lambda cid, block: fresh.append((cid, block)),
            prefer or "ours",
        )
        return merged, fresh

    async def fork(self, folder: Path | None, version: str, name: str, progress: Progress) -> Json:
        """A new dataset of this node with another one's history, sharing every chunk.

        Returns:
            `dataset`, `commit`, `branches`, `commits` (how many, up to the limit of a log), `fetched` (bytes from peers),
            `new_bytes` (that this node did not hold).
        """
        check_dataset(name)
        used = self._door.store.usage().used
        at = await self._source.resolve(version, _find(folder), progress)
        fork = Dataset(name)
        if at.dataset is not None and not at.is_remote and at.branch is not None:
            whole = self._repository.load(at.dataset)
            if at.branch == whole.head and version == at.dataset:
                fork = Dataset(name, whole.head, dict(whole.branches))
        fork = fork.with_branch(fork.head, at.cid)
        async with self._branches.lock(name):
            with self._lease(at.cid):
                commits = await self._source.ask(history.count(at.cid), at.cid, progress)
                fetched = await self._source.bring_tree(at.commit.root, at.cid, progress)
                await self._branches.create(fork)
        return {
            "dataset": name,
            "commit": cids.text(at.cid),
            "branches": list(fork.branches),
            "commits": commits,
            "fetched": fetched,
            "new_bytes": max(0, self._door.store.usage().used - used),
        }

    def _lease(self, root: Cid | None = None) -> Lease:
        """No collection takes what an operation works with before its branch is pinned."""
        return self._door.store.lease("dataset", root)

    def _target(
        self,
        folder: Path | None,
        here: Path,
        marker: Marker | None,
        at: Version,
        output: Path | None,
    ) -> Path:
        """Into which folder a version is checked out."""
        if output is not None:
            return output
        if folder is not None and marker is not None and at.dataset in {None, marker.dataset}:
            return folder
        if at.dataset is not None:
            return here / at.dataset
        message = "a commit can be checked out within a working folder, or into a folder with -o"
        raise UsageError(message)

    async def tree_of(self, root: Cid, progress: Progress) -> Cid:
        """The tree of a commit, whose block is fetched; anything else as it is."""
        if cids.codec(root) != cids.DAG_CBOR:
            return root
        return (await self._source.commit(root, progress)).root


def _find(folder: Path | None) -> Marker | None:
    return None if folder is None else working.find_marker(folder)


def _there(target: Path, at: Version) -> Marker | None:
    """What the folder follows that a version is checked out into."""
    there = working.find_marker(target)
    if there is not None and at.dataset is not None and there.dataset != at.dataset:
        message = f"{target} is a working folder of {there.dataset}"
        raise RefusedError(message, "give another folder with -o")
    return there


def _marker(folder: Path) -> Marker:
    marker = working.find_marker(folder)
    if marker is None:
        message = f"{folder} is no working folder"
        raise UsageError(message, "make it one: swarm dataset init NAME")
    return marker

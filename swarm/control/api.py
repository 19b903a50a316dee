"""What the control API asks of a node; `swarm.node` implements it.

Every answer is made of dicts, lists, str, int, float, bool and None, ready for JSON.
CIDs are text, accounts and peers are peer ids, money is an int in units of 10^-9 token.
Methods raise `swarm.errors.SwarmError` and its kinds; a `storage.errors` exception is translated
by the control app (quota: refused; a malformed CID: usage; a chunk or root nobody has: not found).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    from pathlib import Path

    from swarm.care.operations import Care
    from swarm.chain.operations import Chain
    from swarm.hub.operations import HubOperations
    from swarm.keeper.operations import KeepingOperations
    from swarm.ranges import Ranges
    from swarm.receipts.service import Receipts
    from swarm.registry.operations import Registry
    from swarm.retrieval.checks import Checks
    from swarm.serving.operations import ServingOperations
    from swarm.store.operations import StoreOperations
    from swarm.versions.operations import Versions
    from swarm.work import Work

Json: TypeAlias = dict[str, Any]


class Progress(Protocol):
    """Told how an operation goes; cheap, from the task of the operation, never from another thread."""

    def __call__(self, stage: str, done: int, total: int, note: str = "", /) -> None:
        """So much of a stage is done; the note says from whom it comes, or why nothing does."""


class NodeApi(Protocol):
    """One running node as its own user sees it."""

    @property
    def versions(self) -> Versions:
        """Versions of datasets: what `dataset/…` asks."""

    @property
    def registry(self) -> Registry:
        """Versions of models, and tasks that make them: what `model/…` and `train/…` ask."""

    @property
    def hub(self) -> HubOperations:
        """Versions in the cache of the Hub's clients: what `hub/…` asks."""

    @property
    def serving(self) -> ServingOperations:
        """A language model for other programs: what `serve` asks."""

    @property
    def work(self) -> Work:
        """What the worker is asked: to post a task, draw a sample, score a version, run a segment again."""

    @property
    def housekeeping(self) -> StoreOperations:
        """What is kept and what is not: what `store/…` asks."""

    @property
    def keeping(self) -> KeepingOperations:
        """What is lent, and deals: what `storage…` and `keep/…` ask."""

    @property
    def chain(self) -> Chain:
        """Stakes, validators, transactions and proofs: what `chain/…` asks."""

    @property
    def checks(self) -> Checks:
        """Who holds a root, and who gets it: what `check…` asks."""

    @property
    def receipts(self) -> Receipts:
        """What became of this node's contributions: what `receipts` asks."""

    @property
    def care(self) -> Care:
        """How it does, and what is held back: what `care…` asks."""

    def status(self) -> Json:
        """The node now.

        Returns:
            `peer`, `account`, `network`, `chain_id`, `height`, `epoch`, `view`, `peers`, `addresses`,
            `problems` (a list of sentences), `finality_ms` (`p50`, `p99`), `storage` (`lent`, `used`,
            `free`, `in_place`, `reclaimable`; of a keeper also `sealed`, `goal`, `seconds_left`), `balance`, `earned`, `stake`, `roles`, `device`, `task` (None, or `name`, `round`,
            `rounds`, `phase`, `blocks_left`, `loss`, `version`, `activity`), `version`, `uptime_s`,
            `temporary`, `pid`, `backed_up` (the words of its key), `home`, `page` (its address, or None), `bytes_in`, `bytes_out`, `paused` (`part`, `until` each), `finishing`,
            `held` (`part`, `code`, `why`, `until` each), `state`, `votes`, `limits`, `leaving`, `warnings`, `space`; see `Care.standing`.
        """

    async def peers(self) -> list[Json]:
        """Connected peers: `peer`, `address`, `version`, `head`, `member`, `roles`, `seconds`."""

    async def blocks(self, start: int | None, limit: int) -> list[Json]:
        """Finalized blocks from the newest down.

        Args:
            start: The highest height to list; None is the head.
            limit: How many, 1 to 1,000.

        Returns:
            One a block: `height`, `id`, `view`, `epoch`, `leader`, `time_ms`, `transactions`,
            `state_root`, `bytes`.
        """

    async def block(self, height: int) -> Json:
        """One finalized block, with `txs`: `id`, `from`, `type`, `fee`, `ok`, `error` each.

        Raises:
            NotFoundError: Above the head, or not held here.
        """

    async def balance(self, account: str | None) -> Json:
        """What an account owns: `account`, `balance`, `stake`, `earned`.

        Args:
            account: A peer id; None is this node's.

        Raises:
            UsageError: Not a peer id.
        """

    async def send(self, to: str, amount: int, *, wait: bool = True) -> Json:
        """Pay an account.

        Args:
            to: Its peer id.
            amount: In units of 10^-9 token, above zero.
            wait: Return when the transaction is final, not when it is handed in.

        Returns:
            `tx`, and `height` (None without `wait`).
        """

    async def publish(
        self,
        path: Path,
        name: str | None,
        progress: Progress,
        *,
        preserve_mode: bool = False,
        in_place: bool = False,
    ) -> Json:
        """Store a file or folder and announce it, with the modes of what is in it if asked.

        In place, the content stays where it is, and only where that is is remembered.

        Returns:
            `cid`, `size`, `chunks`, `new_bytes`; with a name also `name` and `version`.
        """

    async def plan(self, path: Path, progress: Progress, *, preserve_mode: bool = False) -> Json:
        """What publishing would do, without a write: what `publish` tells."""

    async def get(
        self, cid: str, path: Path, progress: Progress, source: str | None = None
    ) -> Json:
        """Fetch a root to a path.

        Args:
            cid: The root.
            path: Where it is to stand; nothing may be there.
            progress: Told while it comes.
            source: The address of a node of IPFS that has it; None asks the swarm.

        Returns:
            `cid`, `path`, `bytes`.
        """

    async def fetch(
        self,
        name: str,
        version: int | None,
        path: Path | None,
        progress: Progress,
        *,
        card: bool = True,
    ) -> Json:
        """Fetch what a name points to, with the ledger's proof.

        A folder that is written and has no README.md gets one with the Hub's front matter, if `card` says so.

        Returns:
            `name`, `version`, `cid`, `path`, `height`, `proof`, and with a path `card`: whether one was made.
        """

    async def tasks(self) -> list[Json]:
        """Tasks on the ledger: at least `task`, `name`, `round`, `rounds`, `phase`, `version`, `loss`."""

    async def scoreboard(self, task: str) -> Json:
        """Who contributed what.

        Args:
            task: A task's id or its name.

        Returns:
            `task`, `name`, `rounds`: `round`, `version`, `base_loss`, `loss`, `height` (at which it ended), and `submissions`:
            `worker`, `root`, `score`, `accepted`, `reason`, `paid` each.
        """

    @property
    def ranges(self) -> Ranges:
        """Reads parts of content, for the gateway's routes."""

    async def look(self, cid: str, path: str) -> Json:
        """What stands at a path below a root: `cid`, `kind` (file, folder or symlink), `size`, `mode`."""

    async def entries(self, cid: str, path: str) -> list[Json]:
        """What stands in a folder: `name`, and what `look` tells, of each."""

    async def hold(self, cid: str, progress: Progress) -> Json:
        """Fetch everything below a root into the store: `cid`, `bytes` that came."""

    async def import_car(self, path: Path, progress: Progress) -> Json:
        """Read a CAR file into the store, and pin and announce its roots.

        Returns:
            `roots` (`cid`, and `size`: the bytes of its chunks that are held, each once), `chunks`, `bytes`, `new_bytes`.

        Raises:
            RefusedError: A root is not whole, or claims more than there is; none is pinned.
        """

    def page_link(self) -> Json:
        """The page's `address`, and a `link` that lets one browser in, once and soon.

        Raises:
            NotFoundError: This node has no page.
        """

    def stop(self) -> None:
        """Ask the node to stop; returns at once."""

"""Publish files and folders, and get them back by their root."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import trio

from storage import unixfs
from swarm.versions.branches import PIN
from swarm.versions.working import RESERVED

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from protocols.bitswap.service import BitswapService
    from protocols.exchange.service import ExchangeService
    from protocols.progress import Tell
    from protocols.transport import PeerId, Transport
    from storage.blockstore import Blockstore
    from storage.cid import Cid

_T = TypeVar("_T")

POLL_SECONDS = 0.1
"""Between two looks at what a thread has done."""


@dataclass(slots=True)
class Progress:
    """What a thread has done so far: set there, read anywhere.

    Attributes:
        done: Bytes.
        total: Bytes; zero until it is known.
    """

    done: int = 0
    total: int = 0

    def __call__(self, done: int, total: int) -> None:
        """Note it."""
        self.done, self.total = done, total


@dataclass(frozen=True, slots=True)
class Published:
    """What was published.

    Attributes:
        root: Its name.
        size: Bytes of its files.
        chunks: Chunks and manifests.
        new_bytes: That the store did not hold before.
    """

    root: Cid
    size: int
    chunks: int
    new_bytes: int


@dataclass(frozen=True, slots=True)
class Got:
    """What was fetched and written.

    Attributes:
        root: Its name.
        size: Bytes of its files.
        fetched: Bytes that came from peers.
        seconds: For the fetch, not the write.
        from_peers: Bytes from each provider.
    """

    root: Cid
    size: int
    fetched: int
    seconds: float
    from_peers: dict[PeerId, int]


async def publish(
    path: Path,
    store: Blockstore,
    transport: Transport,
    limiter: trio.CapacityLimiter | None = None,
    progress: Callable[[int, int], None] | None = None,
    *,
    announced: Callable[[int, int], None] | None = None,
    label: str | None = None,
    preserve_mode: bool = False,
    in_place: bool = False,
) -> Published:
    """Keep a file or folder, pin it and announce it.

    Of a dataset's working folder, the marker that says so is no part.

    Args:
        path: What to publish.
        store: Where its chunks go.
        transport: Where it is announced.
        limiter: Threads; None takes Trio's.
        progress: Told (bytes done, bytes in total) from this task, while it is hashed and kept.
        announced: Told (roots announced, roots in total).
        label: Of the pin; None takes the path's name.
        preserve_mode: Keep who may read, write and execute what is in it; the CID is another one then.
        in_place: Leave the content where it is, and only remember where that is.

    Returns:
        Its root and what was new.

    Raises:
        QuotaError: It does not fit into what this node lends.
        ManifestError: Something in it cannot be published, or a file changed while it was read.
        OSError: It cannot be read.
    """
    counter = Progress()
    adding = partial(
        unixfs.add_path,
        path,
        store,
        counter,
        preserve_mode=preserve_mode,
        in_place=in_place,
        skip=RESERVED,
    )
    with await trio.to_thread.run_sync(store.lease, "publish", limiter=limiter):
        added = await told(counter, progress, adding, limiter)
        if label is None:
            label = f"./{path.name}" if is_reserved(path.name) else path.name
        await trio.to_thread.run_sync(store.pin, added.root, label, limiter=limiter)
    if announced is not None:
        announced(0, 1)
    await transport.provide(added.root)
    if announced is not None:
        announced(1, 1)
    return Published(added.root, added.size, added.chunks, added.new_bytes)


async def plan(
    path: Path,
    store: Blockstore,
    limiter: trio.CapacityLimiter | None = None,
    progress: Callable[[int, int], None] | None = None,
    *,
    preserve_mode: bool = False,
) -> Published:
    """What publishing a file or folder would do; nothing is written.

    Args:
        path: What would be published.
        store: Against which what is new is counted.
        limiter: Threads; None takes Trio's.
        progress: Told (bytes done, bytes in total) from this task.
        preserve_mode: As `publish`.

    Raises:
        ManifestError: Something in it cannot be published, or a file changed while it was read.
        OSError: It cannot be read.
    """
    counter = Progress()
    hashing = partial(
        unixfs.hash_path,
        path,
        counter,
        preserve_mode=preserve_mode,
        skip=RESERVED,
        beside=store,
    )
    found = await told(counter, progress, hashing, limiter)
    return Published(found.root, found.size, found.chunks, found.new_bytes)


def is_reserved(label: str) -> bool:
    """Whether pins with this label are those of a dataset's branches, which come and go with them."""
    return label.startswith(PIN)


async def get(
    root: Cid,
    exchange: ExchangeService | BitswapService,
    store: Blockstore,
    target: Path,
    progress: Tell | None = None,
    *,
    providers: Sequence[PeerId] | None = None,
    label: str = "",
    max_bytes: int | None = None,
    limiter: trio.CapacityLimiter | None = None,
    writing: Callable[[int, int], None] | None = None,
) -> Got:
    """Fetch a root and write it to a path, which appears whole or not at all.

    Args:
        root: What to get.
        exchange: Fetches what the store lacks.
        store: Where its chunks go.
        target: Where the file or folder is to stand; nothing may be there.
        progress: Told (bytes here, bytes in total, from whom they come or why none do) from this task.
        providers: Whom to ask; None looks for them.
        label: What it is, for the exchange's list.
        max_bytes: Refuse content that is larger.
        limiter: Threads; None takes Trio's.
        writing: Told (bytes written, bytes in total) from this task.

    Returns:
        What came and what was written.

    Raises:
        ExchangeError: It could not be fetched, as `ExchangeService.fetch` tells.
        BitswapError: The same, as `BitswapService.fetch` tells.
        StorageError: It does not fit, is malformed, or the target is taken.
        OSError: The target cannot be written.
    """
    with await trio.to_thread.run_sync(store.lease, "get", root, limiter=limiter):
        fetched = await exchange.fetch(root, providers, progress, label=label, max_bytes=max_bytes)
        counter = Progress()
        work = partial(unixfs.write_path, root, store, target, counter)
        await told(counter, writing, work, limiter)
    size = await trio.to_thread.run_sync(unixfs.content_size, target, limiter=limiter)
    return Got(root, size, fetched.bytes, fetched.seconds, fetched.from_peers)


async def told(
    counter: Progress,
    progress: Callable[[int, int], None] | None,
    work: Callable[[], _T],
    limiter: trio.CapacityLimiter | None,
) -> _T:
    """Do work in a thread, and tell a callback of this task what the thread counts."""
    if progress is None:
        return await trio.to_thread.run_sync(work, limiter=limiter)
    result: list[_T] = []
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_poll, counter, progress)
        try:
            result.append(await trio.to_thread.run_sync(work, limiter=limiter))
        except Exception as error:  # noqa: BLE001 - raised again outside the nursery, so that it is no group
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
    progress(counter.done, counter.total)
    return result[0]


async def _poll(counter: Progress, progress: Callable[[int, int], None]) -> None:
    while True:
        progress(counter.done, counter.total)
        await trio.sleep(POLL_SECONDS)

"""The model that is served: one request after the other, and the newest checkpoint between two of them."""

from __future__ import annotations

import secrets
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

import structlog
import trio

from storage import cid as cids
from swarm.errors import UsageError
from swarm.serving.answers import Served
from swarm.serving.errors import BusyError, FailedError, NoModelError, TooLongError
from swarm.training.completion import TOO_LONG, CompletionJob
from swarm.training.errors import WorkerError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from protocols.progress import Tell
    from swarm.heights import Heights
    from swarm.ledger.names import NameVersion
    from swarm.serving.requests import Wish
    from swarm.shelf import Shelf
    from swarm.training.completion import Completed
    from swarm.training.supervisor import Worker

MAX_WAITING: Final = 32
"""Requests at once, of which one is worked on; more are refused."""
AGAIN_SECONDS: Final = 10.0
"""Before a newer checkpoint that could not be taken up is tried again."""
SEED_BITS: Final = 64
CONFIG: Final = "config.json"

Event: TypeAlias = Served | str
"""Who answers, then the text as it is made."""

_log = structlog.get_logger("swarm.serving")


@dataclass(frozen=True, slots=True)
class _Current:
    served: Served
    folder: Path
    lease: ExitStack


class Engine:
    """One name's model, ready to answer.

    Args:
        find: The version that is to be served now, by the ledger.
        heights: Tells that it may be another one.
        shelf: Where checkpoints lie.
        worker: Makes the text; its `run` is the caller's task.
    """

    def __init__(
        self, find: Callable[[], NameVersion], heights: Heights, shelf: Shelf, worker: Worker
    ) -> None:
        self._find = find
        self._heights = heights
        self._shelf = shelf
        self._worker = worker
        self._turn = trio.Lock()
        self._asked = 0
        self._current: _Current | None = None

    @property
    def served(self) -> Served:
        """Who answers the next request."""
        if self._current is None:
            message = "no model is loaded"
            raise FailedError(message)
        return self._current.served

    async def open(self, progress: Tell | None = None) -> None:
        """Take up the first checkpoint.

        Raises:
            UsageError: What the name points to is no model.
            WorkerError: It is no language model, or cannot be loaded.
        """
        await self._take_up(self._find(), progress)

    def close(self) -> None:
        """Let the checkpoint go."""
        if self._current is not None:
            self._current.lease.close()
            self._current = None

    async def follow(self, on_served: Callable[[Served], None]) -> None:
        """Take up each newer checkpoint, until cancelled; one that cannot be had leaves the older one in place."""
        while True:
            height = self._heights.height
            wanted = self._find()
            if (wanted.version, cids.text(wanted.root)) != (self.served.version, self.served.cid):
                try:
                    await self._take_up(wanted, None)
                except Exception as error:  # noqa: BLE001 - the model that is served stays
                    _log.warning("serving.not_taken_up", version=wanted.version, error=str(error))
                    await trio.sleep(AGAIN_SECONDS)
                    continue
                on_served(self.served)
            await self._heights.above(height)

    async def complete(self, wish: Wish, on_event: Callable[[Event], None]) -> Completed:
        """Answer a request when its turn comes.

        Args:
            wish: The request.
            on_event: Told who answers, then the text.

        Raises:
            NoModelError: It asks for another model.
            BusyError: Too many wait.
            TooLongError: Its prompt does not fit.
            FailedError: The worker could not do it.
        """
        self._check_model(wish)
        if self._asked >= MAX_WAITING:
            message = f"{MAX_WAITING} requests wait already"
            raise BusyError(message)
        self._asked += 1
        try:
            async with self._turn:
                return await self._complete(wish, on_event)
        finally:
            self._asked -= 1

    async def _complete(self, wish: Wish, on_event: Callable[[Event], None]) -> Completed:
        self._check_model(wish)  # a newer one may have come meanwhile
        current = self._current
        if current is None:
            message = "the model is gone"
            raise FailedError(message)
        on_event(current.served)
        seed = secrets.randbits(SEED_BITS) if wish.seed is None else wish.seed % 2**SEED_BITS
        job = CompletionJob(
            current.folder,
            wish.prompt,
            wish.max_tokens,
            wish.temperature,
            wish.top_p,
            seed,
            list(wish.stops),
            wish.truncate,
        )
        try:
            done = await self._worker.complete(job, on_event)
        except WorkerError as error:
            message = f"the worker could not do it: {error.why}"
            raise FailedError(message) from error
        if done.finish == TOO_LONG:
            message = (
                f"the prompt has {done.prompt_tokens:,} tokens, and the model sees {done.context:,} at once;"
                ' "truncate_prompt_tokens": -1 reads only its end'
            )
            raise TooLongError(message, "messages" if wish.is_chat else "prompt")
        return done

    def _check_model(self, wish: Wish) -> None:
        if not self.served.is_meant(wish.model):
            message = f"the model {wish.model!r} is not served here: {self.served.name} is"
            raise NoModelError(message, "model")

    async def _take_up(self, wanted: NameVersion, progress: Tell | None) -> None:
        """Load a checkpoint once nobody is being answered, and let the one before go."""
        with ExitStack() as stack:
            lease = stack.enter_context(self._shelf.lease())
            folder = await lease.take(wanted.root, progress=progress)
            if not (folder / CONFIG).is_file():
                message = f"{wanted.name}@{wanted.version} is not a model: it holds no {CONFIG}"
                raise UsageError(message, "`swarm fetch` writes it as it is")
            async with self._turn:
                loaded = await self._worker.load(folder)
                cid, now = cids.text(wanted.root), int(time.time())
                served = Served(wanted.name, wanted.version, cid, now, loaded)
                before, self._current = self._current, _Current(served, folder, stack.pop_all())
        if before is not None:
            before.lease.close()

"""What a person asks of a node to let other programs use a model: `serve`, for as long as the person waits."""

from __future__ import annotations

import os
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from swarm import models
from swarm.serving.engine import Engine
from swarm.serving.routes import MAX_PORT
from swarm.serving.service import check_address, serve
from swarm.training.child import WorkerSettings
from swarm.training.supervisor import Worker

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from swarm.control.api import Progress
    from swarm.node import Node
    from swarm.serving.answers import Served

COMPLETION_SECONDS: Final = 600.0
"""A completion that takes longer is given up."""
MAX_THREADS: Final = 4


class ServingOperations:
    """A person's door to models that are served.

    Args:
        node: Whose ledger and shelf are used.
        caught_up: Waits, within bounds, until the ledger is as new as its peers'.
    """

    def __init__(self, node: Node, caught_up: Callable[[Progress], Awaitable[None]]) -> None:
        self._node = node
        self._caught_up = caught_up

    async def serve(
        self,
        name: str,
        version: int | None,
        address: str,
        port: int,
        token: str | None,
        progress: Progress,
    ) -> None:
        """Serve a language model until cancelled, in a worker process of its own beside the node's.

        Args:
            name: Of the ledger.
            version: Which one; None is the latest, and each newer one as it comes.
            address: An IP address of this machine.
            port: 0 takes a free one.
            token: What clients have to show; None: nothing, on a loopback address alone.
            progress: Told (`NAME@VERSION CID`, port, 65,535) when it is served, and again with each newer one.

        Raises:
            NotFoundError: No such name or version.
            UsageError: It is no model, or the address would be open to other machines.
            RefusedError: The port is taken, or it is no language model.
        """
        check_address(address, token)
        await self._caught_up(progress)
        node = self._node
        find = partial(models.look_up, node.ledger.view, name, version)
        find()
        worker = Worker(
            WorkerSettings(
                device="auto" if node.settings.gpu else "cpu",
                threads=max(1, min(MAX_THREADS, (os.cpu_count() or 1) // 2)),
                nice=0,
                job_seconds=COMPLETION_SECONDS,
            )
        )
        async with trio.open_nursery() as nursery:
            await nursery.start(worker.run)
            with closing(Engine(find, node.heights, node.shelf, worker)) as engine:
                await engine.open(partial(progress, "fetch"))
                taken = await nursery.start(serve, engine, address, port, token)

                def tell(served: Served) -> None:
                    progress(f"{served.label} {served.cid}", taken, MAX_PORT)

                tell(engine.served)
                await engine.follow(tell)

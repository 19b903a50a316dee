"""A small network of whole nodes in one process, on loopback, with audits every few seconds."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio

from swarm.config import Settings
from swarm.entry import Entry
from swarm.identity import Identity
from swarm.ledger.genesis import UNIT, Genesis, GenesisValidator, Params
from swarm.ledger.vrf import VrfKey
from swarm.machine import Machine
from swarm.node import Node

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from swarm.control.api import NodeApi

PARAMS = Params(
    block_interval_ms=50,
    delta_ms=500,
    epoch_length=200,
    min_bond=100 * UNIT,
    blocks_per_day=1_728_000,
    audit_blocks=36,
    audit_answer_blocks=6,
    audit_report_blocks=14,
    audit_leaves=8,
    keeper_bond=1_000,
    free_slots=0,
    min_keep_price=5,
    strike_limit=3,
    standing_audits=2,
    seal_log_n=4,
    seal_passes=2,
)
LENT = 16_000_000
"""Eleven slots, with the margin and what an empty store takes."""


class QuietNode(Node):
    """A node that starts no worker to say what it computes on."""

    async def _describe_worker(self) -> None:
        pass


class LoopbackNetwork:
    """A validator that lends nothing, and keepers, which may validate too."""

    def __init__(
        self, folder: Path, keepers: int, *, all_validate: bool = False, **params: Any
    ) -> None:
        self._folder = folder
        self._names = ["validator", *(f"keeper-{at}" for at in range(keepers))]
        self.signers = {name: Identity.load_or_create(folder / name).signer for name in self._names}
        self._validators = self._names if all_validate else ["validator"]
        deciding = [self.signers[name] for name in self._validators]
        fields = {name: getattr(PARAMS, name) for name in Params.__dataclass_fields__}
        self.genesis = Genesis.create(
            "keeper-test",
            0,
            [
                GenesisValidator(one.public_key, VrfKey.of(one.seed).public_key, 1_000 * UNIT)
                for one in deciding
            ],
            allocations=[(one.public_key, 10_000 * UNIT) for one in self.signers.values()],
            params=Params(**{**fields, **params}),
        )
        self.nodes: dict[str, Node] = {}
        self.apis: dict[str, NodeApi] = {}
        self._scopes: dict[str, trio.CancelScope] = {}
        self._ended: dict[str, trio.Event] = {}

    async def start(
        self, nursery: trio.Nursery, name: str, *, kind: type[Node] = QuietNode, **settings: Any
    ) -> Node:
        """Build a node and run it until it is stopped."""
        known = tuple(self.nodes["validator"].network.addresses()) if self.nodes else ()
        chosen = Settings(
            home=self._folder / name,
            listen=("/ip4/127.0.0.1/tcp/0",),
            **{
                "storage": LENT,
                "train": False,
                "validate": name in self._validators,
                "keep": name != "validator",
                "seal_share": 1.0,
                "page": None,
                **settings,
            },
        )
        machine = Machine(self._folder / f"machine-{name}")
        entry = Entry(self.genesis, known)
        node = await trio.to_thread.run_sync(kind, chosen, self.signers[name], entry, machine)
        ready, self._ended[name] = trio.Event(), trio.Event()
        scope = self._scopes[name] = trio.CancelScope()

        def on_ready(api: NodeApi) -> None:
            self.apis[name] = api
            ready.set()

        async def run() -> None:
            try:
                with scope:
                    await node.run(on_ready)
            finally:
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(node.close)
                self._ended[name].set()

        nursery.start_soon(run)
        await ready.wait()
        self.nodes[name] = node
        return node

    async def stop(self, name: str) -> None:
        """Stop a node as a signal would."""
        self._scopes[name].cancel()
        await self._ended[name].wait()
        del self.nodes[name]

    def key(self, name: str) -> bytes:
        return self.signers[name].public_key

    async def until(self, what: str, holds: Callable[[], Any], seconds: float = 40) -> Any:
        """Wait for a condition, looked at with each block of the validator."""
        heights = self.nodes["validator"].heights
        with trio.move_on_after(seconds):
            while not (found := holds()):
                await heights.above(heights.height)
            return found
        view = self.nodes["validator"].ledger.view()
        told = {name: node.problems() for name, node in self.nodes.items()}
        message = f"waited {seconds} s for {what}; height {view.height}, {view.keepers()}, {told}"
        raise AssertionError(message)


@asynccontextmanager
async def network(
    folder: Path, keepers: int, *, all_validate: bool = False, **params: Any
) -> AsyncIterator[tuple[LoopbackNetwork, trio.Nursery]]:
    """A network whose validator runs; everything is stopped with the block."""
    made = LoopbackNetwork(folder, keepers, all_validate=all_validate, **params)
    async with trio.open_nursery() as nursery:
        await made.start(nursery, "validator")
        yield made, nursery
        for name in list(made.nodes):
            await made.stop(name)
        nursery.cancel_scope.cancel()

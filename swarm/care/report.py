"""What a running node tells the doctor of itself: plain values, ready for JSON."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import trio

from swarm import reports
from swarm.care.checks import place_of
from swarm.ledger.errors import LedgerError

if TYPE_CHECKING:
    from swarm.node import Node

    Json = dict[str, Any]


async def report(node: Node) -> Json:
    """Everything that the doctor judges and only the node knows.

    Returns:
        `time_ms`, `clock_gap_ms` (None: not known), `height`, `best_head`, `first_block`, `snapshot` (the newest here; None: none yet), `caught_up`, `peers`,
        `addresses`, `listen` (settings), `inbound` (`public`, `private`, `loopback`: peers that dialled this node),
        `outbound`, `reach` (`verdict`, `mapping`, `seen`, … of `Network.reachability`), `chunks_damaged`, `storage` (`lent`, `used` by chunks, `taken` by all that counts as lent, `free`), `keeper` (None, or `slots`, `sealed`, `goal`, `strikes`, `suspended`,
        `verdict`, `problems`), `member` (`stake`, `balance`, `roles`, `jailed_until`, `weight`, `min_bond`, `trains`,
        `validates`), `device`, `gpu`, `worker_pid`, `problems`, `paused`, `finishing`, `pid`, `home`, `temporary`,
        `version`.
    """
    usage = node.store.usage()
    damaged = await trio.to_thread.run_sync(node.store.damaged)
    snapshots = await trio.to_thread.run_sync(node.snapshots.snapshots)
    settings = node.settings
    lent = node.lent.now if node.keeping is None else node.keeping.lent
    taken = usage.used + node.space.shelf + node.space.slots
    return {
        "time_ms": time.time_ns() // 10**6,
        "clock_gap_ms": node.clock.median_ms,
        "height": node.heights.height,
        "best_head": node.best_head(),
        "first_block": node.ledger.first_block(),
        "snapshot": max(snapshots, default=None),
        "caught_up": node.sync.caught_up.is_set(),
        "peers": len(node.network.peers()),
        "addresses": node.network.addresses(),
        "listen": list(settings.listen),
        **_connections(node),
        "reach": node.network.reachability(),
        "chunks_damaged": len(damaged),
        "storage": {"lent": lent, "used": usage.used, "taken": taken, "free": usage.free},
        "keeper": _keeper(node),
        "member": _member(node),
        "device": node.device,
        "gpu": settings.gpu,
        "worker_pid": node.worker.pid,
        "problems": node.problems(),
        **node.controls.told(),
        "pid": node.pid,
        "home": str(settings.home),
        "temporary": settings.temporary,
        "version": node.version,
    }


def _connections(node: Node) -> Json:
    """Who dialled whom: a peer that came from outside shows that this node can be reached from there."""
    inbound = {"public": 0, "private": 0, "loopback": 0}
    outbound = 0
    for one in node.network.peer_info():
        if not one.member:
            continue
        if one.dialled:
            outbound += 1
        elif "/p2p-circuit" not in one.address:
            inbound[place_of(one.address)] += 1
    return {"inbound": inbound, "outbound": outbound}


def _keeper(node: Node) -> Json | None:
    keeping = node.keeping
    if keeping is None:
        return None
    keeper = node.ledger.view().keeper(node.signer.public_key)
    return {
        "slots": 0 if keeper is None else keeper.slots,
        "sealed": len(keeping.slots),
        "goal": keeping.goal,
        "strikes": 0 if keeper is None else keeper.strikes,
        "suspended": keeper is not None and keeper.suspended,
        "verdict": keeping.memory.reason,
        "problems": keeping.worries(),
    }


def _member(node: Node) -> Json:
    view, key = node.ledger.view(), node.signer.public_key
    account = view.account(key)
    try:
        weight = view.validators(view.epoch).weight_of(key)
    except LedgerError:
        weight = 0
    return {
        "stake": account.stake,
        "balance": account.balance,
        "roles": reports.roles(view, key),
        "jailed_until": view.jailed_until(key),
        "weight": weight,
        "min_bond": view.params.min_bond,
        "trains": node.settings.train,
        "validates": node.settings.validate,
    }

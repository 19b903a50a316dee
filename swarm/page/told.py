"""What the page tells, from one running node: plain values, ready for JSON, each of a bounded size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

import trio

from protocols import signing
from protocols.handshake.messages import ROLE_KEEPER, ROLE_VALIDATOR, ROLE_WORKER
from storage import cid as cids
from swarm import reports
from swarm.page import latency, logs
from swarm.page.samples import Samples

if TYPE_CHECKING:
    from swarm.control.api import NodeApi
    from swarm.ledger.keeping import Deal
    from swarm.ledger.state import LedgerView, TaskState
    from swarm.node import Node

    Json = dict[str, Any]

MAX_TASKS: Final = 50
CURVE_POINTS: Final = 400
"""Of a loss curve; of a longer history every so many rounds are read."""
RECENT: Final = 40
"""Rounds that are told in full."""
EARNING_ROUNDS: Final = 200
"""Newest rounds over which it is added up who earned what."""
VERSIONS: Final = 20
LOOK_BACK: Final = 32
"""Rounds of a task in which this node's last contribution is looked for."""
LOOK_TASKS: Final = 8
MAX_PEERS: Final = 100
MAX_DEALS: Final = 50
MAX_PIECES: Final = 64
PING_SECONDS: Final = 30.0
"""Between two measures of how far the peers are."""
ROLES: Final = {ROLE_VALIDATOR: "validator", ROLE_WORKER: "worker", ROLE_KEEPER: "keeper"}


_WORDS: Final = {
    "no_task": "idle",
    "not_registered": "waiting",
    "reader": "reading along",
    "validator": "voting",
    "schedule": "waiting",
    "idle": "waiting",
    "cap": "held back",
    "heat": "held back",
    "battery": "held back",
}
"""Codes of a state that are not words for what a node does."""


class Source(Protocol):
    """What the page's routes ask; `Told` answers for a node."""

    @property
    def samples(self) -> Samples:
        """Samples of versions that are held, and making one."""

    async def node(self) -> Json:
        """This node: `state` (`word`, `why`), `status`, and `last` (its last contribution, or None)."""

    async def tasks(self) -> list[Json]:
        """The newest tasks, open ones first."""

    async def task(self, task: str) -> Json:
        """One task with its curve, its newest rounds, who earned what, and its versions.

        Raises:
            NotFoundError: There is none.
        """

    async def peers(self) -> Json:
        """Connected peers: `me`, `counts` by role, `peers`."""

    async def storage(self) -> Json:
        """What is lent, kept and proven; and where replicas of open deals stand."""

    async def logs(self, level: str, lines: int) -> list[Json]:
        """The end of the log."""

    async def log_changed(self) -> Json:
        """`changed`: another number when the log is another."""

    async def pause(self, part: str, seconds: int | None) -> Json:
        """Hold a part back: `paused`, `finishing`."""

    async def resume(self, part: str) -> Json:
        """Go on with it: `paused`, `finishing`, `resumed`."""


class Told:
    """The page's view of a node.

    Args:
        node: Which.
        api: What its person may ask of it.
    """

    def __init__(self, node: Node, api: NodeApi) -> None:
        self._node = node
        self._api = api
        self._last: tuple[int, Json | None] = (-1, None)
        self._far: dict[str, float] = {}
        self._measured = -PING_SECONDS
        self.samples = Samples(node.settings.home / "page", api.work.sample, self._version_of)

    async def node(self) -> Json:
        node, status = self._node, self._api.status()
        view = node.ledger.view()
        if self._last[0] != view.height:
            found = await trio.to_thread.run_sync(last_contribution, view, node.signer.public_key)
            self._last = (view.height, found)
        status.pop("home")
        status["uptime_s"] = int(status["uptime_s"]) // 60 * 60  # so that it is news once a minute
        return {
            "state": in_words(status["state"]),
            "status": status,
            "last": self._last[1],
            "trains": node.settings.train,
            "block_seconds": node.genesis.params.block_interval_ms / 1000,
        }

    async def tasks(self) -> list[Json]:
        view = self._node.ledger.view()

        def read() -> list[Json]:
            tasks = sorted(view.tasks(), key=lambda one: (one.open, one.posted), reverse=True)
            return [reports.task_summary(view, one) for one in tasks[:MAX_TASKS]]

        return await trio.to_thread.run_sync(read)

    async def task(self, task: str) -> Json:
        node = self._node
        view = node.ledger.view()
        state = reports.find_task(view, task)
        told = await trio.to_thread.run_sync(task_report, view, state, node.signer.public_key)
        participant = node.participant
        return told | {
            "activity": participant.activity.get(state.id),
            "problem": participant.problems.get(state.id),
            "training_loss": participant.losses.get(state.id),
        }

    async def peers(self) -> Json:
        node = self._node
        now = trio.current_time()
        if now - self._measured >= PING_SECONDS:
            self._measured = now
            self._far = await latency.measure(node.network)
        found = [one for one in node.network.peer_info() if one.member]
        told = [
            {
                "peer": one.peer,
                "roles": [name for bit, name in ROLES.items() if one.roles & bit],
                "version": one.software[:80],
                "head": one.head,
                "dialled": one.dialled,
                "latency_ms": _ms(self._far.get(one.peer)),
                "minutes": int(now - one.connected_since) // 60,
            }
            for one in sorted(found, key=lambda one: one.peer)[:MAX_PEERS]
        ]
        counts = {name: sum(bool(one.roles & bit) for one in found) for bit, name in ROLES.items()}
        counts["reader"] = sum(not one.roles for one in found)
        return {"me": node.signer.peer_id, "all": len(found), "counts": counts, "peers": told}

    async def storage(self) -> Json:
        view, key = self._node.ledger.view(), self._node.signer.public_key
        told = await self._api.keeping.storage()
        return told | {"deals": await trio.to_thread.run_sync(replicas, view, key)}

    async def logs(self, level: str, lines: int) -> list[Json]:
        home = self._node.settings.home
        return await trio.to_thread.run_sync(logs.tail, home, level, lines)

    async def log_changed(self) -> Json:
        await trio.lowlevel.checkpoint()
        return {"changed": str(logs.changed(self._node.settings.home))}

    async def pause(self, part: str, seconds: int | None) -> Json:
        return await self._api.care.pause(part, seconds)

    async def resume(self, part: str) -> Json:
        return await self._api.care.resume(part)

    def _version_of(self, name: str, version: int) -> str | None:
        found = self._node.ledger.view().name_version(name, version)
        return None if found is None else cids.text(found.root)


def in_words(state: Json) -> Json:
    """What the node does, as a person reads it.

    Args:
        state: `code` and `why`, as the status tells them (`care.standing.state`).

    Returns:
        `word` and `why`, a sentence.
    """
    word = _WORDS.get(state["code"], state["code"].replace("_", " "))
    return {"word": word, "why": f"{state['why'][:1].upper()}{state['why'][1:]}."}


def last_contribution(view: LedgerView, key: bytes) -> Json | None:
    """The newest round that ended in which an account handed something in; None where none is near.

    Returns:
        `task` (name), `round`, `height`, `score`, `accepted`, `reason`, `paid`, `loss`, `base_loss`.
    """
    best: Json | None = None
    peer = signing.peer_id(key)
    tasks = sorted(view.tasks(), key=lambda one: (one.open, one.posted), reverse=True)
    for task in tasks[:LOOK_TASKS]:
        numbers = range(task.done, max(0, task.done - LOOK_BACK), -1)
        for one in reports.rounds(view, task, numbers):
            mine = next((sub for sub in one["submissions"] if sub["worker"] == peer), None)
            if mine is not None:
                found = {
                    "task": task.name,
                    "round": one["round"],
                    "height": one["height"],
                    "loss": one["loss"],
                    "base_loss": one["base_loss"],
                    **{name: mine[name] for name in ("score", "accepted", "reason", "paid")},
                }
                best = found if best is None or best["height"] < found["height"] else best
                break
    return best


def task_report(view: LedgerView, task: TaskState, key: bytes) -> Json:
    """One task.

    Returns:
        `task` (its summary), `curve` (round and loss each), `rounds` (the newest first), `earned` (by account, over
        `counted` rounds), `versions` (`version`, `cid`, `height`, `round`, `loss` each).
    """
    step = max(1, -(-task.done // CURVE_POINTS))
    numbers = sorted({*range(task.done, 0, -step), *([1] if task.done else [])})
    points = list(reports.rounds(view, task, numbers))
    curve = [[one["round"], one["loss"]] for one in points if one["loss"] is not None]
    if points and points[0]["base_loss"] is not None:
        curve.insert(0, [points[0]["round"] - 1, points[0]["base_loss"]])
    newest = range(task.done, max(0, task.done - EARNING_ROUNDS), -1)
    recent = list(reports.rounds(view, task, newest))
    return {
        "task": reports.task_summary(view, task),
        "curve": curve,
        "rounds": [*reports.current_round(view, task), *recent[:RECENT]],
        "earned": _earned(recent, signing.peer_id(key)),
        "counted": len(recent),
        "versions": _versions(view, task),
    }


def _earned(rounds: list[Json], me: str) -> list[Json]:
    """Who was paid what, the most first."""
    found: dict[str, Json] = {}

    def of(account: str) -> Json:
        start = {"account": account, "me": account == me, "work": 0, "validating": 0}
        return found.setdefault(account, start | {"accepted": 0, "submitted": 0})

    for one in rounds:
        for entry in one["submissions"]:
            line = of(entry["worker"])
            line["work"] += entry["paid"]
            line["submitted"] += 1
            line["accepted"] += bool(entry["accepted"])
        for entry in one["validators"]:
            of(entry["account"])["validating"] += entry["paid"]
    lines = sorted(found.values(), key=lambda one: -(one["work"] + one["validating"]))
    return lines[:MAX_PEERS]


def _versions(view: LedgerView, task: TaskState) -> list[Json]:
    entry = view.name(task.name)
    if entry is None:
        return []
    told = []
    for number in range(entry.version, max(-1, entry.version - VERSIONS), -1):
        one = view.name_version(task.name, number)
        if one is None:
            continue
        settled = reports.rounds(view, task, [one.round] if one.round else [])
        told.append(
            {
                "version": number,
                "cid": cids.text(one.root),
                "height": one.height,
                "round": one.round or None,
                "loss": next((found["loss"] for found in settled), None),
            }
        )
    return told


def replicas(view: LedgerView, key: bytes) -> list[Json]:
    """Where the replicas of open deals stand, this account's deals first.

    Returns:
        `deal`, `mine`, `bytes`, `replicas`, `coded`, `pieces`: of each piece (the first `MAX_PIECES`) its `root` and
        `seats`: `keeper`, `me`, `shown` (proven to be held) each.
    """
    deals = sorted(view.deals(), key=lambda one: (one.owner != key, one.posted))
    return [_deal(view, one, key) for one in deals[:MAX_DEALS]]


def _deal(view: LedgerView, deal: Deal, key: bytes) -> Json:
    seats = view.seats(deal.id)
    taken = seats.of if seats is not None else ((),) * len(deal.pieces)
    pairs = list(zip(deal.pieces, taken, strict=True))[:MAX_PIECES]
    return {
        "deal": deal.id.hex(),
        "mine": deal.owner == key,
        "bytes": sum(one.size for one in deal.pieces),
        "replicas": deal.replicas,
        "coded": bool(deal.recipe),
        "pieces": [
            {
                "root": cids.text(piece.root),
                "seats": [
                    {
                        "keeper": signing.peer_id(one.keeper),
                        "me": one.keeper == key,
                        "shown": one.shown,
                    }
                    for one in seated
                ],
            }
            for piece, seated in pairs
        ],
    }


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(1000 * seconds, 1)

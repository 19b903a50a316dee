"""A node's page source from memory, as rich as a page can be: every kind of peer, deal, round and verdict."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

import trio

from swarm.errors import NotFoundError
from swarm.page.samples import Samples

if TYPE_CHECKING:
    from pathlib import Path

PEER = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"
OTHER = "12D3KooWSNTaWAsHK6sKMf4588gtpJ8DzmNVSAV356tSiR3g7qxo"
TASK = "ab" * 32
ROOTS = [f"bafybeidyuwtkdbzoxx3dvy3fkdc52bofnlumujq44crna3slq7v2amn{one}" for one in "abcdefg"]
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAIAAAACCAAAAABX3VL4AAAADklEQVR4nGNgaGBgYAAAA4QBAQBIkmcAAAAASUVORK5CYII="
)
LOSSES = [5.545, 4.1, 3.62, 3.31, 3.18, 3.02]


class FakeSource:
    """Answers from memory; what is paused, drawn and logged changes.

    Args:
        home: Where samples are kept.
    """

    def __init__(self, home: Path) -> None:
        self.held = []
        self.failing = False
        self.height = 4242
        self.samples = Samples(home / "page", self._draw, self._root_of)
        self.drawing = trio.Event()
        self.go_on = trio.Event()
        self.go_on.set()

    def _root_of(self, name, version):
        return ROOTS[version] if name == "tiny-gpt" and version < len(ROOTS) else None

    async def _draw(self, name, version, prompt, path, length, seed):
        self.drawing.set()
        await self.go_on.wait()
        common = {"name": name, "version": version, "cid": ROOTS[version]}
        if version == 2:
            path.write_bytes(PNG)
            return common | {"path": str(path)}
        return common | {"text": f"<b>ROMEO</b>: version {version} & so on\n" * 4}

    async def node(self):
        await trio.lowlevel.checkpoint()
        return {
            "state": {"word": "working", "why": "Training, step 7 of 15."},
            "status": {
                "peer": PEER,
                "account": PEER,
                "network": "test",
                "chain_id": "cd" * 32,
                "height": self.height,
                "epoch": 70,
                "view": 4243,
                "peers": 4,
                "validators": 3,
                "addresses": [f"/ip4/127.0.0.1/tcp/4001/p2p/{PEER}"],
                "problems": ["<script>alert(1)</script> is no peer"],
                "finality_ms": {"p50": 700, "p99": 1500},
                "storage": {"lent": 500 * 10**9, "used": 14 * 10**9, "free": 486 * 10**9},
                "balance": 12_500_000_000,
                "earned": 2_500_000_000,
                "stake": 1000 * 10**9,
                "roles": ["keeper", "validator", "worker"],
                "device": "cpu",
                "task": self._task() | {"activity": "training", "training_loss": 3.0},
                "version": "0.1.0",
                "uptime_s": 7261,
                "temporary": False,
                "pid": 4711,
                "page": None,
                "bytes_in": 10**6,
                "bytes_out": 2 * 10**6,
                "paused": self.held,
                "finishing": False,
                "held": [{"part": "seal", "why": "not idle: 3 of 300 s", "until": None}],
                "warnings": [{"code": "strikes", "why": "2 of 3 strikes", "seconds": 600.0}],
            },
            "last": {
                "task": "tiny-gpt",
                "round": 5,
                "height": 4200,
                "loss": 3.02,
                "base_loss": 3.18,
                "score": 0.0312,
                "accepted": True,
                "reason": None,
                "paid": 12_000_000_000,
            },
            "trains": True,
            "block_seconds": 1.0,
        }

    def _task(self):
        return {
            "task": TASK,
            "name": "tiny-gpt",
            "kind": "lm",
            "poster": OTHER,
            "open": True,
            "round": 6,
            "rounds": 32,
            "phase": "score_commit",
            "blocks_left": 9,
            "version": 5,
            "loss": LOSSES[-1],
            "first_loss": LOSSES[0],
            "budget": 10**12,
            "escrow": 8 * 10**11,
            "dataset": ROOTS[0],
            "pool": ROOTS[0],
            "base": ROOTS[0],
        }

    async def tasks(self):
        await trio.lowlevel.checkpoint()
        return [self._task()]

    async def task(self, task):
        await trio.lowlevel.checkpoint()
        if task not in {TASK, "tiny-gpt"}:
            msg = f"no task is called {task!r}"
            raise NotFoundError(msg)
        entry = {"worker": PEER, "root": ROOTS[1], "score": 0.03, "accepted": True}
        refused = {"worker": OTHER, "root": ROOTS[2], "score": -0.001, "accepted": False}
        rounds = [
            {
                "round": number,
                "attempt": 0,
                "outcome": "merged",
                "version": number,
                "root": ROOTS[number],
                "base_loss": LOSSES[number - 1],
                "loss": LOSSES[number],
                "blocks": 40,
                "height": 4000 + 40 * number,
                "submissions": [
                    entry | {"reason": None, "paid": 12 * 10**9},
                    refused | {"reason": "it makes the loss worse", "paid": 0},
                ],
                "validators": [{"account": OTHER, "paid": 10**9}],
            }
            for number in range(5, 0, -1)
        ]
        return {
            "task": self._task(),
            "curve": [list(one) for one in enumerate(LOSSES)],
            "rounds": rounds,
            "earned": [
                {"account": PEER, "me": True, "work": 60 * 10**9, "validating": 0}
                | {"accepted": 5, "submitted": 5},
                {"account": OTHER, "me": False, "work": 0, "validating": 5 * 10**9}
                | {"accepted": 0, "submitted": 5},
            ],
            "counted": 5,
            "versions": [
                {"version": at, "cid": ROOTS[at], "height": 4000 + 40 * at}
                | {"round": at or None, "loss": LOSSES[at] if at else None}
                for at in range(5, -1, -1)
            ],
            "activity": "training",
            "problem": None,
            "training_loss": 3.0,
        }

    async def peers(self):
        await trio.lowlevel.checkpoint()
        if self.failing:
            msg = "the disk failed"
            raise OSError(msg)
        shapes = [
            (["validator", "keeper"], 0.4),
            (["worker"], 12.5),
            ([], 180.0),
            (["worker"], None),
        ]
        peers = [
            {"peer": OTHER[:-2] + f"{at:02}", "roles": roles, "version": "swarm/0.1.0"}
            | {"head": 4242, "dialled": at % 2 == 0, "latency_ms": ms, "minutes": 7 * at}
            for at, (roles, ms) in enumerate(shapes)
        ]
        counts = {"validator": 1, "worker": 2, "keeper": 1, "reader": 1}
        return {"me": PEER, "all": len(peers), "counts": counts, "peers": peers}

    async def storage(self):
        await trio.lowlevel.checkpoint()
        seat = {"keeper": OTHER, "me": False, "shown": True}
        mine = {"keeper": PEER, "me": True, "shown": False}
        pieces = [
            {"root": root, "seats": [seat, mine][: 1 + at % 2]} for at, root in enumerate(ROOTS)
        ]
        return {
            "lent": 500 * 10**9,
            "used": 14 * 10**9,
            "free": 486 * 10**9,
            "in_place": 0,
            "reclaimable": 10**6,
            "sealed": 120 * 10**9,
            "goal": 400 * 10**9,
            "seconds_left": 3600,
            "shelf": 10**9,
            "own": 10**9,
            "slots": {"sealed": 1200, "goal": 4000, "counted": 1100, "proven": 1000, "share": 0.25},
            "duties": {"pieces": 7, "here": 6, "bytes": 4 * 10**9},
            "collateral": 10**9,
            "earned": 3 * 10**9,
            "strikes": 0,
            "suspended": False,
            "audit": 12,
            "verdict": "passed",
            "height": self.height,
            "next_audit": self.height + 90,
            "opens": self.height + 10,
            "block_seconds": 1.0,
            "problems": [],
            "deals": [
                {"deal": "ef" * 32, "mine": True, "bytes": 10**9, "replicas": 3, "coded": True}
                | {"pieces": pieces}
            ],
        }

    async def logs(self, level, lines):
        await trio.lowlevel.checkpoint()
        found = {"time": "2026-01-02T03:04:05Z", "level": level, "event": "round.trained"}
        return [found | {"values": json.dumps({"round": at})} for at in range(min(lines, 40))]

    async def log_changed(self):
        await trio.lowlevel.checkpoint()
        return {"changed": "1"}

    async def pause(self, part, seconds):
        await trio.lowlevel.checkpoint()
        self.held = [{"part": part, "until": None}]
        return {"paused": self.held, "finishing": False}

    async def resume(self, part):
        await trio.lowlevel.checkpoint()
        ended, self.held = [one["part"] for one in self.held], []
        return {"paused": [], "finishing": False, "resumed": ended}

"""Leaves a network: takes back what was lent and staked, and keeps what others rely on until they have it.

What was begun is remembered before it is done, so that a node that was stopped goes on where it was; until it is cancelled
or the folder is removed.
"""

from __future__ import annotations

import json
import re
import time
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import structlog
import trio

from storage import cid as cids
from storage.errors import StorageError
from storage.files import DISK
from swarm.care import departure
from swarm.care.standing import settles_at
from swarm.errors import RefusedError, SwarmError
from swarm.keeper import core
from swarm.ledger.errors import LedgerError
from swarm.ledger.validators import EPOCHS_AHEAD

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from storage.cid import Cid
    from swarm.node import Node

    Json = dict[str, Any]

FILE: Final = "leaving.json"
MAX_FILE_BYTES: Final = 8 * 2**20
LABEL: Final = "leaving "
_LABEL: Final = re.compile(LABEL + r"[0-9a-f]* \d+")
RESEND_BLOCKS: Final = 12
"""A transaction that the ledger does not show after so many blocks is sent again."""
AGAIN_SECONDS: Final = 2.0

_log = structlog.get_logger("swarm.care")


@dataclass(frozen=True, slots=True)
class _Piece:
    """A piece that this node had a seat for when leaving began."""

    deal: str
    index: int
    root: str
    size: int

    @property
    def label(self) -> str:
        return f"{LABEL}{self.deal} {self.index}"

    @property
    def cid(self) -> Cid:
        return cids.parse(self.root)


@dataclass(frozen=True, slots=True)
class _State:
    """What is remembered."""

    begun: float
    blocks: int
    pieces: tuple[_Piece, ...]
    is_over: bool = False


class Leaving:
    """The departure of one node.

    Args:
        node: The node.
        vrf_key: Its account's.
    """

    def __init__(self, node: Node, vrf_key: bytes) -> None:
        self._node = node
        self._vrf_key = vrf_key
        self._path = node.settings.home / FILE
        self._state = _read(self._path)
        self._sent: dict[type, int] = {}
        self._begun = trio.Event()
        self._deciding = trio.Lock()
        self.problem = ""
        """Why the ledger did not take the last step; empty where it did."""
        node.controls.is_leaving = self._state is not None

    async def run(self) -> None:
        """Go on with leaving, once it has begun, until cancelled; the ledger is that of now."""
        node = self._node
        await self._settle()
        while True:
            if self._state is None or self._state.is_over:
                self._begun = trio.Event()
                await self._begun.wait()
                continue
            height = node.heights.height
            try:
                await self._look()
            except (StorageError, SwarmError, LedgerError, OSError) as error:
                self.problem = str(error)
                _log.warning("leaving.failed", error=str(error))
            with trio.move_on_after(AGAIN_SECONDS):
                await node.heights.above(height)

    @property
    def is_staying(self) -> bool:
        """Whether it does not leave, and has not left."""
        return self._state is None

    async def begin(self) -> Json:
        """Begin to leave, durably; what `told` tells.

        Raises:
            RefusedError: This is a node for one command.
        """
        node = self._node
        if node.settings.temporary:
            message = "a node for one command has nothing to leave"
            raise RefusedError(message, "start the account's own node: swarm join")
        async with self._decided():
            if self._state is None:
                await self._begin()
        return self.told()

    @asynccontextmanager
    async def _decided(self) -> AsyncIterator[None]:
        """One decision at a time, and each whole: a client that goes away leaves none half made."""
        async with self._deciding:
            with trio.CancelScope(shield=True):
                yield

    async def _begin(self) -> None:
        node = self._node
        duties = node.ledger.view().duties_of(node.signer.public_key)
        pieces = tuple(
            _Piece(one.deal.hex(), one.piece, cids.text(one.root), one.size) for one in duties
        )
        blocks = departure.blocks_left(departure.stages(self._facts(pieces)))
        state = _State(time.time(), max(1, blocks), pieces)
        await trio.to_thread.run_sync(self._hold, pieces)
        await trio.to_thread.run_sync(self._remember, state)
        self._state = state
        node.controls.is_leaving = True
        self._begun.set()
        _log.info("node.leaving", pieces=len(pieces), blocks=blocks)

    async def cancel(self) -> Json:
        """Stay: what was lent is lent again, and what was staked is staked again once it has unbonded; what `told` tells."""
        async with self._decided():
            if self._state is not None:
                state, self._state = self._state, None  # from here on no step is taken
                try:
                    await trio.to_thread.run_sync(self._forget, state.pieces)
                except BaseException:
                    self._state = state
                    raise
                self._node.controls.is_leaving = False
                self._sent.clear()
                self.problem = ""
                _log.info("node.stays")
        return self.told()

    def told(self) -> Json:
        """How leaving stands, or what it would take.

        Returns:
            `state` (`staying`, `leaving`, `left`), `percent`, `seconds_left` (about), `begun` (seconds since 1970, None), `stages`
            (`name`, `text`, `seconds`: left, 0 where it is done), `collateral`, `stake`, `unbonding` (`amount`, `height`, `seconds`
            each), `pieces`, `bytes`, `alone` (pieces that nobody else has shown yet) and `problem`.
        """
        node, state = self._node, self._state
        view = node.ledger.view()
        duties = view.duties_of(node.signer.public_key)
        pieces = (
            state.pieces
            if state is not None
            else tuple(
                _Piece(one.deal.hex(), one.piece, cids.text(one.root), one.size) for one in duties
            )
        )
        facts = self._facts(pieces)
        parts = departure.stages(facts)
        left = departure.blocks_left(parts)
        percent = self._percent(facts)
        seconds = view.params.block_interval_ms / 1000
        word = "staying" if state is None else "left" if state.is_over else "leaving"
        return {
            "state": word,
            "percent": percent,
            "seconds_left": 0 if word == "left" else left * seconds,
            "begun": None if state is None else state.begun,
            "stages": [
                {"name": one.name, "text": one.text, "seconds": (one.blocks or 0) * seconds}
                for one in parts
            ],
            "collateral": facts.collateral,
            "stake": facts.stake,
            "unbonding": [
                {
                    "amount": amount,
                    "height": height,
                    "seconds": max(0, height - facts.height) * seconds,
                }
                for amount, height in facts.releases
            ],
            "pieces": facts.pieces,
            "bytes": sum(one.size for one in pieces),
            "alone": facts.alone,
            "problem": self.problem,
        }

    def _percent(self, facts: departure.Facts) -> int:
        """How much of the time that leaving takes is over."""
        if self._state is None or self._state.is_over:
            return 0 if self._state is None else 100
        left = departure.blocks_left(departure.stages(facts))
        return max(0, min(99, 100 * (self._state.blocks - left) // self._state.blocks))

    async def _look(self) -> None:
        state = self._state
        assert state is not None  # noqa: S101 - for the type
        facts = self._facts(state.pieces)
        for step in departure.steps(facts, self._vrf_key, self._hardware):
            if facts.height - self._sent.get(type(step), -RESEND_BLOCKS) < RESEND_BLOCKS:
                continue
            if self._state is not state:  # it stays after all
                return
            self._sent[type(step)] = facts.height
            await self._node.wallet.submit(step)
            _log.info("leaving.step", step=type(step).__name__, height=facts.height)
        self.problem = ""
        self._node.controls.leaving_percent = self._percent(facts)
        if departure.is_done(departure.stages(facts)):
            async with self._decided():
                if self._state is state:
                    await self._end(state)

    async def _end(self, state: _State) -> None:
        over = _State(state.begun, state.blocks, (), is_over=True)
        await trio.to_thread.run_sync(self._remember, over)
        await trio.to_thread.run_sync(self._release, state.pieces)
        self._state = over
        _log.info("node.left")

    @property
    def _hardware(self) -> str:
        return "gpu" if self._node.settings.gpu else "cpu"

    def _facts(self, pieces: tuple[_Piece, ...]) -> departure.Facts:
        node, own = self._node, self._node.signer.public_key
        view = node.ledger.view()
        params, account, keeper = view.params, view.account(own), view.keeper(own)
        alone = 0
        for one in pieces:
            deal = bytes.fromhex(one.deal)
            alone += not departure.is_with_others(view.deal(deal), view.seats(deal), one.index, own)
        return departure.Facts(
            height=view.height,
            owing=len(node.participant.owing),
            slots=0 if keeper is None else keeper.slots,
            opens=core.opens_at(params, view.height),
            collateral=0 if keeper is None else keeper.collateral,
            stake=account.stake,
            bond=account.bond,
            roles=account.roles,
            releases=tuple((one.amount, one.height) for one in account.unbonding),
            pieces=len(pieces),
            alone=alone,
            settles=settles_at(params, view.height),
            audit_blocks=params.audit_blocks,
            unbonding_blocks=max(params.unbonding, (EPOCHS_AHEAD + 1) * params.epoch_length),
        )

    async def _settle(self) -> None:
        """Keep what is remembered and nothing else: who died between the two had done one of them."""
        async with self._decided():
            state = self._state
            try:
                await trio.to_thread.run_sync(self._keep, () if state is None else state.pieces)
            except (StorageError, OSError) as error:
                self.problem = str(error)
                _log.warning("leaving.failed", error=str(error))

    def _keep(self, pieces: tuple[_Piece, ...]) -> None:
        store = self._node.store
        wanted = {(one.cid, one.label) for one in pieces}
        held = {one for one in store.holds() if _LABEL.fullmatch(one[1])}
        for root, label in wanted - held:
            store.hold(root, label)
        for root, label in held - wanted:
            store.release(root, label)
        if held - wanted:
            self._node.collector.released()

    def _hold(self, pieces: tuple[_Piece, ...]) -> None:
        for one in pieces:
            self._node.store.hold(one.cid, one.label)

    def _release(self, pieces: tuple[_Piece, ...]) -> None:
        for one in pieces:
            self._node.store.release(one.cid, one.label)
        self._node.collector.released()

    def _remember(self, state: _State) -> None:
        DISK.replace(self._path, json.dumps(asdict(state)).encode())

    def _forget(self, pieces: tuple[_Piece, ...]) -> None:
        self._path.unlink(missing_ok=True)
        self._release(pieces)


def _read(path: Path) -> _State | None:
    """What is remembered; a file that cannot be read leaves nothing, and is said in the log."""
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(MAX_FILE_BYTES))
        pieces = tuple(
            _Piece(str(one["deal"]), int(one["index"]), str(one["root"]), int(one["size"]))
            for one in found["pieces"]
        )
        for one in pieces:
            bytes.fromhex(one.deal), one.cid
        return _State(
            float(found["begun"]), max(1, int(found["blocks"])), pieces, bool(found["is_over"])
        )
    except FileNotFoundError:
        return None
    except (
        OSError,
        ValueError,
        TypeError,
        KeyError,
        OverflowError,
        RecursionError,
        StorageError,
    ) as error:
        _log.warning("leaving.unreadable", path=str(path), error=str(error))
        return None

"""What a person asks about the care of a node: how it does, and to pause, resume or finish."""

from __future__ import annotations

from typing import TYPE_CHECKING

from storage.files import DISK
from storage.quota import default_keep_free
from swarm.care import metrics, purse, standing
from swarm.care.controls import ALL, NAMED, TRAIN, parts_of
from swarm.care.report import report
from swarm.errors import UsageError
from swarm.keeper import core
from swarm.ledger.state import MISSED_KEY, load

if TYPE_CHECKING:
    from swarm.care.metrics import Numbers
    from swarm.control.api import Json, Progress
    from swarm.ledger.state import LedgerView, RoundState
    from swarm.node import Node


MAX_TASKS = 8
"""Open tasks in which this node's pending contributions are looked for."""


class Care:
    """A person's door to the care of one node.

    Args:
        node: The node.
    """

    def __init__(self, node: Node) -> None:
        self._node = node

    async def report(self) -> Json:
        """What the doctor judges; see `swarm.care.report`."""
        return await report(self._node)

    def controls(self) -> Json:
        """What is held back and why; see `Controls.told`."""
        return self._node.controls.told()

    def standing(self) -> Json:
        """What is held back and why, and how the node stands, for its status.

        Returns:
            What `Controls.told` tells; `state` (`standing.state`), `votes` (`standing.votes`; None where the epoch does not name it), `limits` (`Limits.told`), `leaving` (`Leaving.told`; None while it
            stays), `warnings` (`standing.warnings`), `space` (`standing.space`), `purse` (`purse.purse`), and `last` (the
            receipt of its newest contribution, as `Receipt` has it; None where there is none).
        """
        node = self._node
        view, key = node.ledger.view(), node.signer.public_key
        keeping, height = node.keeping, view.height
        leaving = None if node.leaving.is_staying else node.leaving.told()
        rounds = _rounds(view)
        task, round_ = rounds[0] if rounds else (None, None)
        registered = view.workers().get(key)
        is_level = node.sync.caught_up.is_set()
        votes = self._votes(view)
        state = standing.state(
            standing.Facts(
                behind=None if is_level else max(0, node.best_head() - height),
                leaving=None if leaving is None else leaving["percent"],
                trains=node.settings.train,
                is_worker=registered is not None,
                held=node.controls.reason(TRAIN),
                has_task=task is not None,
                activity="" if task is None else node.participant.activity.get(task, ""),
                votes=votes,
                others="" if round_ is None else standing.others(round_, height),
                is_early=registered is not None
                and round_ is not None
                and registered > round_.started,
            )
        )
        until = view.jailed_until(key)
        keeper = view.keeper(key)
        here = keeping.duties.here if keeping is not None else set()
        missing = [one for one in view.duties_of(key) if core.label(one) not in here]
        warnings = standing.warnings(
            view.params,
            height,
            keeper,
            missing if is_level else [],
            None if until is None else until - height,
            _missed_views(view, key),
        )
        return node.controls.told() | {
            "state": state,
            "votes": votes,
            "limits": node.limits.told(),
            "leaving": leaving,
            "warnings": warnings,
            "space": self._space(),
            "purse": purse.purse(
                view.account(key),
                0 if keeper is None else keeper.collateral,
                [(_name(view, one), running) for one, running in rounds],
                height,
                view.params.block_interval_ms / 1000,
            ),
            "last": node.receipts.last,
        }

    def _votes(self, view: LedgerView) -> Json | None:
        node = self._node
        if not node.settings.validate:
            return None
        if not view.validators(view.epoch).weight_of(node.signer.public_key):
            return None
        stats = node.consensus.stats()
        return standing.votes(
            is_voting=stats.is_voting,
            is_silent=stats.is_silent,
            waits_for=stats.waits_for,
            epoch_length=view.params.epoch_length,
        )

    def _space(self) -> Json:
        node = self._node
        usage, keeping = node.store.usage(), node.keeping
        size, free = DISK.space(node.settings.home)
        return standing.space(
            lent=node.lent.now if keeping is None else keeping.lent,
            chunks=usage.used,
            shelf=node.shelf.used,
            sealed=node.space.slots,
            reclaimable=usage.reclaimable,
            disk=(size, free, default_keep_free(size)),
        )

    async def limit(self, name: str, value: str) -> Json:
        """Let a limit be another one from now on; what `standing` tells.

        Raises:
            UsageError: There is no such limit, or the value is none.
        """
        self._node.limits.change(name, value)
        await self._node.limits.look()
        return self.standing()

    async def pause(self, word: str, seconds: int | None) -> Json:
        """Hold training, sealing or all back; what `controls` tells.

        Raises:
            UsageError: There is no such part.
        """
        self._node.controls.pause(parts_of(word), seconds)
        return self.controls()

    async def resume(self, word: str) -> Json:
        """Go on with it, and with a node that was finishing; what `controls` tells, and `resumed`.

        Raises:
            UsageError: There is no such part.
        """
        resumed = self._node.controls.resume(NAMED if word == ALL else parts_of(word))
        return self.controls() | {"resumed": resumed}

    async def finish(self, progress: Progress, *, wait: bool) -> Json:
        """Begin nothing new, and stop the node when what was begun is done.

        Returns:
            `owing`: tasks for which something is still owed when this returns; `finishing`: False where it was taken back.
        """
        finishing = self._node.finishing
        finishing.begin()
        if wait:
            await finishing.wait(lambda done, total: progress("finish", done, total))
        return {"owing": finishing.left, "finishing": self._node.controls.is_finishing}

    async def leave(self, what: str) -> Json:
        """Leave, stay, or only say how leaving stands and what it takes; see `Leaving.told`.

        Raises:
            UsageError: None of `drain`, `cancel`, `look`.
            RefusedError: This is a node for one command.
        """
        leaving = self._node.leaving
        match what:
            case "drain":
                return await leaving.begin()
            case "cancel":
                return await leaving.cancel()
            case "look":
                return leaving.told()
        message = f"{what[:32]!r} is none of drain, cancel, look"
        raise UsageError(message)

    # Probes

    def why_not_ready(self) -> list[str]:
        """What keeps this node from doing its work; empty for one that is ready."""
        node = self._node
        reasons = []
        if not node.sync.caught_up.is_set():
            reasons.append(f"catching up: height {node.heights.height:,} of {node.best_head():,}")
        if node.controls.is_finishing:
            reasons.append("finishing: it stops when what was begun is done")
        return reasons

    def numbers(self) -> Numbers:
        """The measures now, by name; see `swarm.care.metrics`."""
        return metrics.measure(self._node, is_ready=not self.why_not_ready())


def _rounds(view: LedgerView) -> list[tuple[bytes, RoundState]]:
    """The running rounds of the open tasks, the oldest task first."""
    found = ((one, view.round(one)) for one in view.open_tasks()[:MAX_TASKS])
    return [(task, running) for task, running in found if running is not None]


def _name(view: LedgerView, task: bytes) -> str:
    state = view.task(task)
    return task.hex() if state is None else state.name


def _missed_views(view: LedgerView, key: bytes) -> int:
    """Views of this epoch that an account led and that brought no block."""
    data = view.raw.get(MISSED_KEY)
    missed: dict[bytes, int] = {} if data is None else dict(load(data))
    return missed.get(key, 0)

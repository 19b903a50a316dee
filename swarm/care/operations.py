"""What a person asks about the care of a node: how it does, and to pause, resume or finish."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swarm.care import metrics
from swarm.care.controls import parts_of
from swarm.care.report import report

if TYPE_CHECKING:
    from swarm.care.metrics import Numbers
    from swarm.control.api import Json, Progress
    from swarm.node import Node


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
        """What is held back: `paused` (`part`, `until`) and `finishing`."""
        return self._node.controls.told()

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
        resumed = self._node.controls.resume(parts_of(word))
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

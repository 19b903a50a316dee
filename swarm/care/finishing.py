"""Ends a node once what it owes to the running rounds is done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog
import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Sized

    from swarm.care.controls import Controls

LOOK_SECONDS: Final = 0.5
"""Between two looks at what is owed."""

_log = structlog.get_logger("swarm.care")


class Finishing:
    """The end of one node, when a person asks for it.

    Args:
        controls: Where that nothing new is begun is said.
        owing: What is still owed; as long as it is not empty the node goes on.
        stop: Ends the node.
    """

    def __init__(self, controls: Controls, owing: Sized, stop: Callable[[], None]) -> None:
        self._controls = controls
        self._owing = owing
        self._stop = stop

    @property
    def left(self) -> int:
        """Tasks for which something is owed."""
        return len(self._owing)

    def begin(self) -> None:
        """Begin nothing new from now on; `Controls.resume` takes it back."""
        self._controls.is_finishing = True
        _log.info("node.finishing", tasks=self.left)

    async def run(self) -> None:
        """Stop the node when it is told to finish and owes nothing; runs until then."""
        while True:
            await trio.sleep(LOOK_SECONDS)
            if self._controls.is_finishing and not self.left:
                break
        _log.info("node.finished")
        self._stop()

    async def wait(self, tell: Callable[[int, int], None]) -> None:
        """Return when nothing is owed, or when it was taken back.

        Args:
            tell: Called as (done, all) with the tasks of which nothing is owed any more.
        """
        most = self.left
        while self._controls.is_finishing and self.left:
            most = max(most, self.left)
            tell(most - self.left, most)
            await trio.sleep(LOOK_SECONDS)

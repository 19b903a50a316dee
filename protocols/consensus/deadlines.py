"""When a view's time is over, when its leader speaks, and when a core wants to be woken: pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from protocols.consensus.views import Timing

REST_MS: Final = 60_000
"""A core with nothing to wait for is woken after so long all the same."""


class Deadlines:
    """Of one view, in milliseconds of `tick_ms`; None is none.

    Args:
        timing: How long to wait.
    """

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        self.leader: int | None = None
        self.advance: int | None = None
        self.resend: int | None = None
        self.propose: int | None = None
        self.timer: int | None = None
        """What the shell was told last."""

    def enter(self, start: int, skipped: int, *, leads: bool) -> None:
        """Begin a view.

        Args:
            start: When its leader may propose.
            skipped: Views in a row, just before, that are not final.
            leads: This node is the leader.
        """
        delta = self._timing.delta_after(skipped)
        self.leader = start + 2 * delta
        self.advance = start + 3 * delta
        self.resend = start + 4 * delta
        self.propose = start if leads else None

    def are_over(self, tick: int) -> bool:
        """Whether a deadline of the view has passed; each says so once."""
        over = False
        if self.leader is not None and tick >= self.leader:
            self.leader, over = None, True
        if self.advance is not None and tick >= self.advance:
            self.advance, over = None, True
        return over

    def must_resend(self, tick: int, skipped: int) -> bool:
        """Whether it is time to say everything again; the next time is set."""
        if self.resend is None or tick < self.resend:
            return False
        self.resend = tick + 4 * self._timing.delta_after(skipped)
        return True

    def wake(self, tick: int, others: list[int]) -> int | None:
        """When the core has to be woken, if that is new to the shell.

        Args:
            tick: Now.
            others: What else falls due.
        """
        due = [at for at in (self.leader, self.advance, self.resend) if at is not None]
        if self.propose is not None and self.propose > tick:
            due.append(self.propose)
        at = max(min([*due, *others], default=tick + REST_MS), tick + 1)
        if at == self.timer:
            return None
        self.timer = at
        return at

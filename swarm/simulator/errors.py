"""What a simulation says when it cannot go on."""

from __future__ import annotations

from swarm.errors import SwarmError, UsageError


class ScenarioError(UsageError):
    """A scenario's file has a field that is unknown, of the wrong type or out of its range."""


class SimulationError(SwarmError):
    """A rule that has to hold whatever the scenario was broken: this is a bug."""

"""Nodes that do not do as the protocol says: one kind a module, all driven by the shipped core and lying about it.

A liar sees what its own core wants to send and what it is asked to do, and changes or withholds it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from swarm.simulator.liars.behaviour import Behaviour
from swarm.simulator.liars.colluder import Colluder
from swarm.simulator.liars.dropper import Dropper
from swarm.simulator.liars.equivocator import Equivocator
from swarm.simulator.liars.false_auditor import FalseAuditor
from swarm.simulator.liars.late_revealer import LateRevealer
from swarm.simulator.liars.on_demand import OnDemand
from swarm.simulator.liars.score_liar import ScoreLiar
from swarm.simulator.liars.silent import Mute, Silent
from swarm.simulator.liars.silent_auditor import SilentAuditor
from swarm.simulator.liars.slow import Slow
from swarm.simulator.liars.spammer import FarViewSpammer
from swarm.simulator.liars.stale import Stale
from swarm.simulator.liars.twin import Twin
from swarm.simulator.liars.vanisher import Vanisher
from swarm.simulator.liars.withholder import Withholder
from swarm.simulator.liars.wrong_root import WrongRoot

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["KINDS", "Behaviour"]

KINDS: Mapping[str, type[Behaviour]] = {
    "equivocator": Equivocator,
    "colluder": Colluder,
    "twin": Twin,
    "silent": Silent,
    "mute": Mute,
    "slow": Slow,
    "withholder": Withholder,
    "spammer": FarViewSpammer,
    "wrong_root": WrongRoot,
    "stale": Stale,
    "score_liar": ScoreLiar,
    "late_revealer": LateRevealer,
    "false_auditor": FalseAuditor,
    "silent_auditor": SilentAuditor,
    "dropper": Dropper,
    "on_demand": OnDemand,
    "vanisher": Vanisher,
}
"""By the name that a scenario gives."""

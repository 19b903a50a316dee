"""What holds for every test: a slow machine is no fault of an example."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("swarm", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("swarm")

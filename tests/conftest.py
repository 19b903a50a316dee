"""What holds for every test: a slow machine is no fault of an example, and Ctrl-C reaches what a test starts."""

from __future__ import annotations

import signal

from hypothesis import HealthCheck, settings

settings.register_profile("swarm", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("swarm")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what runs in its background so, and every process that a test starts would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

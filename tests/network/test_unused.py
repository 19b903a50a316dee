"""A node does not load what libp2p needs for its own host."""

from __future__ import annotations

import subprocess
import sys


def told(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_node_loads_neither_libp2ps_host_nor_what_only_that_needs() -> None:
    code = (
        "import sys, swarm.network\n"
        "print([one for one in ('zeroconf', 'requests', 'miniupnpc') if one in sys.modules])"
    )
    assert told(code) == "[]\n"


def test_libp2ps_host_is_there_for_who_makes_one() -> None:
    code = "import swarm.network, libp2p; print(type(libp2p.new_host()).__module__)"
    assert told(code) == "libp2p.host.basic_host\n"

"""Write the traces of `tests/vectors/simulation.json` anew: `python -m tests.simulation.pin`.

They move when the rules of the consensus, the ledger or the simulator do, and for no other reason: say which in the commit.
"""

# ruff: noqa: T201 - it speaks to who started it
from __future__ import annotations

import json
from pathlib import Path

from swarm.simulator import scenario as scenarios
from swarm.simulator.simulation import Simulation

FILE = Path(__file__).parents[1] / "vectors/simulation.json"


def main() -> None:
    """Run every vector, and check that its run is in order."""
    vectors = json.loads(FILE.read_text())
    for one in vectors:
        simulation = Simulation(scenarios.parse("\n".join(one["scenario"])), one["seed"])
        simulation.run()
        simulation.check()
        print(f"{one['name']}: {one['trace']} -> {simulation.trace.digest}")
        one["trace"] = simulation.trace.digest
    FILE.write_text(json.dumps(vectors, indent=2) + "\n")


if __name__ == "__main__":
    main()

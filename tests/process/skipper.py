"""A node whose worker leaves out each third step, and says that it took them all: `python -m tests.process.skipper join …`.

Only this process and the worker that it starts are changed; what goes over the wire is made by the product's own code.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

SKIPPED = 3
WORKER = """#!{python}
import sys
sys.path.insert(0, {root!r})
from tests.process.skipper import work
work(sys.argv[3:])
"""


def work(arguments: list[str]) -> None:
    """The worker process, which skips."""
    from swarm.training import local, worker

    honest = local.steps

    def steps(
        spec: Any,
        round_: int,
        model: Any,
        optimizers: Any,
        samples: Any,
        device: Any,
        first: int = 0,
        **rest: Any,
    ) -> Iterator[float]:
        rows, loss = spec.train.batch * rest.get("units", 1), 0.0
        for at in range(len(samples) // rows):
            if at % SKIPPED != SKIPPED - 1:
                part = samples[at * rows : (at + 1) * rows]
                (loss,) = honest(spec, round_, model, optimizers, part, device, first + at, **rest)
            yield loss

    local.steps = steps
    worker.main(arguments)


def main() -> None:
    """A node that starts its worker through a file of ours."""
    from cli.main import main as command

    with tempfile.TemporaryDirectory(prefix="swarm-skipper-") as folder:
        file = Path(folder) / "worker"
        root = str(Path(__file__).parents[2])
        file.write_text(WORKER.format(python=sys.executable, root=root))
        file.chmod(0o700)
        sys.executable = str(file)
        command()


if __name__ == "__main__":
    main()

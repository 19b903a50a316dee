"""`swarm replay TASK ROUND PEER`: a recorded part of a peer's round, run again on this node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cli import connection, output

if TYPE_CHECKING:
    from pathlib import Path

NOT_THE_WORK = 1
_WORDS = {
    "match": "match, bit for bit",
    "within": "match within the tolerance",
    "mismatch": "NOT the work that was due",
    "unfit": "cannot be run: what the peer recorded is not what its update and the network say",
}


@click.command("replay")
@click.argument("task")
@click.argument("round_", metavar="ROUND", type=click.IntRange(1))
@click.argument("peer")
@click.option(
    "--segment",
    type=click.IntRange(1),
    help="Which part of the round; the one that the ledger drew, or the first, if not given.",
)
@connection.options
def command(
    *, task: str, round_: int, peer: str, segment: int | None, home: Path, as_json: bool
) -> int:
    """Fetch what a peer recorded of a round (TASK by name or id), and run one part of it again.

    It says how far the end is from the one that the peer has, and by bisection which step was the first that went another way.

    A peer keeps its states until the round is settled, and longer only if the ledger drew it to be checked.
    The exit code is 0 for a match and 1 if it is not the work that was due.

    \b
    swarm replay tiny-gpt 12 12D3KooW…
    """  # noqa: D301 - \b is click's
    with connection.connect(home) as client, output.progress_bar() as progress:
        found = client.replay(task, round_, peer, segment, progress)
    if as_json:
        output.print_json(found)
    else:
        _tell(found)
    return 0 if found["outcome"] in ("match", "within") else NOT_THE_WORK


def _first(found: dict[str, Any]) -> str:
    if found["step"] is None:
        return "none"
    return f"step {found['step']}; after it {found['step_distance']:.2g} of the way apart"


def _tell(found: dict[str, Any]) -> None:
    same = "equal" if found["same_machine"] else "different"
    fields = [
        ("result", _WORDS[found["outcome"]]),
        (
            "distance",
            f"{found['distance']:.2g} of the way; up to {found['tolerance']:.2g} is a match",
        ),
        ("steps", f"{found['first_step']} to {found['last_step']}"),
        ("first that differs", _first(found)),
        ("segment", f"{found['segment']} of {found['segments']}"),
        ("machines", f"{same}: torch, instruction set, threads, code"),
        ("time", f"{found['seconds']:.2f} s"),
        ("on the ledger", found["stage"] or "not drawn"),
    ]
    if found["why"]:
        fields[1:] = [("why", output.printable(found["why"]))]
    output.print_fields(fields)

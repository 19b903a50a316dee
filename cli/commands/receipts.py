"""`swarm receipts`: what became of this node's contributions, signed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli import connection, output
from cli.money import format_tokens
from swarm.errors import RefusedError, UsageError
from swarm.sizes import counted

if TYPE_CHECKING:
    from swarm.receipts.receipt import Receipt

    Json = dict[str, Any]

MAX_FILE_BYTES = 32 * 2**20
SHOWN = 40


@click.group("receipts", invoke_without_command=True)
@click.option("--task", metavar="TASK", help="Only of this task, by id or name.")
@click.option(
    "-n",
    "--limit",
    type=click.IntRange(1, 4096),
    default=SHOWN,
    show_default=True,
    help="How many.",
)
@connection.options
@click.pass_context
def command(
    context: click.Context, *, task: str | None, limit: int, home: Path, as_json: bool
) -> None:
    """List what became of each contribution of this node: score, reward, and why what was refused was.

    With --json, each is the signed receipt itself, one a line, for others to check.

    \b
    swarm receipts --json > mine.jsonl
    swarm receipts verify mine.jsonl
    """  # noqa: D301 - \b is click's
    if context.invoked_subcommand is not None:
        return
    with connection.connect(home, of_home=True) as client:
        found = client.receipts(task, limit)
    if as_json:
        output.print_json(found)
        return
    titles = ("HEIGHT", "TASK", "ROUND", "WHAT", "SCORE", "REWARD", "VERDICT", "UPDATE")
    output.print_table(titles, (_row(one) for one in found))


def _row(one: Json) -> tuple[str, ...]:
    score = one["score"]
    return (
        f"{one['height']:,}",
        output.one_line(str(one["name"])),
        f"{one['round']:,}",
        one["kind"],
        "-" if score is None else f"{score / 10**5:+.5f}",
        format_tokens(one["reward"]),
        one["reason"] or one["code"],
        one["update"] or "-",
    )


@command.command(
    "verify",
    epilog="Example: swarm receipts verify mine.jsonl",
    short_help="Check receipts in a file.",
)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@connection.options
def verify(*, file: Path, home: Path, as_json: bool) -> None:
    """Check the signatures of receipts in FILE and, where a node runs, that its ledger says the same.

    The exit code is 2 where a signature does not hold or FILE is empty, and 4 where the ledger says otherwise.
    """
    from swarm.receipts.receipt import read

    receipts = [read(one) for one in _lines(file)]
    if not receipts:
        message = f"{file} is empty: no receipt is in it"
        raise UsageError(message, "`swarm receipts --json` prints them")
    known = _compare(home, receipts) if connection.answers(home) else None
    if as_json:
        output.print_json(
            {
                "account": one.account,
                "task": one.task,
                "round": one.round,
                "kind": one.kind,
                "signed": True,
                "ledger": None if known is None else known[at],
            }
            for at, one in enumerate(receipts)
        )
    signers = len({one.account for one in receipts})
    output.say(f"{counted(len(receipts), 'receipt')}, signed by {counted(signers, 'account')}")
    if known is None:
        output.say("no node runs here, so they were not compared with the ledger")
        return
    false = [one for one, is_true in zip(receipts, known, strict=True) if is_true is False]
    if false:
        first = false[0]
        message = f"the ledger says otherwise of {len(false):,}, the first of round {first.round} of {first.name}"
        raise RefusedError(message)
    unknown = sum(one is None for one in known)
    output.say(
        f"the ledger says the same of {len(known) - unknown:,}, and does not know {unknown:,}"
    )


def _lines(file: Path) -> list[object]:
    with file.open("rb") as opened:
        data = opened.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        message = f"{file} has more than {MAX_FILE_BYTES:,} bytes"
        raise UsageError(message)
    try:
        return [json.loads(line) for line in data.splitlines() if line.strip()]
    except (ValueError, RecursionError) as error:
        message = f"{file}: not one JSON object a line: {error}"
        raise UsageError(message) from error


def _compare(home: Path, receipts: list[Receipt]) -> list[bool | None]:
    """What the ledger says of each: the same, otherwise, or nothing (another network, or no such round)."""
    from swarm.client import Client
    from swarm.errors import NotFoundError

    with Client.of_home(home) as client:
        chain = client.status()["chain_id"]
        boards: dict[str, dict[int, Json]] = {}
        for task in {one.task for one in receipts if one.chain == chain}:
            try:
                board = client.scoreboard(task)
            except NotFoundError:
                continue
            boards[task] = {one["round"]: one for one in board["rounds"]}
    return [_holds(one, boards.get(one.task, {}).get(one.round)) for one in receipts]


def _holds(one: Receipt, told: Json | None) -> bool | None:
    from swarm.receipts.receipt import UPDATE

    if told is None:
        return None
    if one.kind != UPDATE:
        paid = sum(entry["paid"] for entry in told["validators"] if entry["account"] == one.account)
        return bool(paid == one.reward)
    return any(
        (entry["root"] or "", entry["paid"], bool(entry["accepted"]))
        == (one.update, one.reward, one.code == "accepted")
        for entry in told["submissions"]
        if entry["worker"] == one.account
    )

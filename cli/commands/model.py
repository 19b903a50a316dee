"""`swarm model …`: versions of models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cli import connection, output
from cli.names import parse_reference
from swarm.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from swarm.asking import Json


@click.group("model")
def command() -> None:
    """Versions of a model: its log, what changed, and the way back.

    \b
    swarm model log tiny-gpt
    swarm model diff tiny-gpt@3 tiny-gpt@7
    swarm model evaluate tiny-gpt@7
    swarm model rollback tiny-gpt 3
    """  # noqa: D301 - \b is click's


@command.command("log", short_help="Show the newest versions of a model.")
@click.argument("name")
@click.option(
    "-n", "--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many."
)
@connection.options
def log(*, name: str, limit: int, home: Path, as_json: bool) -> None:
    """Show the newest versions of the model NAME: the round that made each, its loss, and whose work it holds.

    Example: swarm model log tiny-gpt -n 5
    """
    found = _ask(home, "log", name=name, limit=limit)
    if as_json:
        output.print_json({"name": name, **one} for one in found["versions"])
        return
    measured = any(one["accuracy"] is not None for one in found["versions"])
    output.print_table(
        ("VERSION", "HEIGHT", "ROUND", "LOSS", *(("ACCURACY",) * measured), "CID", "ACCEPTED"),
        (
            (
                str(one["version"]),
                str(one["height"]),
                "-" if one["round"] is None else str(one["round"]),
                output.loss(one["loss"]),
                *((output.share(one["accuracy"]) or "-",) * measured),
                one["cid"],
                " ".join(one["accepted"]),
            )
            for one in found["versions"]
        ),
    )
    if found["more"]:
        output.say(f"there are older ones: -n {2 * limit:,}")


@command.command("diff", short_help="Show what changed between two versions.")
@click.argument("old", metavar="NAME[@VERSION]")
@click.argument("new", metavar="NAME[@VERSION]")
@connection.options
def diff(*, old: str, new: str, home: Path, as_json: bool) -> None:
    """Show the tensors that differ between two versions, and how far each moved.

    NORM is the length of the difference, SHARE that length against the first one's.

    Example: swarm model diff tiny-gpt@3 tiny-gpt@7
    """
    fields: dict[str, Any] = {}
    for side, text in (("old", old), ("new", new)):
        fields[side], fields[f"{side}_version"] = parse_reference(text)
    found = _ask(home, "diff", **fields)
    if as_json:
        output.print_json(found)
        return
    if found["tensors"]:
        output.print_table(
            ("TENSOR", "SHAPE", "CHANGE", "VALUES", "NORM", "SHARE"),
            (
                (
                    output.printable(one["name"]),
                    " x ".join(map(str, one["shape"])) or "1",
                    one["change"],
                    f"{one['values']:,}",
                    _number(one["norm"]),
                    _number(one["relative"]),
                )
                for one in found["tensors"]
            ),
        )
    share = _number(found["relative"])
    output.say(
        f"{found['same']:,} tensors are the same; all moved by {_number(found['norm'])} ({share})"
    )


@command.command("evaluate", short_help="Measure a version on its task's whole pool.")
@click.argument("name", metavar="NAME[@VERSION]")
@connection.options
def evaluate(*, name: str, home: Path, as_json: bool) -> None:
    """Measure a version on the whole held-out pool of its task: the loss, and of a classifier how often it is right.

    Example: swarm model evaluate digits@3
    """
    bare, version = parse_reference(name)
    with connection.connect(home) as client:
        found = client.evaluate(bare, version)
    if as_json:
        output.print_json(found)
        return
    click.echo(output.loss(found["loss"]))
    right = output.share(found.get("accuracy"))
    told = f"{found['name']}@{found['version']} is {found['cid']}"
    output.say(f"{told}, right about {right} of the samples" if right else told)


@command.command("rollback", short_help="Let a name point to an earlier version again.")
@click.argument("name", metavar="NAME")
@click.argument("version", metavar="VERSION")
@connection.options
def rollback(*, name: str, version: str, home: Path, as_json: bool) -> None:
    """Make a new version of NAME that holds what VERSION held; no version is lost.

    Only the name's owner can, and only while no open task writes it.

    Example: swarm model rollback tiny-gpt 3
    """
    bare, wanted = parse_reference(f"{name}@{version}")
    if wanted is None:
        message = f"VERSION: {version[:80]!r} is not a number"
        raise UsageError(message)
    made = _ask(home, "rollback", name=bare, version=wanted)
    if as_json:
        output.print_json(made)
        return
    click.echo(made["cid"])
    output.say(f"{name}@{made['version']} is {name}@{made['restored']} again")


def _ask(home: Path, action: str, **fields: Any) -> Json:  # noqa: ANN401 - JSON
    with connection.connect(home) as client, output.progress_bar() as progress:
        return client.model(action, progress, **fields)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"

"""`swarm simulate`: a network in virtual time, from a seed."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli import output, screen
from swarm.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from swarm.simulator.scenario import Scenario

    Json = dict[str, Any]

MAX_SEEDS = 1_000_000
TITLE_COLUMNS = 32


@click.command("simulate")
@click.argument("scenario", required=False)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**63 - 1),
    default=1,
    show_default=True,
    help="Of everything that is drawn.",
)
@click.option(
    "--seeds",
    type=click.IntRange(1, MAX_SEEDS),
    default=1,
    show_default=True,
    help="Run so many seeds, from the first on.",
)
@click.option(
    "-o",
    "--output",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write the report into this folder; with several seeds, a folder each in it.",
)
@click.option("--list", "show_list", is_flag=True, help="List the scenarios that come with swarm.")
@click.option("--json", "as_json", is_flag=True, help="Print one object a seed.")
def command(
    *,
    scenario: str | None,
    seed: int,
    seeds: int,
    folder: Path | None,
    show_list: bool,
    as_json: bool,
) -> None:
    """Run a network of simulated nodes, with latencies, losses, crashes and liars, in virtual time.

    SCENARIO is a TOML file, or the name of one that comes with swarm (--list).
    Nothing touches the network or the disk; equal seeds give equal traces on every machine.

    Example: swarm simulate liars --seed 7
    """
    from swarm.simulator import report
    from swarm.simulator import scenario as scenarios
    from swarm.simulator.simulation import Simulation

    if show_list:
        _list(scenarios.names(), scenarios.load, as_json=as_json)
        return
    if scenario is None:
        message = "which scenario?"
        raise UsageError(message, f"one of {', '.join(scenarios.names())}, or a TOML file")
    path = Path(scenario)
    is_file = path.suffix == ".toml" or path.parent != Path() or path.is_file()
    plan = scenarios.read(path) if is_file else scenarios.load(scenario)
    found = []
    with _progress(plan.title, seeds) as tell:
        for number in range(seed, seed + seeds):
            simulation = Simulation(plan, number)
            simulation.run(partial(tell, number - seed))
            simulation.check()
            found.append(report.summary(simulation))
            if folder is not None:
                report.write(found[-1], folder if seeds == 1 else folder / str(number))
            if as_json:
                output.print_json(found[-1])
    if not as_json:
        _print(found)
    if folder is not None:
        output.say(f"the report is in {folder}")


def _list(names: list[str], load: Callable[[str], Scenario], *, as_json: bool) -> None:
    plans = [(name, load(name)) for name in names]
    if as_json:
        output.print_json({"scenario": name, "title": plan.title} for name, plan in plans)
        return
    rows = [
        (name, str(plan.validators), str(plan.workers), str(plan.lenders), plan.title)
        for name, plan in plans
    ]
    output.print_table(("SCENARIO", "VALIDATORS", "WORKERS", "KEEPERS", "WHAT IT IS"), rows)


def _print(found: list[Json]) -> None:
    from swarm.simulator import plot, report

    if len(found) > 1:
        _print_seeds(found)
        return
    (one,) = found
    output.print_fields(report.lines(one))
    click.echo("\nfinality over time")
    for line in plot.line(one["finality_over_time_ms"], "ms", one["seconds"]):
        click.echo(line)
    if one.get("rounds"):
        click.echo()
        output.print_table(report.ROUNDS, report.rounds(one))
    if one.get("earnings"):
        click.echo("\ntokens earned by a worker of each class of hardware")
        rows = [
            (each["class"], each["earned_each"], f"{each['earned_each']:,.3f}")
            for each in one["earnings"]
        ]
        for line in plot.bars(rows):
            click.echo(line)
        click.echo()
        output.print_table(report.EARNINGS, report.earnings(one))
    if "storage" in one:
        _print_storage(one)


def _print_storage(one: Json) -> None:
    from swarm.simulator import plot, report, storage_report

    kept = one["storage"]
    click.echo("\nproven slots, audit by audit")
    for line in plot.line(report.capacity(kept), "slots", one["seconds"]):
        click.echo(line)
    click.echo("\ntokens earned by a keeper of each class")
    rows = [
        (each["class"], each["earned_each"], f"{each['earned_each']:,.3f}")
        for each in kept["classes"]
    ]
    for line in plot.bars(rows):
        click.echo(line)
    click.echo()
    output.print_table(storage_report.LENT, storage_report.lent(kept))
    if kept["struck"]:
        click.echo()
        output.print_table(storage_report.STRUCK, storage_report.struck(kept))


def _print_seeds(found: list[Json]) -> None:
    from swarm.simulator import storage_report

    rows = []
    for one in found:
        finality = one["finality_ms"] or {"p50": "-", "p99": "-"}
        rows.append(
            (
                str(one["seed"]),
                str(one["height"]["most"]),
                f"{finality['p50']} ms",
                f"{finality['p99']} ms",
                str(one["forks"]),
                ", ".join(one["accused"]) or "nobody",
                one["trace"][:16],
            )
        )
    titles = ("SEED", "HEIGHT", "FINALITY", "99 OF 100", "FORKS", "ACCUSED", "TRACE")
    output.print_table(titles, rows)
    lost = storage_report.together(found)
    if lost is not None:
        click.echo(f"\n{lost}")


@contextmanager
def _progress(title: str, seeds: int) -> Iterator[Callable[[int, int, int], None]]:
    """How much is done and how long the rest will take, on stderr, to a terminal only."""
    if not sys.stderr.isatty():
        yield lambda _before, _done, _whole: None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:.0f} %"),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    console = output.console(stderr=True)
    with (
        screen.cursor_shown_while_stopped(),
        Progress(*columns, console=console, transient=True) as bar,
    ):
        task = bar.add_task(title[:TITLE_COLUMNS], total=seeds)
        yield lambda before, done, whole: bar.update(task, completed=before + done / whole)

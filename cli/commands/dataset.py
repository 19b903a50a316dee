"""`swarm dataset …`: versions of datasets, as with git."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli import connection, output
from cli.names import check_name
from swarm.errors import UsageError
from swarm.sizes import counted, format_size

if TYPE_CHECKING:
    from swarm.asking import Json

CONFLICTS = 1
"""The exit code of a merge that changed nothing because both sides changed the same."""
MAX_MESSAGE_CHARACTERS = 65_536

_folder = click.argument("folder", type=click.Path(path_type=Path), required=False, default=Path())


@click.group("dataset")
def command() -> None:
    """Versions of a dataset, as with git: commits, branches, merges, forks.

    \b
    swarm dataset init shakespeare ./plays       ./plays becomes its working folder
    swarm dataset commit -m "all of them" --publish
    swarm dataset log
    swarm dataset fork shakespeare mine          the same history, no byte twice

    A VERSION is HEAD, a branch, a commit's CID or the beginning of it, NAME, NAME:BRANCH, or NAME@3 and NAME@latest of the
    ledger; each with ~N for so many commits before.
    """  # noqa: D301 - \b is click's


@command.command("init", short_help="Make a dataset, and a folder its working folder.")
@click.argument("name")
@_folder
@connection.options
def init(*, name: str, folder: Path, home: Path, as_json: bool) -> None:
    """Make a new dataset; FOLDER (this one if not given) becomes its working folder.

    Example: swarm dataset init shakespeare ./plays
    """
    check_name(name)
    made = _ask(home, "init", name=name, folder=folder)
    if as_json:
        output.print_json(made)
        return
    click.echo(made["folder"])
    output.say(f"{made['dataset']} is empty: swarm dataset commit -m MESSAGE {folder}")


@command.command(
    "list", epilog="Example: swarm dataset list", short_help="List the datasets of this node."
)
@connection.options
def list_(*, home: Path, as_json: bool) -> None:
    """List the datasets of this node with their branches."""
    found = _ask(home, "list")["datasets"]
    if as_json:
        output.print_json(found)
        return
    rows = [
        (one["dataset"], branch, commit)
        for one in found
        for branch, commit in (one["branches"] or {one["head"]: "no commit yet"}).items()
    ]
    output.print_table(("DATASET", "BRANCH", "COMMIT"), rows)


@command.command("commit", short_help="Make the working folder a version of its dataset.")
@click.option("-m", "--message", help="What changed; needed where something has.")
@click.option("--publish", is_flag=True, help="Let the dataset's name on the ledger point to it.")
@_folder
@connection.options
def commit(*, message: str | None, publish: bool, folder: Path, home: Path, as_json: bool) -> None:
    """Make what the working folder FOLDER holds a version of its dataset, and print its CID.

    Example: swarm dataset commit -m "without the doubles" --publish
    """
    if message is not None and not 0 < len(message.strip()) <= MAX_MESSAGE_CHARACTERS:
        text = f"-m: a message has 1 to {MAX_MESSAGE_CHARACTERS:,} characters"
        raise UsageError(text)
    made = _ask(home, "commit", folder=_working(folder), message=message, publish=publish)
    if as_json:
        output.print_json(made)
        return
    click.echo(made["commit"])
    if "added" in made:
        counts = f"{made['added']} added, {made['removed']} removed, {made['changed']} changed; "
    else:
        counts = ""
    new, size = format_size(made["new_bytes"]), format_size(made["size"])
    output.say(f"{made['dataset']}:{made['branch']}: {counts}{size} in all, {new} newly stored")
    if publish:
        output.say(f"{made['name']}@{made['version']} points to it")


@command.command("log", short_help="Show the newest commits.")
@click.argument("version", required=False, metavar="[VERSION]")
@click.option(
    "-n", "--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many."
)
@connection.options
def log(*, version: str | None, limit: int, home: Path, as_json: bool) -> None:
    """Show the newest commits up to VERSION (HEAD if not given), children before their parents.

    Example: swarm dataset log shakespeare@latest -n 5
    """
    found = _ask(home, "log", folder=_here(), version=version, limit=limit)
    if as_json:
        output.print_json(found["commits"])
        return
    for one in found["commits"]:
        branches = f" ({', '.join(one['branches'])})" if one["branches"] else ""
        click.echo(f"{one['commit']}{branches}")
        output.print_fields(
            [
                ("  merge of", " ".join(one["parents"]) if len(one["parents"]) > 1 else ""),
                ("  author", one["author"]),
                ("  time", _time(one["time_s"])),
            ]
        )
        for line in one["message"].rstrip().splitlines():
            click.echo(f"    {output.printable(line)}")
    if found["more"]:
        output.say(f"there are older ones: -n {2 * limit:,}")


@command.command("diff", short_help="Show what changed between two versions.")
@click.argument("old", required=False, metavar="[A]")
@click.argument("new", required=False, metavar="[B]")
@connection.options
def diff(*, old: str | None, new: str | None, home: Path, as_json: bool) -> None:
    """Show what changed from version A to version B; from A (HEAD) to the working folder if B is not given.

    Example: swarm dataset diff HEAD~1 HEAD
    """
    found = _ask(home, "diff", folder=_here(), old=old, new=new)
    if as_json:
        output.print_json(found)
        return
    for file in found["files"]:
        click.echo(_changed(file))
        for line in _inside(file):
            click.echo(f"    {line}")
    if found["more"]:
        output.say("there are more: only the first are shown")
    elif not found["files"]:
        output.say("nothing has changed")


@command.command("branch", short_help="List, make or remove branches.")
@click.argument("new", required=False, metavar="[NEW]")
@click.option("--at", "version", metavar="VERSION", help="Where NEW begins; HEAD if not given.")
@click.option("-d", "--delete", metavar="BRANCH", help="Remove a branch; its commits stay.")
@click.option(
    "--dataset", metavar="NAME", help="Of which dataset; the working folder's if not given."
)
@connection.options
def branch(
    *,
    new: str | None,
    version: str | None,
    delete: str | None,
    dataset: str | None,
    home: Path,
    as_json: bool,
) -> None:
    """List the branches, make the branch NEW, or remove one.

    Example: swarm dataset branch cleaned --at HEAD~2
    """
    if (new is not None and delete is not None) or (version is not None and new is None):
        message = "give NEW, with --at if need be, or --delete"
        raise click.UsageError(message)
    fields = {"dataset": dataset, "new": new, "version": version, "delete": delete}
    found = _ask(home, "branch", folder=_here(), **fields)
    if as_json:
        output.print_json(found["branches"])
        return
    for one in found["branches"]:
        click.echo(f"{'*' if one['current'] else ' '} {one['branch']}  {one['commit']}")


@command.command("checkout", short_help="Make a folder hold a version.")
@click.argument("version")
@click.option(
    "-o",
    "--output",
    "path",
    type=click.Path(path_type=Path),
    help="The folder; the working folder, or one with the dataset's name, if not given.",
)
@click.option("--force", is_flag=True, help="Give up what was not committed.")
@connection.options
def checkout(*, version: str, path: Path | None, force: bool, home: Path, as_json: bool) -> None:
    """Make the working folder hold VERSION, or write it to another one; only files that differ are written.

    \b
    Examples: swarm dataset checkout cleaned
              swarm dataset checkout shakespeare -o plays
    """  # noqa: D301 - \b is click's
    here = Path.cwd()
    fields = {"here": here, "version": version, "output": path, "force": force}
    made = _ask(home, "checkout", folder=_here(), **fields)
    if as_json:
        output.print_json(made)
        return
    click.echo(made["folder"])
    what = made["commit"] if made["branch"] is None else f"{made['dataset']}:{made['branch']}"
    output.say(
        f"{what}: {counted(made['written'], 'file')} written, {made['removed']:,} removed,"
        f" {format_size(made['fetched'])} from peers"
    )


@command.command("merge", short_help="Bring in what another version changed.")
@click.argument("version")
@click.option("-m", "--message", help="Of the merge's commit.")
@click.option("--ours", "prefer", flag_value="ours", help="In a conflict, keep what is here.")
@click.option("--theirs", "prefer", flag_value="theirs", help="In a conflict, take VERSION's.")
@connection.options
def merge(
    *, version: str, message: str | None, prefer: str | None, home: Path, as_json: bool
) -> None:
    """Bring what VERSION changed into the branch of the working folder.

    Where both sides changed the same file it is a conflict: nothing is changed, and the exit code is 1.

    Example: swarm dataset merge cleaned
    """
    folder = _working(Path())
    merged = _ask(home, "merge", folder=folder, version=version, message=message, prefer=prefer)
    stopped = merged["result"] == "conflicts"
    if as_json:
        output.print_json(merged)
    elif stopped:
        for one in merged["conflicts"]:
            click.echo(f"{output.one_line(one['path'])}: {one['why']}")
        output.say("nothing was changed; --ours or --theirs takes one side of each")
    else:
        click.echo(merged["commit"])
        output.say(
            f"{merged['result']}: {counted(merged['written'], 'file')} written,"
            f" {merged['removed']:,} removed"
        )
    if stopped:
        click.get_current_context().exit(CONFLICTS)


@command.command("fork", short_help="A new dataset with another one's history.")
@click.argument("version", metavar="NAME|VERSION")
@click.argument("name", metavar="NEWNAME")
@connection.options
def fork(*, version: str, name: str, home: Path, as_json: bool) -> None:
    """Make the dataset NEWNAME with the history of another; it shares every chunk with it.

    Example: swarm dataset fork shakespeare my-plays
    """
    check_name(name)
    made = _ask(home, "fork", folder=_here(), version=version, name=name)
    if as_json:
        output.print_json(made)
        return
    click.echo(made["commit"])
    output.say(
        f"{name} has {counted(made['commits'], 'commit')}; {format_size(made['new_bytes'])} newly stored."
        f" swarm dataset checkout {name}"
    )


def _ask(home: Path, action: str, **fields: Any) -> Json:  # noqa: ANN401 - JSON
    with connection.connect(home) as client, output.progress_bar() as progress:
        return client.dataset(action, progress, **fields)


def _here() -> Path | None:
    """The working folder that this process is in; None outside of one."""
    return _around(Path.cwd())


def _around(path: Path) -> Path | None:
    from swarm.versions.working import MARKER

    path = path.absolute()
    return next((one for one in (path, *path.parents) if (one / MARKER).is_file()), None)


def _working(path: Path) -> Path:
    folder = _around(path)
    if folder is None:
        message = f"{path} is no working folder"
        raise UsageError(message, "make it one: swarm dataset init NAME")
    return folder


def _time(seconds: int) -> str:
    try:
        return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(" ", "seconds")
    except (OverflowError, ValueError):  # a year that has five digits
        return f"{seconds:,} s since 1970"


def _changed(file: Json) -> str:
    sizes = [format_size(size) for size in (file["old_size"], file["new_size"]) if size is not None]
    mark = {"added": "+", "removed": "-", "changed": "~"}[file["change"]]
    return f"{mark} {output.one_line(file['path'])}  {' -> '.join(sizes)}".rstrip()


def _inside(file: Json) -> list[str]:
    """What changed inside a file."""
    lines = []
    if tensors := file.get("tensors"):
        for kind in ("added", "removed", "changed"):
            names = [output.one_line(name) for name in tensors[kind]]
            lines += [f"{kind}: {', '.join(names)}"] if names else []
        lines.append(f"the same: {tensors['same']:,}")
    if rows := file.get("rows"):
        lines.append(f"rows: {rows['added']:,} added, {rows['removed']:,} removed")
    return lines

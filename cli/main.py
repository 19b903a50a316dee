"""The command's entry: the table of commands, and the one place where an error becomes an exit code.

Exit codes: 0 done, 1 a bug, 2 usage, 3 not found, 4 refused (quota, disk, stake), 5 network, 130 interrupted.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from typing import TYPE_CHECKING

import click

from cli import advice
from swarm.errors import SwarmError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

INTERRUPTED = 130
UNANSWERED = "run it on a terminal; some questions have an option: --help"

COMMANDS: dict[str, str] = {
    "join": "Start a node: find peers, sync, lend disk, train, earn.",
    "new": "Make a network of your own from a file that describes it.",
    "key": "Show this data folder's account, back its key up, and bring it back.",
    "publish": "Store a file or folder in the swarm; prints its root CID.",
    "check": "Ask other peers who holds a CID, and whether others get it.",
    "get": "Fetch a file or folder by its CID.",
    "fetch": "Fetch the latest agreed checkpoint, or anything else with a name.",
    "dataset": "Versions of a dataset, as with git: commits, branches, merges, forks.",
    "keep": "Have content kept by others, for a price; list such deals and end them.",
    "storage": "What this node lends, has sealed, keeps for others, and earned with it.",
    "pin": "Fetch content and keep it.",
    "unpin": "Keep content no longer.",
    "ls": "List what this node keeps, or what stands in a folder.",
    "gc": "Give back the room of what nothing keeps any more.",
    "verify": "Read what is held again, say what is bad, and repair it.",
    "car": "Write content to a CAR file, or read one.",
    "model": "Versions of a model: its log, what changed, and the way back.",
    "sample": "Use a checkpoint: text of a language model, pictures of a GAN.",
    "classify": "Ask a classifier about files: labels with their probabilities.",
    "serve": "Serve a language model to programs that speak OpenAI's API.",
    "task": "Post a training task.",
    "tasks": "List the training tasks.",
    "train": "Watch a task while it is trained.",
    "replay": "Run a recorded part of a peer's round again: is it the work that was due?",
    "export": "Write a task's curves for TensorBoard.",
    "scoreboard": "Who contributed what to a task, and what it was worth.",
    "receipts": "What became of each contribution of this node, signed.",
    "status": "How the node on this machine does.",
    "page": "Open the node's page in the browser.",
    "logs": "The node's log, and how much it says.",
    "doctor": "What is wrong with the node or this machine, and what mends it.",
    "bug-report": "Gather what helps to find a fault, without what is private.",
    "service": "Run the node as a service of systemd.",
    "pause": "Hold training, sealing or serving back for a while.",
    "resume": "Go on with what was paused.",
    "limit": "What the node may take of the line, the month, the week and the machine.",
    "finish": "End the running round's work, then stop the node.",
    "leave": "What leaving the network takes, and how to do it without a loss.",
    "peers": "List the connected peers.",
    "blocks": "List the newest blocks, or show one.",
    "balance": "What an account owns.",
    "send": "Pay an account.",
    "stake": "Bond tokens to be a validator, or to weigh more.",
    "unstake": "Take tokens out of the stake.",
    "withdraw": "Take back what has unbonded.",
    "unjail": "Be a validator again after a slash, once the time in jail is over.",
    "validators": "Who decides in an epoch.",
    "tx": "What became of a transaction.",
    "verify-name": "Check by a proof alone what a name points to.",
    "simulate": "Simulate a network in virtual time: latencies, losses, crashes, liars, earnings.",
    "demo": "Run a whole network on this machine: four nodes train a model, a fifth joins late.",
}
"""Each command and its line of help; the module of the same name in `cli.commands` holds it."""


MEANT: dict[str, str] = {
    "init": "`swarm join` makes the data folder and starts the node",
    "start": "`swarm join` starts the node; `swarm service install` lets systemd do it",
    "stop": "Ctrl-C stops the node at once, `swarm finish` when its round is done",
    "update": "install the new version and start the node again: docs/guide/operate.md, Upgrading",
    "upgrade": "install the new version and start the node again: docs/guide/operate.md, Upgrading",
    "version": "`swarm --version`",
    "wallet": "`swarm balance`, `swarm key` and `swarm send`",
}
"""Words that people try, and what they look for."""

PARTS: tuple[tuple[str, str], ...] = (
    ("Begin", "demo join status page doctor bug-report"),
    ("Content", "publish check get fetch dataset keep pin unpin ls gc verify car"),
    (
        "Models and training",
        "task tasks train scoreboard model sample classify serve export replay",
    ),
    (
        "Your node",
        "storage limit pause resume finish leave receipts logs peers service key",
    ),
    (
        "Tokens and the chain",
        "balance send stake unstake withdraw unjail validators blocks tx verify-name new simulate",
    ),
)
"""The commands as `swarm --help` shows them."""


class Formatter(click.HelpFormatter):
    """Help whose first column leaves a narrow terminal room for the second."""

    def write_dl(
        self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2
    ) -> None:
        """Write two columns."""
        super().write_dl(rows, min(col_max, self.width // 3), col_spacing)


click.Context.formatter_class = Formatter  # of every command, which share no class of ours


class LazyGroup(click.Group):
    """Commands that are imported when they are used; the table gives their help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the table's order."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(f"cli.commands.{cmd_name.replace('-', '_')}").command
        assert isinstance(command, click.Command)  # noqa: S101 - for the type
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command of a line; a word that is none is told what is near."""
        word = args[0]
        if word in MEANT:
            message = f"No such command {word!r}"
            raise UsageError(message, MEANT[word])
        if word not in COMMANDS and not word.startswith("-"):
            import difflib

            near = difflib.get_close_matches(word, COMMANDS, n=1)
            message = f"No such command {word!r}." + (f" Did you mean {near[0]!r}?" if near else "")
            raise click.UsageError(message, ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table; click's own would import every command."""
        del ctx
        for title, names in PARTS:
            with formatter.section(title):
                formatter.write_dl([(name, COMMANDS[name]) for name in names.split()])


def _print_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from importlib import metadata

        try:
            version = metadata.version("swarm-node")
        except metadata.PackageNotFoundError:
            version = "not installed"
        click.echo(f"swarm {version}")
        ctx.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_print_version,
    help="Show the version and exit.",
)
def swarm() -> None:
    """Own and train models together, peer to peer.

    \b
    swarm join --storage 500GB --gpu    find peers, sync, lend disk, train, earn
    swarm publish ./shakespeare         bafybei… (the CID that IPFS would give it)
    swarm fetch tiny-gpt                the latest agreed checkpoint by name
    """  # noqa: D301 - \b is click's


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit code."""
    _open_closed_streams()
    advice.note(None)
    try:
        code = swarm.main(arguments, prog_name="swarm", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help(), err=True)
        return 2
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx is not None else "swarm"
        return _fail(error.format_message(), f"{where} --help", 2)
    except click.ClickException as error:
        return _fail(error.format_message(), None, 2)
    except SwarmError as error:
        return _fail(error.message, _advice(error.hint), error.exit_code)
    except (KeyboardInterrupt, click.Abort) as error:
        if isinstance(error.__context__, EOFError):
            click.echo(err=True)  # a question stands on the line, and its answer ended
            return _fail("nobody answered", UNANSWERED, 2)
        hint = getattr(error.__cause__ or error, "hint", None)  # click's Abort is raised from it
        return _fail("interrupted", _advice(hint), INTERRUPTED)
    except (BrokenPipeError, SystemExit):  # `swarm blocks | head`; click says the latter
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # noqa: BLE001 - the last boundary
        return _other(error)
    return code if isinstance(code, int) else 0


def _open_closed_streams() -> None:
    """Let what was closed (`swarm … >&-`) be /dev/null, and no file that is opened later stand in its place."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115 - as long as the process


def _other(error: Exception) -> int:
    """What a room below raised in this process, as a person is told it; what no rule knows is a bug."""
    if os.environ.get("SWARM_DEBUG"):
        import traceback

        traceback.print_exception(error)
    with contextlib.suppress(ImportError):  # a package that is not there is the error itself
        from swarm.control.faults import translate

        told = translate(error)
        if type(told) is not SwarmError:
            return _fail(told.message, _advice(told.hint), told.exit_code)
    message = f"{type(error).__name__}: {error}"
    return _fail(message, "this is a bug; SWARM_DEBUG=1 shows where", 1)


def _advice(hint: str | None) -> str | None:
    return None if hint is None else advice.typed(hint)


def _fail(message: str, hint: str | None, code: int) -> int:
    from cli.output import harmless

    for title, text in (("error", message), ("hint", hint)):
        if text:
            # A second line stands further in: nothing that others wrote passes for a line of ours.
            told = harmless(text).replace("\n", "\n  ")
            click.echo(f"{title}: {told}", err=True)
    return code

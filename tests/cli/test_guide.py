from pathlib import Path

import click
import pytest

from cli.main import COMMANDS, PARTS, swarm

GUIDE = (Path(__file__).parents[2] / "docs/guide/commands.md").read_text()


def every_command():
    context = click.Context(swarm)
    for name in COMMANDS:
        command = swarm.get_command(context, name)
        yield f"swarm {name}", command
        if isinstance(command, click.Group):
            for below, inner in command.commands.items():
                yield f"swarm {name} {below}", inner


@pytest.mark.parametrize(("name", "command"), list(every_command()), ids=str)
def test_every_command_and_option_is_in_the_guide(name, command):
    assert f"## `{name}" in GUIDE
    section = GUIDE.split(f"## `{name}", 1)[1].split("\n## ", 1)[0]
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert f"`{parameter.opts[-1]}" in section, parameter.opts
        else:
            assert (
                parameter.make_metavar(click.Context(command)).strip("[]").split("[")[0] in section
            )


def test_every_exit_code_is_in_the_guide():
    for code in (0, 1, 2, 3, 4, 5, 130):
        assert f"| {code} |" in GUIDE


@pytest.mark.parametrize(("name", "command"), list(every_command()), ids=str)
def test_every_command_shows_in_its_help_how_it_is_used(name, command):
    context = click.Context(command, info_name=name)
    told = command.get_help(context).split("\n", 1)[1]
    about, _, _ = told.partition("\nOptions:")
    assert name in " ".join(f"{about} {command.epilog or ''}".split())


def test_every_command_stands_in_one_part_of_the_help_and_no_other_does():
    listed = [name for _, names in PARTS for name in names.split()]
    assert sorted(listed) == sorted(COMMANDS)

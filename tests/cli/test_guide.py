import re
import shlex
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


@pytest.mark.parametrize(("width", "room"), [(40, 20), (80, 45)])
def test_the_second_column_of_a_help_has_room_for_words(width, room):
    command = swarm.get_command(click.Context(swarm), "join")
    told = command.get_help(click.Context(command, info_name="join", terminal_width=width))
    rows = told.partition("Options:")[2].splitlines()
    assert max(len(row.strip()) for row in rows if row.startswith(" " * 10)) >= room
    assert max(map(len, rows)) <= width


def examples():
    """The command lines in the help of each command."""
    for name, command in every_command():
        told = f"{command.help or ''}\n{command.epilog or ''}"
        for line in re.findall(r"^(?:Example: |\s*)(swarm .+)$", told, re.MULTILINE):
            for one in re.split(r" (?:\||&&|>) ", re.sub(r" {4,}.*", "", line)):
                if one.startswith("swarm "):
                    yield name, one


@pytest.mark.parametrize(("name", "line"), list(examples()), ids=str)
def test_an_example_in_the_help_is_a_command_line_that_is_taken(name, line, tmp_path):
    """As far as it is read before anything is done; the files that it names are there."""
    words = shlex.split(line)[1:]
    for word in words:
        if re.fullmatch(r"[\w./-]+\.\w+", word) and not word.startswith(("-", "/")):
            (tmp_path / word).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / word).touch()
        elif word.startswith("./"):
            (tmp_path / word).mkdir(exist_ok=True)
    command, context = swarm, click.Context(swarm, info_name="swarm")
    while isinstance(command, click.Group) and words and words[0] in command.list_commands(context):
        command = command.get_command(context, words[0])
        context = command.make_context(words.pop(0), list(words), parent=context)

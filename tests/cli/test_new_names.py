import pytest

from cli import output


@pytest.mark.parametrize("name", ["Bad Name", "-a", "a.b", "a@1", "", "a" * 64])
def test_a_name_that_the_ledger_would_not_take_is_refused_before_anything_is_published(
    name, node, swarm, tmp_path
):
    (tmp_path / "file").write_text("x")
    code, out, err = swarm("publish", str(tmp_path / "file"), f"--name={name}")
    assert (code, out) == (2, "")
    assert "--name" in err


def test_a_models_text_cannot_steer_the_terminal(monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert output.printable("a\x1b[2J\n\tb") == "a\N{REPLACEMENT CHARACTER}[2J\n\tb"


def test_the_name_of_a_strangers_file_cannot_make_a_line_of_its_own():
    assert output.one_line("a\nbafy  1 B  file  b\x1b[2Jé") == "a�bafy  1 B  file  b�[2Jé"

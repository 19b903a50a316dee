"""The commands, each against a node that answers over a real socket and has real controls."""

import contextlib
import json
import stat
import threading

import pytest
import trio

from cli.commands import service
from cli.main import main
from swarm.care import finishing, unit
from swarm.care.controls import TRAIN, Controls
from swarm.care.finishing import Finishing
from swarm.care.operations import Care
from swarm.control.service import serve
from tests.control.fake_node import FakeNode

REPORT = {
    "clock_gap_ms": 400,
    "height": 42,
    "best_head": 42,
    "first_block": 1,
    "snapshot": None,
    "caught_up": True,
    "peers": 3,
    "addresses": [],
    "inbound": {"public": 1, "private": 0, "loopback": 0},
    "outbound": 2,
    "chunks_damaged": 0,
    "storage": {"lent": 10**6, "used": 0, "taken": 0, "free": 10**6},
    "keeper": None,
    "member": {
        "stake": 0,
        "roles": ["worker"],
        "jailed_until": None,
        "weight": 0,
        "min_bond": 1,
        "trains": False,
        "validates": False,
    },
    "device": "cpu",
    "gpu": False,
    "problems": [],
    "paused": [],
    "finishing": False,
    "pid": 4711,
    "version": "0.1.0",
}


class Inner:
    """The parts of a node that pausing and finishing need."""

    def __init__(self, path, stop):
        self.controls = Controls(path)
        self.owing = set()
        self.finishing = Finishing(self.controls, self.owing, stop)


class CaredNode(FakeNode):
    """A fake node with real care; its report is what the test says."""

    def __init__(self, home, stop):
        super().__init__(home)
        self.inner = Inner(home / "controls.json", stop)
        self.care = Care(self.inner)
        self.told = REPORT | {"home": str(home)}
        self.care.report = self._report

    async def _report(self):
        return self.told

    def status(self):
        return super().status() | self.care.controls()


@pytest.fixture(autouse=True)
def _own_folders(tmp_path, monkeypatch):
    monkeypatch.setattr(finishing, "LOOK_SECONDS", 0.01)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("SWARM_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def node(tmp_path):
    ready, made, stop = threading.Event(), [], []

    async def run():
        async with trio.open_nursery() as nursery:
            token = trio.lowlevel.current_trio_token()
            stop.append(lambda: token.run_sync_soon(nursery.cancel_scope.cancel))
            (tmp_path / "home").mkdir(mode=0o700)
            made.append(CaredNode(tmp_path / "home", nursery.cancel_scope.cancel))
            nursery.start_soon(made[0].inner.finishing.run)
            await nursery.start(serve, made[0], made[0].home / "control.sock")
            ready.set()

    thread = threading.Thread(target=trio.run, args=(run,))
    thread.start()
    assert ready.wait(10)
    yield made[0]
    with contextlib.suppress(trio.RunFinishedError):
        stop[0]()
    thread.join()


@pytest.fixture
def swarm(capsys):
    def run(*arguments):
        code = main(list(arguments))
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_a_pause_is_told_in_the_status_until_it_is_resumed(node, swarm):
    code, out, _ = swarm("pause", "train", "--for", "2h")
    assert (code, out[:12]) == (0, "train until ")
    assert swarm("status")[1].startswith("train        paused until ")
    assert json.loads(swarm("pause", "seal", "--json")[1])["paused"][1] == {
        "part": "seal",
        "until": None,
    }
    assert Controls(node.home / "controls.json").is_paused(TRAIN)
    _, out, _ = swarm("resume", "train")
    assert out == "resumed: train\nstill paused: seal until `swarm resume`\n"
    assert swarm("resume")[1] == "resumed: seal\n"
    assert swarm("resume")[1] == "nothing was paused\n"


def test_a_time_that_is_none_is_refused_before_anything_is_asked(node, swarm):
    code, _, err = swarm("pause", "--for", "soon")
    assert code == 2
    assert "hint: write it like 2h" in err
    assert node.inner.controls.told()["paused"] == []


@pytest.mark.parametrize("command", ["pause", "resume", "finish"])
def test_a_node_that_does_not_run_is_not_started_for_it(swarm, command, tmp_path):
    code, _, err = swarm(command)
    assert code == 5
    assert "swarm join" in err
    assert not (tmp_path / "home").exists()


def test_finish_waits_until_the_node_is_gone(node, swarm):
    code, out, _ = swarm("finish", "--json")
    assert code == 0
    assert json.loads(out.splitlines()[-1]) == {"owing": 0, "finishing": True, "stopped": True}


def test_finish_without_waiting_says_what_is_owed_and_can_be_taken_back(node, swarm):
    node.inner.owing.add(b"task")
    code, out, _ = swarm("finish", "--no-wait")
    assert (code, out.splitlines()[-1]) == (0, "finishing: something is owed to 1 task")
    assert "finishing    the node stops when its round is done" in swarm("status")[1]
    swarm("resume")
    assert not node.inner.controls.is_finishing


def test_the_doctor_of_a_node_that_is_well_ends_with_zero(node, swarm):
    code, out, _ = swarm("doctor")
    assert code == 0
    assert "direct: dialled by 1 peer outside" in out
    assert "BAD" not in out


def test_the_doctor_ends_with_one_and_the_mend_where_something_is_bad(node, swarm):
    node.told |= {"chunks_damaged": 3}
    code, out, _ = swarm("doctor")
    assert code == 1
    assert "BAD   store" in out
    assert "mend: swarm verify --repair" in out
    code, out, _ = swarm("doctor", "--json")
    assert code == 1
    bad = [one for line in out.splitlines() if (one := json.loads(line))["verdict"] == "bad"]
    assert [one["fix"] for one in bad] == ["swarm verify --repair"]


def test_the_doctor_works_without_a_node_and_makes_nothing(swarm, tmp_path):
    code, out, err = swarm("doctor")
    assert (code, err) == (0, "")
    assert "none runs on" in out
    assert list(tmp_path.iterdir()) == []


def test_a_report_is_printed_or_written_for_its_owner_alone(node, swarm, tmp_path):
    code, out, _ = swarm("bug-report")
    assert code == 0
    assert "problem: the clock is 3 s ahead" in out
    code, out, err = swarm("bug-report", "-o", "report.md")
    assert (code, out) == (0, "report.md\n")
    assert "## doctor" in err
    written = tmp_path / "report.md"
    assert written.read_text() == err
    assert stat.S_IMODE(written.stat().st_mode) == 0o600
    code, out, err = swarm("bug-report", "-o", "report.md")
    assert (code, out) == (4, "")
    assert err.startswith("error: report.md is there already"), "said before all of it is shown"
    assert json.loads(swarm("bug-report", "--json")[1])["path"] is None


def test_a_unit_is_printed_and_nothing_is_written(swarm, tmp_path):
    code, out, err = swarm("service", "install", "--print", "--", "--storage", "500GB", "--gpu")
    assert (code, err) == (0, "")
    assert "--home /var/lib/swarm --storage 500GB --gpu" in out
    assert "PrivateDevices" not in out
    assert list(tmp_path.iterdir()) == []


def test_a_unit_is_written_and_replaced_but_never_somebody_elses(swarm, tmp_path):
    path = tmp_path / "config/systemd/user/swarm.service"
    code, out, err = swarm("service", "install", "--user")
    assert (code, out) == (0, f"{path}\n")
    assert "systemctl --user daemon-reload" in err
    assert path.read_text().startswith(unit.MARK)
    assert swarm("service", "install", "--user", "--", "--no-train")[0] == 0
    assert "--no-train" in path.read_text()
    path.write_text("[Service]\n")
    assert swarm("service", "install", "--user")[0] == 4
    assert path.read_text() == "[Service]\n"


def test_options_that_join_would_refuse_are_refused_when_the_unit_is_made(swarm):
    assert swarm("service", "install", "--print", "--", "--storag", "1GB")[0] == 2
    assert swarm("service", "install", "--print", "--", "--home", "/x")[0] == 2
    assert swarm("service", "install", "--print", "--user", "--account", "me")[0] == 2


def test_a_system_unit_that_cannot_be_written_names_the_way_without_root(
    swarm, monkeypatch, tmp_path
):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(service, "SYSTEM_FOLDER", tmp_path / "file" / "system")
    code, _, err = swarm("service", "install")
    assert code == 4
    assert "--user" in err

"""Work run again between real nodes: one worker is honest, another skips a third of its steps, and the ledger finds out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from storage.state_store import StateStore
from swarm.errors import RefusedError, SwarmError
from swarm.identity import Identity
from swarm.ledger.genesis import UNIT
from swarm.ledger.state import LedgerView, Stage
from swarm.ledger.vrf import VrfKey
from tests.process.cluster import Cluster, Node

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow
BOND = 50
PATIENCE = 240  # seconds, on a machine that does much else
NETWORK = """
[network]
name = "replay-test"
emission_pool = 1_000

{validators}
[allocations]
{allocations}

[parameters]
block_interval_ms = 300
delta_ms = 1_000
epoch_length = 50
min_bond = 100
worker_bond = {bond}
blocks_per_day = 288_000
replay_one_in = 1
replay_blocks = 200
replay_steps = 3
"""
TASK = """
[task]
name = "tiny"
kind = "lm"
rounds = 2
budget = "90"

[data]
dataset = "text"
pool = "pool"

[model]
layers = 1
heads = 2
width = 16
context = 16

[train]
steps = 6
batch = 8

[score]
sequences = 16

[phases]
train = 200
reveal = 60
score_commit = 200
score_reveal = 60
attest = 200
"""


class Skipper(Node):
    """A node whose worker leaves out steps."""

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "tests.process.skipper", "join"),
                    *("--home", str(self.home)),
                    *self.arguments,
                ],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=os.environ | {"XDG_RUNTIME_DIR": str(self.home)},
            )


class Town(Cluster):
    """Four validators, of which the first trains, and a worker that skips; their network comes from `swarm new`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.nodes = []
        homes = [folder / f"node-{number}" for number in range(1, 6)]
        for home in homes:
            home.mkdir(mode=0o700)
        self.signers = [Identity.load_or_create(home).signer for home in homes]
        validators = [
            f'[[validators]]\naccount = "{one.peer_id}"\n'
            f'vrf_key = "{VrfKey.of(one.seed).public_key.hex()}"\nstake = 1_000\n'
            for one in self.signers[:4]
        ]
        allocations = [f'"{one.peer_id}" = 1_000' for one in self.signers]
        text = NETWORK.format(
            validators="\n".join(validators), allocations="\n".join(allocations), bond=BOND
        )
        (folder / "network.toml").write_text(text)
        genesis = folder / "genesis.cbor"
        done = self.command("new", str(folder / "network.toml"), "--output", str(genesis))
        assert done.returncode == 0, done.stderr
        for at, home in enumerate(homes):
            arguments = ["--no-seal", "--no-page", "--network", str(genesis)]
            arguments += ["--storage", "200MB", "--listen", "127.0.0.1:0"]
            arguments += ["--no-train"] if at in (1, 2, 3) else []
            if self.nodes:
                arguments += ["--bootstrap", self.address(0)]
            node = (Skipper if at == 4 else Node)(home, arguments)
            node.start()
            self.nodes.append(node)
            if at == 0:
                self.wait(
                    lambda node=node: node.status() is not None, "the first to answer", PATIENCE
                )

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "cli", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    def replay(self, peer: str, round_: int = 1) -> dict[str, Any] | None:
        """What a person at the second node is told; None where it is too early."""
        try:
            return self.nodes[1].ask(lambda client: client.replay("tiny", round_, peer))
        except RefusedError:
            raise
        except SwarmError:
            return None


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    made = Town(tmp_path)
    try:
        yield made
    finally:
        made.end()


def write_data(folder: Path) -> None:
    line = "it was the best of times, it was the worst of times, {0} times {0} is {1}\n"
    for name, numbers in (("text", range(400)), ("pool", range(400, 600))):
        (folder / name).mkdir()
        text = "".join(line.format(number, number * number) for number in numbers)
        (folder / name / "lines.txt").write_text(text)


def test_a_skipper_is_convicted_by_the_ledger_and_a_person_sees_at_which_step(town: Town) -> None:
    honest, skipper = town.signers[0].peer_id, town.signers[4].peer_id
    write_data(town.folder)
    town.wait(
        lambda: all((one.status() or {"peers": 0})["peers"] >= 4 for one in town.nodes),
        "every node to see the others",
        PATIENCE,
    )
    asked = town.nodes[0].ask
    left = 1_000 * UNIT - BOND * UNIT // 2  # leaders earn a little
    for peer in (honest, skipper):
        town.wait(
            lambda peer=peer: asked(lambda client: client.balance(peer))["balance"] <= left,
            "the workers to be bonded",
            PATIENCE,
        )
    asked(lambda client: client.post_task(TASK, town.folder))

    # A person looks, while the round is scored or checked.
    found = town.wait(lambda: town.replay(skipper), "the skipper's record", PATIENCE)
    assert (found["outcome"], found["step"], found["same_machine"]) == ("mismatch", 3, True)
    assert found["distance"] > 3 * found["tolerance"]
    assert found["step_distance"] > 3 * found["tolerance"]

    # The ledger's own check goes through all its stages.
    def verdict(peer: str) -> str:
        try:
            told = town.replay(peer)
        except RefusedError as error:
            return str(error.hint)
        return "" if told is None else str(told["stage"])

    town.wait(lambda: "convicted" in verdict(skipper), "the skipper to be convicted", PATIENCE)
    town.wait(lambda: "cleared" in verdict(honest), "the honest one to be cleared", PATIENCE)

    # The honest one's second round, by the command.
    def looked() -> subprocess.CompletedProcess[str] | None:
        words = ("replay", "tiny", "2", honest, "--segment", "2", "--json")
        done = town.command(*words, "--home", str(town.nodes[1].home))
        return done if done.returncode == 0 else None

    done = town.wait(looked, "the honest one's second round", PATIENCE)
    told = json.loads(done.stdout)
    assert (told["outcome"], told["distance"], told["step"]) == ("match", 0.0, None)
    assert (told["first_step"], told["last_step"]) == (4, 6)

    for node in town.nodes:
        node.stop()
    store = StateStore(town.nodes[1].home / "ledger")
    try:
        view = LedgerView(store.view())
        task = view.tasks()[0]
        convict = view.account(town.signers[4].public_key)
        checked = view.replay(task.id, 1, convict.public_key)
        assert checked is not None
        assert checked.stage is Stage.CONVICTED
        assert convict.held <= left  # it may have bonded anew since
        cleared = view.replay(task.id, 1, town.signers[0].public_key)
        assert cleared is not None
        assert cleared.stage is Stage.CLEARED
        assert view.account(town.signers[0].public_key).bond == BOND * UNIT
        finder = view.account(checked.verifier)
        assert finder.earned > 0
        assert view.money().burned > 0
    finally:
        store.close()

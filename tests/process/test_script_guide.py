"""The guide for programs, run block by block against a real node."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from swarm.identity import Identity
from swarm.ledger.genesis import UNIT, Genesis, GenesisValidator
from swarm.ledger.vrf import VrfKey
from tests.process.cluster import PARAMS, POLL_SECONDS, Node

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs/guide/script.md"
BLOCKS = re.findall(
    r"^## (.*?)$.*?^```python\n(.*?)^```$", GUIDE.read_text(), re.MULTILINE | re.DOTALL
)


@pytest.fixture
def home(tmp_path):
    """A node alone on its network, on the default data folder of a user of its own."""
    node = Node(tmp_path / ".local/share/swarm/local", [])
    signer = Identity.load_or_create(node.home).signer
    validator = GenesisValidator(signer.public_key, VrfKey.of(signer.seed).public_key, 1_000 * UNIT)
    funds = [(signer.public_key, 10_000 * UNIT)]
    genesis = Genesis.create("script-test", 0, [validator], allocations=funds, params=PARAMS)
    genesis.save(tmp_path / "genesis.cbor")
    node.arguments += ["--network", str(tmp_path / "genesis.cbor"), "--storage", "200MB"]
    node.arguments += ["--listen", "127.0.0.1:0", "--no-seal", "--no-page"]
    node.start()
    try:
        assert node.process is not None
        while (status := node.status()) is None or status["height"] < 1:
            assert node.process.poll() is None, node.log.read_text()
            with contextlib.suppress(subprocess.TimeoutExpired):
                node.process.wait(POLL_SECONDS)
        yield tmp_path
    finally:
        node.end()


def test_every_section_with_an_example_is_run():
    titles = [title for title, _ in BLOCKS]
    assert len(titles) == GUIDE.read_text().count("```python") == len(set(titles))


@pytest.mark.slow
def test_the_examples_run_one_after_the_other(home):
    blocks = [one for _, one in BLOCKS if "transformers" not in one or find_spec("transformers")]
    script = home / "script.py"
    script.write_text("\n".join(blocks))
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("XDG_", "SWARM_", "HF_"))
    }
    run = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", str(script)],
        cwd=home,
        env=environment | {"HOME": str(home), "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "hash: " in run.stdout
    assert "the ledger has no name 'no-such-model'" in run.stdout
    assert "332833500" in run.stdout
    assert "\n1 train None" in run.stdout
    assert "['tiny-gpt']\nb'To be, or not'" in run.stdout

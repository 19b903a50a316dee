"""Three machines with the real command, two of them behind routers: publish, fetch, stop, start again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from swarm.client import Client
from swarm.errors import SwarmError
from swarm.identity import Identity
from swarm.ledger.genesis import UNIT, Genesis, GenesisValidator, Params
from swarm.ledger.vrf import VrfKey
from tests.network import bed

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
PORT = "/ip4/0.0.0.0/tcp/4001"
QUIET = ("--no-view", "--no-train", "--no-seal", "--no-page", "--no-mdns", "--no-upnp")


class Machine:
    """A person at a machine: what is typed there, in a data folder of its own."""

    def __init__(self, here: bed.Bed, name: str, folder: Path) -> None:
        self.home = folder / name / "home"
        (folder / name).mkdir(mode=0o700)
        self._environ = os.environ | {
            "SWARM_HOME": str(self.home),
            "XDG_RUNTIME_DIR": str(folder / name),
            "XDG_CONFIG_HOME": str(folder / name),
            "PYTHONPATH": str(ROOT),
        }
        self._line = [*here.inside(name), sys.executable, "-P", "-m", "cli"]

    async def swarm(self, *words: str, code: int = 0) -> str:
        """Run a command to its end; what it printed, or what it said where it fails."""
        with trio.fail_after(240):
            done = await trio.run_process(
                [*self._line, *words],
                env=self._environ,
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )
        said = done.stderr.decode()
        assert done.returncode == code, said
        return said if code else done.stdout.decode()

    async def join(self, nursery: trio.Nursery, *flags: str) -> trio.Process:
        """Start its node; here when it answers."""
        process = await trio.lowlevel.open_process(
            [*self._line, "join", "--listen", PORT, *QUIET, *flags],
            env=self._environ,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

        async def hold() -> None:
            try:
                await process.wait()
            finally:
                process.kill()
                with trio.CancelScope(shield=True):
                    await process.wait()

        nursery.start_soon(hold)
        with trio.fail_after(240):
            while not (self.home / "control.sock").is_socket():  # noqa: ASYNC110 - another process
                await trio.sleep(0.1)
        return process

    def status(self) -> dict | None:
        """What its node says; None while it does not answer."""
        try:
            with Client.of_home(self.home) as client:
                return client.status()
        except SwarmError:
            return None

    async def until(self, true) -> dict:
        """Ask for the status until it is so."""
        status = None
        with trio.move_on_after(240):
            while True:
                status = await trio.to_thread.run_sync(self.status)
                if status is not None and true(status):
                    return status
                await trio.sleep(0.2)
        raise AssertionError(status)


async def test_content_goes_from_one_home_to_another_and_nodes_come_back_after_a_kill(
    nursery, tmp_path
):
    if reason := bed.why_not():
        pytest.skip(reason)
    here = bed.Bed(nursery)
    try:
        here.internet()
        public, a, b = (Machine(here, name, tmp_path) for name in ("p1", "a", "b"))
        signer = Identity.load_or_create(public.home).signer
        stake = GenesisValidator(signer.public_key, VrfKey.of(signer.seed).public_key, 1_000 * UNIT)
        genesis = Genesis.create(
            "three", 0, [stake], params=Params(block_interval_ms=500, delta_ms=500)
        )
        genesis.save(tmp_path / "genesis.cbor")
        await public.join(nursery, "--network", str(tmp_path / "genesis.cbor"))
        first = f"/ip4/45.1.0.1/tcp/4001/p2p/{signer.peer_id}"

        # Before a node runs, nothing is made by asking; what is typed wrong is said, with what to do.
        said = await a.swarm("status", code=3)
        assert "swarm join --bootstrap ADDRESS" in said
        assert not a.home.exists()
        assert "/ip4/0.0.0.0/tcp/4001" in await a.swarm("join", "--listen", "45.3.0.1", code=2)
        assert "Did you mean 'join'" in await a.swarm("jion", code=2)

        async with trio.open_nursery() as both:
            for one in (a, b):
                both.start_soon(one.join, nursery, "--bootstrap", first)
        for one in (a, b):
            status = await one.until(lambda now: now["peers"] >= 2 and now["height"] >= 1)
            assert status["chain_id"] == genesis.chain_id.hex()

        (tmp_path / "poem").write_bytes(os.urandom(300_000))
        root = (await a.swarm("publish", str(tmp_path / "poem"))).strip()
        await b.swarm("get", root, "-o", str(tmp_path / "copy"))
        assert (tmp_path / "copy").read_bytes() == (tmp_path / "poem").read_bytes()

        # A power cut, and a stop as one should.
        os.kill(a.status()["pid"], 9)
        (a.home / "control.sock").unlink(missing_ok=True)
        assert "swarm join" in await a.swarm("finish", code=5)
        await b.swarm("finish")
        for one in (a, b):
            await one.join(nursery)  # each remembers its network and its peers
            await one.until(lambda now: now["peers"] >= 1 and now["height"] >= 1)
        await a.swarm("check", root)
        nursery.cancel_scope.cancel()
    finally:
        here.close()

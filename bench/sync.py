"""How soon a late joiner is ready to vote: by snapshot and by replay, over the real network on the loopback.

    python -m bench.sync [--blocks 10000] [--accounts 100000] [--givers 2] [--folder DIR] [--no-replay]

A chain of that many blocks is made through the real ledger: four validators, their leaders' proofs and signatures, and in
each block as many transfers to new accounts as it takes. Then givers serve it, each a process of its own, and a joiner
with an empty folder runs until sync says that it has caught up: by snapshot, and by executing every block.
`--folder` keeps the chain for another run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import structlog
import trio

from bench.machine import describe
from protocols.consensus.finalizer import Finalizer
from protocols.consensus.messages import Certificate, Kind, Vote
from protocols.handshake.messages import Hello
from protocols.signing import Signer
from protocols.sync.service import SyncService
from protocols.sync.snapshots import Arrival, SnapshotService
from storage.state_store import StateStore
from swarm.ledger.application import LedgerApplication
from swarm.ledger.genesis import UNIT, Genesis, GenesisValidator, Params
from swarm.ledger.landing import Landing
from swarm.ledger.snapshots import Snapshots
from swarm.ledger.source import LedgerSource
from swarm.ledger.transactions import Transfer, sign
from swarm.ledger.vrf import VrfKey
from swarm.network import Network, NetworkSettings

VALIDATORS = [Signer(hashlib.sha256(b"validator %d" % at).digest()) for at in range(4)]
PAYER = Signer(hashlib.sha256(b"payer").digest())
NOW = 1_800_000_000_000


def genesis() -> Genesis:
    """Four validators and one who pays; the default parameters, and no bound on age."""
    members = [
        GenesisValidator(one.public_key, VrfKey.of(one.seed).public_key, 1_000 * UNIT)
        for one in VALIDATORS
    ]
    return Genesis.create(
        "bench", 0, members, allocations=[(PAYER.public_key, 10**6 * UNIT)], params=Params()
    )


def open_ledger(folder: Path) -> tuple[StateStore, LedgerApplication]:
    """The chain of a folder."""
    store = StateStore(folder / "ledger")
    return store, LedgerApplication(store, genesis())


def make(folder: Path, blocks: int, accounts: int) -> None:
    """Grow the chain to so many blocks, with so many accounts in the end."""
    store = StateStore(folder / "ledger")
    leaders = {one.public_key: LedgerApplication(store, genesis(), one) for one in VALIDATORS}
    ledger = leaders[VALIDATORS[0].public_key]
    snapshots = Snapshots(folder / "snapshots", ledger, store, archive=True)
    voters = sorted(VALIDATORS, key=lambda one: one.public_key)
    last = blocks - blocks % ledger.epoch_length
    ledger.on_boundary = lambda height, view: (
        snapshots.write(height, view) if height >= last - ledger.epoch_length else None
    )
    began, paid = time.perf_counter(), 0
    chain_id = ledger.chain_id
    nonce = ledger.view().account(PAYER.public_key).nonce
    for height in range(ledger.finalized_height() + 1, blocks + 1):
        tip = ledger.finalized()
        epoch = tip.height // ledger.epoch_length
        one = leaders[ledger.leader(epoch, height)]
        one._final = ledger._final
        while paid < accounts * height // blocks:
            to = hashlib.sha256(b"account %d" % nonce).digest()
            one.submit(sign(PAYER, chain_id, nonce, Transfer(to, 1), valid_until=height + 9))
            nonce, paid = nonce + 1, paid + 1
        block = one.prepare(tip, epoch, height, NOW + 2_500 * height)
        signatures = tuple(
            (
                place,
                Vote.sign(voter, chain_id, Kind.FINALIZE, epoch, block.view, block.id).signature,
            )
            for place, voter in enumerate(voters)
        )
        certificate = Certificate(Kind.FINALIZE, epoch, block.view, block.id, signatures)
        if one is not ledger:
            ledger._keep(one._layers[block.id])
        ledger.finalize(block, certificate)
        one._layers.clear()
        one.mempool.forget(ledger.view())
        if height % 1000 == 0:
            print(f"  {height:,} blocks, {time.perf_counter() - began:.0f} s", file=sys.stderr)
    snapshots.close()
    store.close()


async def give(folder: Path, seed: int) -> None:
    """Serve the chain until killed; print where."""
    store, ledger = open_ledger(folder)
    network = _network(seed)
    SyncService(network, None, LedgerSource(ledger))
    SnapshotService(network, Snapshots(folder / "snapshots", ledger, store, archive=True))
    async with trio.open_nursery() as nursery:
        await nursery.start(network.run)
        print(json.dumps(network.addresses()), flush=True)
        await trio.sleep_forever()


async def join(folder: Path, bootstrap: tuple[str, ...], *, by_snapshot: bool) -> None:
    """Run until caught up; print what it took."""
    began = time.perf_counter()
    store, ledger = open_ledger(folder)
    network = _network(99, bootstrap)
    finalizer = Finalizer(ledger)
    landing = Landing(ledger, store, finalizer)
    arrival = Arrival(network, landing) if by_snapshot else None
    landed: list[float] = []
    finalizer.listen(lambda *_: landed.append(time.perf_counter() - began) if not landed else None)
    sync = SyncService(network, landing, LedgerSource(ledger), arrival=arrival)
    async with trio.open_nursery() as nursery:
        await nursery.start(network.run)
        with trio.fail_after(60):
            while len(network.peers()) < len(bootstrap):  # noqa: ASYNC110 - the network tells of no event
                await trio.sleep(0.01)
        met = time.perf_counter() - began
        await nursery.start(sync.run)
        await sync.caught_up.wait()
        seconds = time.perf_counter() - began
        nursery.cancel_scope.cancel()
    used = resource.getrusage(resource.RUSAGE_SELF)
    report = {
        "seconds": seconds,
        "met": met,
        "first": landed[0] if landed else 0,
        "height": ledger.finalized_height(),
        "root": ledger.finalized().state_root.hex(),
        "cpu": used.ru_utime + used.ru_stime,
        "mib": used.ru_maxrss / 1024,
    }
    print(json.dumps(report), flush=True)
    store.close()


def _network(seed: int, bootstrap: tuple[str, ...] = ()) -> Network:
    settings = NetworkSettings(listen=("/ip4/127.0.0.1/tcp/0",), bootstrap=bootstrap)
    chain_id = genesis().chain_id
    hello = Hello(chain_id, "bench", 0, 0)
    return Network(settings, Signer(seed.to_bytes(32, "big")), chain_id, lambda: hello)


def _child(*arguments: object) -> subprocess.Popen[bytes]:
    line = [sys.executable, "-m", "bench.sync", *(str(one) for one in arguments)]
    return subprocess.Popen(line, stdout=subprocess.PIPE)


def measure(folder: Path, givers: int, *, by_snapshot: bool) -> dict[str, Any]:
    """One late joiner."""
    serving = [_child("--give", folder, at + 1) for at in range(givers)]
    try:
        addresses = [json.loads(one.stdout.readline())[0] for one in serving if one.stdout]
        with tempfile.TemporaryDirectory() as new:
            kind = "snapshot" if by_snapshot else "replay"
            joiner = _child("--join", new, kind, *addresses)
            output, _ = joiner.communicate()
            report: dict[str, Any] = json.loads(output)
            return report
    finally:
        for one in serving:
            one.kill()
            one.communicate()


def main() -> None:
    """Make the chain, let a joiner in both ways, and print."""
    if sys.argv[1:2] == ["--give"]:
        trio.run(give, Path(sys.argv[2]), int(sys.argv[3]))
        return
    if sys.argv[1:2] == ["--join"]:
        by_snapshot = sys.argv[3] == "snapshot"

        async def run() -> None:
            await join(Path(sys.argv[2]), tuple(sys.argv[4:]), by_snapshot=by_snapshot)

        trio.run(run)
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--blocks", type=int, default=10_000)
    parser.add_argument("--accounts", type=int, default=100_000)
    parser.add_argument("--givers", type=int, default=2)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--no-replay", action="store_true")
    given = parser.parse_args()
    print(describe())
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        make(folder, given.blocks, given.accounts)
        store, ledger = open_ledger(folder)
        print(f"{ledger.finalized_height():,} blocks, {store.view().count():,} records of state")
        root = ledger.finalized().state_root.hex()
        store.close()
        taken = {}
        for kind in ("snapshot",) if given.no_replay else ("snapshot", "replay"):
            report = measure(folder, given.givers, by_snapshot=kind == "snapshot")
            if report["root"] != root:
                message = f"the joiner by {kind} has another root"
                raise SystemExit(message)
            taken[kind] = report["seconds"]
            print(
                f"by {kind}: caught up after {report['seconds']:.1f} s "
                f"(peers after {report['met']:.1f} s, first block after {report['first']:.1f} s), "
                f"{report['cpu']:.1f} s of processor, {report['mib']:.0f} MiB"
            )
        if len(taken) == 2:
            print(f"a snapshot is {taken['replay'] / taken['snapshot']:.0f} times as fast")


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    main()

"""`swarm verify-name NAME`: what a name points to, checked by a proof alone."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli import connection, output
from cli.names import parse_reference
from swarm.errors import RefusedError, UsageError

if TYPE_CHECKING:
    from swarm.chain.light import NameProof, Root, Shown

DAY_MS = 24 * 3600 * 1000
UNDATED = "trust began with the network, whose genesis says no time"
"""Of the network of a machine's own, which is the same on every day."""


@click.command(
    "verify-name",
    epilog="Example: swarm verify-name tiny-gpt --checkpoint 1200:5be1… -o proof.json",
)
@click.argument("name", metavar="NAME[@VERSION]")
@click.option(
    "--checkpoint",
    metavar="HEIGHT:ID",
    help="A block that you have from somebody you trust, as `swarm blocks` shows it there.",
)
@click.option(
    "--network",
    "genesis",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Without a checkpoint: trust this genesis.  [default: the data folder's]",
)
@click.option(
    "--proof",
    "given",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A proof from a file; if not given, it is asked of the node.",
)
@click.option(
    "-o",
    "--output",
    "target",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the proof to a file, for others to check.",
)
@connection.options
def command(
    *,
    name: str,
    checkpoint: str | None,
    genesis: Path | None,
    given: Path | None,
    target: Path | None,
    home: Path,
    as_json: bool,
) -> None:
    """Check what a name points to, and print its CID.

    The proof is checked here with hashes and signatures; the node that gives it is not believed.
    A file that holds all of it needs no node.
    """
    from storage import cid
    from swarm.chain.light import verify

    bare, version = parse_reference(name)
    root = _root(checkpoint, genesis, home)
    if target is not None and target.exists():
        message = f"{target} is there already"
        raise RefusedError(message, "give another file with -o, or remove it")
    proof = _proof(bare, version, given, root, home)
    shown = verify(proof, root)
    if target is not None:
        target.write_text(json.dumps(proof.to_json()) + "\n")
    report = {
        "name": shown.name,
        "version": shown.version,
        "newest": shown.newest,
        "cid": cid.text(shown.root),
        "height": shown.height,
        "block": shown.block_id.hex(),
        "time_ms": shown.timestamp_ms,
        "by": "signatures" if shown.by_signatures else "checkpoint",
        "trusted_since_ms": shown.since_ms,
    }
    if as_json:
        output.print_json(report)
    else:
        click.echo(report["cid"])
        _tell(shown, report)


def _root(checkpoint: str | None, genesis: Path | None, home: Path) -> Root:
    from swarm.ledger.errors import GenesisError
    from swarm.ledger.genesis import Genesis
    from swarm.values import parse_checkpoint

    if checkpoint is not None:
        if genesis is not None:
            message = "--checkpoint and --network: one of the two is trusted, not both"
            raise UsageError(message)
        try:
            return parse_checkpoint(checkpoint)
        except UsageError as error:
            message = f"--checkpoint: {error.message}"
            raise UsageError(message, error.hint) from error
    path = genesis or home / connection.GENESIS_FILE
    if not path.exists():
        message = "nothing is trusted yet that a proof could rest on"
        raise UsageError(message, "give --checkpoint HEIGHT:ID or --network FILE")
    try:
        return Genesis.load(path)
    except GenesisError as error:
        message = f"--network: {path}: {error}"
        raise UsageError(message) from error


def _proof(name: str, version: int | None, given: Path | None, root: Root, home: Path) -> NameProof:
    """The proof, with what leads to the root; of a node only what no file holds."""
    from swarm.chain.gathering import complete, is_complete
    from swarm.chain.light import MAX_PROOF_BYTES, NameProof

    proof = None
    if given is not None:
        with given.open("rb") as file:
            proof = NameProof.read(file.read(MAX_PROOF_BYTES + 1))
        if (proof.name, proof.version) != (name, version):
            of = proof.name if proof.version is None else f"{proof.name}@{proof.version}"
            message = f"--proof: {given} is of {of}"
            raise UsageError(message)
        if is_complete(proof, root) or not _knows(home, proof):
            return proof
    with connection.connect(home) as client, output.progress_bar() as progress:
        if proof is None:
            proof = NameProof.from_json(client.prove(name, version, progress))
        return complete(proof, root, client)


def _knows(home: Path, proof: NameProof) -> bool:
    """Whether the node of a data folder is of the proof's network; no other has what a proof lacks."""
    from swarm.ledger.errors import GenesisError
    from swarm.ledger.genesis import Genesis

    try:
        return Genesis.load(home / connection.GENESIS_FILE).chain_id == proof.block.chain_id
    except (GenesisError, OSError):
        return False


def _tell(shown: Shown, report: dict[str, object]) -> None:
    when = datetime.fromtimestamp(shown.timestamp_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    newest = ", the newest there" if shown.newest else ""
    by = "its validators' signatures" if shown.by_signatures else "the checkpoint's hash"
    output.say(
        f"{shown.name}@{shown.version}{newest}: block {shown.height:,} of {when}, shown by {by}"
    )
    output.say(f"block {report['block']}")
    if shown.by_signatures and (hint := stale_hint(shown, time.time_ns() // 10**6)):
        output.say(f"hint: {hint}")


def stale_hint(shown: Shown, now_ms: int) -> str:
    """What a person should know of a trust that is old; empty where it is not."""
    from swarm.ledger.handoff import WEAK_SUBJECTIVITY_MS

    age = now_ms - shown.since_ms
    if age <= WEAK_SUBJECTIVITY_MS:
        return ""
    began = f"trust began {age // DAY_MS:,} days ago" if shown.since_ms else UNDATED
    return f"{began}, and validators of then may have left; a newer --checkpoint rules that out"

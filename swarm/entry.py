"""The ways into a network: a genesis that is known, one fetched from a peer, or this machine's own.

In order: the genesis in the data folder; a file that the person gives; the first of the given addresses
that answers (asked again and again: an address that is silent now may answer later); a node of this
machine that runs; and with none of these, a new network of this machine's own.
A person who gives a chain id takes the genesis from anyone, since it is the genesis's hash.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog
import trio

from protocols.sync.errors import WrongGenesisError
from protocols.sync.service import fetch_genesis
from protocols.transport import UnreachableError
from swarm.errors import UsageError
from swarm.ledger.errors import GenesisError
from swarm.ledger.genesis import UNIT, Genesis, GenesisValidator, Params
from swarm.ledger.vrf import VrfKey
from swarm.network import Network, NetworkSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from protocols.handshake.messages import Hello
    from protocols.signing import Signer
    from swarm.machine import Machine

_log = structlog.get_logger("swarm.entry")

GENESIS_FILE = "genesis.cbor"
OWN_NETWORK = "this-machine"
OWN_ALLOCATION = 100_000 * UNIT
OWN_STAKE = 1_000 * UNIT
OWN_PARAMS = Params(
    block_interval_ms=1_000,
    delta_ms=1_000,
    epoch_length=60,
    min_bond=100 * UNIT,
    worker_bond=0,
    base_fee_floor=0,
    blocks_per_day=86_400,
)
"""A newcomer can register with nothing, and earns the bond of a validator by its work."""
JOIN_HINT = (
    "hint: to join a network of others, give `swarm join` the `--bootstrap ADDRESS` of one of its nodes"
    " and another `--home`: this folder belongs to the new network from now on"
)
ASK_SECONDS = 10.0
"""How long one address may take to give the genesis."""
PAUSE_SECONDS = 3.0
"""Between two laps over addresses that do not answer."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A network, and addresses of peers in it."""

    genesis: Genesis
    addresses: tuple[str, ...]


async def find(
    folder: Path,
    signer: Signer,
    machine: Machine,
    *,
    genesis: Path | bytes | None,
    bootstrap: Sequence[str],
    hello: Callable[[], Hello],
    say: Callable[[str], None],
) -> Entry:
    """Find the network that this node belongs to; its genesis is in the folder afterwards.

    Args:
        folder: The node's data folder.
        signer: The node's key; the validator of a network that it makes.
        machine: Where this machine's nodes find each other.
        genesis: A file that the person named, or a chain id of 32 bytes.
        bootstrap: Addresses that the person named.
        hello: What to say to peers before a network is known.
        say: Tells the person one line.

    Raises:
        UsageError: The file is not a genesis, or not of the network in the folder; or nobody to ask is known.
    """
    path = folder / GENESIS_FILE
    known = _load(path) if path.exists() else None
    given, wanted = None, None
    if isinstance(genesis, bytes):
        wanted = genesis
    elif genesis is not None:
        given = _load(genesis)
        wanted = given.chain_id
    if known is not None and wanted is not None and wanted != known.chain_id:
        message = f"{folder} belongs to network {known.chain_id.hex()}, not {wanted.hex()}"
        raise UsageError(message, "give another --home for another network")
    found = known or given
    if found is None and bootstrap:
        found = await _ask_until_told(lambda: bootstrap, signer, hello, say, wanted)
    elif found is None and _local(machine, wanted):
        say("joining the network of this machine's own")
        found = await _ask_until_told(lambda: _local(machine, wanted), signer, hello, say, wanted)
    if found is None and wanted is not None:
        message = f"nobody is known who could give the genesis of network {wanted.hex()}"
        raise UsageError(message, "add --bootstrap ADDRESS, or give the genesis file to --network")
    if found is None:
        say("no address given and no node runs here: starting a network of this machine's own")
        say(JOIN_HINT)
        found = _own(signer)
    if known is None:
        await trio.to_thread.run_sync(found.save, path)
    return Entry(found, (*bootstrap, *_local(machine, found.chain_id)))


def _local(machine: Machine, chain_id: bytes | None = None) -> tuple[str, ...]:
    """Addresses of nodes that run on this machine, of one network or of any."""
    return tuple(
        address
        for one in machine.running()
        if chain_id is None or one.chain_id == chain_id.hex()
        for address in one.addresses
    )


def _load(path: Path) -> Genesis:
    try:
        return Genesis.load(path)
    except FileNotFoundError as error:
        message = f"there is no file {path}, and {path.name[:80]!r} is no chain id"
        raise UsageError(
            message, "a chain id has 64 hex digits; `swarm status` shows it"
        ) from error
    except (OSError, GenesisError) as error:
        what, _, advice = str(error).partition("; ")
        message = f"{path}: {what}"
        raise UsageError(message, advice or None) from error


def _own(signer: Signer) -> Genesis:
    validator = GenesisValidator(signer.public_key, VrfKey.of(signer.seed).public_key, OWN_STAKE)
    return Genesis.create(
        OWN_NETWORK,
        0,
        [validator],
        allocations=[(signer.public_key, OWN_ALLOCATION)],
        params=OWN_PARAMS,
    )


async def _ask_until_told(
    addresses: Callable[[], Sequence[str]],
    signer: Signer,
    hello: Callable[[], Hello],
    say: Callable[[str], None],
    wanted: bytes | None,
) -> Genesis | None:
    """Ask every address in turn for the genesis until one gives it; None once there is none to ask.

    With a chain id, one of another network is not taken.
    """
    told: set[str] = set()
    while lap := addresses():
        for address in lap:
            genesis = await _ask(address, signer, hello, wanted)
            if isinstance(genesis, Genesis):
                say(
                    f"genesis from {address}: network {genesis.network!r}, chain id {genesis.chain_id.hex()}"
                )
                return genesis
            if address not in told:
                told.add(address)
                answer, _, why = genesis.partition(": ")
                say(f"{answer} from {address} yet{f' ({why})' if why else ''}; going on trying")
        await trio.sleep(PAUSE_SECONDS)
    return None


async def _ask(
    address: str, signer: Signer, hello: Callable[[], Hello], wanted: bytes | None
) -> Genesis | str:
    """The genesis, or what came in its place, with the reason after a colon."""
    network = Network(NetworkSettings(listen=()), signer, b"", hello)
    answer: Genesis | str = "no answer"
    async with trio.open_nursery() as nursery:
        await nursery.start(network.run)
        with trio.move_on_after(ASK_SECONDS):
            try:
                peer = await network.connect(address)
                expected = wanted or network.remote_chain_id(peer)
                answer = Genesis.decode(await fetch_genesis(network, peer, expected))
            except Exception as error:  # noqa: BLE001 - whatever a first address does, another is tried
                if wanted is not None and isinstance(error, WrongGenesisError):
                    answer = f"only network {error.found.hex()}"
                elif isinstance(error, UnreachableError):
                    answer = f"no answer: {error.why}"
                elif isinstance(error, GenesisError):
                    answer = f"no network that this program can join: {error}"
                _log.debug("entry.failed", address=address, error=str(error))
        nursery.cancel_scope.cancel()
    return answer

"""What the facts mean: one function a look, each from values to checks; pure.

What cannot be known from this machine is said to be unknown, never good.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any, Final

from swarm.care.check import Check, bad, good, unknown, warn
from swarm.ledger.genesis import UNIT
from swarm.sizes import counted, format_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swarm.care.machine import DeviceFacts, DiskFacts, FolderFacts, MemoryFacts, PortFacts

    Json = dict[str, Any]

FAST_MS: Final = -2_000
"""A clock this far behind the times in blocks that are final already is wrong."""
SLOW_MS: Final = 30_000
"""A clock this far ahead of them, or blocks that take this long."""
SLOW_SYNC_MS: Final = 200.0
BEHIND_BLOCKS: Final = 5
SMALL_MEMORY: Final = 10**9
TINY_MEMORY: Final = 3 * 10**8
OTHERS_MAY: Final = 0o077
COSTS: Final = {
    "direct": "everybody can connect to this node",
    "punched": "others connect through a relay first, then directly where their own router allows it",
    "relayed": "others connect through a relay, slowly; what this node fetches from peers that it dials is as fast as ever",
    "unreachable": "nobody can connect to this node; it connects to others",
}
"""What each verdict on reachability means, and what it costs."""
MAX_SEEN: Final = 8
_SYNC_CLOCK: Final = "timedatectl set-ntp true"


def clock(gap_ms: int | None, *, is_kept: bool | None = None) -> Check:
    """The clock, against the times that other leaders write into blocks.

    Args:
        gap_ms: This clock less theirs, with the time that blocks take to be final; None: not known.
        is_kept: Whether a time service keeps it, as the kernel knows; None: not known.
    """
    if gap_ms is None:
        text = "no blocks of other leaders have come yet to compare it with"
        if is_kept:
            return good("clock", f"kept by a time service; {text}")
        no_service = "; no time service keeps it, as far as the kernel knows"
        asks = is_kept is False
        return unknown("clock", text + no_service * asks, _SYNC_CLOCK * asks)
    if gap_ms < FAST_MS:
        return bad("clock", f"{-gap_ms / 1000:.1f} s behind that of other leaders", _SYNC_CLOCK)
    if gap_ms > SLOW_MS:
        return bad(
            "clock",
            f"{gap_ms / 1000:.1f} s ahead of the times in new blocks, or blocks take that long",
            _SYNC_CLOCK,
        )
    return good("clock", f"blocks of other leaders are final {gap_ms:,} ms after their time")


def disk(facts: DiskFacts, lent: int, taken: int) -> list[Check]:
    """Space for what is lent beside the reserve, and the time of a durable write.

    Args:
        facts: The disk.
        lent: Bytes.
        taken: Bytes of these that are on the disk already: chunks, unpacked files and sealed slots.
    """
    room = max(0, facts.free - facts.reserve)
    free = f"{format_size(facts.free)} of {format_size(facts.total)} free"
    if facts.problem:
        checks = [bad("disk", f"the data folder cannot be written: {facts.problem}", "make room")]
    elif not room:
        reserve = f"{format_size(facts.reserve)} of it stay free"
        checks = [bad("disk", f"{free}, and {reserve}: nothing can be stored", "make room")]
    elif lent - taken > room:
        fits = format_size(taken + room)
        checks = [
            warn(
                "disk",
                f"{free}; {format_size(lent)} are lent and only {fits} fit",
                f"swarm join --storage {_whole(taken + room)}",
            )
        ]
    else:
        checks = [good("disk", f"{free}; the {format_size(lent)} that are lent fit")]
    if facts.sync_ms is None:
        return [*checks, unknown("disk speed", "not measured: there is no data folder to write to")]
    text = f"a durable write takes {facts.sync_ms:.1f} ms"
    if facts.sync_ms > SLOW_SYNC_MS:
        advice = "put the data folder on a faster disk: swarm join --home DIRECTORY"
        return [*checks, warn("disk speed", f"{text}: votes wait for it", advice)]
    return [*checks, good("disk speed", text)]


def _whole(size: int) -> str:
    """A size to type, rounded down."""
    return f"{size // 10**9}GB" if size >= 10**9 else f"{size // 10**6}MB"


def folder(facts: FolderFacts) -> list[Check]:
    """Who may enter the data folder and read the key."""
    if facts.home_mode is None:
        return [unknown("data folder", f"{facts.home} is not there yet", "swarm join")]
    checks = []
    if not facts.is_own:
        checks.append(
            bad(
                "data folder",
                f"{facts.home} belongs to another user",
                f"chown -R $USER {facts.home}",
            )
        )
    elif facts.home_mode & OTHERS_MAY:
        text = f"{facts.home} is open to other users (mode {facts.home_mode:04o})"
        checks.append(warn("data folder", text, f"chmod 700 {facts.home}"))
    else:
        checks.append(good("data folder", f"{facts.home}, for its owner only"))
    if facts.key_mode is None:
        checks.append(unknown("key", "there is none yet", "swarm key"))
    elif facts.key_mode & OTHERS_MAY:
        text = f"{facts.key} is open to other users (mode {facts.key_mode:04o})"
        checks.append(bad("key", text, f"chmod 600 {facts.key}"))
    else:
        checks.append(good("key", f"{facts.key}, for its owner only"))
    return checks


def ports(facts: Sequence[PortFacts]) -> list[Check]:
    """Whether each address can be listened on, or is answered on from this machine."""
    checks = []
    for one in facts:
        if one.is_open:
            checks.append(good("port", f"{_bare(one.address)} answers from this machine"))
        elif one.is_open is False:
            text = f"{_bare(one.address)} does not answer even from this machine: {one.problem}"
            checks.append(bad("port", text, "look for a firewall on this machine"))
        elif one.problem:
            holder = f" (by {one.holder})" if one.holder else ""
            text = f"{_bare(one.address)} cannot be had: {one.problem}{holder}"
            checks.append(bad("port", text, "swarm join --listen ADDRESS with another port"))
        elif one.address.endswith("/tcp/0"):
            checks.append(good("port", f"{one.address}: any free port"))
        else:
            checks.append(good("port", f"{_bare(one.address)} is free"))
    return checks


def _bare(address: str) -> str:
    return address.partition("/p2p/")[0]


def reachable(report: Json) -> Check:
    """One verdict: who has dialled this node, or tried to when it asked. Nothing else shows that it can be reached."""
    inbound, port = report["inbound"], _port(own(report))
    forward = f"forward TCP port {port} of the router to this machine" if port else ""
    found = report.get("reach") or {}
    verdict = found.get("verdict", "unknown")
    if verdict == "direct":
        where = ", ".join(found["confirmed"])
        return good("reachable", f"direct at {where}: {COSTS[verdict]}")
    if verdict in COSTS:
        places = f" (places at {len(found['relays'])})" if found["relays"] else ""
        return warn("reachable", f"{verdict}{places}: {COSTS[verdict]}", forward)
    if inbound["public"]:
        return good("reachable", f"direct: dialled by {counted(inbound['public'], 'peer')} outside")
    if report["addresses"] and all(place_of(one) == "loopback" for one in report["addresses"]):
        text = "by this machine alone: it listens on no other address"
        return unknown("reachable", text, "swarm join --listen /ip4/0.0.0.0/tcp/0")
    if inbound["private"]:
        text = f"from the local network: dialled by {counted(inbound['private'], 'peer')} of it; from outside is unknown"
        return unknown("reachable", text, forward)
    if inbound["loopback"] and not report["outbound"]:
        return unknown("reachable", "only peers of this machine have dialled in")
    if not report["peers"]:
        return unknown("reachable", "no peer is connected", "swarm join --bootstrap ADDRESS")
    text = "nobody has dialled in yet; this node dials others, which works behind a router too"
    if found.get("relays"):
        count = len(found["relays"])
        text = f"directly is not known yet; through a relay it is (places at {count})"
    return unknown("reachable", text, forward)


def own(report: Json) -> list[str]:
    """The addresses of this machine on which the node listens, without those of routers and relays."""
    found = report.get("reach") or {}
    return [str(one) for one in found.get("listening") or report["addresses"]]


def seen(report: Json) -> list[Check]:
    """Each address at which peers outside see this node, and what the router does with ports."""
    found = report.get("reach") or {}
    checks = []
    for one in found.get("seen", ())[:MAX_SEEN]:
        count = one["seen_by"]
        by = "one neighbourhood, which may be wrong" if count == 1 else f"{count} neighbourhoods"
        checks.append(
            Check("seen", "good" if count > 1 else "unknown", f"{one['address']} by peers of {by}")
        )
    if checks:
        checks.append(_mapping(found["mapping"]))
    if found.get("forwarded"):
        checks.append(good("router", f"forwards {found['forwarded']}"))
    elif found.get("forwarding_problem"):
        checks.append(unknown("router", f"forwards no port: {found['forwarding_problem']}"))
    return checks


def _mapping(kind: str) -> Check:
    if kind.startswith("none"):
        return good("router", "none: peers see an address of this machine")
    if kind.startswith("same"):
        return good(
            "router", "the port outside is the same for every destination: holes can be punched"
        )
    if kind.startswith("another"):
        text = "the port outside is another for each destination: no holes can be punched"
        return warn("router", text, "forward the port, or turn UPnP on in the router")
    return unknown("router", "two peers of distinct neighbourhoods are needed to tell what it does")


def _port(addresses: Sequence[str]) -> str:
    return next((one.split("/")[4] for one in addresses if one.count("/") >= 4), "")


def device(facts: DeviceFacts, *, wants_gpu: bool, trains: bool, now: str = "") -> list[Check]:
    """Accelerator and torch.

    Args:
        facts: What the system shows.
        wants_gpu: An accelerator was asked for.
        trains: The node trains or scores.
        now: What a running node's worker says; empty where none runs.
    """
    names = ", ".join(facts.gpus)
    driver = f", driver {facts.driver}" if facts.driver else ""
    checks = []
    if now.startswith("no worker:"):
        checks.append(bad("worker", now, "logs/node.jsonl in the data folder says why"))
    if names:
        idle = "" if wants_gpu or not trains else "; not used"
        fix = "swarm join --gpu" if idle else ""
        checks.append(Check("gpu", "good", f"{names}{driver}{idle}", fix))
    elif wants_gpu:
        checks.append(warn("gpu", "none is seen, and one was asked for", "install its driver"))
    else:
        checks.append(good("gpu", "none is seen, and none was asked for"))
    if not facts.torch:
        text = "torch is not installed"
        checks.append(
            bad("torch", f"{text}: nothing can be trained", "pip install torch")
            if trains
            else good("torch", f"{text}, and not needed")
        )
    elif wants_gpu and facts.driver and facts.torch.endswith("+cpu"):
        text = f"torch {facts.torch} cannot use the GPU"
        checks.append(warn("torch", text, "pip install --force-reinstall torch, with CUDA"))
    else:
        checks.append(good("torch", f"torch {facts.torch}"))
    return checks


def store(problem: str | None) -> Check:
    """The databases of a store that no node has open; None where there is no store."""
    if problem is None:
        return unknown("store", "nothing is stored yet")
    if problem:
        return bad("store", problem, "swarm join makes a damaged index anew")
    return good("store", "its index can be read; a running node can verify it: swarm verify")


def open_store(report: Json) -> Check:
    """The store of a running node."""
    storage, damaged = report["storage"], report["chunks_damaged"]
    text = f"{format_size(storage['used'])} of {format_size(storage['lent'])} used"
    if damaged:
        return bad("store", f"{text}; {counted(damaged, 'chunk')} damaged", "swarm verify --repair")
    return good("store", f"{text}; no damage is known")


def sync(report: Json) -> Check:
    """The height, against that of the peers."""
    height, best = report["height"], report["best_head"]
    if not report["peers"]:
        return unknown("sync", f"height {height:,}; no peer to compare with")
    text = f"height {height:,}, peers {best:,}, blocks held from {report['first_block']:,} on"
    if report["snapshot"] is not None:
        text += f", snapshot at {report['snapshot']:,}"
    if not report["caught_up"]:
        return warn("sync", f"catching up: {text}")
    if best - height > BEHIND_BLOCKS:
        return warn("sync", f"behind: {text}", "swarm peers shows who is connected")
    return good("sync", text)


def keeper(facts: Json | None) -> Check | None:
    """What is lent; None of a node that lends nothing."""
    if facts is None:
        return None
    text = f"{facts['sealed']:,} of {facts['goal']:,} slots sealed, {facts['slots']:,} counted"
    text += f", last audit: {facts['verdict'] or 'none yet'}"
    if facts["suspended"]:
        return bad("keeper", f"suspended: {text}", "swarm storage says why; swarm verify --repair")
    if facts["strikes"]:
        return warn("keeper", f"{facts['strikes']:,} strikes; {text}", "swarm storage")
    if facts["problems"]:
        return warn("keeper", f"{facts['problems'][0]}; {text}", "swarm storage")
    return good("keeper", text)


def member(facts: Json, height: int) -> Check:
    """Roles and stake of this account."""
    roles = ", ".join(facts["roles"]) or "none"
    if facts["jailed_until"] is not None:
        until = facts["jailed_until"]
        when = "now" if until <= height else f"from height {until:,} on"
        return bad(
            "membership", f"jailed after a slash; it may ask to be let out {when}", "swarm unjail"
        )
    if facts["validates"] and not facts["weight"] and facts["stake"] >= facts["min_bond"] > 0:
        return good("membership", f"roles: {roles}; staked, and a validator within two epochs")
    weight = f"{facts['weight'] / UNIT:,.10g}"
    validator = f"; votes with a stake of {weight} tokens" if facts["weight"] else ""
    return good("membership", f"roles: {roles}{validator}")


def memory(facts: MemoryFacts, *, trains: bool) -> Check:
    """Memory that is available."""
    text = f"{format_size(facts.available)} of {format_size(facts.total)} available"
    if facts.available < TINY_MEMORY:
        return bad("memory", text, "end other programs, or swarm join --no-train")
    if trains and facts.available < SMALL_MEMORY:
        return warn("memory", f"{text}: little for training", "swarm join --no-train")
    return good("memory", text)


def held_back(report: Json) -> list[Check]:
    """What a person has paused, and a node that is about to stop."""
    checks = []
    if report["paused"]:
        parts = ", ".join(one["part"] for one in report["paused"])
        checks.append(warn("paused", f"{parts}: held back by its owner", "swarm resume"))
    held = [one for one in report.get("held", ()) if one["code"] not in {"paused", "finishing"}]
    checks += [good("limits", f"{one['part']} waits: {one['why']}") for one in held]
    if report["finishing"]:
        checks.append(warn("finishing", "the node stops when its round is done", "swarm resume"))
    return checks


def node(report: Json | None, home: object, version: str) -> Check:
    """Whether a node runs, and of which version."""
    if report is None:
        return unknown("node", f"none runs on {home}: less can be told", "swarm join")
    if report["version"] != version:
        text = f"process {report['pid']} is swarm {report['version']}, and this is {version}"
        return warn("node", text, "swarm finish, then swarm join")
    return good("node", f"process {report['pid']}, swarm {version}")


def problems(sentences: Sequence[str]) -> list[Check]:
    """What the node itself says is wrong."""
    return [warn("problem", one) for one in sentences[:10]]


def place_of(address: str) -> str:
    """Where a multiaddr lies: `loopback`, `private` or `public`."""
    parts = address.split("/")
    try:
        host = ipaddress.ip_address(parts[2].split("%")[0])
    except (IndexError, ValueError):
        return "public"  # a name
    if host.is_loopback:
        return "loopback"
    return "public" if host.is_global else "private"

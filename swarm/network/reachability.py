"""From where this node can be reached: what peers have seen and tried, and what follows; pure.

A peer says at which address it sees this node, and may be wrong or lie: nothing counts before `MIN_AGREE` peers of distinct
subnets have said the same. What is agreed on is then dialled back by such peers, and only what they reached is announced.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any

from swarm.network import addresses

if TYPE_CHECKING:
    from collections.abc import Iterable

    from swarm.network.addresses import Address

MIN_AGREE = 2
"""Peers of distinct subnets that have to say the same."""
MAX_OBSERVERS = 32
"""Peers whose last word is remembered, one word a subnet and family."""
MAX_CANDIDATES = 4
"""Addresses of this node that are dialled back."""
OBSERVED_S = 1800.0
"""After this long an observation no longer counts."""
TRIED_S = 1800.0
"""After this long the outcome of a dial-back no longer counts."""


class Verdict(Enum):
    """How others reach this node."""

    UNKNOWN = "unknown"
    DIRECT = "direct"
    PUNCHED = "punched"
    RELAYED = "relayed"
    UNREACHABLE = "unreachable"


class Mapping(Enum):
    """What the router does with the port of a connection that this node opens."""

    UNKNOWN = "unknown"
    NONE = "none"
    SAME = "same for every destination"
    VARIES = "another for each destination"


@dataclass(frozen=True, slots=True)
class _Seen:
    address: Address
    kept_port: bool
    at: float


@dataclass(frozen=True, slots=True)
class _Tried:
    ok: bool
    at: float


class Reachability:
    """What is known of this node's own addresses. Times come in as arguments."""

    def __init__(self) -> None:
        self._seen: OrderedDict[tuple[str, str], _Seen] = OrderedDict()
        self._tried: OrderedDict[tuple[str, Address], _Tried] = OrderedDict()
        self._mapped: tuple[Address, ...] = ()

    # What is told.

    def observed(self, observer: str, seen: Address, now: float, *, kept_port: bool) -> None:
        """A peer outside says where it sees this node.

        Args:
            observer: Its IP address.
            seen: What it says.
            now: Trio time.
            kept_port: The connection left this machine from the port that it listens on, or came in there; otherwise the port
                says nothing.
        """
        if seen.relay is not None or not addresses.is_public(seen):
            return
        key = (addresses.subnet(observer), seen.kind)
        self._seen[key] = _Seen(seen.bare, kept_port, now)
        self._seen.move_to_end(key)
        while len(self._seen) > MAX_OBSERVERS:
            self._seen.popitem(last=False)

    def dialled_back(self, server: str, address: Address, now: float, *, ok: bool) -> None:
        """A peer outside has tried to connect to this node.

        Args:
            server: Its IP address.
            address: What it dialled.
            now: Trio time.
            ok: It reached this node there.
        """
        key = (addresses.subnet(server), address.bare)
        self._tried[key] = _Tried(ok, now)
        self._tried.move_to_end(key)
        while len(self._tried) > MAX_OBSERVERS * MAX_CANDIDATES:
            self._tried.popitem(last=False)

    def mapped(self, found: Iterable[Address]) -> None:
        """The public addresses that the router says it forwards to this node."""
        self._mapped = tuple(address.bare for address in found if addresses.is_public(address))

    def forget_old(self, now: float) -> None:
        """Let go of what no longer counts."""
        for key in [key for key, one in self._seen.items() if now - one.at > OBSERVED_S]:
            del self._seen[key]
        for tried in [key for key, one in self._tried.items() if now - one.at > TRIED_S]:
            del self._tried[tried]

    # What follows.

    def agreed(self) -> list[Address]:
        """Public addresses at which enough observers see this node; a port of 0 where they differ about it."""
        hosts: dict[tuple[str, str], list[_Seen]] = {}
        for one in self._seen.values():
            hosts.setdefault((one.address.kind, one.address.host), []).append(one)
        found = []
        for seen in hosts.values():
            if len(seen) < MIN_AGREE:
                continue
            ports = {one.address.port for one in seen if one.kept_port}
            enough = sum(one.kept_port for one in seen) >= MIN_AGREE
            address = seen[0].address
            port = ports.pop() if len(ports) == 1 and enough else 0
            found.append(replace(address, port=port))
        return found

    def mapping(self, own: Iterable[str]) -> Mapping:
        """What the router does with ports, as far as two observers can tell.

        Args:
            own: The IP addresses of this machine.
        """
        agreed = self.agreed()
        if not agreed:
            return Mapping.UNKNOWN
        mine = set(own)
        if any(address.host in mine for address in agreed):
            return Mapping.NONE
        if any(address.port for address in agreed):
            return Mapping.SAME
        kept = sum(one.kept_port for one in self._seen.values())
        return Mapping.VARIES if kept >= MIN_AGREE else Mapping.UNKNOWN

    def candidates(self, given: Iterable[Address], listening: Iterable[Address]) -> list[Address]:
        """What to have dialled back, the likeliest first.

        Args:
            given: Addresses that a person says are this node's.
            listening: What this node listens on, the wildcard expanded.
        """
        found: dict[Address, None] = dict.fromkeys(self._mapped)
        bound = list(listening)
        for address in (*given, *bound):
            if addresses.is_public(address):
                found[address.bare] = None
        for seen in self.agreed():
            ports = {one.port for one in bound if one.kind == seen.kind}
            for port in (seen.port, *sorted(ports)):
                if port:
                    found[replace(seen, port=port)] = None
        return list(found)[:MAX_CANDIDATES]

    def confirmed(self) -> list[Address]:
        """Addresses at which enough peers of distinct subnets have reached this node, and no newer word says otherwise."""
        good: dict[Address, int] = {}
        for (_, address), one in self._tried.items():
            good[address] = good.get(address, 0) + (1 if one.ok else -1)
        return [address for address, count in good.items() if count >= MIN_AGREE]

    def is_shut(self) -> bool:
        """Enough peers of distinct subnets have failed to reach this node at every address that they tried."""
        failed = {subnet for (subnet, _), one in self._tried.items() if not one.ok}
        worked = {subnet for (subnet, _), one in self._tried.items() if one.ok}
        return len(failed - worked) >= MIN_AGREE

    def verdict(self, *, relays: int, own: Iterable[str]) -> Verdict:
        """How others reach this node.

        Args:
            relays: At how many this node has a place.
            own: The IP addresses of this machine.
        """
        if self.confirmed():
            return Verdict.DIRECT
        if not self.is_shut():
            return Verdict.UNKNOWN
        if not relays:
            return Verdict.UNREACHABLE
        return Verdict.PUNCHED if self.mapping(own) is Mapping.SAME else Verdict.RELAYED

    def told(self) -> list[dict[str, Any]]:
        """Each address as peers see it: `address`, and `seen_by`, in how many subnets."""
        counts: dict[Address, int] = {}
        for one in self._seen.values():
            counts[one.address] = counts.get(one.address, 0) + 1
        return [
            {"address": str(address), "seen_by": count}
            for address, count in sorted(counts.items(), key=lambda pair: -pair[1])
        ]

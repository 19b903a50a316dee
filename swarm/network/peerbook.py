"""Whom to dial and when: given, remembered and found peers, with their addresses and their failures.

No clock, no socket: times come in as arguments. Written to disk as JSON by `dump` and read back by `load`.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from swarm.network import addresses
from swarm.network.addresses import Address, AddressError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

MAX_ENTRIES = 1024
MAX_SAVED = 256
MAX_ADDRESSES = 8
"""Of one peer; the newest are kept."""
MAX_FILE_BYTES = 2**20
VERSION = 1
"""Of the file."""
FIRST_RETRY_S = 0.25
FAITHFUL_RETRY_S = 10.0
"""The longest wait before a given address or a lost member is tried again."""
OTHER_RETRY_S = 120.0
STRANGER_S = 600.0
"""Before a peer that turned out to be of another network is tried again."""
GIVE_UP_FAILURES = 12
"""A found peer is forgotten after this many failures in a row."""


@dataclass(slots=True)
class Entry:
    """One peer, or one given address whose peer is not known."""

    key: str
    peer: str | None
    addresses: dict[Address, None] = field(default_factory=dict)
    given: bool = False
    member: bool = False
    failures: int = 0
    next_try: float = 0.0
    why: str = ""
    foreign: str = ""
    trying: bool = False


class PeerBook:
    """The table of peers to dial.

    Args:
        me: This node, which is never in the table.
    """

    def __init__(self, me: str) -> None:
        self._me = me
        self._entries: dict[str, Entry] = {}
        self.changed = False

    def learn(
        self,
        peer: str | None,
        found: Iterable[Address],
        *,
        given: bool = False,
        member: bool = False,
    ) -> None:
        """Remember addresses of a peer."""
        good = [
            address.bare if peer is not None else address
            for address in found
            if addresses.is_dialable(address)
        ]
        if peer == self._me or not (good or (given and peer is not None)):
            return
        key = peer if peer is not None else str(good[0])
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = Entry(key, peer)
            self._make_room(entry)
        if member and not entry.member:
            entry.member = self.changed = True
        entry.given = entry.given or given
        before = set(entry.addresses)
        for address in good:
            # What is told again is as good as new.
            entry.addresses.pop(address, None)
            entry.addresses[address] = None
        while len(entry.addresses) > MAX_ADDRESSES:
            del entry.addresses[next(iter(entry.addresses))]
        self.changed = self.changed or before != set(entry.addresses)

    def _make_room(self, newest: Entry) -> None:
        if len(self._entries) <= MAX_ENTRIES:
            return
        candidates = [entry for entry in self._entries.values() if not entry.given]
        candidates = [entry for entry in candidates if entry is not newest] or candidates
        if candidates:
            worst = max(candidates, key=lambda entry: (not entry.member, entry.failures))
            del self._entries[worst.key]

    def addresses_of(self, peer: str) -> list[Address]:
        """What is known of a peer, the newest first."""
        entry = self._entries.get(peer)
        return [] if entry is None else [address.of(peer) for address in reversed(entry.addresses)]

    def is_resting(self, peer: str, now: float) -> bool:
        """The peer failed a moment ago and is not to be tried yet."""
        entry = self._entries.get(peer)
        return entry is not None and entry.failures > 0 and now < entry.next_try

    def due(
        self, now: float, limit: int, connected: Collection[str], *, hungry: bool
    ) -> list[Entry]:
        """Whom to try now, the likeliest first.

        Args:
            now: Trio time.
            limit: At most this many.
            connected: Peers that need no dialling.
            hungry: More members are wanted; otherwise only given and lost ones come back.
        """
        waiting = [
            entry for entry in self._wanted(connected, hungry=hungry) if now >= entry.next_try
        ]
        waiting.sort(key=lambda entry: (entry.failures, not entry.given, not entry.member))
        return waiting[:limit]

    def failed(self, key: str, why: str, now: float, jitter: float = 0.0) -> None:
        """A try failed; the wait doubles, up to a bound.

        Args:
            key: The entry's.
            why: For people.
            now: Trio time.
            jitter: Between 0 and 1, so that many nodes do not knock at once.
        """
        entry = self._entries.get(key)
        if entry is None:
            return
        entry.failures += 1
        entry.why = why
        if entry.failures >= GIVE_UP_FAILURES and not entry.given and not entry.member:
            del self._entries[key]
            return
        longest = FAITHFUL_RETRY_S if entry.given or entry.member else OTHER_RETRY_S
        wait = min(FIRST_RETRY_S * 2.0 ** min(entry.failures - 1, 20), longest)
        entry.next_try = now + wait * (1 + jitter / 2)

    def succeeded(self, key: str, peer: str, now: float) -> None:
        """A try led to a peer."""
        entry = self._entries.get(key)
        if entry is None:
            return
        entry.failures = 0
        entry.why = entry.foreign = ""
        entry.next_try = now
        if entry.peer is None and entry.addresses:
            del self._entries[key]
            self.learn(peer, entry.addresses, given=True)

    def foreign(self, peer: str, chain: str, now: float) -> None:
        """The peer is of another network."""
        entry = self._entries.get(peer)
        if entry is not None:
            entry.foreign = chain
            entry.member = False
            entry.next_try = now + STRANGER_S

    def lost(self, peer: str, now: float) -> None:
        """A member's connection ended: try again at once."""
        entry = self._entries.get(peer)
        if entry is not None and not entry.foreign:
            entry.next_try = now + FIRST_RETRY_S

    def next_due(self, connected: Collection[str], *, hungry: bool) -> float:
        """When the next peer may be tried; `inf` when there is none to try."""
        return min(
            (entry.next_try for entry in self._wanted(connected, hungry=hungry)),
            default=math.inf,
        )

    def _wanted(self, connected: Collection[str], *, hungry: bool) -> Iterator[Entry]:
        for entry in self._entries.values():
            if (
                not entry.trying
                and entry.addresses
                and (entry.peer is None or entry.peer not in connected)
                and (hungry or entry.given or entry.member)
            ):
                yield entry

    def problems(self, connected: Collection[str]) -> list[str]:
        """What keeps this node from the peers it was given, one sentence each."""
        found = []
        for entry in self._entries.values():
            if not entry.given or (entry.peer is not None and entry.peer in connected):
                continue
            where = next(reversed(entry.addresses), None)
            name = str(where if where is None or entry.peer is None else where.of(entry.peer))
            if entry.foreign:
                found.append(f"{name} belongs to another network ({entry.foreign})")
            elif entry.failures:
                times = "once" if entry.failures == 1 else f"{entry.failures} times"
                found.append(f"no answer from {name} (tried {times}): {entry.why}; trying others")
        return found

    def dump(self) -> bytes:
        """The members, as the file keeps them."""
        self.changed = False
        saved = [entry for entry in self._entries.values() if entry.peer and entry.member]
        saved.sort(key=lambda entry: entry.failures)
        peers = [
            {"peer": entry.peer, "addresses": [str(each) for each in entry.addresses]}
            for entry in saved[:MAX_SAVED]
        ]
        return json.dumps({"version": VERSION, "peers": peers}, indent=1).encode() + b"\n"

    def load(self, data: bytes) -> None:
        """Take back what `dump` wrote.

        Raises:
            ValueError: Not such a file; nothing was taken.
        """
        if len(data) > MAX_FILE_BYTES:
            message = f"more than {MAX_FILE_BYTES:,} bytes"
            raise ValueError(message)
        value = json.loads(data)
        version = value.get("version") if isinstance(value, dict) else None
        if type(version) is int and version != VERSION:
            message = (
                f"it is of version {version}, and this program reads version {VERSION}; "
                "peers are remembered anew"
            )
            raise ValueError(message)
        if version != VERSION:
            message = f"not a list of known peers of version {VERSION}"
            raise ValueError(message)
        peers = value.get("peers")
        if not isinstance(peers, list):
            message = "no list of peers"
            raise ValueError(message)  # noqa: TRY004 - one error for every unusable file
        for item in peers[:MAX_SAVED]:
            if not isinstance(item, dict) or not isinstance(item.get("addresses"), list):
                continue
            try:
                found = [
                    addresses.parse(f"{text}/p2p/{item.get('peer')}")
                    for text in item["addresses"][:MAX_ADDRESSES]
                ]
            except AddressError:
                continue
            if found:
                self.learn(found[0].peer, found, member=True)
        self.changed = False

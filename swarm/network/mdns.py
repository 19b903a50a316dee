"""Finds nodes of the same network on the local one, without any first address: libp2p's mDNS.

A node asks the multicast group for `_p2p._udp.local`; each answers with a name of its own and `dnsaddr=` texts that hold its
addresses. Beside them stands `swarm=` and the start of the chain id, which others leave unread, so that nodes of other networks
are not dialled. An address counts only if it is the one that the datagram came from.

Source: libp2p specs, discovery/mdns.md; RFC 1035, RFC 6762.
"""

from __future__ import annotations

import ipaddress
import secrets
import socket
import struct
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog
import trio

from swarm.network import addresses
from swarm.network.addresses import AddressError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from swarm.network.addresses import Address

GROUP = "224.0.0.251"
PORT = 5353
SERVICE = ("_p2p", "_udp", "local")
TTL_S = 120
ASK_AFTER_S = (0.0, 1.0, 3.0, 10.0)
ASK_EACH_S = 60.0
ANSWER_PAUSE_S = 1.0
"""Between two answers, however many ask."""
MAX_DATAGRAM = 4096
MAX_RECORDS = 64
MAX_TEXTS = 16
"""Of one answer that are read."""
MAX_TEXT_BYTES = 255
MAX_LABELS = 32
MAX_SENT_ADDRESSES = 6
MAX_FOUND = 256
"""Addresses in one run; a local network has fewer."""
MAX_FOUND_AT_ONE = 16
"""Of them at one IP address, so that one machine does not take the places of all others."""
MARK_CHARS = 16
_PTR, _TXT, _IN = 12, 16, 1
_ANSWER = 0x8000
_AUTHORITATIVE = 0x8400
_HEADER = struct.Struct("!6H")
_RECORD = struct.Struct("!HHIH")

log = structlog.get_logger("swarm.network")


class PacketError(ValueError):
    """Not a packet of DNS."""


@dataclass(frozen=True, slots=True)
class Packet:
    """What of a packet matters here.

    Attributes:
        asks: It asks for this service.
        texts: What nodes say of themselves in it.
    """

    asks: bool
    texts: tuple[str, ...]


def question() -> bytes:
    """Who is there?"""
    return _HEADER.pack(0, 0, 1, 0, 0, 0) + _name(SERVICE) + struct.pack("!HH", _PTR, _IN)


def answer(name: str, texts: Sequence[str]) -> bytes:
    """This node is here.

    Args:
        name: Of this run, at most 63 characters.
        texts: Each at most `MAX_TEXT_BYTES`.
    """
    own = _name((name, *SERVICE))
    said = b"".join(bytes((len(one.encode()),)) + one.encode() for one in texts)
    return b"".join(
        (
            _HEADER.pack(0, _AUTHORITATIVE, 0, 1, 0, 1),
            _name(SERVICE),
            _RECORD.pack(_PTR, _IN, TTL_S, len(own)),
            own,
            own,
            _RECORD.pack(_TXT, _IN, TTL_S, len(said)),
            said,
        )
    )


def read(data: bytes) -> Packet:
    """Read a packet.

    Raises:
        PacketError: It is none, or of another shape.
    """
    try:
        _, flags, questions, *answers = _HEADER.unpack_from(data)
        if questions + sum(answers) > MAX_RECORDS:
            message = "too many records"
            raise PacketError(message)
        at = _HEADER.size
        asks = False
        for _ in range(questions):
            labels, at = _read_name(data, at)
            kind, _class = struct.unpack_from("!HH", data, at)
            at += 4
            asks = asks or (labels == SERVICE and kind == _PTR)
        texts: list[str] = []
        for _ in range(sum(answers) if flags & _ANSWER else 0):
            labels, at = _read_name(data, at)
            kind, _class, _ttl, size = _RECORD.unpack_from(data, at)
            at += _RECORD.size
            if len(data) - at < size:
                message = "a record that is cut short"
                raise PacketError(message)
            if kind == _TXT and labels[1:] == SERVICE:
                texts += _strings(data[at : at + size])
            at += size
    except (struct.error, IndexError) as error:
        message = "a packet that is cut short"
        raise PacketError(message) from error
    return Packet(asks and not flags & _ANSWER, tuple(texts[:MAX_TEXTS]))


def _name(labels: Sequence[str]) -> bytes:
    return b"".join(bytes((len(one),)) + one.encode() for one in labels) + b"\0"


def _read_name(data: bytes, at: int) -> tuple[tuple[str, ...], int]:
    """The labels of a name in small letters, and where what follows it begins."""
    labels: list[str] = []
    after = 0
    for _ in range(MAX_LABELS):
        length = data[at]
        if length >= 0xC0:
            after = after or at + 2
            at = (length & 0x3F) << 8 | data[at + 1]
        elif length == 0:
            return tuple(labels), after or at + 1
        else:
            labels.append(data[at + 1 : at + 1 + length].decode("latin-1").lower())
            at += 1 + length
    message = "a name without end"
    raise PacketError(message)


def _strings(data: bytes) -> list[str]:
    found = []
    at = 0
    while at < len(data):
        size = data[at]
        found.append(data[at + 1 : at + 1 + size].decode("latin-1"))
        at += 1 + size
    return found


def texts_of(own: Sequence[Address], peer: str, chain_id: bytes) -> list[str]:
    """What a node says of itself: its addresses of the local network, and its network's mark."""
    near = [one for one in own if one.relay is None and not addresses.is_loopback(one.host)]
    said = [f"dnsaddr={one.of(peer)}" for one in near[:MAX_SENT_ADDRESSES]]
    return [
        *(one for one in said if len(one) <= MAX_TEXT_BYTES),
        f"swarm={chain_id.hex()[:MARK_CHARS]}",
    ]


def found_in(texts: Sequence[str], sender: str, chain_id: bytes) -> list[Address]:
    """Addresses to dial.

    Args:
        texts: What a packet says.
        sender: The IP address that it came from.
        chain_id: Of this node; empty while it asks for one.
    """
    mine = chain_id.hex()[:MARK_CHARS]
    marks = {one[6:] for one in texts if one.startswith("swarm=")}
    if not marks or (mine and marks - {mine, ""}):
        return []
    found = []
    for one in texts:
        if one.startswith("dnsaddr="):
            with suppress(AddressError):
                address = addresses.parse(one[8:])
                if address.host == sender and address.peer and address.relay is None:
                    found.append(address)
    return [one for one in found if addresses.is_dialable(one)]


class Found:
    """The addresses found in one run, `MAX_FOUND` and `MAX_FOUND_AT_ONE` of them."""

    def __init__(self) -> None:
        self._found: set[Address] = set()
        self._at: Counter[str] = Counter()

    def __contains__(self, address: Address) -> bool:
        return address in self._found

    def add(self, address: Address) -> bool:
        """Remember an address; False where it is known or has no place."""
        is_full = len(self._found) >= MAX_FOUND or self._at[address.host] >= MAX_FOUND_AT_ONE
        if is_full or address in self._found:
            return False
        self._found.add(address)
        self._at[address.host] += 1
        return True


class LocalDiscovery:
    """Asks and answers on the local network.

    Args:
        me: This node's peer id.
        chain_id: Of its network, as of now.
        own: Where it can be dialled, as of now.
        interfaces: IP addresses of this machine.
        learn: Called with each address that was found, each time: it may have been forgotten.
    """

    def __init__(
        self,
        me: str,
        chain_id: Callable[[], bytes],
        own: Callable[[], list[Address]],
        interfaces: Callable[[], list[str]],
        learn: Callable[[Address], None],
    ) -> None:
        self._me = me
        self._chain_id = chain_id
        self._own = own
        self._interfaces = interfaces
        self._learn = learn
        self._name = secrets.token_hex(16)
        self._found = Found()
        self._answered = -ANSWER_PAUSE_S
        self.problem = ""

    async def run(self) -> None:
        """Ask and answer until cancelled; a machine without multicast goes without."""
        try:
            one = _open()
        except OSError as error:
            self.problem = f"no search on the local network: {error.strerror}"
            log.info("network.mdns_off", error=str(error))
            return
        with one:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._ask, one)
                while True:
                    try:
                        data, (sender, *_) = await one.recvfrom(MAX_DATAGRAM)
                        await self._take(one, data, sender)
                    except PacketError:
                        continue
                    except OSError as error:
                        log.debug("network.mdns_failed", error=str(error))
                        await trio.sleep(ANSWER_PAUSE_S)
                    except Exception as error:  # noqa: BLE001 - nothing that one datagram says may end the node
                        log.warning("network.mdns_not_understood", error=repr(error))

    async def _take(self, one: trio.socket.SocketType, data: bytes, sender: str) -> None:
        packet = read(data)
        now = trio.current_time()
        if packet.asks and now - self._answered >= ANSWER_PAUSE_S:
            self._answered = now
            await self._send(
                one, answer(self._name, texts_of(self._own(), self._me, self._chain_id()))
            )
        for address in found_in(packet.texts, sender, self._chain_id()):
            if address.peer == self._me:
                continue
            if self._found.add(address):
                log.info("network.found_nearby", address=str(address))
            if address in self._found:
                self._learn(address)

    async def _ask(self, one: trio.socket.SocketType) -> None:
        for wait in ASK_AFTER_S:
            await trio.sleep(wait)
            await self._send(one, question())
        while True:
            await trio.sleep(ASK_EACH_S)
            await self._send(one, question())

    async def _send(self, one: trio.socket.SocketType, data: bytes) -> None:
        """Send on every interface, and hear on it from now on."""
        for host in self._interfaces():
            ip = ipaddress.ip_address(host.partition("%")[0])
            if ip.version != 4 or ip.is_loopback:
                continue
            try:
                with suppress(OSError):  # it is heard on already
                    member = socket.inet_aton(GROUP) + ip.packed
                    one.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
                one.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, ip.packed)
                await one.sendto(data, (GROUP, PORT))
            except OSError as error:
                log.debug("network.mdns_not_sent", interface=host, error=str(error))


def _open() -> trio.socket.SocketType:
    """The socket; other programs of this machine share its port."""
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        one.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 255)
        one.bind(("", PORT))
        return trio.socket.from_stdlib_socket(one)
    except BaseException:
        one.close()
        raise

"""The addresses of peers as text: `/ip4/…/tcp/…/p2p/<peer id>`, read strictly.

Only TCP on an IP address or a DNS name, or through a relay at one: what a node can dial itself.
The settings and the network read them by the same rules, and the settings without loading the network.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, replace

from protocols import signing

MAX_ADDRESS_CHARS = 320
CIRCUIT = "p2p-circuit"
DNS = frozenset({"dns", "dns4", "dns6"})
_LABEL = "[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*\Z")


class AddressError(ValueError):
    """The text is not an address that this node can dial."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a peer listens, and who it must prove to be.

    Attributes:
        kind: `ip4`, `ip6`, `dns`, `dns4` or `dns6`.
        host: The IP address or name.
        port: TCP port.
        peer: The peer id, or None when it is not part of the text.
        relay: The peer id of the relay that listens there for the peer; None: the peer does so itself.
    """

    kind: str
    host: str
    port: int
    peer: str | None = None
    relay: str | None = None

    def __str__(self) -> str:
        text = f"/{self.kind}/{self.host}/tcp/{self.port}"
        if self.relay is not None:
            text += f"/p2p/{self.relay}/{CIRCUIT}"
        return text if self.peer is None else f"{text}/p2p/{self.peer}"

    @property
    def bare(self) -> Address:
        """The same without the peer id."""
        return replace(self, peer=None)

    def of(self, peer: str) -> Address:
        """The same with that peer id."""
        return replace(self, peer=peer)


def parse(text: str) -> Address:
    """Read an address.

    Raises:
        AddressError: Not `/ip4|ip6|dns|dns4|dns6/<host>/tcp/<port>[/p2p/<Ed25519 peer id>]`, nor such an address of a relay
            followed by `/p2p-circuit[/p2p/<Ed25519 peer id>]`.
    """
    if len(text) > MAX_ADDRESS_CHARS:
        message = f"an address has at most {MAX_ADDRESS_CHARS} characters"
        raise AddressError(message)
    parts = text.rstrip("/").split("/")
    if len(parts) not in {5, 7, 8, 10} or parts[0] or parts[3] != "tcp":
        message = f"{text!r} is not of the form /ip4/<address>/tcp/<port>/p2p/<peer id>"
        raise AddressError(message)
    kind, host, port_text = parts[1], parts[2], parts[4]
    host = _host(kind, host, text)
    if not (port_text.isascii() and port_text.isdigit() and len(port_text) <= 5):
        message = f"{port_text!r} in {text!r} is not a port"
        raise AddressError(message)
    port = int(port_text)
    if port > 65535:
        message = f"port {port} in {text!r} is above 65535"
        raise AddressError(message)
    named = parts[5:]
    relay: str | None = None
    if len(named) >= 3:
        if named[2] != CIRCUIT:
            message = f"{text!r} goes on after the peer id with something other than /{CIRCUIT}"
            raise AddressError(message)
        relay = _peer(named[:2], text)
        named = named[3:]
    return Address(kind, host, port, _peer(named, text) if named else None, relay)


def _peer(parts: list[str], text: str) -> str:
    """Read `p2p/<peer id>`."""
    if parts[0] not in {"p2p", "ipfs"}:
        message = f"{text!r} goes on with something other than /p2p/"
        raise AddressError(message)
    try:
        signing.public_key(parts[1])
    except ValueError as error:
        raise AddressError(str(error)) from error
    return parts[1]


def _host(kind: str, host: str, text: str) -> str:
    if kind not in {"ip4", "ip6"}:
        if kind not in DNS or not _NAME.match(host):
            message = f"{text!r} does not start with an IP address or a name"
            raise AddressError(message)
        return host
    try:
        ip = ipaddress.ip_address(host)
    except ValueError as error:
        message = f"{host!r} in {text!r} is not an IP address"
        raise AddressError(message) from error
    if f"ip{ip.version}" != kind or "%" in host:
        message = f"{host!r} is not an address for /{kind}"
        raise AddressError(message)
    return str(ip)

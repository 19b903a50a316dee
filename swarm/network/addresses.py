"""Which addresses of this node to announce, and which of peers to dial; the text of them is read in `swarm.addresses`."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from swarm.addresses import CIRCUIT as CIRCUIT
from swarm.addresses import DNS
from swarm.addresses import Address as Address
from swarm.addresses import AddressError as AddressError
from swarm.addresses import parse as parse

if TYPE_CHECKING:
    from collections.abc import Iterable


def of_socket(host: str, port: int) -> Address:
    """The address of a socket's name."""
    host = host.partition("%")[0]
    ip = ipaddress.ip_address(host)
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return Address(f"ip{ip.version}", str(ip), port)


def is_dialable(address: Address) -> bool:
    """Whether an address that a peer told us makes sense to dial: a port, and no wildcard or multicast."""
    if address.port == 0:
        return False
    if address.kind in DNS:
        return True
    ip = ipaddress.ip_address(address.host)
    return not (ip.is_unspecified or ip.is_multicast or ip.is_reserved or ip.is_link_local)


def is_public(address: Address) -> bool:
    """Whether an address is one of the internet: an IP address outside every private and special range."""
    if address.kind in DNS:
        return False
    ip = ipaddress.ip_address(address.host)
    return ip.is_global and not ip.is_multicast


def subnet(host: str) -> str:
    """The neighbourhood of an IP address: peers of one may be one person's. /16 of IPv4, /32 of IPv6."""
    ip = ipaddress.ip_address(host)
    return str(ipaddress.ip_network((host, 16 if ip.version == 4 else 32), strict=False))


def is_loopback(host: str) -> bool:
    """Whether a host is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def expand(bound: Address, interfaces: Iterable[str]) -> list[Address]:
    """What to announce for a bound socket: itself, or each interface when it is bound to all.

    Args:
        bound: The socket's own address, with its real port.
        interfaces: IP addresses of this machine's interfaces.

    Returns:
        Addresses that another machine, or at least this one, can dial; the loopback last.
    """
    ip = ipaddress.ip_address(bound.host)
    if not ip.is_unspecified:
        return [bound]
    found: list[tuple[bool, Address]] = []
    for text in interfaces:
        try:
            candidate = of_socket(text, bound.port)
        except ValueError:
            continue
        if candidate.kind == bound.kind and is_dialable(candidate):
            found.append((is_loopback(candidate.host), candidate))
    return [address for _, address in sorted(found, key=lambda pair: pair[0])]

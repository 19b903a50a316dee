"""Asks the router to forward the port of this node: NAT-PMP first, then UPnP.

Only the default gateway is spoken with: a UPnP answer from any other address, or one that points to another, is left alone.
A mapping is lent for `LEASE_S`, renewed in half of that, and given back at the end.

Source: RFC 6886; UPnP Device Architecture 1.0 and WANIPConnection:1.
"""

from __future__ import annotations

import ipaddress
import secrets
import socket
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit
from xml.parsers import expat

import structlog
import trio

from swarm.network.addresses import Address

if TYPE_CHECKING:
    from collections.abc import Callable

LEASE_S = 3600
AGAIN_S = 300.0
"""Before a router that gave nothing is asked again."""
NAT_PMP_PORT = 5351
NAT_PMP_TRIES = (0.25, 0.5, 1.0)
"""Seconds that each try waits."""
SSDP = ("239.255.255.250", 1900)
SEARCH_S = 3.0
HTTP_S = 5.0
GIVE_BACK_S = 2.0
MAX_DATAGRAM = 2048
MAX_DATAGRAMS = 32
"""Answers to one search that are read."""
MAX_HTTP_BYTES = 2**17
MAX_TEXT = 512
"""Characters of one element that are kept."""
MAX_DEPTH = 32
DESCRIPTION = "swarm"
ONLY_PERMANENT = "725"
"""The router's error when it lends for no limited time."""
CONFLICT = "718"
"""The router's error when the port outside is another machine's."""
OUTSIDE_TRIES = 3
ROUTES = Path("/proc/net/route")
_SEARCHED = (
    "urn:schemas-upnp-org:device:InternetGatewayDevice:1",
    "urn:schemas-upnp-org:device:InternetGatewayDevice:2",
)
_SERVICES = (
    "urn:schemas-upnp-org:service:WANIPConnection:1",
    "urn:schemas-upnp-org:service:WANIPConnection:2",
    "urn:schemas-upnp-org:service:WANPPPConnection:1",
)

log = structlog.get_logger("swarm.network")


class RouterError(Exception):
    """The router does not forward, or does not say so in a way that can be read."""


# What a router says, read without trust.


def gateway(routes: str) -> str | None:
    """The default gateway in the text of `/proc/net/route`; None: there is none."""
    for line in routes.splitlines()[1:]:
        fields = line.split()
        if len(fields) >= 4 and fields[1] == "00000000" and int(fields[3], 16) & 2:
            return str(ipaddress.IPv4Address(struct.pack("<I", int(fields[2], 16))))
    return None


def location(answer: bytes, router: str) -> str:
    """Where the router's description lies.

    Args:
        answer: A datagram of the search.
        router: The gateway's IP address, which it has to be at.

    Raises:
        RouterError: It points elsewhere, or nowhere.
    """
    for line in answer.decode("latin-1").split("\r\n")[1:]:
        name, _, value = line.partition(":")
        if name.strip().lower() == "location":
            return _checked(value.strip(), router)
    message = "an answer to the search without a location"
    raise RouterError(message)


def _joined(page: str, url: str) -> str:
    try:
        return urljoin(page, url)
    except ValueError as error:
        message = f"{url[:80]!r} is not a page"
        raise RouterError(message) from error


def _checked(url: str, router: str) -> str:
    try:
        parts = urlsplit(url)
        ok = parts.scheme == "http" and parts.hostname == router and (parts.port or 80) > 0
    except ValueError:
        ok = False
    if not ok or not url.isascii() or not url.isprintable() or " " in url or len(url) > MAX_TEXT:
        message = f"{url[:80]!r} is not a page of the router {router}"
        raise RouterError(message)
    return url


def elements(body: bytes) -> list[tuple[str, str]]:
    """The elements of an XML text in the order in which they end, each with its own text; no declarations are read.

    Raises:
        RouterError: Not XML, or with a DOCTYPE, or too deep.
    """
    found: list[tuple[str, str]] = []
    open_: list[list[str]] = []

    def start(name: str, _: dict[str, str]) -> None:
        if len(open_) >= MAX_DEPTH:
            message = "elements within elements without end"
            raise RouterError(message)
        open_.append([name.rpartition(":")[2]])

    def text(data: str) -> None:
        if open_ and len(open_[-1]) < MAX_TEXT:
            open_[-1].append(data)

    def end(_: str) -> None:
        name, *parts = open_.pop()
        found.append((name, "".join(parts).strip()[:MAX_TEXT]))

    def refuse(*_: object) -> None:
        message = "a DOCTYPE"
        raise RouterError(message)

    parser = expat.ParserCreate()
    parser.StartElementHandler = start
    parser.CharacterDataHandler = text
    parser.EndElementHandler = end
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(body, True)
    except (expat.ExpatError, ValueError, LookupError) as error:
        # The last two: an encoding of several bytes a character, or one that nobody knows.
        message = f"not XML: {error}"
        raise RouterError(message) from error
    return found


def control(body: bytes, page: str, router: str) -> tuple[str, str]:
    """The service that forwards, in a router's description.

    Args:
        body: The description.
        page: Where it was.
        router: The gateway's IP address.

    Returns:
        Its type and where it takes commands.

    Raises:
        RouterError: There is none at the router.
    """
    kind = url = ""
    services: dict[str, str] = {}
    for name, text in elements(body):
        if name == "serviceType":
            kind = text
        elif name == "controlURL":
            url = text
        elif name == "service":
            services.setdefault(kind, url)
            kind = url = ""
    for known in _SERVICES:
        if services.get(known):
            return known, _checked(_joined(page, services[known]), router)
    message = "the router has no service that forwards ports"
    raise RouterError(message)


# Speaking with it.


@dataclass(frozen=True, slots=True)
class Forwarded:
    """A port that the router forwards to this machine.

    Attributes:
        outside: The router's public address and port.
        lasts: Seconds; 0 without end.
        by: How it was asked.
    """

    outside: Address
    lasts: int
    by: str


class NatPmp:
    """A router that speaks NAT-PMP.

    Args:
        router: Its IP address.
    """

    name = "NAT-PMP"

    def __init__(self, router: str) -> None:
        self._router = router

    async def forward(self, port: int, here: str) -> Forwarded:
        """Have a port forwarded to this machine.

        Raises:
            RouterError: It is not.
        """
        del here
        outside = (await self._ask(b"\0\0", 12))[8:12]
        asked = struct.pack("!BBHHHI", 0, 2, 0, port, port, LEASE_S)
        inside, given, lasts = struct.unpack("!HHI", (await self._ask(asked, 16))[8:16])
        if inside != port or not given or not lasts:
            message = "the router answers about another port"
            raise RouterError(message)
        host = str(ipaddress.IPv4Address(outside))
        return Forwarded(Address("ip4", host, given), lasts, self.name)

    async def give_back(self, port: int, _outside: int) -> None:
        """End the mapping.

        Raises:
            RouterError: The router does not answer.
        """
        await self._ask(struct.pack("!BBHHHI", 0, 2, 0, port, 0, 0), 16)

    async def _ask(self, request: bytes, size: int) -> bytes:
        with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            try:
                await one.connect((self._router, NAT_PMP_PORT))
                for wait in NAT_PMP_TRIES:
                    await one.send(request)
                    with trio.move_on_after(wait):
                        answer = await one.recv(MAX_DATAGRAM)
                        if len(answer) >= size and answer[:2] == bytes((0, 128 + request[1])):
                            result = int.from_bytes(answer[2:4], "big")
                            if result:
                                message = f"NAT-PMP answers with error {result}"
                                raise RouterError(message)
                            return answer
            except OSError as error:
                message = f"no NAT-PMP: {error.strerror}"
                raise RouterError(message) from error
        message = "no NAT-PMP: no answer"
        raise RouterError(message)


class Upnp:
    """A router that speaks UPnP.

    Args:
        router: Its IP address.
    """

    name = "UPnP"

    def __init__(self, router: str) -> None:
        self._router = router
        self._service: tuple[str, str] | None = None
        self._outside = 0

    async def forward(self, port: int, here: str) -> Forwarded:
        """Have a port forwarded to this machine.

        Raises:
            RouterError: It is not.
        """
        if self._service is None:
            page = await self._search(here)
            self._service = control(await self._http("GET", page, {}, b""), page, self._router)
        found = dict(await self._command("GetExternalIPAddress", {}))
        try:
            host = str(ipaddress.IPv4Address(found.get("NewExternalIPAddress", "")))
        except ValueError as error:
            message = "the router does not know its public address"
            raise RouterError(message) from error
        outside, lasts = self._outside or port, LEASE_S
        for _ in range(OUTSIDE_TRIES):
            fields = {
                "NewRemoteHost": "",
                "NewExternalPort": str(outside),
                "NewProtocol": "TCP",
                "NewInternalPort": str(port),
                "NewInternalClient": here,
                "NewEnabled": "1",
                "NewPortMappingDescription": DESCRIPTION,
                "NewLeaseDuration": str(lasts),
            }
            found = dict(await self._command("AddPortMapping", fields))
            code = found.get("errorCode", "")
            if not code:
                self._outside = outside
                return Forwarded(Address("ip4", host, outside), lasts, self.name)
            if code == ONLY_PERMANENT:
                lasts = 0
            elif code == CONFLICT:
                outside = 20_000 + secrets.randbelow(40_000)
            else:
                break
        message = (
            f"the router refuses with error {code[:16]}: {found.get('errorDescription', '')[:80]}"
        )
        raise RouterError(message)

    async def give_back(self, _port: int, outside: int) -> None:
        """End the mapping.

        Raises:
            RouterError: The router does not answer.
        """
        fields = {"NewRemoteHost": "", "NewExternalPort": str(outside), "NewProtocol": "TCP"}
        await self._command("DeletePortMapping", fields)

    async def _search(self, here: str) -> str:
        """Where the router's description lies."""
        with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            try:
                one.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 2)
                one.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(here))
                await one.bind((here, 0))
                for kind in _SEARCHED:
                    lines = (
                        "M-SEARCH * HTTP/1.1",
                        f"HOST: {SSDP[0]}:{SSDP[1]}",
                        'MAN: "ssdp:discover"',
                        "MX: 1",
                        f"ST: {kind}",
                        "",
                        "",
                    )
                    await one.sendto("\r\n".join(lines).encode(), SSDP)
                with trio.move_on_after(SEARCH_S):
                    for _ in range(MAX_DATAGRAMS):
                        data, (sender, *_rest) = await one.recvfrom(MAX_DATAGRAM)
                        if sender == self._router:
                            return location(data, self._router)
            except OSError as error:
                message = f"no UPnP: {error.strerror}"
                raise RouterError(message) from error
        message = "no UPnP: no answer of the default gateway"
        raise RouterError(message)

    async def _command(self, action: str, fields: dict[str, str]) -> list[tuple[str, str]]:
        """Give a command; what the answer says, an error too."""
        if self._service is None:
            message = "the router has not been found"
            raise RouterError(message)
        kind, url = self._service
        inner = "".join(f"<{name}>{value}</{name}>" for name, value in fields.items())
        body = (
            '<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" '
            's:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body>'
            f'<u:{action} xmlns:u="{kind}">{inner}</u:{action}></s:Body></s:Envelope>'
        )
        headers = {"Content-Type": 'text/xml; charset="utf-8"', "SOAPAction": f'"{kind}#{action}"'}
        return elements(await self._http("POST", url, headers, body.encode()))

    async def _http(self, method: str, url: str, headers: dict[str, str], body: bytes) -> bytes:
        parts = urlsplit(url)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        more = {
            "Host": parts.netloc,
            "Connection": "close",
            "Content-Length": str(len(body)),
            **headers,
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in more.items())
        data = b""
        try:
            with trio.fail_after(HTTP_S):
                stream = await trio.open_tcp_stream(self._router, parts.port or 80)
                async with stream:
                    # In 1.0, so that the answer comes in one piece.
                    await stream.send_all(f"{method} {path} HTTP/1.0\r\n{head}\r\n".encode() + body)
                    while part := await stream.receive_some(2**16):
                        data += part
                        if len(data) > MAX_HTTP_BYTES:
                            message = f"more than {MAX_HTTP_BYTES:,} bytes of the router"
                            raise RouterError(message)
        except (OSError, trio.BrokenResourceError, trio.TooSlowError) as error:
            message = f"the router does not answer at {url[:80]}"
            raise RouterError(message) from error
        head_there, found, content = data.partition(b"\r\n\r\n")
        status = head_there.split(b" ", 2)[1:2]
        if not found or status not in ([b"200"], [b"500"]):
            message = f"the router answers {head_there[:40]!r}"
            raise RouterError(message)
        return content


class PortMapper:
    """Keeps one port forwarded while it runs.

    Args:
        port: Of this machine.
        changed: Called with the public addresses that are forwarded.
    """

    def __init__(self, port: int, changed: Callable[[list[Address]], None]) -> None:
        self._port = port
        self._changed = changed
        self.forwarded: Forwarded | None = None
        self.problem = ""

    async def run(self) -> None:
        """Ask, renew, and give back when cancelled."""
        used: NatPmp | Upnp | None = None
        try:
            while True:
                used = await self._once(used)
                lasts = self.forwarded.lasts / 2 if self.forwarded and self.forwarded.lasts else 0
                await trio.sleep(lasts or (LEASE_S / 2 if self.forwarded else AGAIN_S))
        finally:
            if used is not None and self.forwarded is not None:
                deadline = trio.current_time() + GIVE_BACK_S
                with trio.CancelScope(deadline=deadline, shield=True):
                    try:
                        await used.give_back(self._port, self.forwarded.outside.port)
                    except Exception as error:  # noqa: BLE001 - whatever it answers, the node stops in peace
                        log.info("network.port_not_given_back", error=str(error))

    async def _once(self, used: NatPmp | Upnp | None) -> NatPmp | Upnp | None:
        reasons = []
        before = self.forwarded
        router, here = await trio.to_thread.run_sync(_around)
        for way in [used] if used is not None else _ways(router, here):
            try:
                self.forwarded = await way.forward(self._port, here)
            except RouterError as error:
                reasons.append(str(error))
                continue
            except Exception as error:  # noqa: BLE001 - nothing that a router says may end the node
                log.warning("network.router_not_understood", by=way.name, error=repr(error))
                reasons.append(f"what the router says by {way.name} is not understood: {error!r}")
                continue
            if before != self.forwarded:
                outside = str(self.forwarded.outside)
                log.info("network.port_forwarded", outside=outside, by=way.name)
            self.problem = ""
            self._changed([self.forwarded.outside])
            return way
        self.forwarded = None
        self._changed([])
        self.problem = "; ".join(reasons) or "there is no router of a private network"
        log.info("network.port_not_forwarded", reason=self.problem)
        return None


def _ways(router: str, here: str) -> list[NatPmp | Upnp]:
    if not router or not ipaddress.ip_address(here).is_private:
        return []
    return [NatPmp(router), Upnp(router)]


def _around() -> tuple[str, str]:
    """The default gateway, and this machine's address towards it; empty where there is none."""
    try:
        router = gateway(ROUTES.read_text())
        if router is None:
            return "", ""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            one.connect((router, NAT_PMP_PORT))
            return router, str(one.getsockname()[0])
    except (OSError, ValueError):
        return "", ""

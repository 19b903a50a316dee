"""The one message of the handshake and its bytes."""

from __future__ import annotations

from dataclasses import dataclass

from protocols.handshake.errors import HandshakeError
from storage import canonical
from storage.errors import CanonicalError

PROTOCOL = "/swarm/handshake/1.0.0"
VERSION = 1
CHAIN_ID_BYTES = 32
MAX_HELLO_BYTES = 4096
MAX_SOFTWARE_CHARS = 64
MAX_ADDRESSES = 16
MAX_ADDRESS_CHARS = 160
MAX_HEAD = 2**63 - 1
MAX_ROLES = 2**16 - 1

ROLE_VALIDATOR = 1
ROLE_WORKER = 2
ROLE_KEEPER = 4

_FIELDS = 6
"""Elements of the array in version 1; later versions append."""


@dataclass(frozen=True, slots=True)
class Hello:
    """What a node says of itself.

    Attributes:
        chain_id: 32 bytes; empty while the node does not know a genesis.
        software: Name and version of the program, `swarm/0.1.0`.
        head: Height of the last finalized block that the node holds.
        roles: Sum of the `ROLE_…` bits.
        addresses: Multiaddrs to dial it at, without the peer id.
        version: Of this message.
    """

    chain_id: bytes
    software: str
    head: int
    roles: int
    addresses: tuple[str, ...] = ()
    version: int = VERSION

    def encode(self) -> bytes:
        """The bytes of the message, without the frame's length.

        Raises:
            ValueError: A field is out of its bounds.
        """
        fault = _fault(self)
        if fault is not None:
            raise ValueError(fault)
        return canonical.encode(
            [
                self.version,
                self.chain_id,
                self.software,
                self.head,
                self.roles,
                list(self.addresses),
            ]
        )


def decode(body: bytes) -> Hello:
    """Read a peer's Hello.

    Raises:
        HandshakeError: Not canonical, not of this shape, or a field is out of its bounds.
    """
    try:
        value = canonical.decode(body, max_bytes=MAX_HELLO_BYTES)
    except CanonicalError as error:
        raise HandshakeError(str(error)) from error
    if type(value) is not list or len(value) < _FIELDS or type(value[0]) is not int:
        message = "not a Hello"
        raise HandshakeError(message)
    version, chain_id, software, head, roles, addresses = value[:_FIELDS]
    if (version == VERSION and len(value) != _FIELDS) or type(addresses) is not list:
        message = "a Hello of another shape"
        raise HandshakeError(message)
    hello = Hello(chain_id, software, head, roles, tuple(addresses), version)
    fault = _fault(hello)
    if fault is not None:
        raise HandshakeError(fault)
    return hello


def _fault(hello: Hello) -> str | None:
    if type(hello.version) is not int or hello.version < VERSION:
        return "the version is out of bounds"
    if type(hello.chain_id) is not bytes or len(hello.chain_id) not in {0, CHAIN_ID_BYTES}:
        return "the chain id is neither 32 bytes nor empty"
    if type(hello.software) is not str or len(hello.software) > MAX_SOFTWARE_CHARS:
        return f"the software's name is longer than {MAX_SOFTWARE_CHARS} characters"
    if not hello.software.isprintable():
        return "the software's name cannot be printed"
    if type(hello.head) is not int or not 0 <= hello.head <= MAX_HEAD:
        return "the head is out of bounds"
    if type(hello.roles) is not int or not 0 <= hello.roles <= MAX_ROLES:
        return "the roles are out of bounds"
    if len(hello.addresses) > MAX_ADDRESSES:
        return f"more than {MAX_ADDRESSES} addresses"
    for address in hello.addresses:
        if type(address) is not str or len(address) > MAX_ADDRESS_CHARS:
            return f"an address is longer than {MAX_ADDRESS_CHARS} characters"
    return None

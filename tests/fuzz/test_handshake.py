"""Whatever a peer says first is a Hello, or a handshake error."""

from __future__ import annotations

import pytest

from protocols.handshake import messages
from protocols.handshake.errors import HandshakeError
from protocols.handshake.messages import Hello
from storage import canonical
from tests.fuzz.fuzzing import Target, check

HELLOS = (
    Hello(b"c" * 32, "swarm/0.1.0", 77, 3, ("/ip4/127.0.0.1/tcp/4001",)),
    Hello(b"", "", 0, 0),
)
LATER = canonical.encode([2, b"", "swarm/9", 0, 0, [], "something new"])


@pytest.mark.parametrize("later", [(), (LATER,)], ids=["this version", "a later one"])
def test_any_bytes_are_a_hello_or_refused_by_name(later):
    valid = (*(one.encode() for one in HELLOS), *later)
    check(Target("hello", messages.decode, HandshakeError, valid))

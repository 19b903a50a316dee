"""What the node and its worker process say: CBOR maps, each after its length (u32, big endian).

Node to worker: `{id, job, …}` starts a job, `{cancel: id}` asks to give it up.
Worker to node: `{ready: {…}}` once, `{id, progress: [step, steps, loss]}` any number of times (empty where a job
only says that it is alive) and `{id, text: piece}` of text that is made, then `{id, result: {…}}` or `{id, error: text, cause: word}`.
Paths are text; tensors never pass here. When the node's end closes, the worker exits.
"""

from __future__ import annotations

from typing import Any, Final

import cbor2

MAX_BYTES: Final = 16 * 2**20
PREFIX: Final = 4


def pack(message: dict[str, Any]) -> bytes:
    """One message's bytes."""
    body = cbor2.dumps(message)
    return len(body).to_bytes(PREFIX, "big") + body


def length(prefix: bytes) -> int:
    """The length that a prefix gives.

    Raises:
        ValueError: More than `MAX_BYTES`.
    """
    size = int.from_bytes(prefix, "big")
    if size > MAX_BYTES:
        message = f"a message of {size:,} bytes where at most {MAX_BYTES:,} are allowed"
        raise ValueError(message)
    return size


def unpack(body: bytes) -> dict[str, Any]:
    """A message from its body.

    Raises:
        ValueError: Not a CBOR map.
    """
    try:
        value = cbor2.loads(body)
    except cbor2.CBORError as error:
        message = f"not CBOR: {error}"
        raise ValueError(message) from error
    if not isinstance(value, dict):
        message = "not a map"
        raise ValueError(message)  # noqa: TRY004 - one error for all that a reader gets
    return value

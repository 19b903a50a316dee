"""Content identifiers: CIDv1 with sha2-256, of codec raw (a chunk) or dag-pb (a manifest).

Inside the code a CID is its 36 binary bytes (`Cid`); people and JSON see base32 text.
Source: https://github.com/multiformats/cid (CIDv1), https://github.com/multiformats/multihash.
"""

from __future__ import annotations

import hashlib
from typing import NewType

import libipld

from storage.errors import CidError

Cid = NewType("Cid", bytes)
"""36 bytes: version 1, codec, sha2-256, length 32, digest."""

RAW = 0x55
DAG_PB = 0x70
DAG_CBOR = 0x71
CODECS = frozenset({RAW, DAG_PB, DAG_CBOR})
CID_BYTES = 36
_MAX_TEXT = 128


def of_raw(data: bytes | memoryview) -> Cid:
    """The CID of a chunk."""
    return Cid(b"\x01\x55\x12\x20" + hashlib.sha256(data).digest())


def of_dag_pb(data: bytes | memoryview) -> Cid:
    """The CID of a manifest node."""
    return Cid(b"\x01\x70\x12\x20" + hashlib.sha256(data).digest())


def of_dag_cbor(data: bytes | memoryview) -> Cid:
    """The CID of a structured block: a commit, say."""
    return Cid(b"\x01\x71\x12\x20" + hashlib.sha256(data).digest())


def codec(cid: Cid) -> int:
    """The codec number: `RAW`, `DAG_PB` or `DAG_CBOR`."""
    return cid[1]


def digest(cid: Cid) -> bytes:
    """The 32-byte sha2-256 digest."""
    return cid[4:]


def matches(cid: Cid, data: bytes | memoryview) -> bool:
    """Whether the bytes hash to the CID."""
    return hashlib.sha256(data).digest() == cid[4:]


def from_bytes(data: bytes) -> Cid:
    """Check binary bytes from a peer.

    Raises:
        CidError: Not a CIDv1 of a codec and hash that we know.
    """
    if len(data) != CID_BYTES or data[0] != 1 or data[1] not in CODECS or data[2:4] != b"\x12\x20":
        message = f"not a CIDv1 with sha2-256 and a known codec: {bytes(data[:40]).hex()}"
        raise CidError(message)
    return Cid(bytes(data))


def parse(text: str) -> Cid:
    """Read a CID as people write it (CIDv1 in any base; CIDv0 becomes the same CID as v1).

    Raises:
        CidError: Not a CID, or of a codec or hash that we do not know.
    """
    if not 0 < len(text) <= _MAX_TEXT:
        message = "a CID has 1 to 128 characters"
        raise CidError(message)
    try:
        parts = libipld.decode_cid(text)
    except ValueError as error:
        message = f"{text!r} is not a CID"
        raise CidError(message) from error
    hashed = parts["hash"]
    if hashed["code"] != 0x12 or hashed["size"] != 32:
        message = f"{text} is not hashed with sha2-256"
        raise CidError(message)
    if parts["codec"] not in CODECS:
        message = f"{text} is of a codec that this node does not know"
        raise CidError(message)
    return from_bytes(bytes((1, parts["codec"], 0x12, 0x20)) + hashed["digest"])


def text(cid: Cid) -> str:
    """The base32 text that people see (`bafy…`, `bafk…`)."""
    encoded: str = libipld.encode_cid(bytes(cid))
    return encoded

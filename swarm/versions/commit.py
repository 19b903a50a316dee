"""A commit: the block that names a version of a dataset, what came before it, and who says so.

    {"kind": "swarm/commit/1", "root": link, "time": seconds, "author": 32 bytes, "height": n, "message": text,
     "parents": [links], "signature": 64 bytes}

The map is DAG-CBOR: keys sorted by length and then by bytes, CIDs as tag 42, every integer in its shortest form.
`decode` takes only the bytes that `encode` gives, so that a commit has one CID.
The signature is over the same map without `signature`, under the tag `swarm/commit/1`.

Source: https://ipld.io/specs/codecs/dag-cbor/spec/; the map is ours.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import cbor2
import libipld

from protocols import signing
from storage import cid as cids
from storage.errors import CidError
from swarm.errors import RefusedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from protocols.signing import Signer
    from storage.cid import Cid

KIND = "swarm/commit/1"
TAG = KIND.encode()
MAX_MESSAGE_BYTES = 2**16
MAX_PARENTS = 16
MAX_TIME_S = 2**40
"""Seconds since 1970; some 34,000 years."""
MAX_HEIGHT = 2**32
MAX_COMMIT_BYTES = MAX_MESSAGE_BYTES + 4_096
_LINK = 42


class CommitError(RefusedError):
    """A block that should be a commit is malformed, or not signed by the author that it names."""


@dataclass(frozen=True, slots=True)
class Commit:
    """A version of a dataset.

    Attributes:
        root: Its tree, a UnixFS folder.
        parents: The commits that it comes from, the one it continues first; none for the first commit.
        author: The public key of who made it.
        message: What its author says about it.
        time_s: UTC seconds since 1970, as its author's clock says.
        height: One above the highest of its parents; 1 for the first commit.
        signature: Of the author, over everything else.
    """

    root: Cid
    parents: tuple[Cid, ...]
    author: bytes
    message: str
    time_s: int
    height: int
    signature: bytes = field(default=b"", repr=False)

    @property
    def cid(self) -> Cid:
        """Its name."""
        return cids.of_dag_cbor(encode(self))


def make(
    signer: Signer,
    root: Cid,
    parents: Sequence[tuple[Cid, Commit]],
    message: str,
    time_s: int,
) -> Commit:
    """A new commit, signed.

    Args:
        signer: Its author.
        root: Its tree.
        parents: What it comes from, each with its name.
        message: What to say about it.
        time_s: UTC seconds now.

    Raises:
        UsageError: The message is empty or too long, or there are too many parents.
    """
    try:
        size = len(message.encode())
    except UnicodeEncodeError:
        size = 0
    if not message.strip() or not 0 < size <= MAX_MESSAGE_BYTES:
        text = f"message: not a text of 1 to {MAX_MESSAGE_BYTES:,} bytes"
        raise UsageError(text, 'write it like -m "what changed"')
    if len(parents) > MAX_PARENTS:
        text = f"a commit has at most {MAX_PARENTS} parents, not {len(parents)}"
        raise UsageError(text)
    height = 1 + max((parent.height for _, parent in parents), default=0)
    names = tuple(cid for cid, _ in parents)
    bare = Commit(root, names, signer.public_key, message, time_s, height)
    signature = signer.sign(TAG, _encode(bare))
    return Commit(root, names, signer.public_key, message, time_s, height, signature)


def encode(commit: Commit) -> bytes:
    """The commit's block."""
    return _encode(commit, signature=commit.signature)


def decode(cid: Cid, block: bytes) -> Commit:
    """Read a block that somebody else may have made, and check who signed it.

    Raises:
        CommitError: It is no commit, not canonical, out of bounds, or its signature is not its author's.
    """
    commit = _read(cid, block)
    if encode(commit) != block:
        raise _malformed(cid, "not the canonical encoding of its values")
    if not signing.verify(commit.author, TAG, _encode(commit), commit.signature):
        message = (
            f"commit {cids.text(cid)} is not signed by its author {signing.peer_id(commit.author)}"
        )
        raise CommitError(message, "whoever gave it to you made it up or damaged it")
    return commit


def _encode(commit: Commit, **signature: bytes) -> bytes:
    value = {
        "kind": KIND,
        "root": _link(commit.root),
        "time": commit.time_s,
        "author": commit.author,
        "height": commit.height,
        "message": commit.message,
        "parents": [_link(parent) for parent in commit.parents],
        **signature,
    }
    encoded: bytes = cbor2.dumps(value, canonical=True)
    return encoded


def _link(cid: Cid) -> cbor2.CBORTag:
    return cbor2.CBORTag(_LINK, b"\x00" + cid)


def _read(cid: Cid, block: bytes) -> Commit:
    """The values of a block, each of its type and within its bounds; whether they are canonical is for the caller."""
    if cids.codec(cid) != cids.DAG_CBOR or len(block) > MAX_COMMIT_BYTES:
        raise _malformed(cid, f"not a DAG-CBOR block of at most {MAX_COMMIT_BYTES:,} bytes")
    try:
        libipld.decode_dag_cbor(
            block
        )  # refuses every tag but 42, before cbor2 makes objects of them
        value = cbor2.loads(block)
    except (ValueError, cbor2.CBORError, OverflowError, RecursionError) as error:
        raise _malformed(cid, "not DAG-CBOR") from error
    if type(value) is not dict or value.get("kind") != KIND:
        raise _malformed(cid, f"its kind is not {KIND!r}")
    keys = {"kind", "root", "time", "author", "height", "message", "parents", "signature"}
    if value.keys() != keys:
        raise _malformed(cid, f"its fields are not {', '.join(sorted(keys))}")
    parents = value["parents"]
    if type(parents) is not list or len(parents) > MAX_PARENTS:
        raise _malformed(cid, f"not 0 to {MAX_PARENTS} parents")
    commit = Commit(
        _target(cid, "root", value["root"], cids.DAG_PB),
        tuple(_target(cid, "parents", one, cids.DAG_CBOR) for one in parents),
        _bytes(cid, "author", value["author"], signing.PUBLIC_KEY_BYTES),
        _message(cid, value["message"]),
        _number(cid, "time", value["time"], 0, MAX_TIME_S),
        _number(cid, "height", value["height"], 1, MAX_HEIGHT),
        _bytes(cid, "signature", value["signature"], signing.SIGNATURE_BYTES),
    )
    if len(set(commit.parents)) != len(commit.parents):
        raise _malformed(cid, "one parent twice")
    if not commit.parents and commit.height != 1:
        raise _malformed(cid, "a first commit whose height is not 1")
    return commit


def _target(cid: Cid, name: str, value: Any, codec: int) -> Cid:  # noqa: ANN401 a stranger's value
    """What a link of the block names."""
    if type(value) is cbor2.CBORTag and value.tag == _LINK and type(value.value) is bytes:
        try:
            found = cids.from_bytes(value.value[1:])
        except CidError:
            pass
        else:
            if cids.codec(found) == codec:
                return found
    raise _malformed(cid, f"{name}: not a link to what it should name")


def _bytes(cid: Cid, name: str, value: Any, size: int) -> bytes:  # noqa: ANN401
    if type(value) is not bytes or len(value) != size:
        raise _malformed(cid, f"{name}: not {size} bytes")
    return value


def _message(cid: Cid, value: Any) -> str:  # noqa: ANN401
    if type(value) is not str or not 0 < len(value.encode()) <= MAX_MESSAGE_BYTES:
        raise _malformed(cid, f"message: not a text of 1 to {MAX_MESSAGE_BYTES:,} bytes")
    return value


def _number(cid: Cid, name: str, value: Any, low: int, high: int) -> int:  # noqa: ANN401
    if type(value) is not int or not low <= value <= high:
        raise _malformed(cid, f"{name}: not a whole number from {low:,} to {high:,}")
    return value


def _malformed(cid: Cid, why: str) -> CommitError:
    return CommitError(f"{cids.text(cid)} is not a commit: {why}")

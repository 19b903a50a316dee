"""A light proof of a name: checked with hashes and signatures alone, without a node, a ledger or a network. Pure.

    proof = what a name points to, a membership proof, a header, its finalization, hand-offs, later headers

The membership proof shows the name's record under the header's state root. What shows the header is one of two:

- *signatures*: the validators of the header's epoch finalized it. Who they are follows from the genesis for epochs 0 and
  1, or from a checkpoint that ends an epoch for the two after it, and from there by hand-offs (`swarm.ledger.handoff`).
- *a later block*: a checkpoint at or above the header, which names it by the chain of parents.

A checkpoint is a height and a block's id that the person has from somebody who is trusted; nothing else is believed.
Whoever holds a proof from long ago learns what was true then: a name without a version is the newest *at that height*.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from protocols.consensus.errors import MessageError
from protocols.consensus.messages import Certificate, Header
from storage.errors import CanonicalError
from storage.state_tree import verify_proof
from swarm.errors import RefusedError, UsageError
from swarm.ledger.checkpoint import Checkpoint
from swarm.ledger.errors import LedgerError
from swarm.ledger.execute import genesis_changes
from swarm.ledger.genesis import Genesis
from swarm.ledger.handoff import Handoff, Trust, is_final
from swarm.ledger.keys import epoch_key, name_key
from swarm.ledger.state import EpochSet, NameEntry, NameVersion, load

if TYPE_CHECKING:
    from collections.abc import Mapping

    from storage.cid import Cid

FORMAT: Final = 1
MAX_PROOF_BYTES: Final = 64 * 2**20
MAX_HANDOFFS: Final = 4096
"""With 100 validators about 40 MB; a checkpoint of later needs fewer."""
MAX_HEADERS: Final = 20_000
"""From the proof's block to the checkpoint."""
_MAX_NAME: Final = 63

Root: TypeAlias = Genesis | Checkpoint
"""What a person believes to begin with."""


class ProofError(RefusedError):
    """The proof does not show what it says."""


@dataclass(frozen=True, slots=True)
class NameProof:
    """What somebody says of a name, with all that shows it; nothing of it is checked yet.

    Attributes:
        name: As registered.
        version: Which one; None says that it is the newest.
        value: The ledger's record.
        membership: Of the record under the header's state root.
        header: Bytes of a block's header.
        finalization: The signatures of its validators.
        handoffs: Of consecutive epochs, up to the one whose validators signed.
        headers: The ones after it, up to a checkpoint's.
    """

    name: str
    version: int | None
    value: bytes
    membership: bytes
    header: bytes
    finalization: bytes
    handoffs: tuple[bytes, ...] = ()
    headers: tuple[bytes, ...] = ()

    def to_json(self) -> dict[str, object]:
        """As a file holds it; bytes in hex."""
        return {
            "format": FORMAT,
            "name": self.name,
            "version": self.version,
            "value": self.value.hex(),
            "membership": self.membership.hex(),
            "header": self.header.hex(),
            "finalization": self.finalization.hex(),
            "handoffs": [one.hex() for one in self.handoffs],
            "headers": [one.hex() for one in self.headers],
        }

    @classmethod
    def read(cls, data: bytes) -> NameProof:
        """Read a file.

        Raises:
            UsageError: Not a proof.
        """
        if len(data) > MAX_PROOF_BYTES:
            message = f"a proof of more than {MAX_PROOF_BYTES:,} bytes"
            raise UsageError(message)
        try:
            return cls.from_json(json.loads(data))
        except (ValueError, RecursionError) as error:
            message = f"not a proof of a name: {error}"
            raise UsageError(message, "`swarm verify-name NAME -o FILE` writes one") from error

    @classmethod
    def from_json(cls, fields: object) -> NameProof:
        """Read what `to_json` made.

        Raises:
            ValueError: Another format, or a field is missing or malformed.
        """
        if not isinstance(fields, dict) or fields.get("format") != FORMAT:
            message = f"not of format {FORMAT}"
            raise ValueError(message)
        name, version = fields.get("name"), fields.get("version")
        if not isinstance(name, str) or not 0 < len(name) <= _MAX_NAME or not name.isascii():
            message = "name: not a name"
            raise ValueError(message)
        if version is not None and (type(version) is not int or not 0 <= version < 2**63):
            message = "version: not a number"
            raise ValueError(message)
        return cls(
            name,
            version,
            _hex(fields, "value"),
            _hex(fields, "membership"),
            _hex(fields, "header"),
            _hex(fields, "finalization"),
            _hexes(fields, "handoffs", MAX_HANDOFFS),
            _hexes(fields, "headers", MAX_HEADERS),
        )

    @property
    def block(self) -> Header:
        """The header.

        Raises:
            ProofError: Malformed.
        """
        try:
            return Header.decode(self.header)
        except MessageError as error:
            message = f"the header is malformed: {error}"
            raise ProofError(message) from error


@dataclass(frozen=True, slots=True)
class Shown:
    """What a proof shows.

    Attributes:
        name: As registered.
        version: Which one.
        newest: Whether no newer one stood beside it in that block.
        root: What it points to.
        height: Of the block whose state it was in.
        block_id: Of that block.
        timestamp_ms: Of that block, UTC milliseconds.
        since_ms: When the block was made at which trust began; what has left its stake since can lie.
        by_signatures: Whether signatures show it; otherwise it is the checkpoint's hash.
    """

    name: str
    version: int
    newest: bool
    root: Cid
    height: int
    block_id: bytes
    timestamp_ms: int
    since_ms: int
    by_signatures: bool


def verify(proof: NameProof, root: Root, epoch_length: int | None = None) -> Shown:
    """Check a proof.

    Args:
        proof: From anyone.
        root: The network's genesis, or a checkpoint.
        epoch_length: Of the network, for hand-offs from a checkpoint; the genesis has its own.

    Raises:
        ProofError: It does not show what it says; or `root` is not enough to tell, and the message says what is.
    """
    header = proof.block
    try:
        if isinstance(root, Checkpoint) and header.height <= root.height:
            since = _check_ancestor(header, proof.headers, root)
            signed = False
        else:
            since = _check_signed(header, proof, root, epoch_length)
            signed = True
    except (MessageError, LedgerError) as error:
        raise ProofError(str(error)) from error
    key = name_key(proof.name, proof.version)
    if not verify_proof(header.state_root, key, proof.value, proof.membership):
        message = f"block {header.height:,} does not hold that record of {proof.name!r}"
        raise ProofError(message)
    return _shown(proof, header, since, signed=signed)


def first_handoff(root: Root, epoch_length: int) -> int:
    """The epoch whose hand-off comes first when signatures are followed from a root."""
    return 0 if isinstance(root, Genesis) else root.height // epoch_length - 1


def _check_ancestor(header: Header, later: tuple[bytes, ...], checkpoint: Checkpoint) -> int:
    """Whether a checkpoint stands on a header; when the checkpoint's block was made.

    Raises:
        ProofError: It does not.
        MessageError: A header is malformed.
    """
    at = header
    for data in later:
        if at.height == checkpoint.height:
            break
        following = Header.decode(data)
        if following.parent != at.id or following.height != at.height + 1:
            message = f"the header after block {at.height:,} does not follow it"
            raise ProofError(message)
        at = following
    if at.height != checkpoint.height:
        message = f"the proof is of block {header.height:,} and has no headers from there to the checkpoint"
        raise ProofError(message, f"take a checkpoint of block {header.height:,}, or ask a node")
    if at.id != checkpoint.block_id:
        message = f"block {at.height:,} is {at.id.hex()} here, not the checkpoint's"
        raise ProofError(message, "one of the two is of another chain: ask somebody you trust")
    return at.timestamp_ms


def _check_signed(header: Header, proof: NameProof, root: Root, epoch_length: int | None) -> int:
    """Whether the validators of its epoch finalized a header; when trust in them began.

    Raises:
        ProofError: They did not, or they cannot be known.
        MessageError: A part is malformed or does not hold.
    """
    chain_id = header.chain_id
    handoffs = [Handoff.decode(one) for one in proof.handoffs]
    if isinstance(root, Genesis):
        if chain_id != root.chain_id:
            message = f"the proof is of network {chain_id.hex()}, not of {root.chain_id.hex()}"
            raise ProofError(message)
        trust, length, since = _genesis_trust(root), root.params.epoch_length, root.timestamp_ms
    else:
        trust, length = _checkpoint_trust(root, handoffs, epoch_length)
        since, chain_id, handoffs = trust.timestamp_ms, handoffs[0].header.chain_id, handoffs[1:]
    for handoff in handoffs:
        trust = trust.follow(handoff, chain_id, length)
    voters = next((one for one in trust.sets if one.epoch == header.epoch), None)
    if voters is None:
        message = f"who decided in epoch {header.epoch} is not known: epochs {trust.epoch} and {trust.epoch + 1} are"
        raise ProofError(message, "a node that has the hand-offs can give a longer proof")
    if header.chain_id != chain_id or header.epoch != max(0, header.height - 1) // length:
        message = f"block {header.height:,} is not one of epoch {header.epoch} of this chain"
        raise ProofError(message)
    if not is_final(header, Certificate.decode(proof.finalization), voters):
        message = f"the finalization of block {header.height:,} does not hold"
        raise ProofError(message)
    return since


def _genesis_trust(genesis: Genesis) -> Trust:
    changes = genesis_changes(genesis)
    first, second = (
        EpochSet.unpack(epoch, load(changes[epoch_key(epoch)] or b"")) for epoch in (0, 1)
    )
    return Trust(0, (first, second), genesis.timestamp_ms)


def _checkpoint_trust(
    checkpoint: Checkpoint, handoffs: list[Handoff], epoch_length: int | None
) -> tuple[Trust, int]:
    """What follows from a checkpoint that ends an epoch, and how long an epoch is.

    Raises:
        ProofError: It ends none, or the proof does not begin at it.
        MessageError: The sets are not what it commits to.
    """
    if not handoffs or handoffs[0].header.id != checkpoint.block_id:
        message = f"the proof does not go back to the checkpoint of block {checkpoint.height:,}"
        raise ProofError(
            message, "take one at or above the proof's block, or the last block of an epoch before"
        )
    header = handoffs[0].header
    length, rest = divmod(header.height, header.epoch + 1)
    if rest or header.height != checkpoint.height or epoch_length not in {None, length}:
        message = f"the checkpoint of block {checkpoint.height:,} does not end an epoch"
        raise ProofError(message)
    return handoffs[0].trusted(), length


def _shown(proof: NameProof, header: Header, since: int, *, signed: bool) -> Shown:
    entry: NameEntry | NameVersion
    try:
        entry = (NameEntry if proof.version is None else NameVersion).decode(proof.value)
    except (CanonicalError, LedgerError, TypeError) as error:
        message = f"the record of {proof.name!r} cannot be read: {error}"
        raise ProofError(message) from error
    return Shown(
        entry.name,
        entry.version,
        proof.version is None,
        entry.root,
        header.height,
        header.id,
        header.timestamp_ms,
        since,
        signed,
    )


def _hex(fields: Mapping[str, object], name: str) -> bytes:
    value = fields.get(name)
    if not isinstance(value, str):
        message = f"{name}: missing"
        raise ValueError(message)  # noqa: TRY004 - one error for every malformed file
    return bytes.fromhex(value)


def _hexes(fields: Mapping[str, object], name: str, most: int) -> tuple[bytes, ...]:
    value = fields.get(name, [])
    if not isinstance(value, list) or len(value) > most or not all(type(x) is str for x in value):
        message = f"{name}: not a list of at most {most:,}"
        raise ValueError(message)
    return tuple(bytes.fromhex(one) for one in value)

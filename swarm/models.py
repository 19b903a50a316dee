"""Checkpoints by name: what a name points to, proven against a finalized block.

The proof is the one that a light client needs: the header of a finalized block, its finalization by the
epoch's validators, and a membership proof of the name's entry against the header's state root.
A node checks it against its own state before it fetches, and prints it, so that a fetch rests on
nothing but the chain id and the validators' signatures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from protocols.consensus.messages import verify_certificate
from storage.state_tree import verify_proof
from swarm.errors import NotFoundError, SwarmError
from swarm.ledger.state import NameVersion, name_key

if TYPE_CHECKING:
    from collections.abc import Callable

    from protocols.consensus.messages import Block, Finalization
    from swarm.ledger.application import LedgerApplication
    from swarm.ledger.state import LedgerView


@dataclass(frozen=True, slots=True)
class ProvenName:
    """A version of a name, and why to believe it.

    Attributes:
        entry: The ledger's record.
        block: The finalized block whose state root vouches for it.
        finalization: The signatures of that block's validators.
        proof: Membership of the record, the bytes of `storage.state_tree`.
    """

    entry: NameVersion
    block: Block
    finalization: Finalization
    proof: bytes

    def to_json(self) -> dict[str, object]:
        """The proof for people and programs, everything in hex."""
        return {
            "key": name_key(self.entry.name, self.entry.version).hex(),
            "header": self.block.header_bytes.hex(),
            "finalization": self.finalization.encode().hex(),
            "membership": self.proof.hex(),
            "block": self.block.id.hex(),
            "height": self.block.height,
            "state_root": self.block.state_root.hex(),
            "signatures": len(self.finalization.signatures),
        }


def look_up(view: Callable[[], LedgerView], name: str, version: int | None = None) -> NameVersion:
    """A version of a name as this node's own finalized state has it, without a proof for others.

    Args:
        view: That state, as it is now.
        name: As registered.
        version: Which one; None is the latest.

    Raises:
        NotFoundError: No such name or version, up to the height that the message names.
    """
    now = view()
    found = now.name_version(name, _number(now, name, version))
    if found is None:
        message = f"the ledger has no record of {name}@{version}"
        raise SwarmError(message, "the ledger on disk is damaged: start with a new data folder")
    return found


def _number(view: LedgerView, name: str, version: int | None) -> int:
    latest = view.name(name)
    if latest is None:
        message = f"the ledger has no name {name!r} at height {view.height:,}"
        raise NotFoundError(message, "`swarm tasks` lists the names; is this the right network?")
    wanted = latest.version if version is None else version
    if not 0 <= wanted <= latest.version:
        message = f"{name} has versions 0 to {latest.version}, not {wanted}"
        raise NotFoundError(message)
    return wanted


def prove(ledger: LedgerApplication, name: str, version: int | None = None) -> ProvenName | None:
    """Look a name up and check its proof.

    Args:
        ledger: This node's finalized state.
        name: As registered.
        version: Which one; None is the latest.

    Returns:
        None while the newest block is final only through a descendant that is being committed.

    Raises:
        NotFoundError: No such name or version, up to the height that the message names.
        SwarmError: The proof does not hold: this node's state is damaged.
    """
    wanted = _number(ledger.view(), name, version)
    key = name_key(name, wanted)
    block, finalization, value, proof = ledger.prove(key)
    if finalization.block_id != block.id:
        return None
    certified = verify_certificate(finalization, ledger.chain_id, ledger.validators(block.epoch))
    if value is None or not certified or not verify_proof(block.state_root, key, value, proof):
        message = f"the proof of {name}@{wanted} against block {block.height:,} does not hold"
        raise SwarmError(message, "the ledger on disk is damaged: start with a new data folder")
    return ProvenName(NameVersion.decode(value), block, finalization, proof)

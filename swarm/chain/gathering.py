"""What a proof of a name still lacks, asked of a node that need not be trusted."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from swarm.chain.light import MAX_HANDOFFS, MAX_HEADERS, first_handoff
from swarm.chain.operations import MAX_HANDOFFS as HANDOFFS_AT_ONCE
from swarm.chain.operations import MAX_HEADERS as HEADERS_AT_ONCE
from swarm.errors import NotFoundError, UsageError
from swarm.ledger.checkpoint import Checkpoint
from swarm.ledger.genesis import Genesis

if TYPE_CHECKING:
    from collections.abc import Callable

    from swarm.chain.light import NameProof, Root


class Source(Protocol):
    """A node; `swarm.client.Client` is one."""

    def headers(self, first: int, count: int) -> list[str]:
        """Headers from a height on, in hex."""

    def handoffs(self, first: int, count: int) -> list[str]:
        """Hand-offs from an epoch on, in hex."""

    def validators(self, epoch: int | None = None) -> dict[str, Any]:
        """Who decides in an epoch, with its heights."""


def is_complete(proof: NameProof, root: Root) -> bool:
    """Whether a proof may be checked as it is; one that is not is not worth a check."""
    header = proof.block
    if isinstance(root, Checkpoint):
        if header.height <= root.height:
            return len(proof.headers) >= root.height - header.height
        return bool(proof.handoffs)
    return len(proof.handoffs) >= header.epoch - 1


def complete(proof: NameProof, root: Root, source: Source) -> NameProof:
    """The proof with what leads from its block to what a person trusts.

    Raises:
        UsageError: The two are too far apart.
        NotFoundError: The node does not hold it.
    """
    header = proof.block
    if isinstance(root, Checkpoint) and header.height <= root.height:
        count = root.height - header.height
        if count > MAX_HEADERS:
            message = (
                f"the checkpoint is {count:,} blocks after the proof's, more than {MAX_HEADERS:,}"
            )
            raise UsageError(message, "take a newer proof, or an older checkpoint")
        found = _all(source.headers, header.height + 1, count, HEADERS_AT_ONCE, "block")
        return replace(proof, headers=found)
    if isinstance(root, Genesis):
        length = root.params.epoch_length
    else:
        heights = source.validators(header.epoch)
        length = max(1, int(heights["last"]) - int(heights["first"]) + 1)
        if root.height == 0 or root.height % length:
            message = f"the checkpoint of block {root.height:,} is below the proof's and does not end an epoch"
            hint = f"take one at or above block {header.height:,}, or a multiple of {length:,}"
            raise UsageError(message, hint)
    first = first_handoff(root, length)
    count = max(int(isinstance(root, Checkpoint)), header.epoch - 1 - first)
    if count > MAX_HANDOFFS:
        message = f"there are {count:,} epochs to follow, more than {MAX_HANDOFFS:,}"
        raise UsageError(message, "take a later checkpoint")
    return replace(
        proof, handoffs=_all(source.handoffs, first, count, HANDOFFS_AT_ONCE, "hand-off of epoch")
    )


def _all(
    ask: Callable[[int, int], list[str]], first: int, count: int, at_once: int, what: str
) -> tuple[bytes, ...]:
    found: list[bytes] = []
    while len(found) < count:
        answer = ask(first + len(found), min(at_once, count - len(found)))
        if not answer:
            message = f"the node does not hold {what} {first + len(found):,}"
            raise NotFoundError(message, "ask another node, or take another checkpoint")
        found += [bytes.fromhex(one) for one in answer[: count - len(found)]]
    return tuple(found)

"""What a proposal may build upon: the same rule for who proposes and for who votes. Pure.

A parent is certified, or the last final block, and every view between it and the proposal is nullified.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocols.consensus.messages import Kind, skipped
from protocols.consensus.tree import Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from protocols.consensus.book import Book
    from protocols.consensus.messages import Block, Certificate, Proposal
    from protocols.consensus.tree import BlockTree


class Building:
    """The rules of one epoch over what is known of it; what is found missing is noted in the tree.

    Args:
        chain_id: 32 bytes.
        epoch: Which.
        last_height: Of its last block, which gets no child in it.
        leader: View to public key.
        max_ahead_ms: How far a block's time may be ahead of the voter's.
        book: The views.
        tree: The blocks.
    """

    def __init__(
        self,
        chain_id: bytes,
        epoch: int,
        last_height: int,
        leader: Callable[[int], bytes],
        max_ahead_ms: int,
        book: Book,
        tree: BlockTree,
    ) -> None:
        self._chain_id = chain_id
        self._epoch = epoch
        self._last_height = last_height
        self._leader = leader
        self._max_ahead_ms = max_ahead_ms
        self._book = book
        self._tree = tree

    def parent(self) -> tuple[Certificate | None, Block] | None:
        """For a proposal of the present view: the newest certified block that is held, all views since it nullified.

        Returns:
            What certifies it (None: the epoch before) and the block; None while one of these lacks.
        """
        book, tree = self._book, self._tree
        number = book.present - 1
        while number > book.final:
            certificate = book.parent_certificate(number)
            if certificate is not None:
                block = tree.get(certificate.block_id)
                if block is not None:
                    return certificate, block
                tree.missing.add(certificate.block_id)
            if number not in book.nullified:
                self._ask_over(max((at for at in book.open if at < number), default=0), number + 1)
                return None
            number -= 1
        if book.final > 0 and book.top is None:
            return None
        return book.top, tree.root

    def judge(self, proposal: Proposal, utc_ms: int) -> bool | None:
        """Whether a proposal of the present view deserves a notarize; None while something lacks."""
        book, tree = self._book, self._tree
        block, certificate = proposal.block, proposal.parent
        parent_view = 0 if certificate is None else certificate.view
        if certificate is None and book.final == 0:
            parent: Block | None = tree.root
        elif (
            certificate is None
            or certificate.kind is Kind.NULLIFY
            or (certificate.block_id != tree.root.id and parent_view <= book.final)
        ):
            return False
        else:
            parent = tree.get(certificate.block_id)
            if parent is None:
                tree.missing.add(certificate.block_id)
        gap = range(max(parent_view, book.final) + 1, proposal.view)
        if parent is None:
            return None
        if not all(number in book.nullified for number in gap):
            self._ask_over(parent_view, proposal.view)
            return None
        if parent.height < self._last_height:
            if not self._is_child(block, parent, proposal.view):
                return False
            if block.timestamp_ms > utc_ms + self._max_ahead_ms:
                return None
        elif block.id != parent.id:
            return False
        status = tree.status(block)
        return None if status is Status.WAITING else status is Status.VALID

    def _ask_over(self, after: int, before: int) -> None:
        """Note which views between two are unknown though they are long past: who was away then has to ask for them."""
        hole = self._book.hole(max(after, self._book.final), before)
        if hole is not None:
            self._tree.missing.add(skipped(hole))

    def _is_child(self, block: Block, parent: Block, number: int) -> bool:
        return (
            block.chain_id == self._chain_id
            and block.epoch == self._epoch
            and block.view == number
            and block.leader == self._leader(number)
            and block.parent == parent.id
            and block.height == parent.height + 1
            and block.timestamp_ms > parent.timestamp_ms
        )

"""What can go wrong when chunks are fetched by Bitswap; each docstring is what the user reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from storage import cid as cids

if TYPE_CHECKING:
    from collections.abc import Iterable

    from storage.cid import Cid


class BitswapError(Exception):
    """The content could not be fetched."""


class NotHeldError(BitswapError):
    """None of the peers that were asked has a chunk of the content.

    Attributes:
        cid: The chunk that was looked for.
        told: What came of each peer, a line each.
        seconds: How long it was looked for.
    """

    def __init__(self, cid: Cid, told: Iterable[str], seconds: float) -> None:
        self.cid = cid
        self.told = tuple(told)
        self.seconds = seconds
        super().__init__(
            f"none of the peers that were asked has {cids.text(cid)}, after {seconds:.0f} s:"
            f" {'; '.join(self.told) or 'they did not answer'}"
        )


class StalledError(BitswapError):
    """The peers do not send the content, or stopped in the middle.

    Attributes:
        root: What was being fetched.
        done: Bytes that are here, and stay for the next try.
        told: What came of each peer, a line each.
        seconds: How long nothing came.
    """

    def __init__(self, root: Cid, done: int, told: Iterable[str], seconds: float) -> None:
        self.root = root
        self.done = done
        self.told = tuple(told)
        self.seconds = seconds
        super().__init__(
            f"nothing of {cids.text(root)} came for {seconds:.0f} s, with {done:,} bytes here:"
            f" {'; '.join(self.told) or 'the peers are silent'}"
        )


class TooLargeError(BitswapError):
    """The content is larger than the caller accepts.

    Attributes:
        root: What was to be fetched.
        size: Its bytes, as far as is known.
        limit: Bytes that the caller accepts.
    """

    def __init__(self, root: Cid, size: int, limit: int) -> None:
        self.root = root
        self.size = size
        self.limit = limit
        super().__init__(
            f"{cids.text(root)} has {size:,} bytes or more where {limit:,} are accepted"
        )

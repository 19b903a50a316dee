"""What can go wrong when chunks are fetched; each docstring is what the user reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from storage import cid as cids

if TYPE_CHECKING:
    from collections.abc import Iterable

    from storage.cid import Cid

_LISTED = 8


class ExchangeError(Exception):
    """The content could not be fetched."""


class ContentNotFoundError(ExchangeError):
    """Nobody that could be asked has a chunk of the content.

    Attributes:
        cid: The chunk that was looked for.
        asked: What was asked of whom, and what came of it, a line each.
        seconds: How long it was looked for.
    """

    def __init__(self, cid: Cid, asked: Iterable[str], seconds: float) -> None:
        self.cid = cid
        self.asked = tuple(asked)
        self.seconds = seconds
        super().__init__(
            f"nobody has {cids.text(cid)}, after {seconds:.0f} s of asking: {_told(self.asked)}"
        )


class FetchStalledError(ExchangeError):
    """Peers that have the content stopped sending it.

    Attributes:
        root: What was being fetched.
        done: Bytes that are here, and stay for the next try.
        total: Bytes that the content has, as far as is known.
        asked: What was asked of whom, and what came of it, a line each.
        seconds: How long nothing came.
    """

    def __init__(
        self, root: Cid, done: int, total: int, asked: Iterable[str], seconds: float
    ) -> None:
        self.root = root
        self.done = done
        self.total = total
        self.asked = tuple(asked)
        self.seconds = seconds
        super().__init__(
            f"no byte of {cids.text(root)} came for {seconds:.0f} s, with {done:,} of {total:,} "
            f"bytes here: {_told(self.asked)}"
        )


class ContentTooLargeError(ExchangeError):
    """The content is larger than the caller accepts.

    Attributes:
        root: What was to be fetched.
        size: Its bytes, as its manifest tells.
        limit: Bytes that the caller accepts.
    """

    def __init__(self, root: Cid, size: int, limit: int) -> None:
        self.root = root
        self.size = size
        self.limit = limit
        super().__init__(
            f"{cids.text(root)} has {size:,} bytes where at most {limit:,} are accepted"
        )


def _told(asked: tuple[str, ...]) -> str:
    if not asked:
        return "there was nobody to ask"
    more = f"; and {len(asked) - _LISTED} more" if len(asked) > _LISTED else ""
    return "; ".join(asked[:_LISTED]) + more

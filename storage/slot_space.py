"""What slots ask before they take bytes of the disk: one number covers them and whatever else the node keeps."""

from __future__ import annotations

from typing import Protocol


class Space(Protocol):
    """The account that slots draw on; thread safe."""

    def found(self, size: int) -> None:
        """Count bytes that lie on the disk already, whether they fit or not."""

    def take(self, size: int) -> None:
        """Count bytes that are about to be written.

        Raises:
            QuotaError: They do not fit; nothing is counted.
        """

    def give(self, size: int) -> None:
        """Count bytes no more: they were not written after all, or are gone."""


class Unbounded:
    """Room without end: for slots that share their disk with nothing."""

    def found(self, size: int) -> None:
        pass

    def take(self, size: int) -> None:
        pass

    def give(self, size: int) -> None:
        pass

"""The sealed slots of a node that starts."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from storage.errors import StorageError
from storage.slots import SlotStore
from swarm.keeper.space import bytes_below

if TYPE_CHECKING:
    from pathlib import Path

    from protocols.audit.verify import Sealing
    from swarm.keeper.space import LentSpace


def open_slots(
    folder: Path, key: bytes, sealing: Sealing, space: LentSpace
) -> tuple[SlotStore | None, str | None]:
    """The slots, or None and what is wrong with them: a node that cannot open them does all else.

    Args:
        folder: Where they are, or will be.
        key: Of the account that lends them, 32 bytes.
        sealing: How they are sealed.
        space: What they take from; told how much lies in slots that cannot be opened.
    """
    try:
        slots = SlotStore(folder, key, sealing.chain_id, sealing.log_n, sealing.passes, space=space)
    except StorageError as error:
        problem = f"nothing is lent: {folder}: {error}"
    except OSError as error:
        problem = (
            f"nothing is lent: the disk does not let the sealed slots in {folder} be read"
            f" or a commitment that was half done be finished: {error};"
            " put the disk right and start the node again: it goes on where it was"
        )
    else:
        return slots, None
    with suppress(OSError):
        space.found(bytes_below(folder))
    return None, problem

"""What a node earned, sent on by itself to an account whose key lies elsewhere; the ledger sees ordinary transfers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog
import trio

from protocols import signing
from storage.files import DISK
from swarm.errors import SwarmError, UsageError
from swarm.ledger.errors import LedgerError
from swarm.ledger.genesis import UNIT
from swarm.ledger.transactions import GAS_PER_BYTE, Transfer
from swarm.wallet import TIP

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from swarm.heights import Heights
    from swarm.ledger.state import LedgerView
    from swarm.wallet import Wallet

FILE: Final = "payout.json"
MAX_FILE_BYTES: Final = 4_096
VERSION: Final = 1
EVERY_BLOCKS: Final = 256
"""Between two looks at the balance."""
LEAST: Final = UNIT
"""Less than this is not worth a transaction."""
KEEP: Final = 10 * UNIT
"""Stays for fees and bonds, if nothing else is said."""
MAX_KEEP: Final = 2**62
MAX_GAS: Final = Transfer.GAS + 300 * GAS_PER_BYTE
"""Of the transfer, which the account pays for too."""
ANEW: Final = "`swarm key payout ACCOUNT` writes it anew"

_log = structlog.get_logger("swarm.payout")


@dataclass(frozen=True, slots=True)
class Payout:
    """Where to, and what stays.

    Attributes:
        account: A peer id.
        keep: Units of 10^-9 token that stay on the node's account, beside what its stake lacks.
    """

    account: str
    keep: int

    def due(self, balance: int, lacking: int) -> int:
        """What is to be sent now; 0 for nothing.

        Args:
            balance: Of the node's account.
            lacking: What its stake lacks of the bond that it wants.
        """
        left = balance - self.keep - lacking
        return left if left >= LEAST else 0


def read(folder: Path) -> Payout | None:
    """What was chosen for a data folder; None where nothing is sent on.

    Raises:
        UsageError: The file is damaged or of another version: nothing is sent on a guess.
    """
    path = folder / FILE
    try:
        with path.open("rb") as file:
            told = json.loads(file.read(MAX_FILE_BYTES))
        found = Payout(str(told["account"]), int(told["keep"]))
        signing.public_key(found.account)
        version, is_known = told["version"], 0 <= found.keep <= MAX_KEEP
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        message = f"{path} cannot be read, so nothing is sent on"
        raise UsageError(message, ANEW) from error
    if version != VERSION:
        message = f"{path} is of version {version!r}, and this program reads {VERSION}: nothing is sent on"
        raise UsageError(message, ANEW)
    if not is_known:
        message = f"{path} names an amount that is none, so nothing is sent on"
        raise UsageError(message, ANEW)
    return found


def write(folder: Path, payout: Payout | None) -> None:
    """Choose for a data folder, durable when it returns; None sends nothing on."""
    path = folder / FILE
    if payout is None:
        path.unlink(missing_ok=True)
        return
    told = {"version": VERSION, "account": payout.account, "keep": payout.keep}
    DISK.replace(path, json.dumps(told).encode())


class Payouts:
    """Sends on what a node earned.

    Args:
        folder: The data folder, whose choice is read again each time.
        key: The node's public key.
        view: The newest finalized state.
        heights: Tells when that changes.
        wallet: Sends.
        validates: Whether the node wants the bond of a validator.
    """

    def __init__(
        self,
        folder: Path,
        key: bytes,
        view: Callable[[], LedgerView],
        heights: Heights,
        wallet: Wallet,
        *,
        validates: bool,
    ) -> None:
        self._folder = folder
        self._key = key
        self._view = view
        self._heights = heights
        self._wallet = wallet
        self._validates = validates

    async def run(self) -> None:
        """Look at the balance now and then; runs until cancelled."""
        while True:
            try:
                await self._look()
            except (SwarmError, LedgerError) as error:
                _log.warning("payout.not_sent", error=str(error))
            await self._heights.above(self._heights.height + EVERY_BLOCKS - 1)

    async def _look(self) -> None:
        payout = await trio.to_thread.run_sync(read, self._folder)
        if payout is None:
            return
        view = self._view()
        account = view.account(self._key)
        lacking = max(0, view.params.min_bond - account.stake) if self._validates else 0
        fee = MAX_GAS * (2 * view.base_fee + TIP)
        amount = payout.due(account.balance - fee, lacking)
        if amount:
            # What no block took is over before the next look, which would send the same tokens once more.
            last = view.height + EVERY_BLOCKS - 1
            await self._wallet.submit(Transfer(signing.public_key(payout.account), amount), last)
            _log.info("payout.sent", to=payout.account, amount=amount)

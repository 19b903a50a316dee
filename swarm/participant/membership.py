"""When an account registers as a worker or keeper, bonds itself as a validator, and asks to be let out of jail.

`next_step` is pure; `Membership` takes it, some blocks apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog

from swarm.errors import SwarmError
from swarm.ledger.errors import LedgerError
from swarm.ledger.transactions import Register, Stake, Unjail

if TYPE_CHECKING:
    from collections.abc import Callable

    from swarm.care.controls import Controls
    from swarm.heights import Heights
    from swarm.ledger.genesis import Params
    from swarm.ledger.state import Account, LedgerView
    from swarm.participant.core import Me
    from swarm.wallet import Wallet

_log = structlog.get_logger("swarm.node")

DOUBLED = (
    "votes of this node's key were seen that this node did not cast: the key is used elsewhere too, which costs its stake; "
    "stop the other one, then start this node again: until then it casts no vote"
)
"""What is told while the key signs elsewhere; until this node starts again, it does not vote, stakes nothing and stays in jail."""
RESERVE_PARTS = 10
"""A tenth of the bond is kept for fees before the rest is staked."""
LOOK_BLOCKS: Final = 8
"""Between two looks at whether there is a step to take."""


def next_step(
    account: Account,
    params: Params,
    vrf_key: bytes,
    hardware: str,
    *,
    trains: bool,
    validates: bool,
    keeps: bool = False,
    jailed_for: int | None = None,
    doubled: bool = False,
) -> Register | Stake | Unjail | None:
    """What the account should ask of the ledger next, or None when it stands where it wants to be.

    A newcomer registers first: where the network asks no worker's bond it can do so with an empty
    account, train, and stake what it earned once that covers the bond of a validator.
    Who was slashed stakes what is missing, and asks to be let out when its time is over. While votes of the key are seen
    that this node did not cast, what it was slashed for goes on: then it risks nothing more.

    Args:
        account: As the newest finalized state has it.
        params: The network's.
        vrf_key: This node's, 32 bytes.
        hardware: Its class, in words.
        trains: It wants to be a worker.
        validates: It wants to be a validator.
        keeps: It lends slots, or some still stand: the ledger refuses to take that role away before.
        jailed_for: Blocks until it may ask to be let out, 0 or less when it may now; None for one that is not jailed.
        doubled: The key signs elsewhere too.
    """
    roles = (("keeper", keeps), ("validator", validates), ("worker", trains))
    wanted = tuple(role for role, wants in roles if wants)
    registered = account.vrf_key == vrf_key and account.roles == wanted
    affordable = account.balance + account.bond >= (params.worker_bond if trains else 0)
    if wanted and not registered:
        return Register(vrf_key, hardware, wanted) if affordable else None
    if not validates or doubled:
        return None
    if account.stake >= params.min_bond:
        return Unjail() if jailed_for is not None and jailed_for <= 0 else None
    missing = params.min_bond - account.stake
    return Stake(missing) if account.balance >= missing + missing // RESERVE_PARTS else None


class Membership:
    """Keeps one account in its roles.

    What peers say about their heads does not count here: one that lies would keep this node out.

    Args:
        me: The account, and what it wants to be.
        vrf_key: This node's, 32 bytes.
        hardware: Its class, in words.
        view: The newest state.
        heights: Its height.
        wallet: Signs and sends.
        controls: Say whether the node takes its roles back.
        is_lending: Whether slots are lent, or are to be.
        is_doubled: Whether votes of the node's key were seen that it did not cast.
    """

    def __init__(
        self,
        me: Me,
        vrf_key: bytes,
        hardware: str,
        *,
        view: Callable[[], LedgerView],
        heights: Heights,
        wallet: Wallet,
        controls: Controls,
        is_lending: Callable[[], bool],
        is_doubled: Callable[[], bool],
    ) -> None:
        self._me = me
        self._vrf_key = vrf_key
        self._hardware = hardware
        self._controls = controls
        self._is_lending = is_lending
        self._is_doubled = is_doubled
        self._view = view
        self._heights = heights
        self._wallet = wallet

    async def run(self) -> None:
        """Take each step when the ledger says that it is time, until cancelled."""
        height = self._heights.height - LOOK_BLOCKS
        while True:
            await self._heights.above(height + LOOK_BLOCKS - 1)
            height = self._heights.height
            step = None if self._controls.is_leaving else self._next(height)
            if step is None:
                continue
            _log.info("membership.step", step=type(step).__name__, height=height)
            try:
                await self._wallet.submit(step)
            except (SwarmError, LedgerError) as error:
                _log.info("membership.refused", step=type(step).__name__, error=str(error))

    def _next(self, height: int) -> Register | Stake | Unjail | None:
        view, me = self._view(), self._me
        until, keeper = view.jailed_until(me.account), view.keeper(me.account)
        return next_step(
            view.account(me.account),
            view.params,
            self._vrf_key,
            self._hardware,
            trains=me.trains,
            validates=me.validates,
            keeps=self._is_lending() or (keeper is not None and keeper.slots > 0),
            jailed_for=None if until is None else until - height - 1,
            doubled=self._is_doubled(),
        )

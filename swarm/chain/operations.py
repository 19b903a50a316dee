"""What a person asks of a node about the chain: its stake, the validators, a transaction, the proof of a name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from protocols import signing
from swarm import reports
from swarm.chain.light import NameProof
from swarm.chain.staking import (
    check_stake,
    check_unjail,
    check_unstake,
    check_withdraw,
    counts_from,
)
from swarm.errors import NetworkError, NotFoundError, UsageError
from swarm.ledger.errors import LedgerError, UnknownEpochError
from swarm.ledger.state import name_key
from swarm.ledger.transactions import Register, Stake, Unjail, Unstake, Withdraw
from swarm.ledger.validators import EPOCHS_AHEAD
from swarm.ledger.vrf import VrfKey

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from protocols.signing import Signer
    from swarm.control.api import Json, Progress
    from swarm.heights import Heights
    from swarm.ledger.application import LedgerApplication
    from swarm.ledger.state import LedgerView
    from swarm.ledger.transactions import Payload
    from swarm.wallet import Wallet

PROOF_SECONDS = 20.0
MAX_HEADERS = 1_000
MAX_HANDOFFS = 256
MAX_EPOCHS_BACK = 1_000
"""How far back it is looked since when a validator is one."""
ID_BYTES = 32
_VALIDATOR = "validator"


class Chain:
    """A person's door to the ledger of one node.

    Args:
        signer: The account's key.
        ledger: The application.
        wallet: Sends what is asked.
        heights: Tells of finalized blocks.
        validates: This node registers and stakes by itself.
        caught_up: Waits, within bounds, until the node holds what its peers hold.
        gossip: Queues a transaction for everybody.
    """

    def __init__(
        self,
        signer: Signer,
        ledger: LedgerApplication,
        wallet: Wallet,
        heights: Heights,
        *,
        validates: bool,
        caught_up: Callable[[Progress], Awaitable[None]],
        gossip: Callable[[bytes], None],
    ) -> None:
        self._signer = signer
        self._ledger = ledger
        self._wallet = wallet
        self._heights = heights
        self._validates = validates
        self._caught_up = caught_up
        self._gossip = gossip

    # Stake

    async def stake(self, amount: int, progress: Progress, *, wait: bool = True) -> Json:
        """Bond units; registers the VRF key first, without which a stake does not count.

        Returns:
            `tx`, `height` (None without `wait`), `stake`, and `epoch`, from which it counts.

        Raises:
            RefusedError: The rules do not allow it.
        """
        await self._caught_up(progress)
        view = self._ledger.view()
        account = view.account(self._signer.public_key)
        first: list[Payload] = []
        vrf_key = VrfKey.of(self._signer.seed).public_key
        if account.vrf_key != vrf_key:
            roles = tuple(sorted({*account.roles, _VALIDATOR}))
            first.append(Register(vrf_key, account.hardware, roles))
        fees = self._wallet.cost([*first, Stake(amount)])
        check_stake(account, amount, fees, view.params)
        for payload in first:
            await self._wallet.submit(payload)
        sent = await self._send(Stake(amount), wait=wait)
        return sent | self._standing(sent["height"])

    async def unstake(self, amount: int, progress: Progress, *, wait: bool = True) -> Json:
        """Take units out of the stake.

        Returns:
            `tx`, `height`, `stake`, `epoch`, and `withdrawable`: the height from which it can be withdrawn, None
            without `wait`; `stakes_again`: this node stakes by itself what the account owns.

        Raises:
            RefusedError: The rules do not allow it.
        """
        await self._caught_up(progress)
        view = self._ledger.view()
        check_unstake(view.account(self._signer.public_key), amount, view.params)
        sent = await self._send(Unstake(amount), wait=wait)
        account = self._ledger.view().account(self._signer.public_key)
        due = max((one.height for one in account.unbonding), default=None) if wait else None
        again = {"withdrawable": due, "stakes_again": self._validates}
        return sent | self._standing(sent["height"]) | again

    async def withdraw(self, progress: Progress, *, wait: bool = True) -> Json:
        """Take back what has unbonded.

        Returns:
            `tx`, `height`, `amount`, `balance`.

        Raises:
            RefusedError: Nothing has.
        """
        await self._caught_up(progress)
        view = self._ledger.view()
        amount = check_withdraw(view.account(self._signer.public_key), view.height)
        sent = await self._send(Withdraw(), wait=wait)
        balance = self._ledger.view().account(self._signer.public_key).balance
        return sent | {"amount": amount, "balance": balance}

    async def unjail(self, progress: Progress, *, wait: bool = True) -> Json:
        """Ask to be a validator again.

        Returns:
            `tx`, `height`, `stake`, `epoch`.

        Raises:
            RefusedError: The account is not jailed, or still has to wait.
        """
        await self._caught_up(progress)
        view = self._ledger.view()
        check_unjail(view.jailed_until(self._signer.public_key), view.height)
        sent = await self._send(Unjail(), wait=wait)
        return sent | self._standing(sent["height"])

    async def _send(self, payload: Payload, *, wait: bool) -> Json:
        identifier = await self._wallet.submit(payload)
        if not wait:
            return {"tx": identifier.hex(), "height": None}
        included = await self._wallet.confirm(identifier)
        return {"tx": identifier.hex(), "height": included.height}

    def _standing(self, height: int | None) -> Json:
        view = self._ledger.view()
        length = view.params.epoch_length
        at = view.height + 1 if height is None else height
        return {
            "stake": view.account(self._signer.public_key).stake,
            "epoch": counts_from(at, length, EPOCHS_AHEAD),
        }

    # Questions

    async def validators(self, epoch: int | None) -> Json:
        """Who decides in an epoch; None is the current one.

        Returns:
            `epoch`, `first` and `last` (heights), `weight`, `quorum`, and `validators`: `account`, `weight`,
            `stake` (now), `since` (epoch), `jailed_until` (None, or a height), `me` each.

        Raises:
            NotFoundError: It is not fixed yet, or no longer kept.
        """
        view = self._ledger.view()

        def read() -> Json:
            wanted = view.epoch if epoch is None else epoch
            try:
                found = view.validators(wanted)
            except UnknownEpochError as error:
                message = (
                    f"the validators of epoch {wanted:,} are not known at height {view.height:,}"
                )
                hint = f"those of epochs up to {view.epoch + EPOCHS_AHEAD - 1:,} are fixed"
                raise NotFoundError(message, hint) from error
            length = view.params.epoch_length
            since = _since(view, wanted, {one.public_key for one in found.validators})
            return {
                "epoch": wanted,
                "first": wanted * length + 1,
                "last": (wanted + 1) * length,
                "weight": found.weight,
                "quorum": found.quorum,
                "validators": [
                    {
                        "account": signing.peer_id(one.public_key),
                        "weight": one.weight,
                        "stake": view.account(one.public_key).stake,
                        "since": since[one.public_key],
                        "jailed_until": view.jailed_until(one.public_key),
                        "me": one.public_key == self._signer.public_key,
                    }
                    for one in found.validators
                ],
            }

        return await trio.to_thread.run_sync(read)

    async def transaction(self, text: str) -> Json:
        """What became of a transaction.

        Returns:
            `tx` (another id than was asked for, where this node signed it again with a higher fee), `status` (`waiting`,
            `done` or `failed`), `height`, `error`, and where it is known `from`, `type`, `nonce` and `valid_until`.

        Raises:
            UsageError: Not an id.
            NotFoundError: It waits nowhere, and no block that is held has it.
        """
        asked = _identifier(text)
        ids = self._wallet.signed_as(asked)

        def read() -> Json:
            known = (self._ledger.mempool.known(one) for one in ids)
            waiting = next((one for one in known if one is not None), None)
            for identifier in ids:
                included = self._ledger.included(identifier)
                if included is None:
                    continue
                status = "failed" if included.error else "done"
                return {
                    "tx": identifier.hex(),
                    "status": status,
                    "height": included.height,
                    "error": included.error or None,
                } | self._inside(included.height, identifier)
            if waiting is None:
                height = self._ledger.finalized_height()
                message = (
                    f"no transaction {asked.hex()} waits here or is in a block up to {height:,}"
                )
                raise NotFoundError(
                    message, "it has expired, was never sent, or has not reached this node"
                )
            return {
                "tx": waiting.id.hex(),
                "status": "waiting",
                "height": None,
                "error": None,
                "from": signing.peer_id(waiting.sender),
                "type": reports.type_of(waiting),
                "nonce": waiting.nonce,
                "valid_until": waiting.valid_until,
            }

        return await trio.to_thread.run_sync(read)

    async def submit(self, texts: Sequence[str]) -> Json:
        """Hand in transactions of any accounts, signed elsewhere; nobody sends them again.

        Args:
            texts: Each in hex.

        Returns:
            `taken` (ids, in order) and `refused` (`at`, `error` each).

        Raises:
            UsageError: One is not hex.
        """
        try:
            signed = [bytes.fromhex(one) for one in texts]
        except ValueError as error:
            message = f"transactions: {error}"
            raise UsageError(message) from error
        taken: list[str] = []
        refused: list[Json] = []

        def hand_in() -> None:
            for at, data in enumerate(signed):
                try:
                    taken.append(self._ledger.submit(data).hex())
                except LedgerError as error:
                    refused.append({"at": at, "error": str(error)})

        await trio.to_thread.run_sync(hand_in)
        left_out = {one["at"] for one in refused}
        for at, data in enumerate(signed):
            if at not in left_out:
                self._gossip(data)
        return {"taken": taken, "refused": refused}

    def _inside(self, height: int, identifier: bytes) -> Json:
        """What the block says of a transaction; nothing once the block is no longer held."""
        try:
            data = self._ledger.transactions_of(self._ledger.block(height))
        except LedgerError:
            return {}
        told = (reports.transaction_report(self._ledger, one) for one in data)
        found = next((one for one in told if one["id"] == identifier.hex()), {})
        return {name: found[name] for name in ("from", "type", "gas") if name in found}

    # Proofs

    async def prove(self, name: str, version: int | None, progress: Progress) -> Json:
        """The proof of a name without hand-offs, as `light.NameProof` reads it.

        Raises:
            NotFoundError: No such name or version.
            NetworkError: No block that proves it comes.
        """
        await self._caught_up(progress)
        with trio.move_on_after(PROOF_SECONDS):
            while True:
                height = self._heights.height
                found = await trio.to_thread.run_sync(self._prove, name, version)
                if found is not None:
                    return found.to_json()
                await self._heights.above(height)
        message = f"no block that proves {name} came within {PROOF_SECONDS:.0f} s"
        raise NetworkError(message, "see `swarm status`: is any peer connected?")

    def _prove(self, name: str, version: int | None) -> NameProof | None:
        """The proof; None while the newest block is final only through a descendant."""
        latest, height = self._ledger.view().name(name), self._ledger.finalized_height()
        if latest is None:
            message = f"nothing is called {name!r} on this network at height {height:,}"
            raise NotFoundError(message, "is this the right network?")
        if version is not None and not 0 <= version <= latest.version:
            message = f"{name} has versions 0 to {latest.version}, not {version}"
            raise NotFoundError(message)
        block, finalization, value, proof = self._ledger.prove(name_key(name, version))
        if finalization.block_id != block.id or value is None:
            return None
        signatures = finalization.encode()
        return NameProof(name, version, value, proof, block.header_bytes, signatures)

    async def headers(self, first: int, count: int) -> list[str]:
        """Headers of final blocks from a height on, in hex; fewer where fewer are held."""

        def read() -> list[str]:
            last = min(first + min(count, MAX_HEADERS) - 1, self._ledger.finalized_height())
            found: list[str] = []
            for height in range(first, last + 1):
                try:
                    block = self._ledger.block(height)
                except LedgerError:  # pruned, perhaps only now
                    break
                found.append(block.header_bytes.hex())
            return found

        return await trio.to_thread.run_sync(read)

    async def handoffs(self, first: int, count: int) -> list[str]:
        """Hand-offs of consecutive epochs, in hex; fewer where fewer are held."""

        def read() -> list[str]:
            found: list[str] = []
            for epoch in range(first, first + min(count, MAX_HANDOFFS)):
                data = self._ledger.handoff(epoch)
                if data is None:
                    break
                found.append(data.hex())
            return found

        return await trio.to_thread.run_sync(read)


def _since(view: LedgerView, epoch: int, keys: set[bytes]) -> dict[bytes, int]:
    """Since which epoch each has been a validator without a gap, as far back as is looked."""
    since = dict.fromkeys(keys, epoch)
    left = set(keys)
    for before in range(epoch - 1, max(-1, epoch - 1 - MAX_EPOCHS_BACK), -1):
        try:
            members = {one.public_key for one in view.validators(before).validators}
        except UnknownEpochError:
            break
        left &= members
        if not left:
            break
        since |= dict.fromkeys(left, before)
    return since


def _identifier(text: str) -> bytes:
    try:
        identifier = bytes.fromhex(text)
    except ValueError:
        identifier = b""
    if len(identifier) != ID_BYTES:
        message = f"ID: {text[:80]!r} is not the id of a transaction"
        raise UsageError(message, "64 hex digits, as `swarm send` prints them")
    return identifier

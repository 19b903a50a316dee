"""Genesis: what a network is before its first block; its hash is the chain id.

The bytes are canonical, so a network has one id however its file was written.
Every parameter has a range: a genesis outside of it is refused by every node.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, astuple, dataclass, field, fields, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from storage import canonical
from storage.errors import OTHER_PROGRAM, TOO_OLD, CanonicalError
from swarm.ledger.errors import GenesisError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

VERSION = 2
FIRST_PARAMS = 44
"""So many parameters stand in every genesis of this version; each one that comes later stands behind them, and its
default is the rule that held before it, so that older networks go on under their chain id."""
UNIT = 10**9
"""Units in a token."""
CAP = 10**9 * UNIT
"""No more than this is ever held: 10^9 tokens."""
EMISSION_POOL = CAP * 60 // 100
MAX_GENESIS_BYTES = 4 * 2**20
MAX_ALLOCATIONS = 10_000
MAX_VALIDATORS = 100
MAX_NETWORK_NAME = 64
_TEN_THOUSAND = 10_000


@dataclass(frozen=True, slots=True)
class Params:
    """The parameters of a network; heights and times in blocks unless the name says otherwise."""

    block_interval_ms: int = 2_500  # between proposals
    delta_ms: int = 1_000  # the network delay that consensus counts with
    epoch_length: int = 600
    max_validators: int = 31  # of an epoch: those of most stake
    min_bond: int = 1_000 * UNIT  # stake to be a validator
    worker_bond: int = 0  # locked while an account is a worker
    unbonding: int = 483_840  # two weeks of blocks of 2.5 s; slashable meanwhile
    base_fee_floor: int = 0  # units a gas
    max_block_gas: int = 60_000_000  # the target is half of it
    max_block_bytes: int = 2**20  # of a payload: proof and transactions
    blocks_per_day: int = 34_560
    emission_per_day: int = 5  # parts in 10,000 of the pool
    emission_match_percent: int = 100  # a round's emission, of its budget; 0: no such bound
    min_task_budget: int = 0
    slash_part: int = 1_000  # parts in 10,000 of what is at stake, however few are slashed
    score_spread: int = 3  # a scorer off by more than this many tolerances is not paid
    audit_blocks: int = 1_440  # from one audit of the keepers to the next
    audit_answer_blocks: int = 4  # for the keepers' answers
    audit_report_blocks: int = 8  # after them, for the auditors' reports
    audit_leaves: int = 128  # drawn from each keeper
    auditors: int = 3  # different validators that are drawn for each keeper
    max_keepers: int = 1_024
    keeper_bond: int = UNIT // 1_000  # locked for each slot
    strike_limit: int = 3  # so many strikes slash and suspend
    standing_audits: int = 24  # without a strike: one is forgiven, or a suspended keeper returns
    seal_log_n: int = 10  # a slot's key: scrypt with n = 2^this
    seal_passes: int = 128  # of a slot's sealing
    max_deals: int = 128  # open at once
    slash_correlation: int = (
        3  # so many times the share of weight slashed in the window comes on top
    )
    jail_blocks: int = 34_560  # from a slash until `Unjail` is taken
    score_share: int = 3_333  # parts in 10,000 of the views, led by those who scored best
    score_redraws: int = 2  # of the batches of a round that too few validators score
    deviation_rounds: int = 16  # scored rounds that are looked back upon
    deviation_limit: int = 4  # so many of them far from the medians freeze a scorer's pay
    freeze_rounds: int = 16  # scored rounds without pay
    small_budget: int = 1_000 * UNIT  # a round; a task of no more is small
    free_slots: int = (
        1_024  # of each keeper, without collateral: a newcomer with nothing begins with a GiB
    )
    min_keep_price: int = UNIT // 10_000  # a GiB begun and audit, that a deal pays at least
    keep_fee: int = 500  # parts in 10,000 of what a deal puts aside, paid with the post, never back
    keep_burn: int = 5_000  # parts in 10,000 of that fee; the rest goes to the treasury
    replay_one_in: int = 0  # of so many accepted submissions one is run again; 0: none
    replay_blocks: int = 240  # for the verifier, and as many for the referees
    replay_steps: int = 10  # of a segment
    replay_tolerance: int = 10_000  # parts of a million of the way that a segment goes


RANGES: dict[str, tuple[int, int]] = {
    "block_interval_ms": (1, 600_000),
    "delta_ms": (1, 600_000),
    "epoch_length": (1, 1_000_000),
    "max_validators": (1, MAX_VALIDATORS),
    "min_bond": (0, CAP),
    "worker_bond": (0, CAP),
    "unbonding": (0, 10_000_000),
    "base_fee_floor": (0, UNIT),
    "max_block_gas": (1_000_000, 10**12),
    "max_block_bytes": (2**16, 2**20),
    "blocks_per_day": (1, 86_400_000),
    "emission_per_day": (0, 100),
    "emission_match_percent": (0, 1_000_000),
    "min_task_budget": (0, CAP),
    "slash_part": (0, _TEN_THOUSAND),
    "score_spread": (1, 1_000),
    "audit_blocks": (5, 1_000_000),
    "audit_answer_blocks": (1, 10_000),
    "audit_report_blocks": (2, 10_000),
    "audit_leaves": (1, 4_096),
    "auditors": (1, 31),
    "max_keepers": (0, 1_024),
    "keeper_bond": (0, CAP),
    "strike_limit": (1, 1_000),
    "standing_audits": (1, 1_000_000),
    "seal_log_n": (1, 20),
    "seal_passes": (1, 2**16),
    "max_deals": (0, 128),
    "slash_correlation": (0, 10),
    "jail_blocks": (0, 10_000_000),
    "score_share": (0, _TEN_THOUSAND),
    "score_redraws": (0, 16),
    "deviation_rounds": (1, 64),
    "deviation_limit": (1, 64),
    "freeze_rounds": (0, 10_000),
    "small_budget": (0, CAP),
    "free_slots": (0, 2**32),
    "min_keep_price": (0, UNIT),
    "keep_fee": (0, _TEN_THOUSAND),
    "keep_burn": (0, _TEN_THOUSAND),
    "replay_one_in": (0, 1_000),
    "replay_blocks": (4, 1_000_000),
    "replay_steps": (1, 10_000),
    "replay_tolerance": (1, 10**6),
}
"""Each parameter's lowest and highest value. An auditor asks for a block and reports in the next: two at least."""

MEANINGS: dict[str, tuple[str, str]] = {
    "block_interval_ms": ("ms", "from one block to the next"),
    "delta_ms": ("ms", "the longest a message takes; a leader that is silent costs three of it"),
    "epoch_length": ("blocks", "for which the validators stay the same; a stake counts two later"),
    "max_validators": ("validators", "of an epoch at most: those of most stake"),
    "min_bond": ("tokens", "that an account stakes to be a validator"),
    "worker_bond": ("tokens", "locked while an account is a worker"),
    "unbonding": ("blocks", "until what was unstaked can be withdrawn; slashable meanwhile"),
    "base_fee_floor": ("units a gas", "below which the base fee does not fall; 10^9 are a token"),
    "max_block_gas": ("gas", "of a block at most; the base fee aims at half of it"),
    "max_block_bytes": ("bytes", "of a block's transactions at most"),
    "blocks_per_day": ("blocks", "that are made in a day, by which a day's emission is divided"),
    "emission_per_day": ("parts in 10,000", "of the pool that are emitted in a day"),
    "emission_match_percent": (
        "percent",
        "of a round's budget that it can get on top; 0: no limit",
    ),
    "min_task_budget": ("tokens", "that a task needs at least"),
    "slash_part": ("parts in 10,000", "of what is at stake that any proven fault costs"),
    "score_spread": ("tolerances", "from the median beyond which a scorer is not paid"),
    "audit_blocks": ("blocks", "from one audit of the keepers to the next"),
    "audit_answer_blocks": ("blocks", "in which the keepers answer"),
    "audit_report_blocks": ("blocks", "after them, in which the auditors report"),
    "audit_leaves": ("leaves", "drawn from each keeper in an audit"),
    "auditors": ("validators", "that are drawn for each keeper"),
    "max_keepers": ("keepers", "at most at once"),
    "keeper_bond": ("tokens", "locked for each slot that is lent"),
    "strike_limit": ("strikes", "after which a keeper is slashed and suspended"),
    "standing_audits": ("audits", "without a strike, after which one is forgiven"),
    "seal_log_n": ("bits", "of scrypt's n, which makes a slot's key"),
    "seal_passes": ("passes", "over a slot that sealing takes"),
    "max_deals": ("deals", "open at once"),
    "slash_correlation": ("times", "the share of weight slashed lately that a fault costs on top"),
    "jail_blocks": ("blocks", "that a slashed validator is out at least"),
    "score_share": ("parts in 10,000", "of the views, led by those who scored best"),
    "score_redraws": ("redraws", "of a round's batches when too few validators score"),
    "deviation_rounds": ("rounds", "that are looked back upon for scores far from the medians"),
    "deviation_limit": ("rounds", "of them with such scores that freeze a scorer's pay"),
    "freeze_rounds": ("rounds", "without pay after that"),
    "small_budget": ("tokens", "a round, up to which a task counts as small"),
    "free_slots": ("slots", "that each keeper lends without collateral"),
    "min_keep_price": ("tokens", "a GiB begun and audit, that a deal pays at least"),
    "keep_fee": ("parts in 10,000", "of what a deal puts aside, paid on top and not returned"),
    "keep_burn": ("parts in 10,000", "of that fee that are burned; the treasury gets the rest"),
    "replay_one_in": ("submissions", "that are accepted, of which one is run again; 0: none is"),
    "replay_blocks": ("blocks", "in which it is, and as many for the referees"),
    "replay_steps": ("steps", "of a segment, at whose end a worker keeps its state"),
    "replay_tolerance": ("parts in 1,000,000", "of a segment's way, by which machines may differ"),
}
"""What each parameter is counted in, and what it means; those in tokens are kept in units."""


@dataclass(frozen=True, slots=True)
class GenesisValidator:
    """A validator of epochs 0 and 1; its stake is an allocation of its own."""

    public_key: bytes
    vrf_key: bytes
    stake: int


@dataclass(frozen=True, slots=True)
class Genesis:
    """A network before its first block.

    Attributes:
        network: Its name for people.
        timestamp_ms: UTC milliseconds.
        params: What every node counts with.
        allocations: `(public key, units)`, sorted by key, each key once.
        validators: Sorted by key, each key once; at least one.
        emission_pool: Units that emission draws from.
    """

    network: str
    timestamp_ms: int
    params: Params
    allocations: tuple[tuple[bytes, int], ...]
    validators: tuple[GenesisValidator, ...]
    emission_pool: int = EMISSION_POOL
    _encoded: bytes = field(default=b"", repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check every rule.

        Raises:
            GenesisError: A field is out of its range.
        """
        _check(self)
        body = [
            VERSION,
            self.network,
            self.timestamp_ms,
            _written(self.params),
            [list(pair) for pair in self.allocations],
            [[one.public_key, one.vrf_key, one.stake] for one in self.validators],
            self.emission_pool,
        ]
        object.__setattr__(self, "_encoded", canonical.encode(body))

    @classmethod
    def create(
        cls,
        network: str,
        timestamp_ms: int,
        validators: Iterable[GenesisValidator],
        *,
        allocations: Iterable[tuple[bytes, int]] = (),
        params: Params | None = None,
        emission_pool: int = EMISSION_POOL,
    ) -> Genesis:
        """Make a genesis; sorts what has to be sorted.

        Raises:
            GenesisError: A field is out of its range, or a key stands twice.
        """
        return cls(
            network,
            timestamp_ms,
            params if params is not None else Params(),
            tuple(sorted(allocations)),
            tuple(sorted(validators, key=lambda one: one.public_key)),
            emission_pool,
        )

    @property
    def chain_id(self) -> bytes:
        """SHA-256 of the bytes."""
        return hashlib.sha256(self._encoded).digest()

    def encode(self) -> bytes:
        """The canonical bytes."""
        return self._encoded

    @classmethod
    def decode(cls, data: bytes) -> Genesis:
        """Read canonical bytes.

        Raises:
            GenesisError: Malformed, of another version, or a field is out of its range.
        """
        try:
            body = canonical.decode(data, max_bytes=MAX_GENESIS_BYTES)
            version = body[0] if isinstance(body, list) and body else None
            if type(version) is int and version != VERSION:
                what = f"a genesis of version {version}, and this program reads version {VERSION}"
                message = f"{what}; {TOO_OLD if version < VERSION else OTHER_PROGRAM}"
                raise GenesisError(message)
            _, network, time, params, allocations, validators, pool = body
            if not FIRST_PARAMS <= len(params) <= len(fields(Params)):
                message = (
                    f"a genesis of {len(params)} parameters, and this program knows "
                    f"{FIRST_PARAMS} to {len(fields(Params))}; {OTHER_PROGRAM}"
                )
                raise GenesisError(message)
            genesis = cls(
                network,
                time,
                Params(*params),
                tuple((key, amount) for key, amount in allocations),
                tuple(GenesisValidator(*one) for one in validators),
                pool,
            )
        except (CanonicalError, TypeError, ValueError) as error:
            if isinstance(error, GenesisError):
                raise
            message = f"not a genesis: {error}"
            raise GenesisError(message) from error
        if genesis.encode() != data:  # bytes where a list should be, say
            message = "not a genesis: other bytes stand for the same"
            raise GenesisError(message)
        return genesis

    def save(self, path: Path) -> None:
        """Write the bytes to a file, whole or not at all."""
        temporary = path.with_name(path.name + ".part")
        temporary.write_bytes(self._encoded)
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> Genesis:
        """Read a file.

        Raises:
            GenesisError: The file is not a genesis.
        """
        with path.open("rb") as file:
            return cls.decode(file.read(MAX_GENESIS_BYTES + 1))

    def with_params(self, **changes: int) -> Genesis:
        """The same network with other parameters (and so another chain id)."""
        return replace(self, params=replace(self.params, **changes))


def _written(params: Params) -> list[int]:
    """The parameters as they are hashed: the first ones, and of those that came later what is not the rule of before."""
    values = list(astuple(params))
    before = list(astuple(Params()))
    while len(values) > FIRST_PARAMS and values[-1] == before[len(values) - 1]:
        values.pop()
    return values


def _check(genesis: Genesis) -> None:
    if type(genesis.network) is not str or not 0 < len(genesis.network) <= MAX_NETWORK_NAME:
        message = f"the network's name has 1 to {MAX_NETWORK_NAME} characters"
        raise GenesisError(message)
    _check_int("timestamp_ms", genesis.timestamp_ms, 0, 2**53)
    params = genesis.params
    if params.audit_report_blocks == 1:
        message = "audit_report_blocks is 1: keepers are asked for a block before the one that takes the reports, so 2 at least"
        raise GenesisError(message)
    for name, value in asdict(params).items():
        _check_int(name, value, *RANGES[name])
    if params.audit_answer_blocks + params.audit_report_blocks + 2 > params.audit_blocks:
        message = "an audit's answers and reports leave no block before the next audit"
        raise GenesisError(message)
    if len(genesis.allocations) > MAX_ALLOCATIONS:
        message = f"{len(genesis.allocations):,} allocations where {MAX_ALLOCATIONS:,} are allowed"
        raise GenesisError(message)
    if not 0 < len(genesis.validators) <= genesis.params.max_validators:
        message = f"1 to {genesis.params.max_validators} validators are needed"
        raise GenesisError(message)
    _check_keys([key for key, _ in genesis.allocations])
    _check_keys([one.public_key for one in genesis.validators])
    for _, amount in genesis.allocations:
        _check_int("an allocation", amount, 0, CAP)
    for one in genesis.validators:
        _check_keys([one.vrf_key])
        _check_int("a stake", one.stake, max(1, genesis.params.min_bond), CAP)
    _check_int("emission_pool", genesis.emission_pool, 0, CAP)
    held = sum(amount for _, amount in genesis.allocations)
    held += sum(one.stake for one in genesis.validators)
    _check_int("allocations, stakes and emission", held + genesis.emission_pool, 0, CAP)


def _check_int(name: str, value: object, low: int, high: int) -> None:
    if type(value) is not int or not low <= value <= high:
        message = f"{name} is {value!r}, outside {low:,} to {high:,}"
        raise GenesisError(message)


def _check_keys(keys: list[bytes]) -> None:
    if any(type(key) is not bytes or len(key) != 32 for key in keys):
        message = "a key is not 32 bytes"
        raise GenesisError(message)
    if any(left >= right for left, right in pairwise(keys)):
        message = "keys are not sorted, or one stands twice"
        raise GenesisError(message)

"""Records of what is owned and who decides: accounts, money, the head, the validators of an epoch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Unbonding:
    """Stake or bond on its way out; slashable until then."""

    amount: int
    height: int  # from this height on it can be withdrawn


@dataclass(frozen=True, slots=True)
class Account:
    """What a key owns and does."""

    public_key: bytes
    balance: int = 0
    nonce: int = 0  # of its next transaction
    stake: int = 0
    unbonding: tuple[Unbonding, ...] = ()
    roles: tuple[str, ...] = ()  # sorted
    vrf_key: bytes = b""
    hardware: str = ""
    bond: int = 0  # locked while it is a worker
    registered: int = -1  # height at which it became a worker; -1: it is none
    earned: int = 0  # by training, validating and lending space, ever

    @property
    def held(self) -> int:
        """Everything it owns, locked or not."""
        return self.balance + self.stake + self.bond + sum(one.amount for one in self.unbonding)

    def pack(self) -> list[Any]:
        """Fields for the encoding; the key is not repeated."""
        return [
            self.balance,
            self.nonce,
            self.stake,
            [[one.amount, one.height] for one in self.unbonding],
            self.roles,
            self.vrf_key,
            self.hardware,
            self.bond,
            self.registered,
            self.earned,
        ]

    @classmethod
    def unpack(cls, public_key: bytes, value: list[Any]) -> Account:
        """The record from its fields."""
        balance, nonce, stake, unbonding, roles, *rest = value
        outgoing = tuple(Unbonding(*one) for one in unbonding)
        return cls(public_key, balance, nonce, stake, outgoing, tuple(roles), *rest)


@dataclass(frozen=True, slots=True)
class Head:
    """What the next block builds on."""

    height: int
    beacon: bytes
    base_fee: int  # of the next block
    timestamp_ms: int


@dataclass(frozen=True, slots=True)
class Money:
    """Where the units are that no account holds."""

    genesis: int  # allocated and staked at the start
    emitted: int  # ever
    burned: int  # ever
    pool: int  # not emitted yet
    training: int  # set aside from the pool for the next settled round
    scoring: int  # likewise, for its validators
    treasury: int
    storage: int  # likewise, for the keepers that the next audit proves
    small: int = 0  # likewise, for the next settled round of a small task alone

    @property
    def supply(self) -> int:
        """What exists: genesis + emitted - burned."""
        return self.genesis + self.emitted - self.burned


@dataclass(frozen=True, slots=True)
class EpochValidator:
    """A validator as its epoch fixed it."""

    public_key: bytes
    vrf_key: bytes
    weight: int
    lead: int = 0  # parts in 10,000 of the views, which it leads for its scores


@dataclass(frozen=True, slots=True)
class Slashed:
    """A validator that was slashed, while it still counts for what others lose."""

    public_key: bytes
    epoch: int  # in which it was slashed
    offence: int  # the epoch of its first offence
    share: int  # parts in 10,000 of the weight of its epoch
    at_stake: int  # units, before it was slashed
    part: int  # of them, in 10,000, that it lost so far for its first offence


@dataclass(frozen=True, slots=True)
class Slashings:
    """Everyone who was slashed in this epoch and the one before, in the order of the chain."""

    of: tuple[Slashed, ...]

    def pack(self) -> list[Any]:
        """Fields for the encoding."""
        return [
            [one.public_key, one.epoch, one.offence, one.share, one.at_stake, one.part]
            for one in self.of
        ]

    @classmethod
    def unpack(cls, value: list[Any]) -> Slashings:
        """The record from its fields."""
        return cls(tuple(Slashed(*one) for one in value))


@dataclass(frozen=True, slots=True)
class Conduct:
    """How a validator scored lately."""

    far: int = (
        0  # a bit for each scored round, the newest lowest: whether it lay far from the medians
    )
    frozen: int = 0  # scored rounds that it is still not paid for

    def pack(self) -> list[Any]:
        """Fields for the encoding."""
        return [self.far, self.frozen]


@dataclass(frozen=True, slots=True)
class EpochSet:
    """Who decides in an epoch, and what draws its leaders."""

    epoch: int
    seed: bytes
    validators: tuple[EpochValidator, ...]  # by public key

    @property
    def weight(self) -> int:
        """All of it."""
        return sum(one.weight for one in self.validators)

    @property
    def quorum(self) -> int:
        """`floor(2W/3) + 1`."""
        return 2 * self.weight // 3 + 1

    def find(self, public_key: bytes) -> EpochValidator | None:
        """A validator by its key."""
        return next((one for one in self.validators if one.public_key == public_key), None)

    def weight_of(self, public_key: bytes) -> int:
        """Its weight; 0 for who is none."""
        one = self.find(public_key)
        return one.weight if one is not None else 0

    def pack(self) -> list[Any]:
        """Fields for the encoding; the epoch is not repeated."""
        members = [[one.public_key, one.vrf_key, one.weight, one.lead] for one in self.validators]
        return [self.seed, members]

    @classmethod
    def unpack(cls, epoch: int, value: list[Any]) -> EpochSet:
        """The record from its fields."""
        return cls(epoch, value[0], tuple(EpochValidator(*one) for one in value[1]))

"""What a run is made of: a frozen dataclass a table, read from TOML; `docs/guide/simulate.md` shows them all.

Trouble (loss, partitions, crashes) lasts for `chaos_s`; then the network is calm for `calm_s`, and everybody has to catch up.
"""

# ruff: noqa: RUF009 - these functions make dataclass fields
from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

from swarm.ledger.keeping import MAX_SEATS
from swarm.simulator import fields
from swarm.simulator.errors import ScenarioError
from swarm.simulator.liars import KINDS

if TYPE_CHECKING:
    from pathlib import Path

MAX_FILE_BYTES = 2**16
MAX_VALIDATORS = 100
MAX_WORKERS = 1_000
MAX_KEEPERS = 200
MAX_STAKED = 50_000
"""Of all weights together where there is a ledger: each is 1,000 tokens, and there are only so many."""
MAX_LENT_SLOTS = 4_096
"""Of all keepers together; sealing one takes two milliseconds of real time."""
_FOLDER = resources.files("swarm.simulator") / "scenarios"


@dataclass(frozen=True, slots=True)
class Consensus:
    """How the validators count time; as in a genesis."""

    delta_ms: int = fields.whole(500, 1, 600_000)
    block_interval_ms: int = fields.whole(0, 0, 600_000)
    epoch_length: int = fields.whole(50, 1, 1_000_000)


@dataclass(frozen=True, slots=True)
class Links:
    """Between any two nodes; the first number of `latency_ms` is the least, then the median, the 99th percentile, the most."""

    latency_ms: tuple[int, int, int, int] = fields.rising((20, 50, 120, 400), 4, 0, 600_000)
    loss: int = fields.share(0, 0.9)
    duplicates: int = fields.share(0)
    skew_ms: int = fields.whole(0, 0, 600_000)  # clocks differ by up to so much, either way
    skews: tuple[int, ...] = fields.rising((), 0, -600_000, 600_000)  # or by this, a node each


@dataclass(frozen=True, slots=True)
class Partition:
    """From `begin_s` to `end_s`, `nodes` and the rest do not hear each other; `one_way`: only the rest do not hear them."""

    begin_ms: int = fields.seconds("begin_s", 0, 0, 86_400)
    end_ms: int = fields.seconds("end_s", 0, 0, 86_400)
    nodes: tuple[int, ...] = fields.rising((), 0, 0, MAX_VALIDATORS - 1)
    one_way: bool = fields.flag()


@dataclass(frozen=True, slots=True)
class Crash:
    """One node is killed and comes back."""

    at_ms: int = fields.seconds("at_s", 0, 0, 86_400)
    node: int = fields.whole(0, 0, MAX_VALIDATORS - 1)
    down_ms: int = fields.seconds("down_s", 1000, 0, 86_400)


@dataclass(frozen=True, slots=True)
class Churn:
    """Nodes that come and go: so many crashes a minute, each out for a time in between, and crashes amid a write of the log."""

    per_minute: int = fields.whole(0, 0, 10_000)
    down_ms: tuple[int, int] = fields.rising((500, 5_000), 2, 1, 600_000)
    torn_writes: int = fields.share(0, 0.5)


@dataclass(frozen=True, slots=True)
class Compute:
    """What executing a block takes; the least and the most."""

    execute_ms: tuple[int, int] = fields.rising((0, 0), 2, 0, 60_000)


@dataclass(frozen=True, slots=True)
class Liars:
    """Some nodes that do not do as the protocol says: the last ones, or those named in `nodes`.

    `strength` is a liar's own measure: of a twin, the share of its messages that also reach the other side; of a dropper, that of its
    slots which are gone.
    """

    kind: str = fields.text()
    count: int = fields.whole(1, 1, MAX_WORKERS)
    nodes: tuple[int, ...] = fields.rising((), 0, 0, MAX_WORKERS - 1)
    strength: int = fields.share(0)


@dataclass(frozen=True, slots=True)
class Ledger:
    """The real ledger, and people who pay each other; without this table blocks are plain."""

    accounts: int = fields.whole(8, 1, 1_000)
    transfers_per_s: int = fields.whole(2, 0, 10_000)


@dataclass(frozen=True, slots=True)
class Hardware:
    """A class of machines that train; `noise` is the deviation of what an update is worth, `straggle` how often it takes long."""

    name: str = fields.text("cpu")
    workers: int = fields.whole(1, 1, MAX_WORKERS)
    steps_per_s: int = fields.whole(10, 1, 1_000_000)
    noise: int = fields.share(200_000, 10.0)
    straggle: int = fields.share(0)
    straggle_times: int = fields.whole(5, 1, 1_000)


@dataclass(frozen=True, slots=True)
class Training:
    """One task; losses are nats x 10^5, phases are blocks, `gain` is the part of the loss above the floor that a round takes."""

    rounds: int = fields.whole(5, 1, 10_000)
    steps: int = fields.whole(100, 1, 1_000_000_000)
    budget: int = fields.whole(1_000, 1, 1_000_000)  # tokens
    tolerance: int = fields.whole(20, 0, 2**30)
    loss: int = fields.whole(400_000, 1, 2**30)
    floor: int = fields.whole(150_000, 0, 2**30)
    gain: int = fields.share(50_000)
    measure_noise: int = fields.whole(4, 0, 2**20)  # between validators, in nats x 10^5
    score_ms: int = fields.whole(200, 0, 600_000)  # a submission
    train: int = fields.whole(60, 1, 1_000_000)
    reveal: int = fields.whole(10, 1, 1_000_000)
    score: int = fields.whole(20, 1, 1_000_000)
    attest: int = fields.whole(10, 1, 1_000_000)


@dataclass(frozen=True, slots=True)
class Storage:
    """The audits of those who lend space; as in a genesis, but for what sealing costs, which is `seal_ms` of `Keepers`."""

    audit_blocks: int = fields.whole(24, 5, 1_000_000)
    answer_blocks: int = fields.whole(4, 1, 10_000)
    report_blocks: int = fields.whole(8, 2, 10_000)
    leaves: int = fields.whole(32, 1, 4_096)
    auditors: int = fields.whole(3, 1, 31)
    strike_limit: int = fields.whole(3, 1, 1_000)
    standing_audits: int = fields.whole(24, 1, 1_000_000)
    free_slots: int = fields.whole(0, 0, 1_000_000)  # without collateral
    audits_per_day: int = fields.whole(24, 1, 10_000)  # for what the report says of a day


@dataclass(frozen=True, slots=True)
class Keepers:
    """A class of machines that lend; they go for good at `leave_s`, and are out of reach in `away_s`."""

    name: str = fields.text("disk")
    count: int = fields.whole(1, 1, MAX_KEEPERS)
    slots: int = fields.whole(8, 1, MAX_LENT_SLOTS)
    seal_ms: int = fields.whole(130, 1, 600_000)  # a slot
    read_ms: int = fields.whole(5, 0, 60_000)  # a leaf
    mb_per_s: int = fields.whole(10, 1, 100_000)  # of fetching
    leave_ms: int = fields.seconds("leave_s", 0, 0, 86_400)  # 0: never
    away_s: tuple[int, ...] = fields.rising((), 0, 0, 86_400)


@dataclass(frozen=True, slots=True)
class Deals:
    """What an owner pays to have kept; `price` is a thousandth of a token a piece, copy and audit."""

    count: int = fields.whole(1, 1, 128)
    pieces: int = fields.whole(2, 1, 32)
    piece_kib: int = fields.whole(1_024, 1, 16_384)
    replicas: int = fields.whole(2, 1, 16)
    audits: int = fields.whole(24, 1, 100_000)
    price: int = fields.whole(100, 1, 1_000_000)


@dataclass(frozen=True, slots=True)
class Scenario:
    """A run."""

    title: str = fields.text("a network")
    validators: int = fields.whole(4, 1, MAX_VALIDATORS)
    weights: tuple[int, ...] = fields.rising(
        (), 0, 1, 1_000_000
    )  # one a validator; all 1 if left out
    chaos_ms: int = fields.seconds("chaos_s", 30_000, 0, 86_400)
    calm_ms: int = fields.seconds("calm_s", 10_000, 0, 86_400)
    consensus: Consensus = fields.table(Consensus)
    links: Links = fields.table(Links)
    compute: Compute = fields.table(Compute)
    churn: Churn = fields.table(Churn)
    crashes: tuple[Crash, ...] = fields.tables(Crash)
    partitions: tuple[Partition, ...] = fields.tables(Partition)
    liars: tuple[Liars, ...] = fields.tables(Liars)
    ledger: Ledger | None = fields.optional(Ledger)
    hardware: tuple[Hardware, ...] = fields.tables(Hardware)
    training: Training | None = fields.optional(Training)
    storage: Storage | None = fields.optional(Storage)
    keepers: tuple[Keepers, ...] = fields.tables(Keepers)
    deals: Deals | None = fields.optional(Deals)

    def __post_init__(self) -> None:
        """Check what no field can say alone.

        Raises:
            ScenarioError: Two fields do not go together.
        """
        if self.weights and len(self.weights) != self.validators:
            _refuse(f"weights: {len(self.weights)} where there are {self.validators} validators")
        if self.ledger is not None and sum(self.weights) > MAX_STAKED:
            _refuse(
                f"weights: {sum(self.weights):,} together where {MAX_STAKED:,} are allowed with a [ledger]"
            )
        if self.chaos_ms + self.calm_ms == 0:
            _refuse("chaos_s and calm_s: there is nothing to run")
        if self.links.skews and len(self.links.skews) != self.validators:
            _refuse(f"links.skews: one a validator is wanted, {self.validators}")
        places = [place for one in self.partitions for place in one.nodes]
        places += [one.node for one in self.crashes]
        if max(places, default=0) >= self.validators:
            _refuse(f"node {max(places)}: the validators are 0 to {self.validators - 1}")
        for one in self.partitions:
            if one.end_ms <= one.begin_ms:
                _refuse("partitions: end_s has to be after begin_s")
        if self.training is not None and (self.ledger is None or not self.hardware):
            _refuse("training: needs a [ledger] and at least one [[hardware]]")
        if self.workers > MAX_WORKERS:
            _refuse(f"hardware: {self.workers:,} workers where {MAX_WORKERS:,} are allowed")
        self._check_storage()
        self._check_liars()

    def _check_storage(self) -> None:
        audits, deals = self.storage, self.deals
        if (self.keepers or deals) and audits is None:
            _refuse("keepers and deals: need [storage]")
        if audits is None:
            return
        if self.ledger is None or not self.keepers:
            _refuse("storage: needs a [ledger] and at least one [[keepers]]")
        if audits.answer_blocks + audits.report_blocks + 2 > audits.audit_blocks:
            _refuse("storage.audit_blocks: has to be 2 above answer_blocks and report_blocks")
        if self.lenders > MAX_KEEPERS:
            _refuse(f"keepers: {self.lenders:,} where {MAX_KEEPERS:,} are allowed")
        lent = sum(one.count * one.slots for one in self.keepers)
        if lent > MAX_LENT_SLOTS:
            _refuse(f"keepers: {lent:,} slots where {MAX_LENT_SLOTS:,} are allowed")
        if any(
            one.away_s and (len(one.away_s) != 2 or one.away_s[0] >= one.away_s[1])
            for one in self.keepers
        ):
            _refuse("keepers.away_s: two seconds are wanted, from when and until when")
        if deals is not None and deals.pieces * deals.replicas > MAX_SEATS:
            _refuse(f"deals: at most {MAX_SEATS} pieces, replicas counted")

    def _check_liars(self) -> None:
        taken: set[tuple[str, int]] = set()
        for liars in self.liars:
            kind = KINDS.get(liars.kind)
            if kind is None:
                _refuse(f"liars.kind: there is no {liars.kind!r}; there are: {', '.join(KINDS)}")
                return
            if kind.role == "worker" and self.training is None:
                _refuse(f"liars: a {liars.kind} needs [training]")
            if kind.role == "keeper" and self.storage is None:
                _refuse(f"liars: a {liars.kind} needs [storage]")
            for place in self.places(liars):
                if (kind.role, place) in taken:
                    _refuse(f"liars: node {place} is two kinds of liar")
                taken.add((kind.role, place))

    @property
    def workers(self) -> int:
        """Of all classes together."""
        return sum(one.workers for one in self.hardware)

    @property
    def lenders(self) -> int:
        """Keepers of all classes together."""
        return sum(one.count for one in self.keepers)

    def weight(self, place: int) -> int:
        """Of a validator."""
        return self.weights[place] if self.weights else 1

    def places(self, liars: Liars) -> tuple[int, ...]:
        """Which nodes a kind of liar is: among the validators, the workers or the keepers.

        Raises:
            ScenarioError: There are not so many.
        """
        role = KINDS[liars.kind].role
        whole = {
            "validator": self.validators,
            "worker": self.workers,
            "keeper": self.lenders,
        }[role]
        if max(liars.nodes, default=0) >= whole or (not liars.nodes and liars.count > whole):
            _refuse(f"liars: more of {liars.kind} than there are nodes ({whole})")
        return liars.nodes or tuple(range(whole - liars.count, whole))


def names() -> list[str]:
    """The scenarios that come with the package."""
    return sorted(one.name[:-5] for one in _FOLDER.iterdir() if one.name.endswith(".toml"))


def load(name: str) -> Scenario:
    """A scenario that comes with the package.

    Raises:
        ScenarioError: There is none of that name.
    """
    if name not in names():
        message = f"there is no scenario {name!r}"
        raise ScenarioError(message, f"there are: {', '.join(names())}; or give a file")
    return parse((_FOLDER / f"{name}.toml").read_text(encoding="utf-8"))


def read(path: Path) -> Scenario:
    """A scenario from a file.

    Raises:
        ScenarioError: The file cannot be read, or is no scenario.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        content = data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        message = f"{path}: {error}"
        raise ScenarioError(message) from error
    if len(data) > MAX_FILE_BYTES:
        _refuse(f"{path}: a scenario has at most {MAX_FILE_BYTES:,} bytes")
    try:
        return parse(content)
    except ScenarioError as error:
        message = f"{path}: {error.message}"
        raise ScenarioError(message, error.hint) from error


def parse(content: str) -> Scenario:
    """A scenario from TOML.

    Raises:
        ScenarioError: It is no TOML, or a field is wrong.
    """
    try:
        value = tomllib.loads(content)
    except tomllib.TOMLDecodeError as error:
        message = f"not TOML: {error}"
        raise ScenarioError(message) from error
    return fields.read_table(Scenario, value)


def _refuse(why: str) -> None:
    raise ScenarioError(why)

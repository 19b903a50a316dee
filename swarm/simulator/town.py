"""Everybody who uses the ledger: those who pay each other, those who train, and validators as they score.

The ledger is the shipped one, over a state in memory; so what anybody earns here is what the rules give.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Final, cast

from protocols.consensus.evidence import decode_evidence
from storage import cid as cids
from swarm.ledger.application import LedgerApplication
from swarm.ledger.errors import LedgerError
from swarm.ledger.execute import check_supply
from swarm.ledger.genesis import UNIT, Genesis, GenesisValidator, Params
from swarm.ledger.state import Phases
from swarm.ledger.transactions import Evidence, Register, TaskPost, Transfer, transaction_id
from swarm.ledger.vrf import VrfKey
from swarm.simulator import keys, sealed
from swarm.simulator.accounts import Account
from swarm.simulator.chance import Chance
from swarm.simulator.depot import Depot
from swarm.simulator.members import Member
from swarm.simulator.memory_store import MemoryStore
from swarm.simulator.node import START_UTC_MS
from swarm.simulator.trainers import BASE, Model

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from protocols.consensus.messages import Block
    from protocols.signing import Signer
    from storage.state_store import StateStore
    from swarm.ledger.transactions import Transaction
    from swarm.simulator.node import Node
    from swarm.simulator.scenario import Storage
    from swarm.simulator.simulation import Simulation

STAKE: Final = 1_000 * UNIT
"""Of a validator of weight 1."""
POCKET: Final = 1_000_000 * UNIT
MOST_PAID: Final = 100 * POCKET
"""Of all who pay each other together: there are only so many tokens."""
TASK: Final = "simulated"
FIRST_MS: Final = 1_000
"""When people begin."""
REGISTER_GAP_MS: Final = 20


class Town:
    """The ledger's world.

    Args:
        world: The run.
    """

    def __init__(self, world: Simulation) -> None:
        self.world = world
        self.chance = Chance("town", world.seed)
        scenario = world.scenario
        assert scenario.ledger is not None  # noqa: S101 - for the type
        self._traffic = scenario.ledger
        self._payer_keys = [keys.signer("payer", at) for at in range(self._traffic.accounts)]
        self._poster_key = keys.signer("poster", 0)
        self.worker_keys = [keys.signer("worker", at) for at in range(scenario.workers)]
        self.keeper_keys = [keys.signer("keeper", at) for at in range(scenario.lenders)]
        self._owner_key = keys.signer("owner", 0)
        self.genesis = self._genesis()
        self.depot = Depot(self, scenario.storage) if scenario.storage is not None else None
        self.members: list[Member] = []
        self._at_home: dict[str, list[Member]] = {}
        self._accounts: dict[str, list[Account]] = {}
        self._own: dict[str, Account] = {}
        self._reported: set[tuple[str, bytes, int]] = set()
        self._payers: list[Account] = []
        self._poster: Account | None = None
        self._posted = scenario.training is None

    def _genesis(self) -> Genesis:
        scenario = self.world.scenario
        people = [self._poster_key]
        if scenario.storage is not None:
            people += [self._owner_key, *self.keeper_keys]
        validators = [
            GenesisValidator(
                one.public_key,
                VrfKey.of(one.seed).public_key,
                STAKE * scenario.weight(place),
            )
            for place, one in enumerate(self.world.signers)
        ]
        consensus = scenario.consensus
        params = Params(
            block_interval_ms=max(1, consensus.block_interval_ms),
            delta_ms=consensus.delta_ms,
            epoch_length=consensus.epoch_length,
            max_validators=scenario.validators,
            min_bond=STAKE // 10,
        )
        if scenario.storage is not None:
            params = _audited(params, scenario.storage)
        return Genesis.create(
            f"simulation {self.world.seed}",
            START_UTC_MS,
            validators,
            allocations=[(one.public_key, POCKET) for one in people] + self._pockets(),
            params=params,
        )

    def _pockets(self) -> list[tuple[bytes, int]]:
        """What those who pay each other begin with."""
        each = min(POCKET, MOST_PAID // len(self._payer_keys))
        return [(one.public_key, each) for one in self._payer_keys]

    def opener(self) -> Callable[[Signer], LedgerApplication]:
        """Opens one node's ledger, again after each crash: what was committed is still there."""
        store = cast("StateStore", MemoryStore())
        return lambda signer: LedgerApplication(store, self.genesis, signer)

    @staticmethod
    def ledger(node: Node) -> LedgerApplication:
        """A node's ledger."""
        return cast("LedgerApplication", node.application)

    # People

    def open(self) -> None:
        """Let everybody in, once the nodes are there."""
        world, scenario = self.world, self.world.scenario
        homes = [node for node in world.nodes if node.side == 0]
        for node in homes:
            self._own[node.name] = self._account(node.signer, node)
        for at, key in enumerate(self._payer_keys):
            self._payers.append(self._account(key, homes[at % len(homes)]))
        self._poster = self._account(self._poster_key, homes[0])
        if self._traffic.transfers_per_s:
            world.schedule.at(FIRST_MS, self._pay, 0)
        if self.depot is not None:
            self._lend(self.depot, homes)
        if scenario.training is None:
            return
        model = Model(scenario.training, world.seed)
        for node in homes:
            self._join(Member(self, self._own[node.name], node.behaviour, model, scenario.training, None, self.chance))  # fmt: skip
        at = 0
        for hardware in scenario.hardware:
            for _ in range(hardware.workers):
                account = self._account(self.worker_keys[at], homes[at % len(homes)])
                behaviour = world.behaviour_of("worker", at)
                self._join(Member(self, account, behaviour, model, scenario.training, hardware, self.chance))  # fmt: skip
                name = hardware.name
                world.schedule.at(FIRST_MS + at * REGISTER_GAP_MS, self._register, account, name)
                at += 1

    def _lend(self, depot: Depot, homes: Sequence[Node]) -> None:
        keepers = [
            self._account(key, homes[at % len(homes)]) for at, key in enumerate(self.keeper_keys)
        ]
        auditors = [(self._own[node.name], node.behaviour) for node in homes]
        depot.open(self._account(self._owner_key, homes[0]), keepers, auditors)

    def _account(self, signer: Signer, home: Node) -> Account:
        account = Account(self, signer, home)
        self._accounts.setdefault(home.name, []).append(account)
        return account

    def _join(self, member: Member) -> None:
        self.members.append(member)
        self._at_home.setdefault(member.account.home.name, []).append(member)

    def _register(self, account: Account, hardware: str) -> None:
        payload = Register(VrfKey.of(account.signer.seed).public_key, hardware, ("worker",))
        if not account.submit(payload):  # its node is down
            self.world.schedule.after(FIRST_MS, self._register, account, hardware)

    def _pay(self, sent: int) -> None:
        """One payment; the next is due by count, so that no rounding adds up."""
        payer = self.chance.pick(self._payers)
        payer.submit(Transfer(self.chance.pick(self._payers).key, self.chance.between(1, UNIT)))
        due = FIRST_MS + (sent + 1) * 1000 // self._traffic.transfers_per_s
        if due < self.world.length_ms:
            self.world.schedule.at(due, self._pay, sent + 1)

    def _post(self, node: Node) -> None:
        """The task, once all workers are registered."""
        training, poster = self.world.scenario.training, self._poster
        if training is None or poster is None:
            return
        if len(self.ledger(node).view().workers()) < len(self.worker_keys):
            return
        phases = Phases(
            training.train, training.reveal, training.score, training.score, training.attest
        )
        other = cids.of_raw(b"swarm/simulation/data")
        payload = TaskPost(
            TASK,
            "lm",
            b"simulated",
            BASE,
            other,
            other,
            training.rounds,
            training.budget * UNIT,
            phases,
            training.tolerance,
        )
        self._posted = poster.submit(payload)

    def report(self, node: Node, evidence: bytes) -> None:
        """A validator hands in evidence, once an epoch for each that it accuses."""
        vote, _ = decode_evidence(evidence)
        key = (node.name, vote.voter, vote.epoch)
        account = self._own.get(node.name)
        if account is None or key in self._reported:
            return
        if not self.ledger(node).view().evidence_counted(vote.voter, vote.epoch, vote.view):
            self._reported.add(key)
            account.submit(Evidence(evidence))

    # Transactions

    def gossip(self, source: Node, transaction: Transaction) -> None:
        """Tell every other node; each message may be late or lost as any other."""
        schedule = self.world.schedule
        self.world.measures.submitted.setdefault(transaction.id, schedule.now)
        for node in self.world.nodes:
            if node is not source and self.world.talk(source, node):
                for delay in self.world.network.delays(source.place, node.place, schedule.now):
                    schedule.after(delay, self._take, node, transaction)

    def _take(self, node: Node, transaction: Transaction) -> None:
        if node.replica is not None:
            with suppress(LedgerError):
                self.ledger(node).submit(transaction)

    def committed(self, node: Node, block: Block, *, first: bool) -> None:
        """A block is final at a node: whoever lives there looks."""
        if first:
            self._count(node, block)
            if not self._posted:
                self._post(node)
        for account in self._accounts.get(node.name, ()):
            account.resend(block.height)
        for member in self._at_home.get(node.name, ()):
            far = member.hardware is not None
            member.look_after(self.world.network.delay() if far else 0)
        if self.depot is not None:
            self.depot.committed(node.name, self.ledger(node).view(), first=first)

    def _count(self, node: Node, block: Block) -> None:
        ledger, measures = self.ledger(node), self.world.measures
        for data in ledger.transactions_of(block):
            identifier = transaction_id(data)
            included = ledger.included(identifier)
            measures.failed += included is not None and bool(included.error)
            begun = measures.submitted.get(identifier)
            if begun is not None:
                measures.paid.append(self.world.schedule.now - begun)

    # At the end

    @property
    def newest(self) -> LedgerApplication:
        """The ledger of a node that is as far as any."""
        return self.ledger(max(self.world.honest, key=lambda node: node.height))

    def check(self) -> None:
        """Every unit is counted.

        Raises:
            LedgerError: One is missing or too many.
        """
        check_supply(self.newest.view().raw)


def _audited(params: Params, storage: Storage) -> Params:
    """The parameters of a network in which space is lent."""
    return replace(
        params,
        audit_blocks=storage.audit_blocks,
        audit_answer_blocks=storage.answer_blocks,
        audit_report_blocks=storage.report_blocks,
        audit_leaves=storage.leaves,
        auditors=storage.auditors,
        strike_limit=storage.strike_limit,
        standing_audits=storage.standing_audits,
        free_slots=storage.free_slots,
        seal_log_n=sealed.LOG_N,
        seal_passes=sealed.PASSES,
    )

"""What each transaction does, once it stands in a block and has paid; all of it, or `Refused` and nothing."""

# ruff: noqa: EM101, EM102 - rules share a signature; a refusal's reason is what its receipt keeps
from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from protocols.consensus import evidence as contradictions
from protocols.consensus.errors import EvidenceError
from swarm.ledger import capacity, deals, replays, rounds, slashing, state, validators, vrf
from swarm.ledger.errors import Refused
from swarm.ledger.names import READS_AS_CID, reads_as_cid
from swarm.ledger.state import NO_CID, Account, Dataset, NameEntry
from swarm.ledger.transactions import (
    AuditReport,
    CapacityAnswer,
    CapacityCommit,
    CheckpointCommit,
    CheckpointReveal,
    DatasetPublish,
    Evidence,
    KeepEnd,
    KeepPost,
    MergeAttest,
    NameRegister,
    NameUpdate,
    Register,
    ReplayFinding,
    ReplaySeal,
    ScoreCommit,
    ScoreReveal,
    Stake,
    TaskPost,
    Transfer,
    Unjail,
    Unstake,
    Withdraw,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from swarm.ledger.draft import Draft
    from swarm.ledger.transactions import Transaction

MAX_WORKERS: Final = 1024
WORKER: Final = "worker"


@dataclass(frozen=True, slots=True)
class Context:
    """What a block's header and proof say; checked before it is executed."""

    height: int
    timestamp_ms: int
    leader: bytes
    beacon: bytes  # after this block's proof
    missed: tuple[bytes, ...] = ()  # the leaders of the views before its own that brought no block


def run(draft: Draft, transaction: Transaction, context: Context) -> str | None:
    """Apply the payload's rule.

    Returns:
        None or empty, or why it counts as failed although what it noted is kept.

    Raises:
        Refused: It fails; the caller takes its changes back.
    """
    payload = transaction.payload
    return _RULES[type(payload)](draft, transaction, payload, context)


def _transfer(draft: Draft, by: Transaction, asked: Transfer, context: Context) -> None:
    sender = draft.account(by.sender)
    if sender.balance < asked.amount:
        raise Refused("the balance does not cover the amount")
    draft.put_account(replace(sender, balance=sender.balance - asked.amount))
    receiver = draft.account(asked.to)
    draft.put_account(replace(receiver, balance=receiver.balance + asked.amount))


def _stake(draft: Draft, by: Transaction, asked: Stake, context: Context) -> None:
    amount = asked.amount
    account = draft.account(by.sender)
    if account.balance < amount:
        raise Refused("the balance does not cover the amount")
    if account.stake + amount < draft.params.min_bond:
        raise Refused(f"a validator's stake is at least {draft.params.min_bond:,}")
    draft.put_account(
        replace(account, balance=account.balance - amount, stake=account.stake + amount)
    )


def _unstake(draft: Draft, by: Transaction, asked: Unstake, context: Context) -> None:
    amount = asked.amount
    account = draft.account(by.sender)
    left = account.stake - amount
    if left < 0:
        raise Refused("the stake is less than the amount")
    if 0 < left < draft.params.min_bond:
        raise Refused(f"what stays is neither nothing nor {draft.params.min_bond:,}")
    draft.put_account(_unbonding(draft, replace(account, stake=left), amount, context.height))


def _withdraw(draft: Draft, by: Transaction, asked: Withdraw, context: Context) -> None:
    account = draft.account(by.sender)
    due = sum(one.amount for one in account.unbonding if one.height <= context.height)
    staying = tuple(one for one in account.unbonding if one.height > context.height)
    if len(staying) == len(account.unbonding):
        raise Refused("nothing has unbonded yet")
    draft.put_account(replace(account, balance=account.balance + due, unbonding=staying))


def _register(draft: Draft, by: Transaction, asked: Register, context: Context) -> None:
    if not vrf.is_key(asked.vrf_key):
        raise Refused("the VRF key is not a point of prime order")
    keeper = draft.keeper(by.sender)
    if keeper is not None and keeper.slots and capacity.ROLE not in asked.roles:
        raise Refused("a keeper takes its slots back before it gives up the role")
    account = replace(
        draft.account(by.sender),
        vrf_key=asked.vrf_key,
        hardware=asked.hardware,
        roles=asked.roles,
    )
    was, is_ = account.registered >= 0, WORKER in asked.roles
    if is_ and not was:
        if len(draft.workers) >= MAX_WORKERS:
            raise Refused(f"{MAX_WORKERS} workers are registered")
        bond = draft.params.worker_bond
        if account.balance < bond:
            raise Refused(f"the balance does not cover a worker's bond of {bond:,}")
        account = replace(
            account, balance=account.balance - bond, bond=bond, registered=context.height
        )
        draft.put_workers({**draft.workers, by.sender: context.height})
    elif was and not is_:
        if account.bond:
            account = _unbonding(draft, account, account.bond, context.height)
        account = replace(account, bond=0, registered=-1)
        draft.put_workers({key: at for key, at in draft.workers.items() if key != by.sender})
        rounds.left(draft, by.sender)
    draft.put_account(account)


def _unbonding(draft: Draft, account: Account, amount: int, height: int) -> Account:
    if len(account.unbonding) >= validators.MAX_UNBONDING:
        raise Refused("too many amounts are unbonding: withdraw first")
    return validators.unbond(account, amount, validators.release_height(draft, height))


def _dataset_publish(
    draft: Draft, by: Transaction, asked: DatasetPublish, context: Context
) -> None:
    if draft.dataset(asked.root) is not None:
        raise Refused("the dataset is already listed")
    draft.put_dataset(
        Dataset(asked.root, by.sender, asked.size, asked.chunks, asked.licence, context.height)
    )


def _name_register(draft: Draft, by: Transaction, asked: NameRegister, context: Context) -> None:
    if draft.name(asked.name) is not None:
        raise Refused("the name is taken")
    if reads_as_cid(asked.name):
        raise Refused(READS_AS_CID)
    draft.put_name(NameEntry(asked.name, by.sender, asked.root, 0, NO_CID, context.height))


def _name_update(draft: Draft, by: Transaction, asked: NameUpdate, context: Context) -> None:
    entry = draft.name(asked.name)
    if entry is None:
        raise Refused("no such name")
    if entry.owner != by.sender:
        raise Refused("the name is another account's")
    if entry.task:
        raise Refused("an open task writes that name")
    if asked.version != entry.version + 1:
        raise Refused(f"the next version is {entry.version + 1}")
    if asked.previous != entry.root:
        raise Refused("the version before has another root")
    draft.put_name(
        replace(
            entry,
            root=asked.root,
            version=asked.version,
            previous=entry.root,
            height=context.height,
        )
    )


def _task_post(draft: Draft, by: Transaction, asked: TaskPost, context: Context) -> None:
    rounds.post(draft, by.id, by.sender, asked, context.height, context.beacon)


def _checkpoint_commit(
    draft: Draft, by: Transaction, asked: CheckpointCommit, context: Context
) -> str:
    return rounds.commit(draft, by.sender, asked)


def _checkpoint_reveal(
    draft: Draft, by: Transaction, asked: CheckpointReveal, context: Context
) -> str:
    return rounds.reveal(draft, by.sender, asked)


def _score_commit(draft: Draft, by: Transaction, asked: ScoreCommit, context: Context) -> None:
    rounds.commit_scores(draft, by.sender, asked)


def _score_reveal(draft: Draft, by: Transaction, asked: ScoreReveal, context: Context) -> None:
    rounds.reveal_scores(draft, by.sender, asked)


def _merge_attest(draft: Draft, by: Transaction, asked: MergeAttest, context: Context) -> None:
    rounds.attest(draft, by.sender, asked)


def _evidence(draft: Draft, by: Transaction, asked: Evidence, context: Context) -> None:
    proof = asked.evidence
    try:
        accused = contradictions.verify_evidence(proof, by.chain_id)
        vote, _ = contradictions.decode_evidence(proof)
    except EvidenceError as error:
        raise Refused(str(error)) from error
    if vote.epoch > validators.epoch_of(context.height, draft.params.epoch_length):
        raise Refused("votes of an epoch to come")
    if draft.epoch_set(vote.epoch).find(accused) is None:
        raise Refused("the accused was no validator of that epoch")
    key = state.evidence_key(accused, vote.epoch, vote.view)
    if draft.evidence_counted(key):
        raise Refused("that view has been punished")
    slashing.punish(draft, accused, vote.epoch, by.sender, context.height)
    draft.put_evidence(key)


def _unjail(draft: Draft, by: Transaction, asked: Unjail, context: Context) -> None:
    slashing.unjail(draft, by.sender, context.height)


def _capacity_commit(
    draft: Draft, by: Transaction, asked: CapacityCommit, context: Context
) -> None:
    capacity.commit(draft, by.sender, asked, context.height)


def _capacity_answer(
    draft: Draft, by: Transaction, asked: CapacityAnswer, context: Context
) -> None:
    capacity.answer(draft, by.sender, asked, context.height)


def _audit_report(draft: Draft, by: Transaction, asked: AuditReport, context: Context) -> None:
    capacity.report(draft, by.sender, asked, context.height)


def _keep_post(draft: Draft, by: Transaction, asked: KeepPost, context: Context) -> None:
    deals.post(draft, by.id, by.sender, asked, context.height)


def _keep_end(draft: Draft, by: Transaction, asked: KeepEnd, context: Context) -> None:
    deals.end(draft, by.sender, asked)


def _replay_finding(draft: Draft, by: Transaction, asked: ReplayFinding, context: Context) -> None:
    replays.find(draft, by.sender, asked, context.height)


def _replay_seal(draft: Draft, by: Transaction, asked: ReplaySeal, context: Context) -> None:
    replays.seal(draft, by.sender, asked, context.height)


_RULES: dict[type, Callable[..., str | None]] = {
    Transfer: _transfer,
    Stake: _stake,
    Unstake: _unstake,
    Withdraw: _withdraw,
    Register: _register,
    DatasetPublish: _dataset_publish,
    NameRegister: _name_register,
    NameUpdate: _name_update,
    TaskPost: _task_post,
    CheckpointCommit: _checkpoint_commit,
    CheckpointReveal: _checkpoint_reveal,
    ScoreCommit: _score_commit,
    ScoreReveal: _score_reveal,
    MergeAttest: _merge_attest,
    Evidence: _evidence,
    CapacityCommit: _capacity_commit,
    CapacityAnswer: _capacity_answer,
    AuditReport: _audit_report,
    KeepPost: _keep_post,
    KeepEnd: _keep_end,
    Unjail: _unjail,
    ReplayFinding: _replay_finding,
    ReplaySeal: _replay_seal,
}

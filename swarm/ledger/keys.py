"""Where each record of the ledger stands in the state.

Keys are a letter, `/`, and what the record is of; numbers in keys are big endian, so that a scan is in order.

    a/ account   n/ name   v/ name version   t/ task   r/ current round   h/ settled round
    d/ dataset   s/ validators of an epoch   b/ who has a stake   e/ evidence that counted
    j/ jailed validator   f/ how it scored lately
    k/ keeper   q/ its answer to an audit   p/ a validator's report   c/ deal   g/ who keeps its pieces
    x/ submission that is run again   w/ strikes of a worker
    m/ head, money, params, workers, open tasks, slashed lately, earned by score, missed views, keepers, audit, open deals, open replays
"""

from __future__ import annotations

CHAIN_KEY = b"m/chain"
HEAD_KEY = b"m/head"
MONEY_KEY = b"m/money"
PARAMS_KEY = b"m/params"
WORKERS_KEY = b"m/workers"
OPEN_TASKS_KEY = b"m/open"
SLASHED_KEY = b"m/slashed"
SCORED_KEY = b"m/scored"
MISSED_KEY = b"m/missed"
KEEPERS_KEY = b"m/keepers"
AUDIT_KEY = b"m/audit"
OPEN_DEALS_KEY = b"m/deals"
OPEN_REPLAYS_KEY = b"m/replays"


def account_key(public_key: bytes) -> bytes:
    """Where an account stands."""
    return b"a/" + public_key


def name_key(name: str, version: int | None = None) -> bytes:
    """Where a name stands, or one of its versions: the raw key that a proof is about."""
    if version is None:
        return b"n/" + name.encode()
    return b"v/" + name.encode() + b"/" + version.to_bytes(8, "big")


def task_key(task: bytes) -> bytes:
    """Where a task stands."""
    return b"t/" + task


def round_key(task: bytes) -> bytes:
    """Where a task's current round stands."""
    return b"r/" + task


def history_key(task: bytes, number: int) -> bytes:
    """Where a round that ended stands."""
    return b"h/" + task + number.to_bytes(4, "big")


def dataset_key(root: bytes) -> bytes:
    """Where a dataset stands."""
    return b"d/" + root


def epoch_key(epoch: int) -> bytes:
    """Where the validators of an epoch stand."""
    return b"s/" + epoch.to_bytes(8, "big")


def staker_key(public_key: bytes) -> bytes:
    """Where it stands that an account has a stake."""
    return b"b/" + public_key


def evidence_key(public_key: bytes, epoch: int, view: int) -> bytes:
    """Where it stands that a validator was slashed for a view."""
    return b"e/" + public_key + epoch.to_bytes(8, "big") + view.to_bytes(8, "big")


def jail_key(public_key: bytes) -> bytes:
    """Where it stands until when a validator is jailed."""
    return b"j/" + public_key


def conduct_key(public_key: bytes) -> bytes:
    """Where it stands how a validator scored lately."""
    return b"f/" + public_key


def keeper_key(public_key: bytes) -> bytes:
    """Where a keeper's capacity stands."""
    return b"k/" + public_key


def answer_key(public_key: bytes) -> bytes:
    """Where a keeper's answer to its last audit stands."""
    return b"q/" + public_key


def report_key(public_key: bytes) -> bytes:
    """Where a validator's report on the running audit stands."""
    return b"p/" + public_key


def deal_key(deal: bytes) -> bytes:
    """Where a deal stands."""
    return b"c/" + deal


def seats_key(deal: bytes) -> bytes:
    """Where it stands who keeps the pieces of a deal."""
    return b"g/" + deal


def replay_key(task: bytes, number: int, worker: bytes) -> bytes:
    """Where it stands that a submission is run again."""
    return b"x/" + task + number.to_bytes(4, "big") + worker


def strikes_key(public_key: bytes) -> bytes:
    """Where it stands how often a worker withheld what it had recorded."""
    return b"w/" + public_key

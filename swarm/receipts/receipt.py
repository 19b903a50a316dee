"""One receipt: what the ledger says of a contribution, signed by who made it; pure.

The signature is under the tag `swarm/receipt/1`, over the canonical bytes of the fields in the order of `Receipt`.
It shows whose note this is; that it is true the ledger shows: `key` is where the record of the round stands in its state,
and `block` a final block whose `state_root` holds it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Final

from protocols import signing
from storage import canonical
from storage import cid as cids
from swarm.errors import UsageError
from swarm.ledger.tasks import SCORE_REFUSED, Refusal

if TYPE_CHECKING:
    from protocols.consensus.messages import Block
    from protocols.signing import Signer
    from swarm.ledger.tasks import SettledRound, SettledSubmission

    Json = dict[str, Any]

VERSION: Final = 1
TAG: Final = b"swarm/receipt/1"
MAX_BYTES: Final = 4_096
"""Of one, as text."""
UPDATE, SCORES = "update", "scores"
_NUMBERS: Final = frozenset({"round", "attempt", "version", "reward", "height", "proof_height"})
ACCEPTED: Final = "accepted"
SCORED: Final = "scored"
_CODES: Final = {one.reason: one.name.lower() for one in Refusal}


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a contribution.

    Attributes:
        chain: The network's chain id, in hex.
        account: Whose contribution; the peer id that signs.
        task: Its id, in hex.
        name: The name that the task trains.
        round: Its number, from 1.
        attempt: Of the round.
        version: Of the name after the round.
        kind: `update` or `scores`.
        update: The CID of the update; empty where it was never opened, and of scores.
        score: The median, x 10^-5; None where there is none.
        code: `accepted`, `scored`, or why not, as a word for programs.
        reason: The same in words; empty if accepted.
        reward: Units of 10^-9 token.
        height: At which the round ended.
        key: Of the round's record in the ledger's state, in hex.
        proof_height: Of the block below.
        block: The id of a final block whose state holds the record, in hex.
        state_root: Of that block, in hex.
    """

    chain: str
    account: str
    task: str
    name: str
    round: int
    attempt: int
    version: int
    kind: str
    update: str
    score: int | None
    code: str
    reason: str
    reward: int
    height: int
    key: str
    proof_height: int
    block: str
    state_root: str

    @property
    def subject(self) -> tuple[str, int, str]:
        """Task, round and kind: there is one receipt of each."""
        return (self.task, self.round, self.kind)

    def sign(self, signer: Signer) -> Json:
        """The receipt as it is kept."""
        signature = signer.sign(TAG, self._signed())
        return {"receipt": VERSION, **asdict(self), "signature": signature.hex()}

    def _signed(self) -> bytes:
        return canonical.encode([VERSION, *asdict(self).values()])


def read(told: object) -> Receipt:
    """Read a receipt and check its signature.

    Raises:
        UsageError: It is none, or its signature is not its account's.
    """
    if not isinstance(told, dict) or told.get("receipt") != VERSION:
        message = f"not a receipt of version {VERSION}"
        raise UsageError(message)
    try:
        one = Receipt(
            **{field.name: _typed(field.name, told[field.name]) for field in fields(Receipt)}
        )
        signature = bytes.fromhex(told["signature"])
        key = signing.public_key(one.account)
        is_signed = signing.verify(key, TAG, one._signed(), signature)
    except (KeyError, TypeError, ValueError) as error:
        message = f"a receipt that cannot be read: {error}"
        raise UsageError(message) from error
    if not is_signed:
        message = f"the signature is not that of {one.account}"
        raise UsageError(message, "the receipt was changed after it was signed")
    return one


def is_whole(told: object) -> bool:
    """Whether it has every field of a receipt, each of its kind; its signature is not looked at."""
    if not isinstance(told, dict):
        return False
    try:
        for field in fields(Receipt):
            _typed(field.name, told[field.name])
    except (KeyError, TypeError):
        return False
    return True


def _typed(name: str, value: Any) -> Any:  # noqa: ANN401 - JSON
    kind = int if name in _NUMBERS else (int | None) if name == "score" else str
    if not isinstance(value, kind) or isinstance(value, bool):
        message = f"{name} is not what it should be"
        raise TypeError(message)
    return value


def encode(told: Json) -> bytes:
    """One line of the file."""
    return json.dumps(told, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def receipts_of(
    settled: SettledRound, name: str, key: bytes, chain: bytes, account: bytes, block: Block
) -> list[Receipt]:
    """What the record of a round says of one account.

    Args:
        settled: The record.
        name: That the task trains.
        key: Where the record stands.
        chain: The chain id.
        account: Whose contributions.
        block: A final block whose state holds the record.
    """
    common: Json = {
        "chain": chain.hex(),
        "account": signing.peer_id(account),
        "task": settled.task.hex(),
        "name": name,
        "round": settled.number,
        "attempt": settled.attempt,
        "version": settled.version,
        "height": settled.settled,
        "key": key.hex(),
        "proof_height": block.height,
        "block": block.id.hex(),
        "state_root": block.state_root.hex(),
    }
    found = [
        Receipt(
            kind=UPDATE,
            update=cids.text(one.root) if one.root else "",
            score=_score(one.score),
            code=_code(one),
            reason=one.reason,
            reward=one.payment,
            **common,
        )
        for one in settled.submissions
        if one.worker == account
    ]
    paid = [amount for validator, amount in settled.validators if validator == account]
    if paid:
        common |= {"update": "", "score": None, "code": SCORED, "reason": ""}
        found.append(Receipt(kind=SCORES, reward=sum(paid), **common))
    return found


def _score(score: int | None) -> int | None:
    return None if score is None or score <= SCORE_REFUSED else score


def _code(one: SettledSubmission) -> str:
    if one.accepted:
        return ACCEPTED
    return _CODES.get(one.reason) or one.reason.replace(" ", "_").lower() or "refused"

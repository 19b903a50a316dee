"""What is known of one view: the proposal, the votes as they come in, the certificates they make."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from protocols.consensus.evidence import contradict
from protocols.consensus.votes import Certificate, Kind, Vote, quorum

if TYPE_CHECKING:
    from protocols.consensus.application import Validator
    from protocols.consensus.messages import Proposal

VIEWS_AHEAD: Final = 16
"""Votes and proposals for later views than this many above our own are not kept."""
VIEWS_BEHIND: Final = 64
"""Nor votes for views this many below it."""
EVIDENCE_VIEWS: Final = 16
"""Views at and below the last final one whose votes are still compared."""


@dataclass(frozen=True, slots=True)
class Timing:
    """How long things may take, in milliseconds.

    `delta_ms` is D, the time in which a message among working validators arrives; the deadlines are 2D and 3D,
    and grow up to eightfold while no view becomes final, so that a wrong D heals.
    """

    delta_ms: int = 1000
    block_interval_ms: int = 2000
    max_ahead_ms: int = 5000

    def delta_after(self, skipped: int) -> int:
        """D after this many views in a row that are not final."""
        return self.delta_ms * (2 + min(max(0, skipped - 2), 14)) // 2


class Committee:
    """The validators of an epoch, by index and by key.

    Args:
        validators: Sorted by public key, each once, weights above zero.
    """

    def __init__(self, validators: tuple[Validator, ...]) -> None:
        keys = [validator.public_key for validator in validators]
        if not keys or keys != sorted(set(keys)) or any(v.weight <= 0 for v in validators):
            message = "validators are sorted by key, distinct, and of positive weight"
            raise ValueError(message)
        self.validators = validators
        self.index = {key: position for position, key in enumerate(keys)}
        self.quorum = quorum(sum(validator.weight for validator in validators))

    def weight(self, indices: list[int]) -> int:
        """Of some of them together."""
        return sum(self.validators[index].weight for index in indices)


@dataclass(slots=True)
class View:
    """One view of an epoch.

    `votes` holds the first vote of each validator and kind; `own` what this node cast, durable. `exposed` tells whether
    the leader's notarize was passed on.
    """

    number: int
    proposal: Proposal | None = None
    rejected: bool = False
    exposed: bool = False
    votes: dict[Kind, dict[int, Vote]] = field(default_factory=lambda: {kind: {} for kind in Kind})
    own: dict[Kind, Vote] = field(default_factory=dict)
    notarization: Certificate | None = None
    nullification: Certificate | None = None
    finalization: Certificate | None = None

    @property
    def is_doubtful(self) -> bool:
        """Whether its leader may have proposed two blocks: it came to nothing, or the notarizes name several."""
        if self.nullification is not None and self.notarization is None:
            return True
        return len({vote.block_id for vote in self.votes[Kind.NOTARIZE].values()}) > 1

    def certificate(self, kind: Kind) -> Certificate | None:
        """The certificate of a kind, if there is one yet."""
        return (self.notarization, self.nullification, self.finalization)[kind - 1]

    def certify(self, certificate: Certificate) -> None:
        """Take a verified certificate in; the first of its kind stays."""
        match certificate.kind:
            case Kind.NOTARIZE:
                self.notarization = self.notarization or certificate
            case Kind.NULLIFY:
                self.nullification = self.nullification or certificate
            case Kind.FINALIZE:
                self.finalization = self.finalization or certificate

    def knows(self, index: int, vote: Vote) -> bool:
        """Whether this very vote has been taken in."""
        known = self.votes[vote.kind].get(index)
        return known is not None and known.block_id == vote.block_id

    def record(self, index: int, vote: Vote) -> Vote | None:
        """Take a vote with a good signature in.

        Returns:
            An earlier vote of the same validator that contradicts it, or None.
        """
        for kind in Kind:
            known = self.votes[kind].get(index)
            if known is not None and contradict(known, vote):
                self.votes[vote.kind].setdefault(index, vote)
                return known
        self.votes[vote.kind].setdefault(index, vote)
        return None

    def tally(self, kind: Kind, block_id: bytes, committee: Committee) -> Certificate | None:
        """The certificate that the votes for a block make, if they reach Q."""
        agreeing = sorted(
            index for index, vote in self.votes[kind].items() if vote.block_id == block_id
        )
        if committee.weight(agreeing) < committee.quorum:
            return None
        cast = self.votes[kind]
        epoch = cast[agreeing[0]].epoch
        signatures = tuple((index, cast[index].signature) for index in agreeing)
        return Certificate(kind, epoch, self.number, block_id, signatures)

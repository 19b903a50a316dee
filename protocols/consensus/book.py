"""The views of one epoch: which is the present one, what is known of each, and for how long.

Pure bookkeeping: the core says what follows from it. However long no view becomes final, and whatever is sent for views
to come, what is held is bounded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from protocols.consensus.evidence import encode_evidence
from protocols.consensus.messages import MAX_NULLIFICATIONS, Certificate, Kind
from protocols.consensus.views import EVIDENCE_VIEWS, VIEWS_AHEAD, VIEWS_BEHIND, Committee, View

if TYPE_CHECKING:
    from protocols.consensus.messages import Vote


MAX_PAST: Final = 8192
"""Nullifications held of views that no proposal shows any more: as many as a rewritten log keeps."""
MAX_SKIPPED_TOLD: Final = 64
"""Nullifications in answer to one question."""


class Book:
    """What is known of the views.

    `present` is the view that this node is in, 0 before it has started; `final` the newest one that is final.

    Args:
        committee: Of the epoch.
        final: The view of the last final block; 0 at the epoch's beginning.
    """

    def __init__(self, committee: Committee, final: int) -> None:
        self.present = 0
        self.final = final
        self.top: Certificate | None = None
        """The newest finalization."""
        self.views: dict[int, View] = {}
        self.nullified: set[int] = set()
        self.open: set[int] = set()
        """Views with a certified block, after the last final one."""
        self._past: dict[int, bytes] = {}
        """Nullifications, as bytes, that no proposal shows any more."""
        self._committee = committee
        self._accused: set[bytes] = set()

    def at(self, number: int) -> View:
        """A view, from now on held."""
        view = self.views.get(number)
        if view is None:
            view = self.views[number] = View(number)
        return view

    def in_window(self, number: int) -> bool:
        """Whether votes for a view are kept."""
        low = max(self.final - EVIDENCE_VIEWS, self.present - VIEWS_BEHIND, 0)
        return low < number <= self.present + VIEWS_AHEAD

    def knows(self, certificate: Certificate) -> bool:
        """Whether a certificate says nothing new."""
        if certificate.view <= self.final - EVIDENCE_VIEWS:
            return True
        if certificate.kind is Kind.NULLIFY and certificate.view in self.nullified:
            return True
        view = self.views.get(certificate.view)
        known = None if view is None else view.certificate(certificate.kind)
        return known is not None and known.block_id == certificate.block_id

    def record(self, view: View, vote: Vote) -> bytes | None:
        """Take a vote with a good signature in.

        Returns:
            Evidence against its voter, the first time in the epoch that there is any.
        """
        conflict = view.record(self._committee.index[vote.voter], vote)
        if conflict is None or vote.voter in self._accused:
            return None
        self._accused.add(vote.voter)
        return encode_evidence(conflict, vote)

    def hold(self, view: View, certificate: Certificate) -> None:
        """Take a verified certificate of a view that is not final in."""
        view.certify(certificate)
        if certificate.kind is Kind.NULLIFY:
            self.nullified.add(view.number)
        else:
            self.open.add(view.number)

    def parent_certificate(self, number: int) -> Certificate | None:
        """What shows that the block of a view may be built upon."""
        view = self.views.get(number)
        return None if view is None else view.finalization or view.notarization

    def newest_certified(self) -> Certificate | None:
        """Of the block that the next proposal builds on, as far as is known; None for the last final one."""
        for number in sorted(self.open, reverse=True):
            if number < self.present:
                certificate = self.parent_certificate(number)
                if certificate is not None:
                    return certificate
        return None

    def gap(self, after: int, before: int) -> tuple[Certificate, ...]:
        """The newest nullifications between two views, as many as a proposal shows."""
        first = max(after + 1, before - MAX_NULLIFICATIONS)
        found = (self.views[at].nullification for at in range(first, before) if at in self.views)
        return tuple(one for one in found if one is not None)

    def hole(self, after: int, before: int) -> int | None:
        """The first view between two of which nothing is known and no proposal will tell; None if there is none."""
        oldest_shown = min(before, self.present - MAX_NULLIFICATIONS)
        return next((at for at in range(after + 1, oldest_shown) if at not in self.nullified), None)

    def skipped_from(self, number: int) -> list[Certificate]:
        """The nullifications that are held of a view and of those after it, as many as are told at once."""
        found = []
        for at in range(number, min(number + MAX_SKIPPED_TOLD, self.present)):
            view, past = self.views.get(at), self._past.get(at)
            if view is not None and view.nullification is not None:
                found.append(view.nullification)
            elif past is not None:
                found.append(Certificate.decode(past))
        return found

    def forget(self) -> None:
        """Bound what is held of the views before the present one, however long none of them is final.

        That a view is nullified stays known, and what shows it for one who was away; the core leaves views alone whose own
        votes are forgotten.
        """
        number = self.present
        for past in [at for at in self.views if at < number - VIEWS_BEHIND]:
            view = self.views[past]
            if past in self.open or past >= number - MAX_NULLIFICATIONS:
                view.proposal = None
                view.votes = {kind: {} for kind in Kind}
            else:
                if view.nullification is not None and len(self._past) < MAX_PAST:
                    self._past[past] = view.nullification.encode()
                del self.views[past]

    def prune(self) -> None:
        """Forget what became of no use when a view became final."""
        self.nullified = {number for number in self.nullified if number > self.final}
        self.open = {number for number in self.open if number > self.final}
        self._past = {at: shown for at, shown in self._past.items() if at > self.final}
        for number in [number for number in self.views if number <= self.final]:
            if number <= self.final - EVIDENCE_VIEWS:
                del self.views[number]
            else:
                self.views[number].proposal = None

    def spoken(self) -> set[bytes]:
        """The blocks that are certified, or proposed or voted for in a view that is not long past."""
        spoken: set[bytes] = set()
        for view in self.views.values():
            if view.proposal is not None:
                spoken.add(view.proposal.block.id)
            certificates = (view.notarization, view.finalization)
            spoken |= {one.block_id for one in certificates if one is not None}
            if view.number >= self.present - VIEWS_BEHIND:
                spoken |= {vote.block_id for vote in view.own.values()}
        return spoken

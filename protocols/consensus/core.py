"""Simplex for one epoch: the rules, without clock, network, disk or chance.

`handle(event, now) -> effects`; the package's text is the specification, and the names here are its names.
Source: Chan and Pass, "Simplex Consensus" (2023); the re-proposal of an epoch's last block and the rule that who
nullified does not finalize read as in Commonware's account.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocols.consensus.events import (
    Accuse,
    Advanced,
    Blame,
    Broadcast,
    Commit,
    Effect,
    Event,
    Halt,
    Now,
    Persist,
    Prepare,
    Prepared,
    Process,
    Processed,
    Received,
    SendTo,
    SetTimer,
    Start,
    Tick,
)
from protocols.consensus.evidence import encode_evidence, votes_of
from protocols.consensus.journal import decode_entries, encode_entry
from protocols.consensus.messages import (
    MAX_NULLIFICATIONS,
    Ask,
    Block,
    Cast,
    Certificate,
    Certify,
    Give,
    Kind,
    Proposal,
    Vote,
    verify_certificate,
)
from protocols.consensus.tree import BlockTree, Status
from protocols.consensus.views import EVIDENCE_VIEWS, VIEWS_AHEAD, VIEWS_BEHIND, Committee, View

if TYPE_CHECKING:
    from collections.abc import Callable

    from protocols.consensus.application import Validator
    from protocols.consensus.journal import Entry
    from protocols.consensus.messages import Message
    from protocols.consensus.views import Timing
    from protocols.signing import Signer

OPEN_VIEWS = 8
"""Notarized views whose finalize votes are sent again while none is final."""


class Simplex:
    """One validator's part in one epoch.

    Args:
        chain_id: 32 bytes.
        epoch: Which; its last block has height `(epoch + 1) * epoch_length`.
        validators: Its set, sorted by public key.
        signer: This node's key; None, or a key outside the set, follows without a vote.
        finalized: The application's last final block: of this epoch, or the last of the one before.
        leader: View (from 1) to public key.
        epoch_length: In blocks.
        timing: How long to wait.
    """

    def __init__(
        self,
        chain_id: bytes,
        epoch: int,
        validators: tuple[Validator, ...],
        signer: Signer | None,
        finalized: Block,
        leader: Callable[[int], bytes],
        epoch_length: int,
        timing: Timing,
    ) -> None:
        self.chain_id = chain_id
        self.epoch = epoch
        self.committee = Committee(validators)
        self._signer = (
            signer if signer is not None and signer.public_key in self.committee.index else None
        )
        self._me = None if self._signer is None else self._signer.public_key
        self._leader = leader
        self._timing = timing
        self.last_height = (epoch + 1) * epoch_length
        self.tree = BlockTree(finalized)
        self.root_view = finalized.view if finalized.height > epoch * epoch_length else 0
        if not epoch * epoch_length <= finalized.height <= self.last_height:
            message = f"block {finalized.height} is not of epoch {epoch} nor the one before it"
            raise ValueError(message)
        self.view = 0
        self.views: dict[int, View] = {}
        self.top: Certificate | None = None
        self._pending: Certificate | None = None
        self._nullified: set[int] = set()
        self._open: set[int] = set()
        self._accused: set[bytes] = set()
        self._leader_deadline: int | None = None
        self._advance_deadline: int | None = None
        self._resend_at: int | None = None
        self._propose_at: int | None = None
        self._preparing = 0
        self._proposed = 0
        self._asking: dict[bytes, tuple[int, int]] = {}
        self._helped: dict[bytes, int] = {}
        self._given: dict[bytes, tuple[bytes, int]] = {}
        self._timer: int | None = None
        self._halted = False
        self._now = Now(0, 0)
        self._effects: list[Effect] = []

    @property
    def root(self) -> Block:
        """The last final block."""
        return self.tree.root

    @property
    def done(self) -> bool:
        """Whether the epoch's last block is final; then only laggards are answered."""
        return self.root.height >= self.last_height

    def handle(self, event: Event, now: Now) -> list[Effect]:
        """Take one event in.

        Args:
            event: `Start` first.
            now: `tick_ms` not before that of the last call.

        Returns:
            What to do, in order.
        """
        self._effects = []
        self._now = now
        if self._halted:
            return []
        match event:
            case Start(entries):
                self._start(entries)
            case Received(peer, message):
                self._receive(peer, message)
            case Prepared(view, block):
                self._prepared(view, block)
            case Processed(block_id, valid):
                self.tree.answer(block_id, valid)
            case Advanced(block, finalization):
                self._advance(block, finalization)
            case Tick():
                self._timer = None
        self._progress()
        return self._effects

    def snapshot(self) -> list[bytes]:
        """The entries that a log needs in place of all that it holds."""
        entries: list[Entry] = []
        if self.top is not None:
            entries.append(self.top)
        for block_id in sorted(self.tree.durable):
            block = self.tree.get(block_id)
            if block is not None:
                entries.append(block)
        for number in sorted(self.views):
            if number > self.root_view:
                view = self.views[number]
                certificates = (view.notarization, view.nullification, view.finalization)
                entries += [found for found in certificates if found is not None]
                entries += [view.own[kind] for kind in sorted(view.own)]
        return [encode_entry(entry) for entry in entries]

    # Start and messages

    def _start(self, entries: tuple[bytes, ...]) -> None:
        mine = [entry for entry in decode_entries(entries) if entry.epoch == self.epoch]
        for entry in mine:
            if isinstance(entry, Certificate) and (entry.kind, entry.block_id) == (
                Kind.FINALIZE,
                self.root.id,
            ):
                self._raise_root(entry)
        first = max((self._recover(entry) for entry in mine), default=1)
        if not self.done:
            self._enter(max(first, self.root_view + 1))
            own = self._at(self.view).own
            self._effects += [Broadcast(Cast(own[kind])) for kind in sorted(own)]

    def _recover(self, entry: Entry) -> int:
        """Take one entry of the log in; the view that it shows this node to have reached."""
        if isinstance(entry, Block):
            self.tree.add(entry)
            if entry.height > self.root.height:
                self.tree.durable.add(entry.id)
            return 1
        if entry.view > self.root_view:
            view = self._at(entry.view)
            if isinstance(entry, Certificate):
                self._hold(view, entry)
            elif entry.voter == self._me:
                view.own[entry.kind] = entry
                view.record(self.committee.index[entry.voter], entry)
        return entry.view + isinstance(entry, Certificate)

    def _receive(self, peer: bytes, message: Message) -> None:
        if message.epoch != self.epoch:
            return
        match message:
            case Proposal():
                self._take_proposal(peer, message)
            case Cast(vote):
                self._take_vote(peer, vote)
                self._help(peer, vote.view)
            case Certify(certificate):
                self._take_certificate(peer, certificate)
            case Ask(_, block_id):
                self._give(peer, block_id)
            case Give(_, block):
                if block.id in self.tree.missing and block.chain_id == self.chain_id:
                    self.tree.add(block)
                    self._asking.pop(block.id, None)

    def _take_proposal(self, peer: bytes, proposal: Proposal) -> None:
        certificates = list(proposal.nullifications)
        if proposal.parent is not None:
            certificates.append(proposal.parent)
        for certificate in certificates:
            if certificate.epoch != self.epoch or certificate.view >= proposal.view:
                self._effects.append(Blame(peer, "a proposal with certificates of other views"))
                return
            if not self._take_certificate(peer, certificate):
                return
        number = proposal.view
        if self.root_view < number and proposal.block.id in self.tree.missing:
            self.tree.add(proposal.block)
            self._asking.pop(proposal.block.id, None)
        if not self._in_window(number) or number <= self.root_view:
            return
        if proposal.vote.voter != self._leader(number):
            self._effects.append(Blame(peer, f"a proposal for view {number} not by its leader"))
            return
        if self._take_vote(peer, proposal.vote):
            view = self._at(number)
            if view.proposal is None and number >= self.view:
                view.proposal = proposal
                self.tree.add(proposal.block)

    def _take_vote(self, peer: bytes, vote: Vote) -> bool:
        """Count a vote; False if it is forged or cannot be kept."""
        index = self.committee.index.get(vote.voter)
        if vote.epoch != self.epoch or index is None:
            self._effects.append(Blame(peer, "a vote of no validator of the epoch"))
            return False
        if not self._in_window(vote.view):
            return False
        view = self._at(vote.view)
        if view.knows(index, vote):
            return True
        if not vote.is_signed(self.chain_id):
            self._effects.append(Blame(peer, "a vote with a bad signature"))
            return False
        self._record(view, index, vote)
        return True

    def _take_certificate(self, peer: bytes, certificate: Certificate) -> bool:
        """Hold a certificate; False if it is forged."""
        if certificate.epoch != self.epoch:
            return True
        if certificate.view <= self.root_view - EVIDENCE_VIEWS:
            return True
        if certificate.kind is Kind.NULLIFY and certificate.view in self._nullified:
            return True
        view = self.views.get(certificate.view)
        known = None if view is None else view.certificate(certificate.kind)
        if known is not None and known.block_id == certificate.block_id:
            return True
        if not verify_certificate(certificate, self.chain_id, self.committee.validators):
            self._effects.append(Blame(peer, "a certificate that does not hold"))
            return False
        view = self._at(certificate.view)
        for vote in votes_of(certificate, self.committee.validators):
            index = self.committee.index[vote.voter]
            if not view.knows(index, vote):
                self._record(view, index, vote)
        self._certify(view, certificate, spread=False)
        return True

    def _record(self, view: View, index: int, vote: Vote) -> None:
        if vote.voter == self._me and view.own.get(vote.kind) != vote:
            return  # not from this log; a node does not accuse itself
        conflict = view.record(index, vote)
        if conflict is not None and vote.voter not in self._accused:
            self._accused.add(vote.voter)
            self._effects.append(Accuse(vote.voter, encode_evidence(conflict, vote)))
        if view.number > self.root_view and view.certificate(vote.kind) is None:
            certificate = view.tally(vote.kind, vote.block_id, self.committee)
            if certificate is not None:
                self._certify(view, certificate, spread=True)

    def _help(self, peer: bytes, number: int) -> None:
        """Tell a peer that votes in a view long past where we are; at most once in D."""
        if number >= self.view - 1 and not self.done:
            return
        if self._now.tick_ms - self._helped.get(peer, -(10**9)) < self._timing.delta_ms:
            return
        if peer not in self.committee.index:
            return
        self._helped[peer] = self._now.tick_ms
        for certificate in self._summary():
            self._effects.append(SendTo(peer, Certify(certificate)))

    def _give(self, peer: bytes, block_id: bytes) -> None:
        block = self.tree.find(block_id)
        last_id, at = self._given.get(peer, (b"", 0))
        again = last_id == block_id and self._now.tick_ms - at < self._timing.delta_ms // 4
        if block is None or again or peer not in self.committee.index:
            return
        self._given[peer] = (block_id, self._now.tick_ms)
        self._effects.append(SendTo(peer, Give(self.epoch, block)))

    # Certificates and views

    def _certify(self, view: View, certificate: Certificate, *, spread: bool) -> None:
        """Hold a new certificate, durable, and enter the view after it."""
        if view.number <= self.root_view:
            self._check_fork(certificate)
            return
        if view.certificate(certificate.kind) is not None:
            return
        self._hold(view, certificate)
        self._effects.append(Persist((encode_entry(certificate),)))
        if spread:
            self._effects.append(Broadcast(Certify(certificate)))
        if view.number >= self.view and self.view > 0 and not self.done:
            self._enter(view.number + 1)

    def _hold(self, view: View, certificate: Certificate) -> None:
        view.certify(certificate)
        if certificate.kind is Kind.NULLIFY:
            self._nullified.add(view.number)
        else:
            self._open.add(view.number)
        if certificate.kind is Kind.FINALIZE and (
            self._pending is None or certificate.view > self._pending.view
        ):
            self._pending = certificate

    def _check_fork(self, certificate: Certificate) -> None:
        top = self.top
        if (
            certificate.kind is Kind.FINALIZE
            and top is not None
            and certificate.view == top.view
            and certificate.block_id != top.block_id
        ):
            self._halt(f"two blocks are final in view {top.view} of epoch {self.epoch}")

    def _enter(self, number: int) -> None:
        self.view = number
        self._at(number)
        parent_view, parent = self._highest_certified()
        interval = self._timing.block_interval_ms
        wait = interval
        if parent is not None:
            wait = min(interval, max(0, parent.timestamp_ms + interval - self._now.utc_ms))
            if parent.height == self.last_height:
                wait = 0
        delta = self._timing.delta_after(number - 1 - parent_view)
        start = self._now.tick_ms + wait
        self._leader_deadline = start + 2 * delta
        self._advance_deadline = start + 3 * delta
        self._resend_at = start + 4 * delta
        self._propose_at = start if self._me == self._leader(number) else None
        self._forget(number)

    def _forget(self, number: int) -> None:
        """Bound what is held of the views before this one, however long none of them is final.

        That a view is nullified stays known; `_finalize` leaves views alone whose own votes are forgotten.
        """
        for past in [at for at in self.views if at < number - VIEWS_BEHIND]:
            view = self.views[past]
            if past in self._open or past > number - MAX_NULLIFICATIONS:
                view.proposal = None
                view.votes = {kind: {} for kind in Kind}
            else:
                del self.views[past]

    def _highest_certified(self) -> tuple[int, Block | None]:
        """The view and block that the next proposal builds on, as far as is known."""
        for number in sorted(self._open, reverse=True):
            if number < self.view:
                certificate = self._parent_certificate(number)
                if certificate is not None:
                    return number, self.tree.get(certificate.block_id)
        return self.root_view, self.root

    def _parent_certificate(self, number: int) -> Certificate | None:
        view = self.views.get(number)
        return None if view is None else view.finalization or view.notarization

    def _at(self, number: int) -> View:
        view = self.views.get(number)
        if view is None:
            view = self.views[number] = View(number)
        return view

    def _in_window(self, number: int) -> bool:
        low = max(self.root_view - EVIDENCE_VIEWS, self.view - VIEWS_BEHIND, 0)
        return low < number <= self.view + VIEWS_AHEAD

    # Progress: what follows from what is known now

    def _progress(self) -> None:
        if self.view == 0 or self._halted:
            return
        self.tree.missing = set()
        before = (-1, -1)
        while before != (self.view, self.root.height) and not self._halted:
            before = (self.view, self.root.height)
            self._commit()
            if self.done or self._halted:
                break
            self._deadlines()
            self._propose()
            self._vote()
            self._finalize()
            self._resend()
        for block in self.tree.to_process:
            self._effects.append(Process(block))
        self.tree.to_process = []
        if self.done or self._halted:
            return
        self._ask()
        self._set_timer()

    def _deadlines(self) -> None:
        tick = self._now.tick_ms
        if self._leader_deadline is not None and tick >= self._leader_deadline:
            self._leader_deadline = None
            self._nullify()
        if self._advance_deadline is not None and tick >= self._advance_deadline:
            self._advance_deadline = None
            self._nullify()

    def _nullify(self) -> None:
        view = self._at(self.view)
        if Kind.FINALIZE not in view.own and Kind.NULLIFY not in view.own:
            self._cast(view, Kind.NULLIFY, None)

    def _cast(self, view: View, kind: Kind, block: Block | None) -> Vote | None:
        """Sign a vote, durable with the block it is for, then send it (a leader's goes with its proposal)."""
        if self._signer is None:
            return None
        vote = (
            Vote.sign(self._signer, self.chain_id, kind, self.epoch, view.number)
            if block is None
            else Vote.sign(self._signer, self.chain_id, kind, self.epoch, view.number, block.id)
        )
        entries = [encode_entry(vote)]
        if block is not None and block.id not in self.tree.durable and block.id != self.root.id:
            self.tree.durable.add(block.id)
            entries.insert(0, encode_entry(block))
        self._effects.append(Persist(tuple(entries)))
        view.own[kind] = vote
        if not (kind is Kind.NOTARIZE and self._proposed == view.number):
            self._effects.append(Broadcast(Cast(vote)))
        self._record(view, self.committee.index[vote.voter], vote)
        return vote

    # Proposing

    def _propose(self) -> None:
        number = self.view
        if self._propose_at is None or self._now.tick_ms < self._propose_at:
            return
        if self._proposed == number or self._preparing == number or self._signer is None:
            return
        own = self._at(number).own.get(Kind.NOTARIZE)
        if own is not None:
            block = self.tree.get(own.block_id)
            if block is not None:
                self._send_proposal(number, block, own)
            return
        found = self._parent()
        if found is None:
            return
        _, parent = found
        if self.tree.status(parent) is not Status.VALID:
            return
        if parent.height == self.last_height:
            self._send_proposal(number, parent, None)
        else:
            self._preparing = number
            self._effects.append(Prepare(parent, self.epoch, number))

    def _parent(self) -> tuple[Certificate | None, Block] | None:
        """The newest certified block that is held, all views since it nullified; None if one of these lacks."""
        number = self.view - 1
        while number > self.root_view:
            certificate = self._parent_certificate(number)
            if certificate is not None:
                block = self.tree.get(certificate.block_id)
                if block is not None:
                    return certificate, block
                self.tree.missing.add(certificate.block_id)
            if number not in self._nullified:
                return None
            number -= 1
        if self.root_view > 0 and self.top is None:
            return None
        return self.top, self.root

    def _prepared(self, number: int, block: Block) -> None:
        if number != self.view or self._preparing != number or self._proposed == number:
            return
        found = self._parent()
        if found is None or block.parent != found[1].id:
            self._preparing = 0
            return
        self.tree.add(block)
        self._send_proposal(number, block, None)

    def _send_proposal(self, number: int, block: Block, own: Vote | None) -> None:
        found = self._parent()
        self._proposed = number
        if found is None or found[1].id not in (block.id, block.parent):
            return
        parent = found[0]
        view = self._at(number)
        vote = own or self._cast(view, Kind.NOTARIZE, block)
        if vote is None:
            return
        parent_view = 0 if parent is None else parent.view
        gap = [
            known
            for at in range(max(parent_view + 1, number - MAX_NULLIFICATIONS), number)
            if at in self.views and (known := self.views[at].nullification) is not None
        ]
        proposal = Proposal(number, block, parent, tuple(gap), vote)
        view.proposal = view.proposal or proposal
        if self.view == number:
            self._leader_deadline = None
        self._effects.append(Broadcast(proposal))
        self.tree.status(block)

    # Voting

    def _vote(self) -> None:
        view = self._at(self.view)
        proposal = view.proposal
        if proposal is None or view.rejected or Kind.NOTARIZE in view.own:
            return
        verdict = self._judge(proposal)
        if verdict is True:
            self._leader_deadline = None
            self._cast(view, Kind.NOTARIZE, proposal.block)
        elif verdict is False:
            view.rejected = True
            self._leader_deadline = None
            self._nullify()

    def _judge(self, proposal: Proposal) -> bool | None:
        """Whether a proposal of the current view deserves a notarize; None while something lacks."""
        block, certificate = proposal.block, proposal.parent
        parent_view = 0 if certificate is None else certificate.view
        if certificate is None and self.root_view == 0:
            parent: Block | None = self.root
        elif (
            certificate is None
            or certificate.kind is Kind.NULLIFY
            or (certificate.block_id != self.root.id and parent_view <= self.root_view)
        ):
            return False
        else:
            parent = self.tree.get(certificate.block_id)
            if parent is None:
                self.tree.missing.add(certificate.block_id)
        gap = range(max(parent_view, self.root_view) + 1, proposal.view)
        if parent is None or not all(number in self._nullified for number in gap):
            return None
        if parent.height < self.last_height:
            if not self._is_child(block, parent, proposal.view):
                return False
            if block.timestamp_ms > self._now.utc_ms + self._timing.max_ahead_ms:
                return None
        elif block.id != parent.id:
            return False
        status = self.tree.status(block)
        return None if status is Status.WAITING else status is Status.VALID

    def _is_child(self, block: Block, parent: Block, number: int) -> bool:
        return (
            block.chain_id == self.chain_id
            and block.epoch == self.epoch
            and block.view == number
            and block.leader == self._leader(number)
            and block.parent == parent.id
            and block.height == parent.height + 1
            and block.timestamp_ms > parent.timestamp_ms
        )

    def _finalize(self) -> None:
        if self._signer is None:
            return
        for number in sorted(self._open):
            view = self.views[number]
            certificate = view.notarization
            if certificate is None or number <= self.view - MAX_NULLIFICATIONS:
                continue
            if Kind.FINALIZE in view.own or Kind.NULLIFY in view.own:
                continue
            block = self.tree.get(certificate.block_id)
            if block is None:
                self.tree.missing.add(certificate.block_id)
            elif self.tree.status(block) is Status.VALID:
                self._cast(view, Kind.FINALIZE, block)
        self._commit()

    # Final blocks

    def _commit(self) -> None:
        certificate = self._pending
        if certificate is None:
            return
        block = self.tree.get(certificate.block_id)
        if block is None:
            self.tree.missing.add(certificate.block_id)
            return
        status = self.tree.status(block)
        if status is Status.INVALID:
            self._halt(f"block {block.height} {block.id.hex()} is final and not valid here")
        if status is not Status.VALID:
            return
        path = self.tree.path(block) or []
        lost = [step for step in path if step.id not in self.tree.durable]
        if lost:
            self._effects.append(Persist(tuple(encode_entry(step) for step in lost)))
            self.tree.durable.update(step.id for step in lost)
        for step in path:
            self._effects.append(Commit(step, certificate))
            self.tree.finalize(step)
        self._raise_root(certificate)

    def _advance(self, block: Block, finalization: Certificate) -> None:
        """Take over what the application finalized without us."""
        if block.height <= self.root.height or block.height > self.last_height:
            return
        self.tree.finalize(block)
        if finalization.block_id == block.id:
            self._effects.append(Persist((encode_entry(finalization),)))
            self._raise_root(finalization)
        else:
            self.root_view = max(self.root_view, block.view)
            self._prune()
        if self.view <= self.root_view and not self.done and self.view > 0:
            self._enter(self.root_view + 1)

    def _raise_root(self, certificate: Certificate) -> None:
        if self.top is None or certificate.view > self.top.view:
            self.top = certificate
        self.root_view = max(self.root_view, certificate.view)
        self._prune()

    def _prune(self) -> None:
        if self._pending is not None and self._pending.view <= self.root_view:
            self._pending = None
        self._nullified = {number for number in self._nullified if number > self.root_view}
        self._open = {number for number in self._open if number > self.root_view}
        oldest = self.root_view - EVIDENCE_VIEWS
        for number in [number for number in self.views if number <= self.root_view]:
            if number <= oldest:
                del self.views[number]
            else:
                self.views[number].proposal = None
        keep = {view.proposal.block.id for view in self.views.values() if view.proposal is not None}
        for view in self.views.values():
            keep |= {
                certificate.block_id
                for certificate in (view.notarization, view.finalization)
                if certificate is not None
            }
            keep |= {vote.block_id for vote in view.own.values()}
        self.tree.keep_only(keep)
        if self.done:
            self._timer = None

    def _halt(self, why: str) -> None:
        self._halted = True
        self._effects.append(Halt(why))

    # Sending again, asking, waking

    def _summary(self) -> list[Certificate]:
        """What brings a laggard up: the last final view and the certificates that led into this one."""
        found = [self.top] if self.top is not None else []
        before = self.views.get(self.view - 1)
        if before is not None and before.number > self.root_view:
            certificate = before.finalization or before.notarization or before.nullification
            if certificate is not None:
                found.append(certificate)
            if before.notarization is not None and before.nullification is not None:
                found.append(before.nullification)
        return found

    def _resend(self) -> None:
        if self._resend_at is None or self._now.tick_ms < self._resend_at:
            return
        skipped = self.view - 1 - self._highest_certified()[0]
        self._resend_at = self._now.tick_ms + 4 * self._timing.delta_after(skipped)
        view = self._at(self.view)
        messages: list[Message] = [Certify(certificate) for certificate in self._summary()]
        own = view.own.get(Kind.NOTARIZE)
        if own is not None and self._proposed == self.view and view.proposal is not None:
            messages.append(view.proposal)
        else:
            messages += [Cast(own)] if own is not None else []
        messages += [Cast(view.own[kind]) for kind in (Kind.NULLIFY,) if kind in view.own]
        for number in sorted(self._open)[-OPEN_VIEWS:]:
            cast = self.views[number].own.get(Kind.FINALIZE)
            if cast is not None:
                messages.append(Cast(cast))
        self._effects += [Broadcast(message) for message in messages]

    def _ask(self) -> None:
        """Ask for missing blocks, one validator after another."""
        missing = {block_id for block_id in self.tree.missing if self.tree.get(block_id) is None}
        self.tree.missing = missing
        self._asking = {key: value for key, value in self._asking.items() if key in missing}
        others = [key for key in self.committee.index if key != self._me]
        if not others:
            return
        for block_id in sorted(missing):
            at, tries = self._asking.get(
                block_id, (self._now.tick_ms + self._timing.delta_ms // 4, 0)
            )
            if self._now.tick_ms >= at:
                target = others[(block_id[0] + tries) % len(others)]
                self._effects.append(SendTo(target, Ask(self.epoch, block_id)))
                at, tries = self._now.tick_ms + self._timing.delta_ms, tries + 1
            self._asking[block_id] = (at, tries)

    def _set_timer(self) -> None:
        due = [at for at, _ in self._asking.values()]
        due += [
            at
            for at in (self._leader_deadline, self._advance_deadline, self._resend_at)
            if at is not None
        ]
        if self._propose_at is not None and self._propose_at > self._now.tick_ms:
            due.append(self._propose_at)
        proposal = self._at(self.view).proposal
        if proposal is not None and Kind.NOTARIZE not in self._at(self.view).own:
            ahead = proposal.block.timestamp_ms - self._now.utc_ms - self._timing.max_ahead_ms
            if ahead > 0:
                due.append(self._now.tick_ms + ahead)
        at = max(min(due, default=self._now.tick_ms + 60_000), self._now.tick_ms + 1)
        if self._timer is None or at != self._timer:
            self._timer = at
            self._effects.append(SetTimer(at))

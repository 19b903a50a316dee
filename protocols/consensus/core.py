"""Simplex for one epoch: the rules, without clock, network, disk or chance.

`handle(event, now) -> effects`; the package's text is the specification, and the names here are its names.
Beside it stand `building` (what a proposal may build upon) and what is only kept count of: `book` (the views), `tree`
(the blocks), `deadlines`, `asking`.
Source: Chan and Pass, "Simplex Consensus" (2023); the re-proposal of an epoch's last block and the rule that who
nullified does not finalize read as in Commonware's account.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocols.consensus.asking import Asking
from protocols.consensus.book import Book
from protocols.consensus.building import Building
from protocols.consensus.deadlines import Deadlines
from protocols.consensus.events import (
    Accuse,
    Advanced,
    Blame,
    Broadcast,
    Commit,
    Doubled,
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
from protocols.consensus.evidence import votes_of
from protocols.consensus.forwarding import Forwarding
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
    skipped_from,
    verify_certificate,
)
from protocols.consensus.tree import BlockTree, Status
from protocols.consensus.views import Committee, View

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
        if not epoch * epoch_length <= finalized.height <= self.last_height:
            message = f"block {finalized.height} is not of epoch {epoch} nor the one before it"
            raise ValueError(message)
        self.book = Book(
            self.committee, finalized.view if finalized.height > epoch * epoch_length else 0
        )
        self._pending: Certificate | None = None
        self._floor = 0
        self._doubled = False
        self.took_part = False
        """Whether validators spoke of this epoch while this log was here; sync shows its final blocks only."""
        self._building = Building(
            chain_id, epoch, self.last_height, leader, timing.max_ahead_ms, self.book, self.tree
        )
        self._deadlines = Deadlines(timing)
        others = [key for key in self.committee.index if key != self._me]
        self._asking = Asking(others, timing.delta_ms)
        self._forwarding = Forwarding(others, timing.delta_ms)
        self._preparing = 0
        self._proposed = 0
        self._halted = False
        self._now = Now(0, 0)
        self._effects: list[Effect] = []

    @property
    def root(self) -> Block:
        """The last final block."""
        return self.tree.root

    @property
    def view(self) -> int:
        """The one that this node is in; 0 before `Start`."""
        return self.book.present

    @property
    def views(self) -> dict[int, View]:
        """Those of which something is held."""
        return self.book.views

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
                self._deadlines.timer = None
        self._progress()
        return self._effects

    def fall_silent(self) -> None:
        """Cast no vote from now on; what was cast is still sent again."""
        self._signer = None

    def snapshot(self) -> list[bytes]:
        """The entries that a log needs in place of all that it holds."""
        entries: list[Entry] = []
        if self.book.top is not None:
            entries.append(self.book.top)
        for block_id in sorted(self.tree.durable):
            block = self.tree.get(block_id)
            if block is not None:
                entries.append(block)
        for number in sorted(self.views):
            if number > self.book.final:
                view = self.views[number]
                certificates = (view.notarization, view.nullification, view.finalization)
                entries += [found for found in certificates if found is not None]
                entries += [view.own[kind] for kind in sorted(view.own)]
        return [encode_entry(entry) for entry in entries]

    # Start and messages

    def _start(self, entries: tuple[bytes, ...]) -> None:
        mine = [entry for entry in decode_entries(entries) if entry.epoch == self.epoch]
        for entry in mine:
            if not isinstance(entry, Certificate):
                continue
            if entry.kind is not Kind.FINALIZE:
                self.took_part = True
                continue
            self._floor = max(self._floor, entry.view)
            if entry.block_id == self.root.id:
                self._raise_root(entry)
        self._floor = max(self._floor, self.book.final)
        first = max((self._recover(entry) for entry in mine), default=1)
        if not self.done:
            self._enter(max(first, self.book.final + 1))
            own = self.book.at(self.view).own
            self._effects += [Broadcast(Cast(own[kind])) for kind in sorted(own)]

    def _recover(self, entry: Entry) -> int:
        """Take one entry of the log in; the view that it shows this node to have reached."""
        if isinstance(entry, Block):
            self.tree.add(entry)
            if entry.height > self.root.height:
                self.tree.durable.add(entry.id)
            return 1
        if entry.view > self.book.final:
            view = self.book.at(entry.view)
            if isinstance(entry, Certificate):
                self._hold(view, entry)
            elif entry.voter == self._me:
                view.own[entry.kind] = entry
                self.book.record(view, entry)
        return entry.view + isinstance(entry, Certificate)

    def _receive(self, peer: bytes, message: Message) -> None:
        if message.epoch != self.epoch:
            return
        self._forwarding.hear(peer, message)
        match message:
            case Proposal():
                self._take_proposal(peer, message)
            case Cast(vote):
                self._take_vote(peer, vote)
                self._help(peer, vote.view)
            case Certify(certificate):
                self._take_certificate(peer, certificate)
            case Ask(_, block_id):
                number = skipped_from(block_id)
                if number is None:
                    self._give(peer, block_id)
                elif self._asking.may_tell(peer, self._now.tick_ms):
                    shown = self.book.skipped_from(number)
                    self._effects += [SendTo(peer, Certify(one)) for one in shown]
            case Give(_, block):
                if block.id in self.tree.missing and block.chain_id == self.chain_id:
                    self.tree.add(block)
                    self._asking.came(block.id)

    def _take_proposal(self, peer: bytes, proposal: Proposal) -> None:
        """Take in what a proposal shows; its leader's vote counts against it even if nothing else does.

        Only from the leader itself is it judged: what goes with the block is not signed, so another could spoil it.
        """
        sound = self._take_shown(peer, proposal)
        number = proposal.view
        if sound and self.book.final < number and proposal.block.id in self.tree.missing:
            self.tree.add(proposal.block)
            self._asking.came(proposal.block.id)
        if not self.book.in_window(number):
            return
        leader = self._leader(number)
        if proposal.vote.voter != leader:
            self._effects.append(Blame(peer, f"a proposal for view {number} not by its leader"))
            return
        counts = self._take_vote(peer, proposal.vote)
        if counts and sound and peer == leader and number > self.book.final:
            view = self.book.at(number)
            if view.proposal is None and number >= self.view:
                view.proposal = proposal
                self.tree.add(proposal.block)

    def _take_shown(self, peer: bytes, proposal: Proposal) -> bool:
        """Hold the certificates that come with a proposal; False if one of them does not belong there."""
        certificates = list(proposal.nullifications)
        if proposal.parent is not None:
            certificates.append(proposal.parent)
        for certificate in certificates:
            if certificate.epoch != self.epoch or certificate.view >= proposal.view:
                self._effects.append(Blame(peer, "a proposal with certificates of other views"))
                return False
            if not self._take_certificate(peer, certificate):
                return False
        return True

    def _take_vote(self, peer: bytes, vote: Vote) -> bool:
        """Count a vote; False if it is forged or cannot be kept."""
        index = self.committee.index.get(vote.voter)
        if vote.epoch != self.epoch or index is None:
            self._effects.append(Blame(peer, "a vote of no validator of the epoch"))
            return False
        if not self.book.in_window(vote.view):
            return False
        view = self.book.at(vote.view)
        if view.knows(index, vote):
            return True
        if not vote.is_signed(self.chain_id):
            self._effects.append(Blame(peer, "a vote with a bad signature"))
            return False
        self._record(view, vote)
        return True

    def _take_certificate(self, peer: bytes, certificate: Certificate) -> bool:
        """Hold a certificate; False if it is forged."""
        if certificate.epoch != self.epoch or self.book.knows(certificate):
            return True
        if not verify_certificate(certificate, self.chain_id, self.committee.validators):
            self._effects.append(Blame(peer, "a certificate that does not hold"))
            return False
        view = self.book.at(certificate.view)
        self._certify(view, certificate, made=False)
        for vote in votes_of(certificate, self.committee.validators):
            if not view.knows(self.committee.index[vote.voter], vote):
                self._record(view, vote)
        if certificate.view < self.view - MAX_NULLIFICATIONS:
            self.book.forget()
        return True

    def _record(self, view: View, vote: Vote) -> None:
        if vote.voter == self._me and view.own.get(vote.kind) != vote:
            self._note_double(view)  # not from this log; a node does not accuse itself
            return
        evidence = self.book.record(view, vote)
        if evidence is not None:
            self._effects.append(Accuse(vote.voter, evidence))
        if vote.kind is Kind.NOTARIZE:
            self._expose(view)
        if view.number > self.book.final and view.certificate(vote.kind) is None:
            certificate = view.tally(vote.kind, vote.block_id, self.committee)
            if certificate is not None:
                self._certify(view, certificate, made=True)

    def _expose(self, view: View) -> None:
        """Pass a leader's notarize on, once, where it may have shown others another block.

        That is where somebody voted for another one, or where the view came to nothing. Whoever holds the other half
        has evidence then, though neither block came near Q.
        """
        if view.exposed or not view.is_doubtful:
            return
        leader = self._leader(view.number)
        shown = view.votes[Kind.NOTARIZE].get(self.committee.index.get(leader, -1))
        if shown is not None and leader != self._me:
            view.exposed = True
            self._effects.append(Broadcast(Cast(shown)))

    def _note_double(self, view: View) -> None:
        """Tell once that another signs with this key, in a view of which this log holds every own vote."""
        if not self._doubled and view.number > self._floor and self.book.in_window(view.number):
            self._doubled = True
            self._effects.append(Doubled(self.epoch, view.number))

    def _help(self, peer: bytes, number: int) -> None:
        """Tell a peer that votes in a view long past where we are."""
        if number >= self.view - 1 and not self.done:
            return
        if self._asking.may_help(peer, self._now.tick_ms):
            for certificate in self._summary():
                self._effects.append(SendTo(peer, Certify(certificate)))

    def _give(self, peer: bytes, block_id: bytes) -> None:
        block = self.tree.find(block_id)
        if block is not None and self._asking.may_give(peer, block_id, self._now.tick_ms):
            self._effects.append(SendTo(peer, Give(self.epoch, block)))

    # Certificates and views

    def _certify(self, view: View, certificate: Certificate, *, made: bool) -> None:
        """Hold a new certificate, durable, and enter the view after it; `made` is of votes here, not heard of whole."""
        if view.number <= self.book.final:
            view.certify(certificate)  # so that nobody has it checked again and again
            self._check_fork(certificate)
            return
        if view.certificate(certificate.kind) is not None:
            return
        self._hold(view, certificate)
        self._effects.append(Persist((encode_entry(certificate),)))
        if made and (certificate.kind is Kind.NULLIFY or self._ends_epoch(certificate)):
            self._effects.append(Broadcast(Certify(certificate)))
        elif certificate.kind is not Kind.NULLIFY or view.number >= self.view - MAX_NULLIFICATIONS:
            self._forwarding.owe(view.number, self._now.tick_ms)
        self._expose(view)
        if view.number >= self.view and self.view > 0 and not self.done:
            self._enter(view.number + 1)

    def _ends_epoch(self, certificate: Certificate) -> bool:
        """Whether it is the one after which no view follows that would show who lacks it."""
        block = self.tree.get(certificate.block_id)
        return (
            certificate.kind is Kind.FINALIZE
            and block is not None
            and block.height == self.last_height
        )

    def _hold(self, view: View, certificate: Certificate) -> None:
        self.book.hold(view, certificate)
        self.took_part |= certificate.kind is not Kind.FINALIZE
        if certificate.kind is Kind.FINALIZE and (
            self._pending is None or certificate.view > self._pending.view
        ):
            self._pending = certificate

    def _check_fork(self, certificate: Certificate) -> None:
        top = self.book.top
        if (
            certificate.kind is Kind.FINALIZE
            and top is not None
            and certificate.view == top.view
            and certificate.block_id != top.block_id
        ):
            self._halt(f"two blocks are final in view {top.view} of epoch {self.epoch}")

    def _enter(self, number: int) -> None:
        self.book.present = number
        self.book.at(number)
        found = self.book.newest_certified()
        parent = self.root if found is None else self.tree.get(found.block_id)
        interval = self._timing.block_interval_ms
        wait = interval
        if parent is not None:
            wait = min(interval, max(0, parent.timestamp_ms + interval - self._now.utc_ms))
            if parent.height == self.last_height:
                wait = 0
        start = self._now.tick_ms + wait
        self._deadlines.enter(start, self._skipped(), leads=self._me == self._leader(number))
        self.book.forget()
        self.tree.keep_only(self.book.spoken())

    def _skipped(self) -> int:
        """How many views just before this one are not final.

        One that brought a block counts too: where messages take 3D/2 and more, all nullify what they notarize.
        """
        return self.view - 1 - self.book.final

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
            if self._deadlines.are_over(self._now.tick_ms):
                self._nullify()
            self._propose()
            self._vote()
            self._finalize()
            self._resend()
        for block in self.tree.to_process:
            self._effects.append(Process(block))
        self.tree.to_process = []
        if self.done or self._halted:
            return
        self._forward()
        self._ask()
        self._set_timer()

    def _nullify(self) -> None:
        view = self.book.at(self.view)
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
        self._record(view, vote)
        return vote

    # Proposing

    def _propose(self) -> None:
        number, due = self.view, self._deadlines.propose
        if due is None or self._now.tick_ms < due:
            return
        if self._proposed == number or self._preparing == number or self._signer is None:
            return
        own = self.book.at(number).own.get(Kind.NOTARIZE)
        if own is not None:
            block = self.tree.get(own.block_id)
            if block is not None:
                self._send_proposal(number, block, own)
            return
        found = self._building.parent()
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

    def _prepared(self, number: int, block: Block) -> None:
        if number != self.view or self._preparing != number or self._proposed == number:
            return
        found = self._building.parent()
        if found is None or block.parent != found[1].id:
            self._preparing = 0
            return
        self.tree.add(block)
        self._send_proposal(number, block, None)

    def _send_proposal(self, number: int, block: Block, own: Vote | None) -> None:
        found = self._building.parent()
        self._proposed = number
        if found is None or found[1].id not in (block.id, block.parent):
            return
        parent = found[0]
        view = self.book.at(number)
        vote = own or self._cast(view, Kind.NOTARIZE, block)
        if vote is None:
            return
        gap = self.book.gap(0 if parent is None else parent.view, number)
        proposal = Proposal(number, block, parent, gap, vote)
        view.proposal = view.proposal or proposal
        if self.view == number:
            self._deadlines.leader = None
        self._effects.append(Broadcast(proposal))
        self.tree.status(block)

    # Voting

    def _vote(self) -> None:
        view = self.book.at(self.view)
        proposal = view.proposal
        if proposal is None or view.rejected or Kind.NOTARIZE in view.own:
            return
        verdict = self._building.judge(proposal, self._now.utc_ms)
        if verdict is True:
            self._deadlines.leader = None
            self._cast(view, Kind.NOTARIZE, proposal.block)
        elif verdict is False:
            view.rejected = True
            self._deadlines.leader = None
            self._nullify()

    def _finalize(self) -> None:
        if self._signer is None:
            return
        for number in sorted(self.book.open):
            view = self.views[number]
            certificate = view.notarization
            if certificate is None or number <= max(self._floor, self.view - MAX_NULLIFICATIONS):
                continue  # what was voted there is not known any more
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
        # One by one: together they may be longer than an append.
        self._effects += [Persist((encode_entry(step),)) for step in lost]
        self.tree.durable.update(step.id for step in lost)
        for step in path:
            self._effects.append(Commit(step, certificate))
            self.took_part = True
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
            self.book.final = max(self.book.final, block.view)
            self._prune()
        if self.view <= self.book.final and not self.done and self.view > 0:
            self._enter(self.book.final + 1)

    def _raise_root(self, certificate: Certificate) -> None:
        if self.book.top is None or certificate.view > self.book.top.view:
            self.book.top = certificate
        self.book.final = max(self.book.final, certificate.view)
        self._prune()

    def _prune(self) -> None:
        if self._pending is not None and self._pending.view <= self.book.final:
            self._pending = None
        self.book.prune()
        self.tree.keep_only(self.book.spoken())
        if self.done:
            self._deadlines.timer = None

    def _halt(self, why: str) -> None:
        self._halted = True
        self._effects.append(Halt(why))

    # Sending again, asking, waking

    def _summary(self) -> list[Certificate]:
        """What brings a laggard up: the last final view and the certificates that led into this one."""
        found = [self.book.top] if self.book.top is not None else []
        before = self.views.get(self.view - 1)
        if before is not None and before.number > self.book.final:
            certificate = before.finalization or before.notarization or before.nullification
            if certificate is not None:
                found.append(certificate)
            if before.notarization is not None and before.nullification is not None:
                found.append(before.nullification)
        return found

    def _resend(self) -> None:
        if not self._deadlines.must_resend(self._now.tick_ms, self._skipped()):
            return
        view = self.book.at(self.view)
        messages: list[Message] = [Certify(certificate) for certificate in self._summary()]
        own = view.own.get(Kind.NOTARIZE)
        if own is not None and self._proposed == self.view and view.proposal is not None:
            messages.append(view.proposal)
        else:
            messages += [Cast(own)] if own is not None else []
        messages += [Cast(view.own[kind]) for kind in (Kind.NULLIFY,) if kind in view.own]
        for number in sorted(self.book.open)[-OPEN_VIEWS:]:
            cast = self.views[number].own.get(Kind.FINALIZE)
            if cast is not None:
                messages.append(Cast(cast))
        self._effects += [Broadcast(message) for message in messages]

    def _forward(self) -> None:
        """Tell those who lag of the certificates that they lack."""
        for number, peers in self._forwarding.laggards(self._now.tick_ms):
            view = self.views.get(number)
            found = view and (view.finalization or view.notarization or view.nullification)
            if found:
                self._effects += [SendTo(peer, Certify(found)) for peer in peers]

    def _ask(self) -> None:
        """Ask for missing blocks, one validator after another."""
        missing = {block_id for block_id in self.tree.missing if self.tree.get(block_id) is None}
        self.tree.missing = missing
        for target, block_id in self._asking.questions(missing, self._now.tick_ms):
            self._effects.append(SendTo(target, Ask(self.epoch, block_id)))

    def _set_timer(self) -> None:
        due = self._asking.due() + self._forwarding.due()
        view = self.book.at(self.view)
        if view.proposal is not None and Kind.NOTARIZE not in view.own:
            ahead = view.proposal.block.timestamp_ms - self._now.utc_ms - self._timing.max_ahead_ms
            if ahead > 0:
                due.append(self._now.tick_ms + ahead)
        at = self._deadlines.wake(self._now.tick_ms, due)
        if at is not None:
            self._effects.append(SetTimer(at))

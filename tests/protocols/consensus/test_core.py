"""One core at a time, by hand: what it does with what it is told."""

from __future__ import annotations

import pytest

from protocols.consensus.application import Validator
from protocols.consensus.core import Simplex
from protocols.consensus.events import (
    Accuse,
    Advanced,
    Blame,
    Broadcast,
    Commit,
    Doubled,
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
from protocols.consensus.evidence import verify_evidence
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
    genesis_block,
    skipped,
    skipped_from,
)
from protocols.consensus.views import VIEWS_AHEAD, VIEWS_BEHIND, Timing
from protocols.signing import Signer
from storage.consensus_log import MAX_APPEND_BYTES

CHAIN = b"c" * 32
UTC = 1_700_000_000_000
KEYS = sorted((Signer(bytes([3, n]) * 16) for n in range(4)), key=lambda s: s.public_key)
SET = tuple(Validator(key.public_key, 1) for key in KEYS)
GENESIS = genesis_block(CHAIN, UTC - 10_000, bytes(32))
TIMING = Timing(delta_ms=100, block_interval_ms=0, max_ahead_ms=500)
ME, A, B, C = KEYS


def leader(view):
    return KEYS[1 + view % 3].public_key


def signer_of(public_key):
    return next(key for key in KEYS if key.public_key == public_key)


def child(parent, view, salt=b"", /, **changes):
    values = {
        "chain_id": CHAIN,
        "epoch": 0,
        "view": view,
        "height": parent.height + 1,
        "parent": parent.id,
        "timestamp_ms": parent.timestamp_ms + 1,
        "leader": leader(view),
        "state_root": bytes(32),
        "payload": salt,
    }
    return Block(**values | changes)


def vote(key, kind, view, block=None):
    return Vote.sign(key, CHAIN, kind, 0, view, *([] if block is None else [block.id]))


def certificate(kind, view, block=None, keys=(A, B, C)):
    block_id = bytes(32) if block is None else block.id
    signatures = tuple((KEYS.index(k), vote(k, kind, view, block).signature) for k in keys)
    return Certificate(kind, 0, view, block_id, signatures)


def proposal(block, parent=None, gap=(), view=None):
    number = block.view if view is None else view
    signed = vote(signer_of(leader(number)), Kind.NOTARIZE, number, block)
    return Proposal(number, block, parent, tuple(gap), signed)


def is_own(cast):
    return cast.voter == ME.public_key


class Bench:
    """A core with an application that finds every block good, unless told otherwise."""

    def __init__(self, entries=(), *, signer=ME, epoch_length=10, lead=leader, root=GENESIS):
        self.core = Simplex(CHAIN, 0, SET, signer, root, lead, epoch_length, TIMING)
        self.tick, self.utc, self.bad = 0, UTC, set()
        self.out, self.log = [], list(entries)
        self.give(Start(tuple(entries)))

    def give(self, event):
        effects = self.core.handle(event, Now(self.tick, self.utc + self.tick))
        self.out += effects
        for effect in effects:
            if isinstance(effect, Persist):
                self.log += effect.entries
            if isinstance(effect, Process):
                self.give(Processed(effect.block.id, effect.block.id not in self.bad))
        return self

    def hear(self, message, peer=None):
        """From a peer; a proposal comes from its leader, unless told otherwise."""
        speaker = A.public_key if peer is None else peer.public_key
        if peer is None and isinstance(message, Proposal):
            speaker = message.vote.voter
        return self.give(Received(speaker, message))

    def wait(self, milliseconds):
        self.tick += milliseconds
        return self.give(Tick())

    def cast(self):
        sent = [
            e.message.vote
            for e in self.out
            if isinstance(e, Broadcast) and isinstance(e.message, Cast) and is_own(e.message.vote)
        ]
        return [(v.kind, v.view) for v in dict.fromkeys(sent)]

    def all(self, kind):
        return [effect for effect in self.out if isinstance(effect, kind)]


def test_a_good_proposal_is_notarized_then_finalized_then_committed():
    b = child(GENESIS, 1)
    bench = Bench().hear(proposal(b))
    assert bench.cast() == [(Kind.NOTARIZE, 1)]
    bench.hear(Certify(certificate(Kind.NOTARIZE, 1, b)))
    assert bench.core.view == 2
    assert bench.cast() == [(Kind.NOTARIZE, 1), (Kind.FINALIZE, 1)]
    for key in (A, B):
        bench.hear(Cast(vote(key, Kind.FINALIZE, 1, b)), key)
    assert [effect.block for effect in bench.all(Commit)] == [b]
    assert bench.core.root == b


def test_every_vote_and_certificate_is_persisted_before_it_is_sent():
    b = child(GENESIS, 1)
    bench = Bench().hear(proposal(b)).hear(Certify(certificate(Kind.NOTARIZE, 1, b))).wait(250)
    written = set()
    for effect in bench.out:
        if isinstance(effect, Persist):
            written |= {entry[2:] for entry in effect.entries}
        elif isinstance(effect, Broadcast):
            assert effect.message.encode()[2:] in written
    assert {kind for kind, _ in bench.cast()} == {Kind.NOTARIZE, Kind.FINALIZE, Kind.NULLIFY}


def test_silence_is_nullified_after_two_deltas():
    bench = Bench().wait(199)
    assert bench.cast() == []
    assert bench.wait(1).cast() == [(Kind.NULLIFY, 1)]


def test_who_nullified_a_view_does_not_finalize_it():
    b = child(GENESIS, 1)
    bench = Bench().wait(200).hear(proposal(b)).hear(Certify(certificate(Kind.NOTARIZE, 1, b)))
    assert bench.cast() == [(Kind.NULLIFY, 1), (Kind.NOTARIZE, 1)]


def test_who_nullified_and_crashed_does_not_finalize_either():
    b = child(GENESIS, 1)
    before = Bench().wait(200)
    after = Bench(before.log).hear(proposal(b)).hear(Certify(certificate(Kind.NOTARIZE, 1, b)))
    assert (Kind.FINALIZE, 1) not in after.cast()


def test_only_the_first_proposal_of_a_view_gets_a_vote_also_after_a_crash():
    first, second = child(GENESIS, 1, b"first"), child(GENESIS, 1, b"second")
    before = Bench().hear(proposal(first)).hear(proposal(second))
    assert before.cast() == [(Kind.NOTARIZE, 1)]
    after = Bench(before.log).hear(proposal(second))
    votes = [e.message.vote for e in after.all(Broadcast) if isinstance(e.message, Cast)]
    sent = {one.block_id for one in votes if is_own(one)}
    assert sent == {first.id}


def test_a_gap_of_views_must_be_nullified():
    b = child(GENESIS, 3)
    bench = Bench().hear(Certify(certificate(Kind.NULLIFY, 2)))
    assert bench.core.view == 3
    bench.hear(proposal(b))
    assert bench.cast() == []
    bench.hear(Certify(certificate(Kind.NULLIFY, 1)))
    assert bench.cast() == [(Kind.NOTARIZE, 3)]


def test_the_nullifications_come_with_the_proposal():
    gap = [certificate(Kind.NULLIFY, 1), certificate(Kind.NULLIFY, 2)]
    assert Bench().hear(proposal(child(GENESIS, 3), None, gap)).cast() == [(Kind.NOTARIZE, 3)]


def finalized_two():
    one = child(GENESIS, 1)
    two = child(one, 2)
    bench = Bench().hear(proposal(one)).hear(proposal(two, certificate(Kind.NOTARIZE, 1, one)))
    bench.hear(Certify(certificate(Kind.FINALIZE, 2, two)))
    assert [effect.block.height for effect in bench.all(Commit)] == [1, 2]
    bench.out.clear()
    return bench, one, two


def test_a_proposal_that_leaves_out_what_is_final_is_nullified():
    bench, one, _ = finalized_two()
    fork = child(one, 3, b"fork")
    bench.hear(proposal(fork, certificate(Kind.NOTARIZE, 1, one)))
    assert bench.cast() == [(Kind.NULLIFY, 3)]


def test_an_ancestor_is_committed_with_its_descendants_certificate():
    one = child(GENESIS, 1)
    two = child(one, 2)
    bench = Bench().hear(proposal(one)).hear(proposal(two, certificate(Kind.NOTARIZE, 1, one)))
    final = certificate(Kind.FINALIZE, 2, two)
    bench.hear(Certify(final))
    assert [(e.block, e.finalization) for e in bench.all(Commit)] == [(one, final), (two, final)]


@pytest.mark.parametrize(
    "changes",
    [
        {"chain_id": b"x" * 32},
        {"view": 2},
        {"height": 2},
        {"parent": b"x" * 32},
        {"timestamp_ms": GENESIS.timestamp_ms},
        {"leader": ME.public_key},
    ],
)
def test_a_block_with_a_wrong_header_is_nullified(changes):
    bench = Bench().hear(proposal(child(GENESIS, 1, **changes), view=1))
    assert bench.cast() == [(Kind.NULLIFY, 1)]


def test_a_block_that_the_ledger_refuses_is_nullified():
    bench, b = Bench(), child(GENESIS, 1)
    bench.bad.add(b.id)
    assert bench.hear(proposal(b)).cast() == [(Kind.NULLIFY, 1)]


def test_a_block_from_the_future_waits_for_the_clock():
    b = child(GENESIS, 1, timestamp_ms=UTC + 600)
    bench = Bench().hear(proposal(b))
    assert bench.cast() == []
    assert bench.wait(100).cast() == [(Kind.NOTARIZE, 1)]


def test_a_proposal_by_another_than_the_leader_is_blamed():
    b = child(GENESIS, 1)
    other = next(key for key in (A, B, C) if key.public_key != leader(1))
    forged = Proposal(1, b, None, (), vote(other, Kind.NOTARIZE, 1, b))
    bench = Bench().hear(forged)
    assert bench.all(Blame)
    assert bench.cast() == []


def test_a_final_block_that_the_ledger_refuses_halts():
    bench, b = Bench(), child(GENESIS, 1)
    bench.bad.add(b.id)
    bench.hear(proposal(b)).hear(Certify(certificate(Kind.FINALIZE, 1, b)))
    assert bench.all(Halt)
    assert not bench.all(Commit)


def test_a_missing_certified_block_is_asked_for_and_taken_only_then():
    b = child(GENESIS, 1)
    bench = Bench().hear(Give(0, b))
    assert len(bench.core.tree) == 0
    bench.hear(Certify(certificate(Kind.FINALIZE, 1, b))).wait(30)
    asked = [effect for effect in bench.all(SendTo) if isinstance(effect.message, Ask)]
    assert [effect.message.block_id for effect in asked] == [b.id]
    bench.wait(100)
    again = [effect for effect in bench.all(SendTo) if isinstance(effect.message, Ask)]
    assert len({effect.peer for effect in again}) == 2, "another validator is asked the next time"
    bench.hear(Give(0, b))
    assert [effect.block for effect in bench.all(Commit)] == [b]


def test_the_leader_waits_for_the_interval_and_proposes_once():
    timing = Timing(delta_ms=100, block_interval_ms=10_300)
    core = Simplex(CHAIN, 0, SET, ME, GENESIS, lambda _: ME.public_key, 10, timing)
    early = core.handle(Start(()), Now(0, UTC)) + core.handle(Tick(), Now(299, UTC + 299))
    assert not [effect for effect in early if isinstance(effect, Prepare | Broadcast)]
    due = core.handle(Tick(), Now(300, UTC + 300))
    assert [effect for effect in due if isinstance(effect, Prepare)]
    more = core.handle(Tick(), Now(310, UTC + 310))
    assert not [effect for effect in more if isinstance(effect, Prepare)]


def test_two_notarizes_in_a_view_are_evidence_once():
    bench = Bench()
    for salt in range(50):
        bench.hear(Cast(vote(A, Kind.NOTARIZE, 1, child(GENESIS, 1, bytes([salt])))))
    accusations = bench.all(Accuse)
    assert len(accusations) == 1
    assert verify_evidence(accusations[0].evidence, CHAIN) == A.public_key


@pytest.mark.parametrize("order", [1, -1])
def test_a_nullify_and_a_finalize_in_a_view_are_evidence(order):
    b = child(GENESIS, 1)
    votes = [vote(A, Kind.NULLIFY, 1), vote(A, Kind.FINALIZE, 1, b)][::order]
    bench = Bench()
    for each in votes:
        bench.hear(Cast(each))
    assert [effect.accused for effect in bench.all(Accuse)] == [A.public_key]


def test_what_an_honest_validator_may_do_is_no_evidence():
    one, other = child(GENESIS, 1, b"1"), child(GENESIS, 1, b"2")
    bench = Bench()
    for each in (
        vote(A, Kind.NOTARIZE, 1, one),
        vote(A, Kind.FINALIZE, 1, other),
        vote(B, Kind.NOTARIZE, 1, one),
        vote(B, Kind.NULLIFY, 1),
        vote(C, Kind.NOTARIZE, 1, one),
        vote(C, Kind.NOTARIZE, 2, other),
    ):
        bench.hear(Cast(each))
    assert not bench.all(Accuse)


def test_two_certificates_that_conflict_accuse_who_signed_both():
    one, other = child(GENESIS, 1, b"1"), child(GENESIS, 1, b"2")
    bench = Bench().hear(Certify(certificate(Kind.NOTARIZE, 1, one, (A, B, C))))
    bench.hear(Certify(certificate(Kind.NOTARIZE, 1, other, (A, B, C))))
    assert {effect.accused for effect in bench.all(Accuse)} == {k.public_key for k in (A, B, C)}


def test_a_forged_vote_or_certificate_is_blamed_and_counts_for_nothing():
    b = child(GENESIS, 1)
    good = vote(A, Kind.NOTARIZE, 1, b)
    bench = Bench().hear(Cast(Vote(good.kind, 0, 1, b.id, B.public_key, good.signature)))
    few = certificate(Kind.NULLIFY, 1, None, (A, B))
    bench.hear(Certify(few))
    signatures = certificate(Kind.NULLIFY, 2).signatures
    bench.hear(Certify(Certificate(Kind.NULLIFY, 0, 1, bytes(32), signatures)))
    assert len(bench.all(Blame)) == 3
    assert bench.core.view == 1


def test_memory_is_bounded_under_votes_for_far_views():
    bench = Bench()
    for view in range(1, 3_000):
        bench.hear(Cast(vote(A, Kind.NULLIFY, view)))
        bench.hear(proposal(child(GENESIS, view)))
    assert len(bench.core.views) <= VIEWS_AHEAD + 1
    assert len(bench.core.tree) <= VIEWS_AHEAD + 1


def test_memory_is_bounded_while_view_after_view_is_nullified():
    bench = Bench()
    for view in range(1, 600):
        bench.hear(Certify(certificate(Kind.NULLIFY, view)))
    assert bench.core.view == 600
    assert len(bench.core.views) < 300
    full = [view for view in bench.core.views.values() if any(view.votes.values())]
    assert len(full) <= VIEWS_BEHIND + 2
    assert bench.hear(proposal(child(GENESIS, 600))).cast()[-1] == (Kind.NOTARIZE, 600)


def test_blocks_of_views_that_came_to_nothing_are_forgotten_though_none_is_final():
    bench = Bench()
    for view in range(1, 200):
        bench.hear(proposal(child(GENESIS, view)))
        bench.hear(Certify(certificate(Kind.NULLIFY, view)))
    assert len(bench.core.tree) <= VIEWS_BEHIND + 1
    assert len(bench.core.tree.durable) <= VIEWS_BEHIND + 1
    after = Bench(bench.log)
    assert len(after.core.tree) <= VIEWS_BEHIND + 1


def test_a_certificate_of_a_view_that_is_final_is_checked_once():
    bench, _, _ = finalized_two()
    late = certificate(Kind.NULLIFY, 1)
    assert not bench.core.book.knows(late)
    bench.hear(Certify(late))
    assert bench.core.book.knows(late)


def sent_certificates(bench):
    """The kind, view, and receiver of each; None for everybody."""
    single = [e for e in bench.all(SendTo) if isinstance(e.message, Certify)]
    every = [e for e in bench.all(Broadcast) if isinstance(e.message, Certify)]
    found = [(e.message.certificate, e.peer) for e in single]
    found += [(e.message.certificate, None) for e in every]
    return [(one.kind, one.view, peer) for one, peer in found]


def test_only_who_does_not_show_that_it_is_past_a_view_is_sent_its_certificate():
    bench = Bench(lead=lambda view: A.public_key)
    one = child(GENESIS, 1, leader=A.public_key)
    signed = vote(A, Kind.NOTARIZE, 1, one)
    bench.hear(Proposal(1, one, None, (), signed)).hear(Cast(vote(B, Kind.NOTARIZE, 1, one)), B)
    assert bench.core.view == 2
    bench.hear(Cast(vote(A, Kind.FINALIZE, 1, one)), A)
    bench.hear(Cast(vote(C, Kind.FINALIZE, 1, one)), B)  # whoever passes a vote on shows nothing
    bench.wait(TIMING.delta_ms // 2 - 1)
    assert sent_certificates(bench) == []
    bench.wait(1)
    behind = {peer for kind, view, peer in sent_certificates(bench)}
    assert behind == {B.public_key, C.public_key}
    before = len(sent_certificates(bench))
    bench.wait(TIMING.delta_ms // 2)
    assert len(sent_certificates(bench)) == before, "once"


def test_a_certificate_that_only_one_was_given_reaches_the_others():
    bench = Bench()
    bench.hear(Certify(certificate(Kind.NULLIFY, 1)), A)
    bench.wait(TIMING.delta_ms // 2)
    assert sent_certificates(bench) == [
        (Kind.NULLIFY, 1, B.public_key),
        (Kind.NULLIFY, 1, C.public_key),
    ]


def test_a_nullification_and_the_end_of_an_epoch_are_told_to_all_at_once():
    bench = Bench()
    for key in (A, B, C):
        bench.hear(Cast(vote(key, Kind.NULLIFY, 1)), key)
    assert sent_certificates(bench) == [(Kind.NULLIFY, 1, None)]
    one = child(GENESIS, 1)
    last = (
        Bench(epoch_length=1).hear(proposal(one)).hear(Certify(certificate(Kind.NOTARIZE, 1, one)))
    )
    for key in (A, B):
        last.hear(Cast(vote(key, Kind.FINALIZE, 1, one)), key)
    assert last.core.done
    assert (Kind.FINALIZE, 1, None) in sent_certificates(last)


def test_the_last_block_of_an_epoch_is_proposed_again_until_it_is_final():
    one = child(GENESIS, 1)
    notarized = certificate(Kind.NOTARIZE, 1, one)
    again = Bench(epoch_length=1).hear(proposal(one)).hear(Certify(notarized))
    again.hear(proposal(child(one, 2), notarized))
    assert (Kind.NULLIFY, 2) in again.cast(), "a child of the last block is refused"
    good = Bench(epoch_length=1).hear(proposal(one)).hear(Certify(notarized))
    good.hear(proposal(one, notarized, view=2))
    assert (Kind.NOTARIZE, 2) in good.cast()
    good.hear(Certify(certificate(Kind.FINALIZE, 2, one)))
    assert good.core.done
    assert [effect.block for effect in good.all(Commit)] == [one]


def test_one_who_lags_is_told_where_the_others_are_but_not_more_than_once_in_delta():
    bench, _, _ = finalized_two()
    for view in range(3, 6):
        bench.hear(Certify(certificate(Kind.NULLIFY, view)))
    for _ in range(5):
        bench.hear(Cast(vote(A, Kind.NULLIFY, 3)))
    told = [e.message.certificate for e in bench.all(SendTo) if isinstance(e.message, Certify)]
    assert [(c.kind, c.view) for c in told] == [(Kind.FINALIZE, 2), (Kind.NULLIFY, 5)]


def test_who_is_done_with_the_epoch_still_helps_those_in_its_last_view():
    one = child(GENESIS, 1)
    bench = Bench(epoch_length=1).hear(proposal(one))
    bench.hear(Certify(certificate(Kind.FINALIZE, 1, one)))
    assert bench.core.done
    bench.hear(Cast(vote(A, Kind.NULLIFY, 2)))
    told = [e.message.certificate for e in bench.all(SendTo) if isinstance(e.message, Certify)]
    assert [(c.kind, c.view) for c in told] == [(Kind.FINALIZE, 1)]


def test_what_sync_finalized_is_taken_over():
    one = child(GENESIS, 1)
    final = certificate(Kind.FINALIZE, 1, one)
    bench = Bench().give(Advanced(one, final))
    assert (bench.core.root, bench.core.view) == (one, 2)
    assert bench.hear(proposal(child(one, 2), final)).cast() == [(Kind.NOTARIZE, 2)]


def test_a_snapshot_is_worth_the_log_it_replaces():
    bench, _, two = finalized_two()
    bench.hear(Certify(certificate(Kind.NULLIFY, 3))).wait(250)
    long, short = Bench(bench.log, root=two), Bench(bench.core.snapshot(), root=two)
    assert len(bench.core.snapshot()) < len(bench.log)
    for again in (long, short):
        assert (again.core.view, again.core.root) == (4, two)
        assert again.cast() == [(Kind.NULLIFY, 4)]


def test_a_key_outside_the_set_follows_without_a_vote():
    outsider = Signer(b"o" * 32)
    b = child(GENESIS, 1)
    bench = Bench(signer=outsider).hear(proposal(b)).wait(1_000)
    bench.hear(Certify(certificate(Kind.FINALIZE, 1, b)))
    assert bench.cast() == []
    assert [effect.block for effect in bench.all(Commit)] == [b]


# A leader that proposes two blocks, of which neither comes near Q


def double():
    leads = signer_of(leader(1))
    pair = [child(GENESIS, 1, salt) for salt in (b"1", b"2")]
    others = [key for key in (A, B, C) if key is not leads]
    return leads, pair, others


def shown(bench):
    """The leader's notarizes that a core passed on."""
    votes = [e.message.vote for e in bench.all(Broadcast) if isinstance(e.message, Cast)]
    return [one for one in votes if not is_own(one)]


def test_whoever_sees_a_vote_for_another_block_passes_its_leaders_vote_on_once():
    leads, (one, other), others = double()
    bench = Bench().hear(proposal(one), leads)
    for voter in others:
        bench.hear(Cast(vote(voter, Kind.NOTARIZE, 1, other)), voter)
    assert shown(bench) == [vote(leads, Kind.NOTARIZE, 1, one)]


def test_the_vote_for_another_block_may_come_before_the_proposal():
    leads, (one, other), (voter, _) = double()
    bench = Bench().hear(Cast(vote(voter, Kind.NOTARIZE, 1, other)), voter)
    assert shown(bench) == []
    assert len(shown(bench.hear(proposal(one), leads))) == 1


def test_where_votes_agree_nothing_is_passed_on():
    leads, (one, _), others = double()
    bench = Bench().hear(proposal(one), leads)
    for voter in others:
        bench.hear(Cast(vote(voter, Kind.NOTARIZE, 1, one)), voter)
    assert shown(bench) == []


def test_two_cores_that_saw_one_block_each_find_the_leader_when_the_view_comes_to_nothing():
    leads, (one, other), _ = double()
    mine, theirs = Bench(), Bench()
    mine.bad.add(one.id)  # nobody votes for either block
    theirs.bad.add(other.id)
    mine.hear(proposal(one), leads)
    theirs.hear(proposal(other), leads)
    for bench in (mine, theirs):
        bench.hear(Certify(certificate(Kind.NULLIFY, 1)))
        assert not bench.all(Accuse)
    (passed,) = shown(mine)
    (accusation,) = theirs.hear(Cast(passed), B).all(Accuse)
    assert verify_evidence(accusation.evidence, CHAIN) == leads.public_key


@pytest.mark.parametrize("spoilt", ["final", "certificates"])
def test_a_second_proposal_is_evidence_though_its_block_is_of_no_use(spoilt):
    leads, (one, other), _ = double()
    bench = Bench().hear(proposal(one), leads)
    second = proposal(other)
    if spoilt == "final":
        bench.hear(Certify(certificate(Kind.FINALIZE, 1, one)))
    else:
        second = Proposal(1, other, None, (certificate(Kind.NULLIFY, 2),), second.vote)
    bench.hear(second, leads)
    assert [effect.accused for effect in bench.all(Accuse)] == [leads.public_key]


def test_a_flood_of_second_votes_has_each_view_passed_on_once_and_nothing_held():
    bench, leads = Bench(), {view: signer_of(leader(view)) for view in range(1, 10)}
    for view in range(1, 10):
        bench.hear(Cast(vote(leads[view], Kind.NOTARIZE, view, child(GENESIS, view))))
        for salt in range(20):
            for voter in (A, B, C):
                block = child(GENESIS, view, bytes([salt]))
                if voter is not leads[view]:
                    bench.hear(Cast(vote(voter, Kind.NOTARIZE, view, block)), voter)
    assert len(shown(bench)) == 9
    assert all(len(v.votes[Kind.NOTARIZE]) <= 3 for v in bench.core.views.values())


def test_a_leader_does_not_pass_on_its_own_vote():
    bench = Bench(lead=lambda _: ME.public_key)
    block = child(GENESIS, 1, leader=ME.public_key)
    bench.give(Prepared(1, block))
    bench.out.clear()
    bench.hear(Cast(vote(A, Kind.NOTARIZE, 1, child(GENESIS, 1, b"other"))))
    assert not [e for e in bench.all(Broadcast) if isinstance(e.message, Cast)]


# What a log says that is older or newer than the ledger


def test_at_and_below_a_view_that_the_log_shows_to_be_final_nothing_is_voted_again():
    one = child(GENESIS, 1)
    two = child(one, 2)
    before = Bench().wait(200).hear(Certify(certificate(Kind.NOTARIZE, 1, one)))
    before.hear(Certify(certificate(Kind.FINALIZE, 2, two))).hear(Give(0, two)).hear(Give(0, one))
    assert before.cast() == [(Kind.NULLIFY, 1)]
    assert len(before.all(Commit)) == 2
    after = Bench(before.core.snapshot())  # the ledger is that of an old copy
    after.hear(Certify(certificate(Kind.NOTARIZE, 1, one))).hear(Give(0, one))
    assert after.cast() == []


def test_a_vote_of_the_own_key_that_this_log_does_not_hold_is_told_once():
    bench = Bench()
    for view in (1, 2, 2):
        bench.hear(Cast(vote(ME, Kind.NULLIFY, view)))
    assert bench.all(Doubled) == [Doubled(0, 1)]
    assert not bench.all(Accuse)


def test_own_votes_that_the_log_has_forgotten_are_no_double():
    bench, _, two = finalized_two()
    after = Bench(bench.core.snapshot(), root=two)
    after.hear(Cast(vote(ME, Kind.NOTARIZE, 1, child(GENESIS, 1))))
    after.hear(Cast(vote(ME, Kind.FINALIZE, 2, two)))
    assert not after.all(Doubled)


def test_a_ledger_that_is_behind_its_log_gets_its_last_blocks_from_there():
    bench, one, two = finalized_two()
    after = Bench(bench.log, root=GENESIS)
    assert [effect.block for effect in after.all(Commit)] == [one, two]
    assert Bench(bench.core.snapshot(), root=one).cast() == []


def test_a_leaders_block_that_another_passes_on_in_a_false_wrapping_spoils_nothing():
    """What goes with a block is not signed: whoever is quicker than the leader could have every view nullified."""
    one = child(GENESIS, 1)
    two = child(one, 2)
    shown = certificate(Kind.NOTARIZE, 1, one)
    honest = proposal(two, shown)
    stranger = next(key for key in (A, B, C) if key.public_key != leader(2))
    for wrapping in (None, certificate(Kind.NULLIFY, 1)):
        bench = Bench().hear(proposal(one)).hear(Certify(shown))
        bench.hear(Proposal(2, two, wrapping, (), honest.vote), stranger)
        assert (Kind.NULLIFY, 2) not in bench.cast()
        assert (Kind.NOTARIZE, 2) in bench.hear(honest).cast()


def test_while_no_block_becomes_final_the_deadlines_grow_though_blocks_are_notarized():
    bench, parent, shown = Bench(), GENESIS, None
    nullified = []
    for view in range(1, 9):
        block = child(parent, view)
        began = bench.tick
        while (Kind.NULLIFY, view) not in bench.cast():
            bench.wait(50)
        nullified.append(bench.tick - began)
        bench.hear(proposal(block, shown))
        parent, shown = block, certificate(Kind.NOTARIZE, view, block)
        bench.hear(Certify(shown))
    assert nullified == [200, 200, 200, 300, 400, 500, 600, 700]
    bench.hear(Certify(certificate(Kind.FINALIZE, 8, parent))).hear(
        Certify(certificate(Kind.NULLIFY, 9))
    )
    assert bench.wait(199).cast()[-1] != (Kind.NULLIFY, 10)
    assert bench.wait(1).cast()[-1] == (Kind.NULLIFY, 10)


@pytest.mark.slow
def test_a_long_way_to_what_is_final_is_written_in_pieces_that_fit_a_log():
    bench = Bench(signer=None, epoch_length=100)
    parent, shown = GENESIS, None
    for view in range(1, 71):
        block = child(parent, view, bytes(2**20))
        bench.hear(proposal(block, shown))
        parent, shown = block, certificate(Kind.NOTARIZE, view, block)
        bench.hear(Certify(shown))
    bench.hear(Certify(certificate(Kind.FINALIZE, 70, parent)))
    assert bench.core.root == parent
    written = [sum(4 + len(e) for e in one.entries) for one in bench.all(Persist)]
    assert max(written) < MAX_APPEND_BYTES


def test_a_view_whose_own_votes_are_forgotten_is_not_finalized_any_more():
    """The nullify of then is not held; a finalize beside it would be evidence."""
    b = child(GENESIS, 1)
    bench = Bench().wait(200)
    bench.hear(Certify(certificate(Kind.NULLIFY, 1 + MAX_NULLIFICATIONS)))
    assert 1 not in bench.core.views
    bench.hear(Certify(certificate(Kind.NOTARIZE, 1, b))).hear(Give(0, b))
    assert (Kind.NULLIFY, 1) in bench.cast()
    assert (Kind.FINALIZE, 1) not in bench.cast()


def test_who_notarized_gives_the_view_up_after_three_deltas_and_not_before():
    bench = Bench().hear(proposal(child(GENESIS, 1))).wait(299)
    assert bench.cast() == [(Kind.NOTARIZE, 1)]
    assert bench.wait(1).cast() == [(Kind.NOTARIZE, 1), (Kind.NULLIFY, 1)]


def test_a_finalize_is_said_again_until_the_view_is_final():
    b = child(GENESIS, 1)
    bench = Bench().hear(proposal(b)).hear(Certify(certificate(Kind.NOTARIZE, 1, b)))
    bench.out.clear()
    assert (Kind.FINALIZE, 1) in bench.wait(400).cast()


def test_a_block_from_the_future_wakes_the_core_when_its_time_has_come():
    bench = Bench().hear(proposal(child(GENESIS, 1, timestamp_ms=UTC + 540)))
    assert bench.all(SetTimer)[-1] == SetTimer(40)


def test_two_finalizations_of_one_view_halt():
    bench, one, _ = finalized_two()
    bench.hear(Certify(certificate(Kind.FINALIZE, 2, child(one, 2, b"other"))))
    assert bench.all(Halt)


def test_certificates_of_the_proposals_own_view_do_not_belong_to_it():
    b = child(GENESIS, 1)
    bench = Bench().hear(proposal(b, None, [certificate(Kind.NULLIFY, 1)]))
    assert bench.all(Blame)
    assert bench.core.view == 1


def test_a_leader_makes_another_block_when_a_newer_parent_came_meanwhile():
    one = child(GENESIS, 1, leader=A.public_key)
    bench = Bench(lead=lambda view: (A, ME)[view % 2 == 0].public_key)
    bench.hear(Certify(certificate(Kind.NULLIFY, 1)))
    assert [effect.parent for effect in bench.all(Prepare)] == [GENESIS]
    stale = child(GENESIS, 2, leader=ME.public_key)
    bench.hear(Certify(certificate(Kind.NOTARIZE, 1, one))).hear(Give(0, one))
    bench.give(Prepared(2, stale))
    assert (Kind.NOTARIZE, 2) not in bench.cast()
    assert [effect.parent for effect in bench.all(Prepare)] == [GENESIS, one]
    fresh = child(one, 2, leader=ME.public_key)
    bench.give(Prepared(2, fresh))
    made = [e.message for e in bench.all(Broadcast) if isinstance(e.message, Proposal)]
    assert [(proposal.block, proposal.parent.view) for proposal in made] == [(fresh, 1)]


def test_a_leader_does_not_build_upon_what_its_ledger_refuses():
    one = child(GENESIS, 1, leader=A.public_key)
    bench = Bench(lead=lambda view: (A, ME)[view % 2 == 0].public_key)
    bench.bad.add(one.id)
    bench.hear(Certify(certificate(Kind.NOTARIZE, 1, one))).wait(30).hear(Give(0, one)).wait(30)
    assert one in bench.core.tree._held.values()
    assert not bench.all(Prepare)


def test_an_older_finalization_does_not_take_the_place_of_a_newer_one():
    one = child(GENESIS, 1)
    two = child(one, 2)
    bench = Bench().hear(Certify(certificate(Kind.FINALIZE, 2, two)))
    bench.hear(Certify(certificate(Kind.FINALIZE, 1, one)))
    bench.hear(Give(0, two)).hear(Give(0, one))
    assert [effect.block for effect in bench.all(Commit)] == [one, two]


LONG = 2 * MAX_NULLIFICATIONS + 10


def asked_views(bench):
    asks = [e.message for e in bench.all(SendTo) if isinstance(e.message, Ask)]
    return [skipped_from(one.block_id) for one in asks]


def told(bench, peer, view):
    bench.out.clear()
    bench.hear(Ask(0, skipped(view)), peer)
    return [effect.message.certificate for effect in bench.all(SendTo)]


def test_who_was_away_for_more_views_than_a_proposal_shows_asks_for_the_older_ones():
    gap = [certificate(Kind.NULLIFY, view) for view in range(1, LONG)]
    bench = Bench().hear(proposal(child(GENESIS, LONG), gap=gap[-MAX_NULLIFICATIONS:]))
    assert bench.core.view == LONG
    assert bench.wait(25).cast() == []
    assert asked_views(bench) == [1]
    for one in gap[:200]:
        bench.hear(Certify(one))
    bench.out.clear()
    assert asked_views(bench.wait(1).wait(25)) == [201]
    for one in gap[200 : LONG - MAX_NULLIFICATIONS]:
        bench.hear(Certify(one))
    assert bench.cast() == [(Kind.NOTARIZE, LONG)]
    assert len(bench.core.views) < MAX_NULLIFICATIONS + VIEWS_AHEAD


def test_what_a_proposal_shows_begins_where_asking_ends():
    gap = [certificate(Kind.NULLIFY, view) for view in range(1, LONG)]
    leader, late = Bench(), Bench().hear(Certify(gap[-1]))
    for one in gap:
        leader.hear(Certify(one))
    shown = leader.core.book.gap(0, LONG)
    assert [one.view for one in shown] == list(range(LONG - MAX_NULLIFICATIONS, LONG))
    for one in gap:
        if late.core.book.hole(0, LONG) is None:
            break
        late.hear(Certify(one))
    late.hear(proposal(child(GENESIS, LONG), gap=shown))
    assert late.cast() == [(Kind.NOTARIZE, LONG)]


def test_one_that_tells_of_one_view_at_a_time_is_not_the_one_that_is_asked_each_time():
    gap = [certificate(Kind.NULLIFY, view) for view in range(1, LONG)]
    bench = Bench().hear(proposal(child(GENESIS, LONG), gap=gap[-MAX_NULLIFICATIONS:]))
    for one in gap[:4]:
        bench.wait(25).hear(Certify(one))
    asked = {effect.peer for effect in bench.all(SendTo) if isinstance(effect.message, Ask)}
    assert len(asked) == 3


def test_who_leads_asks_too_and_nobody_asks_for_what_a_proposal_will_show():
    gap = [certificate(Kind.NULLIFY, view) for view in range(1, LONG)]
    bench = Bench(lead=lambda _: ME.public_key)
    bench.hear(Certify(gap[-1])).wait(1).wait(25)
    assert bench.core.view == LONG
    assert asked_views(bench) == [1]
    for one in gap[: LONG - MAX_NULLIFICATIONS - 1]:
        bench.hear(Certify(one))
    bench.out.clear()
    assert asked_views(bench.wait(100).wait(100)) == []
    assert not bench.all(Prepare)
    for one in gap[LONG - MAX_NULLIFICATIONS - 1 :]:
        bench.hear(Certify(one))
    assert bench.all(Prepare)


def test_views_that_came_to_nothing_are_told_again_also_after_a_crash_and_not_more_than_once_in_delta():
    gap = [certificate(Kind.NULLIFY, view) for view in range(1, LONG)]
    bench = Bench()
    for one in gap:
        bench.hear(Certify(one))
    for one in (bench, Bench(bench.log)):
        assert told(one, B, 5) == gap[4:68]
        assert told(one, B, 69) == []
        assert told(one, C, LONG - 10) == gap[LONG - 11 :]
        one.wait(100)
        assert told(one, B, 69) == gap[68:132]
        one.wait(100)
        assert told(one, B, 2**64 - 1) == told(one, C, LONG) == []
    stranger = Signer(bytes(32))
    assert told(bench.wait(100), stranger, 1) == []
    b = child(GENESIS, LONG)
    bench.hear(proposal(b, gap=gap[-MAX_NULLIFICATIONS:]))
    bench.hear(Certify(certificate(Kind.FINALIZE, LONG, b))).wait(100)
    assert told(bench, B, 1) == []  # nobody needs them any more

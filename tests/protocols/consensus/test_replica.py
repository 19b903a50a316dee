"""Which epochs a key votes in, by what its log shows."""

from __future__ import annotations

from protocols.consensus.application import Validator
from protocols.consensus.blocks import Block, genesis_block
from protocols.consensus.events import (
    Advanced,
    Behind,
    Broadcast,
    Now,
    Persist,
    Received,
    Start,
    Tick,
)
from protocols.consensus.evidence import contradict
from protocols.consensus.journal import (
    FROM_GENESIS,
    Standing,
    decode_entries,
    encode_entry,
    next_safe_epoch,
    standing,
    standing_at,
)
from protocols.consensus.messages import Ask, Cast, Certificate, Give, Kind, Vote
from protocols.consensus.replica import PRESENT_MS, Replica
from protocols.consensus.views import Timing
from protocols.signing import Signer

CHAIN = b"c" * 32
UTC = 1_700_000_000_000
ME, *OTHERS = sorted((Signer(bytes([4, n]) * 16) for n in range(4)), key=lambda s: s.public_key)
SET = tuple(Validator(one.public_key, 1) for one in (ME, *OTHERS))
GENESIS = genesis_block(CHAIN, UTC, bytes(32))
LENGTH = 8


def block(height, timestamp_ms=UTC):
    """Final, as if it came from sync."""
    epoch = (height - 1) // LENGTH
    leader = OTHERS[0].public_key
    return Block(CHAIN, epoch, height, height, b"p" * 32, timestamp_ms, leader, bytes(32), b"")


def final(one):
    votes = [Vote.sign(k, CHAIN, Kind.FINALIZE, one.epoch, one.view, one.id) for k in OTHERS]
    signatures = tuple((at, vote.signature) for at, vote in enumerate(votes, 1))
    return Certificate(Kind.FINALIZE, one.epoch, one.view, one.id, signatures)


class Life:
    """One process of a node over its log."""

    def __init__(self, log=(), tip=GENESIS, *, utc=UTC):
        self.log, self.utc, self.tick = list(log), utc, 0
        stands = standing_at(self.log, tip.height, LENGTH)
        if stands != standing(self.log):
            self.log += stands.encode()
        self.sent = []
        leads = OTHERS[0].public_key
        self.replica = Replica(
            CHAIN, LENGTH, ME, tip, lambda _: SET, lambda *_: leads, Timing(100, 0), stands
        )
        self.give(Start(tuple(self.log)))

    def give(self, event):
        for effect in self.replica.handle(event, Now(self.tick, self.utc + self.tick)):
            if isinstance(effect, Persist):
                self.log += effect.entries
            if isinstance(effect, Broadcast) and isinstance(effect.message, Cast):
                self.sent.append(effect.message.vote)
        return self

    def sync(self, height, **when):
        one = block(height, **when)
        return self.give(Advanced(one, final(one)))

    def wait(self):
        self.tick += 10_000
        return self.give(Tick())

    @property
    def epochs(self):
        return sorted({vote.epoch for vote in self.sent})


def test_a_node_that_slept_for_epochs_votes_as_soon_as_it_is_level():
    life = Life().sync(1).wait().sync(43)
    assert life.replica.is_voting
    assert life.wait().epochs == [0, 5]


def test_a_log_that_began_in_an_old_epoch_says_nothing_of_the_one_that_runs():
    life = Life(tip=block(12, UTC - 10 * PRESENT_MS)).sync(43)
    assert not life.replica.is_voting
    assert life.wait().epochs == []
    life.sync(48)
    life.wait()
    assert life.replica.core.epoch == 6
    assert life.wait().epochs == [6]


def test_that_a_key_waits_after_a_jump_outlives_the_process():
    old = UTC - 10 * PRESENT_MS
    life = Life(tip=block(12, old)).sync(43, timestamp_ms=old).sync(44, timestamp_ms=old)
    again = Life(life.log, block(44))
    assert not again.replica.is_voting
    assert again.wait().epochs == []


def test_a_key_that_signs_elsewhere_is_silent_until_the_next_start_and_the_next_epoch():
    life = Life().sync(1).wait()
    before = list(life.sent)
    assert before
    for effect in life.replica.fall_silent():
        life.log += effect.entries
    life.wait().sync(2).wait().sync(LENGTH).wait().wait()
    assert life.replica.core.epoch == 1
    assert not life.replica.is_voting
    assert {vote.encode() for vote in life.sent} == {vote.encode() for vote in before}
    assert Life(life.log, block(2)).wait().epochs == []
    assert Life(life.log, block(LENGTH)).wait().epochs == [1]


def test_a_log_is_whole_from_the_epoch_after_a_block_that_was_made_just_now():
    old = Life().sync(3, timestamp_ms=UTC - 2 * PRESENT_MS)
    ahead = Life().sync(3, timestamp_ms=UTC + 2 * PRESENT_MS)
    now = Life().sync(3, timestamp_ms=UTC - PRESENT_MS // 2)
    assert standing(old.log).whole_from is None
    assert standing(ahead.log).whole_from is None
    assert standing(now.log).whole_from == 1


def test_a_log_that_began_in_the_epoch_that_runs_does_not_let_its_key_vote_there():
    life = Life(tip=block(12)).sync(13)
    assert standing(life.log) == Standing(2, 2)
    assert life.wait().epochs == []
    assert Life(life.log, block(13)).wait().epochs == [], "nor after a restart"


def test_the_end_of_an_epoch_counts_to_the_next_one():
    assert [next_safe_epoch(height, LENGTH) for height in (8, 13, 14, 15, 16)] == [2, 2, 2, 3, 3]


def test_a_key_does_not_vote_in_an_epoch_before_the_one_of_its_log():
    """The ledger was restored from an old copy, or was moved away; votes of that time are forgotten."""
    life = Life().sync(1).sync(11)
    life.wait()
    assert life.epochs == [1]
    kept = life.replica.snapshot()
    again = Life(kept)
    assert again.wait().epochs == []
    again.sync(11).wait()
    assert not any(contradict(one, other) for one in life.sent for other in again.sent)
    assert set(again.replica.snapshot()) >= {
        encode_entry(e) for e in decode_entries(kept) if isinstance(e, Vote)
    }


def test_a_log_that_is_rewritten_early_keeps_what_is_of_later_epochs():
    life = Life().sync(1).sync(11)
    life.wait()
    votes = {e for e in decode_entries(life.replica.snapshot()) if isinstance(e, Vote)}
    assert votes
    again = Life(life.replica.snapshot(), GENESIS)
    assert votes <= set(decode_entries(again.replica.snapshot()))


def test_what_a_log_says_is_read_as_it_was_written():
    for one in (FROM_GENESIS, Standing(3), Standing(0, 0), Standing(7, 2)):
        assert standing(one.encode()) == one


def test_a_log_that_is_not_whole_says_nothing_of_epochs_that_sync_brought_one_block_after_another():
    old = UTC - 10 * PRESENT_MS
    life = Life(tip=block(12, old))
    for height in range(13, 44):
        life.sync(height, timestamp_ms=old).wait()
    assert life.replica.core.epoch == 5
    assert life.epochs == []
    assert Life(life.log, block(43)).wait().epochs == [], "nor after a restart"


def test_blocks_for_the_next_epoch_that_nobody_asked_for_do_not_pile_up():
    life, late = Life(), block(LENGTH + 1)
    for _ in range(20):
        life.give(Received(OTHERS[1].public_key, Give(1, late)))
        life.give(Received(OTHERS[1].public_key, Ask(1, late.id)))
    assert not life.replica._early


def test_who_is_left_in_an_epoch_asks_again_and_again_what_it_missed():
    members = tuple(
        sorted((Signer(bytes([5, n]) * 16) for n in range(31)), key=lambda s: s.public_key)
    )
    voters = tuple(Validator(one.public_key, 1) for one in members)
    leads = members[0].public_key
    replica = Replica(
        CHAIN, LENGTH, None, GENESIS, lambda _: voters, lambda *_: leads, Timing(100, 0)
    )
    replica.handle(Start(), Now(0, UTC))
    vote = Vote.sign(members[1], CHAIN, Kind.NULLIFY, 1, 1)
    asked = []
    for _ in range(1000):
        effects = replica.handle(Received(members[1].public_key, Cast(vote)), Now(0, UTC))
        asked.append(any(isinstance(effect, Behind) for effect in effects))
    assert any(asked[:100])
    assert any(asked[-100:])

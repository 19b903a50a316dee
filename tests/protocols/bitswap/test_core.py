from __future__ import annotations

from protocols.bitswap.core import MAX_PRESENCES, MAX_WAITING, MAX_WANTS, Ledger
from protocols.bitswap.messages import Entry, Message
from storage import cid as cids

A, B, C = (cids.of_raw(text) for text in (b"a", b"b", b"c"))
NODE = cids.of_dag_pb(b"node")
HELD = {A: 10, B: 20, NODE: 5}


def entry(cid, **kinds) -> Entry:
    return Entry(bytes(cid), **kinds)


def taken(*entries: Entry, full: bool = False) -> Ledger:
    ledger = Ledger()
    ledger.take(Message(entries, full), HELD)
    return ledger


def test_a_want_is_answered_in_the_form_in_which_it_was_asked():
    ledger = taken(entry(A), Entry(NODE[2:]), entry(NODE), entry(B, have=True))
    assert [(due.wire, due.cid) for due in ledger.next_blocks(2**20)] == [
        (bytes(A), A),
        (NODE[2:], NODE),
        (bytes(NODE), NODE),
    ]
    assert ledger.next_presences() == ((bytes(B), True),)
    assert ledger.is_idle


def test_what_is_not_held_is_told_only_to_those_who_asked_for_that():
    ledger = taken(entry(C), entry(cids.of_raw(b"d"), dont_have=True))
    assert ledger.next_presences() == ((bytes(cids.of_raw(b"d")), False),)
    assert ledger.is_idle


def test_a_cid_of_another_kind_is_not_held():
    blake = b"\x01\x55\xa0\xe4\x02\x20" + bytes(32)
    ledger = taken(Entry(blake, dont_have=True), Entry(blake[:-1]))
    assert ledger.next_presences() == ((blake, False),)
    assert ledger.waiting() == []


def test_a_cancel_removes_queued_work():
    ledger = taken(entry(A), entry(B, have=True), entry(C))
    ledger.take(Message((entry(A, cancel=True), entry(B, cancel=True), entry(C, cancel=True))), {})
    assert ledger.count == 0
    assert not ledger.arrived({C: 1})


def test_a_full_list_replaces_the_one_before():
    ledger = taken(entry(A), entry(B, have=True), entry(C))
    ledger.take(Message((entry(B),), full=True), HELD)
    assert [due.cid for due in ledger.next_blocks(2**20)] == [B]
    assert ledger.count == 0


def test_a_want_waits_for_what_arrives_later_and_is_answered_once():
    ledger = taken(entry(C, dont_have=True), entry(NODE))
    assert ledger.waiting() == [C]
    assert ledger.arrived({C: 30})
    assert ledger.next_presences() == (), "a DONT_HAVE that was not sent yet is no longer true"
    assert [due.cid for due in ledger.next_blocks(2**20)] == [NODE, C]
    assert not ledger.arrived({C: 30})


def test_a_want_have_that_waits_is_answered_with_have():
    ledger = taken(entry(C, have=True))
    ledger.arrived({C: 30})
    assert ledger.next_presences() == ((bytes(C), True),)


def test_a_want_for_a_block_that_is_queued_is_not_weakened():
    ledger = taken(entry(A), entry(A, have=True))
    assert [due.cid for due in ledger.next_blocks(2**20)] == [A]
    assert ledger.next_presences() == ()


def test_chunks_are_taken_by_bytes_and_one_at_least():
    ledger = taken(entry(A), entry(B), entry(NODE))
    assert ledger.pending == 35
    assert [due.cid for due in ledger.next_blocks(30)] == [A, B]
    assert [due.cid for due in ledger.next_blocks(1)] == [NODE]


def test_the_wants_of_a_peer_are_bounded():
    many = [cids.of_raw(number.to_bytes(4, "big")) for number in range(MAX_WANTS + 100)]
    ledger = Ledger()
    ledger.take(Message(tuple(entry(cid) for cid in many)), {})
    assert ledger.count == MAX_WAITING
    ledger.take(Message(tuple(entry(cid) for cid in many)), dict.fromkeys(many, 1))
    assert ledger.count == MAX_WANTS + 100, "what has no place yet waits for one"
    ledger.take(Message(tuple(entry(cid, dont_have=True) for cid in many)), {})
    assert ledger.count <= 2 * MAX_WANTS + MAX_WAITING
    assert len(ledger.next_presences()) == MAX_PRESENCES


def test_a_chunk_that_is_gone_when_it_should_be_sent_is_told():
    ledger = taken(entry(A))
    ledger.gone(ledger.next_blocks(2**20))
    assert ledger.next_presences() == ((bytes(A), False),)

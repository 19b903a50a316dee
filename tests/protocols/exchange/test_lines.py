from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.exchange.lines import MAX_QUERIES, MAX_WANTS, Answering, Asking
from protocols.exchange.messages import Block, Cancel, DontHave, Have, Query, Want
from protocols.transport import RemoteProtocolError
from storage.cid import of_raw

NAMES = [of_raw(b"%d" % n) for n in range(8)]


@given(
    st.lists(st.tuples(st.sampled_from(["want", "cancel", "work"]), st.integers(0, 7)), max_size=60)
)
def test_every_want_is_answered_exactly_once(steps):
    """The two ends joined, with cancels at any time."""
    asking, answering = Asking(), Answering()
    owed: set[bytes] = set()

    def work(count: int) -> None:
        dropped = answering.take_dropped()
        started = answering.start(count)
        done, rest = started[::2], started[1::2]
        answering.finish(done, rest)
        if dropped:
            asking.answered(DontHave(dropped))
        for cid in done:
            asking.answered(Block(cid, b""))
        owed.difference_update(dropped, done)

    for step, number in steps:
        cid = NAMES[number]
        if step == "want" and not asking.is_wanted(cid):
            asking.want((cid,))
            answering.handle(Want((cid,)))
            owed.add(cid)
        elif step == "cancel":
            answering.handle(Cancel((cid,)))
        elif step == "work":
            work(number)
        assert {cid for cid in NAMES if asking.is_wanted(cid)} == owed
    while not answering.is_idle:
        work(MAX_WANTS)
    assert not asking.is_owed


def test_what_is_being_read_is_not_cancelled():
    answering = Answering()
    answering.handle(Want((NAMES[0], NAMES[1])))
    assert answering.start(1) == (NAMES[0],)
    answering.handle(Cancel((NAMES[0], NAMES[1])))
    assert answering.take_dropped() == (NAMES[1],)
    assert not answering.start(5)


def test_more_wants_than_may_wait_are_refused():
    answering = Answering()
    answering.handle(Want(tuple(of_raw(b"%d" % n) for n in range(MAX_WANTS))))
    with pytest.raises(RemoteProtocolError):
        answering.handle(Want((of_raw(b"one more"),)))


def test_more_queries_than_may_wait_are_refused():
    answering = Answering()
    for _ in range(MAX_QUERIES):
        answering.handle(Query((NAMES[0],)))
    with pytest.raises(RemoteProtocolError):
        answering.handle(Query((NAMES[0],)))


@pytest.mark.parametrize(
    "answer", [Block(NAMES[2], b""), DontHave((NAMES[2],)), Have(()), DontHave((NAMES[0],) * 2)]
)
def test_an_answer_to_no_question_is_refused(answer):
    asking = Asking()
    asking.want((NAMES[0],))
    with pytest.raises(RemoteProtocolError):
        asking.answered(answer)


def test_an_answer_to_a_query_names_only_what_was_in_it():
    asking = Asking()
    asking.query((NAMES[0],))
    asking.query((NAMES[1],))
    assert asking.answered(Have((NAMES[0],))) == (NAMES[0],)
    with pytest.raises(RemoteProtocolError):
        asking.answered(Have((NAMES[0],)))

from __future__ import annotations

from protocols.bitswap import schedule as rules
from protocols.bitswap.schedule import Ask, Drop, Inquire, Schedule, Withdraw
from storage import cid as cids

A, B, C = (cids.of_raw(text) for text in (b"a", b"b", b"c"))
MB = 2**20


def begun(*peers: str, wanted=(A,), size: int = MB) -> Schedule:
    schedule = Schedule(0.0)
    for cid in wanted:
        schedule.add(cid, size)
    for peer in peers:
        schedule.join(peer, 0.0)
    return schedule


def test_a_chunk_is_asked_of_one_peer():
    schedule = begun("p", "q", wanted=(A, B))
    asked = [effect for effect in schedule.tick(0.0, 100 * MB) if isinstance(effect, Ask)]
    assert sorted(cid for ask in asked for cid in ask.cids) == sorted((A, B))
    assert schedule.tick(0.1, 100 * MB) == []


def test_no_more_is_asked_than_there_is_room_for_but_one_chunk_always():
    schedule = begun("p", wanted=(A, B, C))
    assert schedule.tick(0.0, 0) == [Ask("p", (A,))]
    assert schedule.tick(0.0, 0) == []
    assert schedule.tick(0.0, MB) == [Ask("p", (B,))]


def test_a_fast_peer_takes_over_what_a_slow_one_would_deliver_last_and_either_may_send_it():
    many = tuple(cids.of_raw(bytes([number])) for number in range(6))
    schedule = begun("slow", wanted=many)
    schedule.tick(0.0, 100 * MB)
    schedule.received("slow", many[0], MB, 2.0)
    schedule.join("fast", 2.0)
    *withdrawn, ask = schedule.tick(2.0, 100 * MB)
    taken = many[:1:-1]
    assert withdrawn == [Withdraw("slow", (cid,)) for cid in taken]
    assert ask == Ask("fast", taken)
    assert schedule.tick(2.1, 100 * MB) == []
    assert schedule.received("slow", taken[0], MB, 2.3) == (True, [Withdraw("fast", (taken[0],))])
    assert schedule.received("fast", taken[0], MB, 2.4) == (False, [])
    assert schedule.received("fast", taken[1], MB, 2.5) == (True, [])


def test_peers_of_one_speed_take_nothing_from_each_other():
    many = tuple(cids.of_raw(bytes([number])) for number in range(8))
    schedule = begun("p", "q", wanted=many)
    asked = schedule.tick(0.0, 100 * MB)
    for effect in asked:
        for cid in effect.cids[:3] if isinstance(effect, Ask) else ():
            schedule.received(effect.peer, cid, MB, 0.5)
    assert not [one for one in schedule.tick(0.6, 100 * MB) if isinstance(one, Withdraw)]


def test_a_peer_is_asked_for_a_window_of_bytes():
    many = tuple(cids.of_raw(bytes([number])) for number in range(100))
    schedule = begun("p", wanted=many)
    (ask,) = schedule.tick(0.0, 1000 * MB)
    assert len(ask.cids) == rules.FIRST_WINDOW_BYTES // MB


def test_what_one_lacks_is_asked_of_another():
    schedule = begun("p", "q")
    (ask,) = schedule.tick(0.0, MB)
    other = "q" if ask.peer == "p" else "p"
    schedule.lacks(ask.peer, A)
    assert schedule.tick(0.1, MB) == [Ask(other, (A,))]


def test_what_nobody_has_is_inquired_and_asked_again_later_and_at_once_where_it_turns_up():
    schedule = begun("p", "q")
    for _ in range(2):
        (ask,) = schedule.tick(0.0, MB)
        schedule.lacks(ask.peer, A)
    assert schedule.tick(0.1, MB) == [Inquire("p", (A,)), Inquire("q", (A,))]
    assert schedule.tick(0.2, MB) == []
    schedule.has("q", A)
    assert schedule.tick(0.3, MB) == [Ask("q", (A,))]
    schedule.lacks("q", A)
    schedule.tick(0.4, MB)
    (again,) = schedule.tick(rules.REASK_SECONDS, MB)
    assert isinstance(again, Ask)


def test_a_chunk_that_came_is_withdrawn_from_the_others():
    schedule = begun("p", "q")
    (ask,) = schedule.tick(0.0, MB)
    other = "q" if ask.peer == "p" else "p"
    is_needed, effects = schedule.received(other, A, MB, 1.0)
    assert is_needed
    assert effects == [Withdraw(ask.peer, (A,))]
    assert schedule.received(ask.peer, A, MB, 1.1) == (False, [])
    assert schedule.in_flight == 0


def test_a_silent_peer_loses_its_wants_to_another():
    schedule = begun("p", "q")
    (ask,) = schedule.tick(0.0, MB)
    late = rules.SILENCE_SECONDS + 0.1
    effects = schedule.tick(late, MB)
    assert effects[0] == Withdraw(ask.peer, (A,))
    assert isinstance(effects[1], Ask)


def test_a_silent_peer_that_is_alone_is_asked_again_and_given_up_at_last():
    schedule = begun("p")
    schedule.tick(0.0, MB)
    now = 0.0
    for _ in range(rules.MAX_STRIKES - 1):
        now += rules.SILENCE_SECONDS + 0.1
        assert schedule.tick(now, MB) == [Ask("p", (A,))]
    now += rules.SILENCE_SECONDS + 0.1
    assert schedule.tick(now, MB) == [Drop("p", "silent 3 times")]
    assert schedule.peers == ()


def test_a_peer_that_sends_others_but_not_one_is_not_asked_for_that_one():
    schedule = begun("p", wanted=(A, B))
    schedule.tick(0.0, 10 * MB)
    schedule.received("p", B, MB, 1.0)
    schedule.heard("p", rules.WANT_SECONDS)
    assert schedule.tick(rules.WANT_SECONDS - 0.1, MB) == []
    assert Inquire("p", (A,)) in schedule.tick(rules.WANT_SECONDS + 0.1, MB)


def test_a_peer_that_leaves_hands_its_wants_back():
    schedule = begun("p", "q")
    (ask,) = schedule.tick(0.0, MB)
    schedule.leave(ask.peer)
    (again,) = schedule.tick(0.1, MB)
    assert again.cids == (A,)
    assert again.peer != ask.peer


def test_manifests_come_first_and_the_deepest_of_them():
    one, two = cids.of_dag_pb(b"1"), cids.of_dag_pb(b"2")
    schedule = begun("p", wanted=(A, one, two))
    (ask,) = schedule.tick(0.0, 100 * MB)
    assert ask.cids == (two, one, A)


def test_everything_in_flight_is_withdrawn_at_the_end():
    schedule = begun("p", wanted=(A, B))
    schedule.tick(0.0, 10 * MB)
    assert schedule.withdraw_all() == [Withdraw("p", (A, B))]


def test_a_chunk_that_another_fetch_asked_for_says_nothing_of_a_peers_rate():
    schedule = begun(wanted=(A, B))
    schedule.join("good", 1000.0)
    schedule.received("good", A, MB, 1000.0)
    assert schedule.tick(1000.0, 100 * MB) == [Ask("good", (B,))]
    schedule.join("other", 1000.1)
    assert schedule.tick(1000.1, 100 * MB) == []

"""Transactions on their topic, from honest peers and from others."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import trio

from protocols.memory import open_memory_network
from storage import canonical
from swarm.gossip import BATCH_BYTES, TransactionGossip
from swarm.ledger import transactions
from swarm.ledger.transactions import Evidence, Transfer, transaction_id
from tests.ledger.alone import ALICE, BOB, open_alone
from tests.ledger.world import signer

TOPIC = "/swarm/test/tx"


@pytest.fixture
def alone(tmp_path):
    with open_alone(tmp_path) as made:
        yield made


@asynccontextmanager
async def open_topic(alone):
    """A node that listens, a peer that speaks, and what the node says of peers."""
    lies: list[str] = []
    async with open_memory_network() as network, trio.open_nursery() as nursery:
        node, peer = network.join("node"), network.join("peer")
        heard = TransactionGossip(
            node, TOPIC, alone.ledger, lambda who, _why: lies.append(who), in_thread=False
        )
        nursery.start_soon(heard.run)
        await trio.testing.wait_all_tasks_blocked()
        yield heard, peer, network, lies
        nursery.cancel_scope.cancel()


def batch(*transactions) -> bytes:
    return canonical.encode([1, list(transactions)])


async def test_what_is_queued_at_once_travels_in_few_messages_and_arrives_whole(
    alone, autojump_clock
) -> None:
    async with open_topic(alone) as (heard, peer, _, lies):
        sender = TransactionGossip(peer, TOPIC, alone.ledger)
        sent = []
        with peer._network.transports["node"].subscribe(TOPIC) as messages:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(sender.run)
                for at in range(100):
                    who = (ALICE, BOB)[at % 2]
                    big = Evidence(bytes(1000))
                    sent.append(alone.signed(who, big, nonce=at // 2))
                    sender.queue(sent[-1])
                await trio.sleep(1)
                nursery.cancel_scope.cancel()
            assert 2 <= messages.statistics().current_buffer_used <= 3
        assert all(alone.ledger.mempool.known(transaction_id(one)) for one in sent)
        assert heard.received == 100
        assert lies == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff" * 100,
        canonical.encode(7),
        canonical.encode([1]),
        canonical.encode([1, 2]),
        canonical.encode([1, [7]]),
        canonical.encode([1, [["x"]]]),
        batch(b""),
        batch(b"x" * 200),
        batch(bytes(BATCH_BYTES - 100)),
    ],
)
async def test_a_peer_that_sends_garbage_is_named_and_the_node_goes_on(
    alone, autojump_clock, body
) -> None:
    async with open_topic(alone) as (heard, peer, network, lies):
        await peer.publish(TOPIC, body)
        await trio.sleep(1)
        assert lies == ["peer"]
        honest = network.join("honest")
        await honest.publish(TOPIC, batch(alone.signed(ALICE, Transfer(b"t" * 32, 1))))
        await trio.sleep(1)
        assert heard.received == 1


async def test_after_one_wrong_signature_nothing_more_of_that_peer_is_checked(
    alone, autojump_clock, monkeypatch
) -> None:
    checked = []
    verify = transactions.verify
    monkeypatch.setattr(transactions, "verify", lambda one: checked.append(one.data) or verify(one))
    good = alone.signed(ALICE, Transfer(b"t" * 32, 1))
    forged = bytes([good[0] ^ 1]) + good[1:]
    async with open_topic(alone) as (heard, peer, _, lies):
        for _ in range(5):
            await peer.publish(TOPIC, batch(*[forged] * 300))
        await trio.sleep(1)
        assert checked == [forged]
        assert lies == ["peer"]
        assert heard.received == 0


async def test_what_waits_already_is_not_checked_again_and_is_no_lie(
    alone, autojump_clock, monkeypatch
) -> None:
    good = alone.signed(ALICE, Transfer(b"t" * 32, 1))
    async with open_topic(alone) as (heard, peer, _, lies):
        await peer.publish(TOPIC, batch(good))
        await trio.sleep(1)
        checked = []
        monkeypatch.setattr(transactions, "parse", checked.append)
        monkeypatch.setattr(transactions, "verify", checked.append)
        await peer.publish(TOPIC, batch(good, good))
        await trio.sleep(1)
        assert checked == []
        assert (heard.received, heard.refused, lies) == (1, 0, [])


async def test_the_signature_of_what_the_ledger_would_refuse_is_not_looked_at(
    alone, autojump_clock, monkeypatch
) -> None:
    checked = []
    monkeypatch.setattr(transactions, "verify", checked.append)
    poor = signer("nobody")
    async with open_topic(alone) as (heard, peer, _, lies):
        asked = alone.signed(poor, Transfer(b"t" * 32, 1), max_fee=1)
        await peer.publish(
            TOPIC, batch(asked, alone.signed(ALICE, Transfer(b"t" * 32, 1), nonce=99))
        )
        await trio.sleep(1)
        assert checked == []
        assert (heard.received, heard.refused, lies) == (0, 2, [])


async def test_what_the_ledger_refuses_is_no_lie(alone, autojump_clock) -> None:
    late = alone.signed(ALICE, Transfer(b"t" * 32, 1), valid_until=0)
    async with open_topic(alone) as (heard, peer, _, lies):
        await peer.publish(TOPIC, batch(late, alone.signed(BOB, Transfer(b"t" * 32, 1))))
        await trio.sleep(1)
        assert (heard.received, heard.refused, lies) == (1, 1, [])


async def test_a_message_of_a_later_version_is_passed_over(alone, autojump_clock) -> None:
    async with open_topic(alone) as (heard, peer, _, lies):
        await peer.publish(TOPIC, canonical.encode([2, [b"something else"]]))
        await trio.sleep(1)
        assert (heard.received, lies) == (0, [])

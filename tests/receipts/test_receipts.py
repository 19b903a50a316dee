from __future__ import annotations

import json
import resource
import threading

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from protocols.signing import Signer
from storage import cid as cids
from swarm.errors import UsageError
from swarm.ledger.keys import history_key
from swarm.ledger.tasks import SCORE_REFUSED, Outcome, Refusal, SettledRound, SettledSubmission
from swarm.ledger.transactions import (
    CheckpointCommit,
    CheckpointReveal,
    Phases,
    Register,
    TaskPost,
    commit_hash,
)
from swarm.ledger.vrf import VrfKey
from swarm.receipts import book as books
from swarm.receipts.book import Book
from swarm.receipts.receipt import MAX_BYTES, encode, read, receipts_of
from swarm.receipts.service import Receipts
from tests.ledger.alone import ALICE, open_alone
from tests.ledger.world import BASE

OTHER = Signer(b"o" * 32)
TASK = b"t" * 32
ROOT = cids.of_raw(b"update")


class Head:
    height, id, state_root = 12, b"b" * 32, b"s" * 32


def settled(*submissions, number=3, validators=()):
    return SettledRound(
        TASK,
        number,
        1,
        Outcome.MERGED,
        BASE,
        ROOT,
        4,
        300_000,
        250_000,
        tuple(submissions),
        tuple(validators),
        5,
        11,
    )


def of(*submissions, **rest):
    round_ = settled(*submissions, **rest)
    key = history_key(TASK, round_.number)
    return receipts_of(round_, "gpt", key, b"c" * 32, ALICE.public_key, Head)


def accepted(score=1_234, payment=10**9):
    return SettledSubmission(ALICE.public_key, ROOT, score, True, "", payment)


def test_a_receipt_says_what_the_ledger_says_of_ones_own_contribution_and_of_no_others():
    (one,) = of(accepted(), SettledSubmission(OTHER.public_key, BASE, 5, True, "", 7))
    assert (one.account, one.update, one.score, one.reward) == (
        ALICE.peer_id,
        cids.text(ROOT),
        1_234,
        10**9,
    )
    assert (one.code, one.reason, one.height, one.round) == ("accepted", "", 11, 3)
    assert (one.proof_height, one.block, one.key) == (
        12,
        Head.id.hex(),
        history_key(TASK, 3).hex(),
    )


@pytest.mark.parametrize("refusal", list(Refusal))
def test_each_refusal_has_its_word_and_no_score(refusal):
    (one,) = of(SettledSubmission(ALICE.public_key, ROOT, refusal.score, False, refusal.reason, 0))
    assert (one.code, one.reason, one.score) == (refusal.name.lower(), refusal.reason, None)
    assert refusal.score <= SCORE_REFUSED


def test_pay_for_scores_is_a_receipt_of_its_own():
    update, scores = of(accepted(), validators=[(ALICE.public_key, 5), (OTHER.public_key, 6)])
    assert (scores.kind, scores.reward, scores.code, scores.update) == ("scores", 5, "scored", "")
    assert update.subject != scores.subject


def test_a_signed_receipt_reads_back_and_a_changed_one_is_refused():
    (one,) = of(accepted())
    told = json.loads(encode(one.sign(ALICE)))
    assert read(told) == one
    for name, value in told.items():
        changed = value + 1 if isinstance(value, int) else f"{value}0"
        with pytest.raises(UsageError):
            read(told | {name: changed})


@pytest.mark.parametrize(
    "told",
    [None, [], {}, {"receipt": 1}, {"receipt": 2}, {"receipt": 1, "signature": "zz"}, "receipt"],
)
def test_what_is_no_receipt_is_refused(told):
    with pytest.raises(UsageError):
        read(told)


def test_another_account_cannot_sign_for_this_one():
    (one,) = of(accepted())
    with pytest.raises(UsageError, match="not that of"):
        read(one.sign(OTHER))


def test_a_receipt_fits_into_its_bound():
    (one,) = of(accepted(score=-(2**40), payment=2**63 - 1))
    assert len(encode(one.sign(ALICE))) < MAX_BYTES


def kept(number):
    (one,) = of(accepted(), number=number)
    return one.sign(ALICE)


@pytest.mark.parametrize("lost", ["task", "height", "kind", "reward", "name"])
async def test_a_line_that_lost_a_field_is_left_out_and_the_service_goes_on(tmp_path, lost):
    path = tmp_path / "receipts.jsonl"
    damaged = {name: value for name, value in kept(1).items() if name != lost}
    path.write_bytes(encode(damaged) + encode(kept(2) | {lost: ["x"]}) + encode(kept(3)))
    with open_alone(tmp_path / "ledger") as alone:
        receipts = Receipts(ALICE, alone.ledger, alone.heights, Book(path))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receipts.run)
            await wait_all_tasks_blocked(0.02)
            nursery.cancel_scope.cancel()
        assert receipts.last == kept(3)
        assert await receipts.read() == [kept(3)]


def test_the_book_keeps_the_newest_and_its_file_stays_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(books, "MAX_KEPT", 10)
    monkeypatch.setattr(books, "SLACK", 5)
    book = Book(tmp_path / "receipts.jsonl")
    for number in range(100):
        book.add([kept(number)])
        assert (tmp_path / "receipts.jsonl").read_bytes().count(b"\n") <= 15
    assert [one["round"] for one in book.read()] == list(range(90, 100))
    assert (tmp_path / "receipts.jsonl").stat().st_mode & 0o777 == 0o600


def test_a_torn_last_line_is_cut_off_and_takes_nothing_with_it(tmp_path):
    path = tmp_path / "receipts.jsonl"
    Book(path).add([kept(1)])
    with path.open("ab") as file:
        file.write(b'{"round": 2')
    assert [one["round"] for one in Book(path).read()] == [1]
    Book(path).add([kept(3)])
    assert [one["round"] for one in Book(path).read()] == [1, 3]


def test_what_is_written_after_a_full_disk_is_not_lost_with_the_torn_line(tmp_path):
    book = Book(tmp_path / "receipts.jsonl")
    book.add([kept(1)])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, before[1]))  # in the midst of the next line
    try:
        with pytest.raises(OSError):
            book.add([kept(2)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    book.add([kept(2)])
    book.add([kept(3)])
    assert [one["round"] for one in book.read()] == [1, 2, 3]


class Where:
    """A ledger that notes in which thread its last block is asked for."""

    def __init__(self, ledger) -> None:
        self.ledger, self.threads = ledger, []

    def __getattr__(self, name):
        return getattr(self.ledger, name)

    def finalized(self):
        self.threads.append(threading.current_thread())
        return self.ledger.finalized()


async def test_rounds_are_noted_as_they_end_and_once_also_over_a_restart(tmp_path):
    with open_alone(tmp_path / "ledger", worker_bond=0) as alone:
        vrf = VrfKey.of(ALICE.seed).public_key
        asked = TaskPost("gpt", "lm", b"", BASE, BASE, BASE, 2, 10**10, Phases(2, 2, 2, 2, 2), 0)
        for payload in (Register(vrf, "cpu", ("worker",)), asked):
            assert alone.run(ALICE, payload) == ""
        (task,) = alone.ledger.view().open_tasks()
        path = tmp_path / "receipts.jsonl"
        ledger = Where(alone.ledger)
        for _ in range(2):
            receipts = Receipts(ALICE, ledger, alone.heights, Book(path))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(receipts.run)
                await wait_all_tasks_blocked(0.02)
                if alone.ledger.view().task(task).done == 0:
                    salt = b"s" * 32
                    digest = commit_hash(ROOT, ALICE.public_key, salt)
                    assert alone.run(ALICE, CheckpointCommit(task, 1, digest)) == ""
                    while alone.ledger.view().round(task).phase.name == "TRAIN":
                        alone.grow()
                    assert alone.run(ALICE, CheckpointReveal(task, 1, ROOT, salt)) == ""
                    while alone.ledger.view().task(task).done == 0:
                        alone.grow()
                with trio.fail_after(5):
                    while not await receipts.read():
                        await trio.lowlevel.checkpoint()
                await wait_all_tasks_blocked(0.02)
                nursery.cancel_scope.cancel()
        assert ledger.threads
        assert threading.current_thread() not in ledger.threads  # thousands of rounds take seconds
        (one,) = await receipts.read()
        assert read(one).update == cids.text(ROOT)
        assert not path.with_name("receipts.jsonl.new").exists()
        block = alone.ledger.block(one["proof_height"])
        assert (block.id.hex(), block.state_root.hex()) == (one["block"], one["state_root"])

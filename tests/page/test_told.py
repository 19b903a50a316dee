"""What the page says of a node: its state with its reason, the end of its log, who is how far, and samples."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import trio

from protocols import signing
from protocols.transport import StreamError, UnreachableError
from storage import canonical
from storage.cid import of_raw
from swarm.errors import NotFoundError, RefusedError
from swarm.ledger.keeping import Deal, Piece, Seat, Seats
from swarm.ledger.keys import history_key
from swarm.ledger.tasks import Outcome, SettledRound, SettledSubmission
from swarm.page import latency, logs, samples
from swarm.page.samples import Samples
from swarm.page.told import in_words, last_contribution, replicas, task_report
from tests.page.fake_source import OTHER, PEER


@pytest.mark.parametrize(
    ("code", "why", "word", "sentence"),
    [
        ("working", "training, step 3 of 15", "working", "Training, step 3 of 15."),
        ("catching_up", "3 blocks behind its peers", "catching up", "3 blocks behind its peers."),
        ("idle", "somebody is at the machine", "waiting", "Somebody is at the machine."),
        ("no_task", "no training task is open", "idle", "No training task is open."),
        ("paused", "paused until 9", "paused", "Paused until 9."),
    ],
)
def test_the_state_is_a_word_with_its_reason(code, why, word, sentence):
    assert in_words({"code": code, "why": why, "until": None}) == {"word": word, "why": sentence}


# The log


def write_log(home, *events):
    (home / "logs").mkdir(exist_ok=True)
    lines = [one if isinstance(one, str) else json.dumps(one) for one in events]
    (home / logs.FILE).write_text("\n".join([*lines, ""]))


def event(level, at):
    return {"event": f"e{at}", "level": level, "timestamp": "2026-01-01T00:00:00Z", "at": at}


def test_the_log_s_newest_lines_of_a_level_and_above_come_in_order(tmp_path):
    levels = ("debug", "info", "warning", "error")
    write_log(tmp_path, *(event(levels[at % 4], at) for at in range(40)))
    found = logs.tail(tmp_path, "warning", 3)
    assert [(one["event"], one["values"]) for one in found] == [
        ("e35", "at=35"),
        ("e38", "at=38"),
        ("e39", "at=39"),
    ]


def test_half_a_line_and_what_is_no_event_are_left_out(tmp_path):
    write_log(tmp_path, event("info", 1), "[1]", "{", '{"level": []}'[:-1], event("info", 2))
    assert [one["event"] for one in logs.tail(tmp_path, "info", 10)] == ["e1", "e2"]


def test_only_the_end_of_a_long_log_is_read_and_no_line_is_longer_than_the_bound(tmp_path):
    write_log(tmp_path, *({"event": "x" * 9_000, "level": "info"} for _ in range(100)))
    found = logs.tail(tmp_path, "info", logs.MAX_LINES)
    assert 50 <= len(found) <= logs.MAX_BYTES // 9_000
    assert {len(one["event"]) for one in found} == {logs.MAX_CHARS}


def test_where_no_log_is_kept_there_are_no_lines(tmp_path):
    assert logs.tail(tmp_path, "info", 10) == []
    assert logs.changed(tmp_path) == 0


# How far the peers are


class Far:
    """A transport whose peers answer pings each in their own way."""

    def __init__(self, **peers) -> None:
        self._peers = peers

    def peers(self):
        return list(self._peers)

    async def open_stream(self, peer, protocol):
        await trio.lowlevel.checkpoint()
        assert protocol == latency.PROTOCOL
        if self._peers[peer] == "away":
            raise UnreachableError(peer, "gone")
        return FarStream(self._peers[peer])


class FarStream:
    def __init__(self, kind) -> None:
        self._kind = kind
        self._sent = b""

    async def send_all(self, data):
        await trio.sleep(0 if isinstance(self._kind, str) else self._kind)
        self._sent = data

    async def receive_some(self, most):
        await trio.lowlevel.checkpoint()
        match self._kind:
            case "silent":
                await trio.sleep_forever()
            case "closed":
                return b""
            case "reset":
                raise StreamError
            case "liar":
                return bytes(most)
        data, self._sent = self._sent[:5], self._sent[5:]
        return data

    async def reset(self):
        await trio.lowlevel.checkpoint()


async def test_only_peers_that_send_the_same_back_have_a_latency(autojump_clock):
    transport = Far(
        near=0.01,
        far=0.2,
        silent="silent",
        liar="liar",
        closed="closed",
        reset="reset",
        away="away",
    )
    found = await latency.measure(transport)
    assert found == {"near": pytest.approx(0.01), "far": pytest.approx(0.2)}
    assert trio.current_time() < 2 * latency.PING_SECONDS + 1e9


# Samples


def kept_samples(folder, count=3, *, hangs=False):
    async def draw(name, version, prompt, path, length, seed):
        await trio.lowlevel.checkpoint()
        if hangs:
            await trio.sleep_forever()
        return {"text": f"text {version}"}

    def root_of(name, version):
        letters = "abcdefghijklmnopqrstuvwxyz"
        end = letters[version // 26] + letters[version % 26]
        return f"bafybei{'a' * 40}{end}" if version < count else None

    return Samples(folder, draw, root_of)


async def test_no_more_samples_are_kept_than_the_bound(tmp_path):
    held = kept_samples(tmp_path / "page", samples.MAX_KEPT + 3)
    for version in range(samples.MAX_KEPT + 3):
        await held.make("m", version)
    assert len(await held.kept()) == samples.MAX_KEPT
    assert len(list((tmp_path / "page").iterdir())) == samples.MAX_KEPT


async def test_a_sample_that_does_not_come_is_given_up(tmp_path, autojump_clock):
    held = kept_samples(tmp_path / "page", hangs=True)
    with pytest.raises(RefusedError, match="600 s"):
        await held.make("m", 1)
    with pytest.raises(RefusedError, match="600 s"):  # and the place is free again
        await held.make("m", 1)


async def test_a_version_that_is_not_there_has_no_sample(tmp_path):
    with pytest.raises(NotFoundError):
        await kept_samples(tmp_path / "page").make("m", 3)


async def test_a_damaged_sample_is_as_none(tmp_path):
    held = kept_samples(tmp_path / "page")
    made = await held.make("m", 1)
    (tmp_path / "page" / f"{made['cid']}.json").write_text("{")
    assert await held.kept() == []
    assert await held.make("m", 1) == made


# Of the ledger

ME, YOU = signing.public_key(PEER), signing.public_key(OTHER)


def deal(number, owner):
    pieces = (Piece(of_raw(b"a"), 10), Piece(of_raw(b"b"), 20))
    return Deal(bytes([number]) * 32, owner, pieces, 2, 1, of_raw(b"r"), number, 1, 5, 10)


class DealsView:
    def __init__(self, *deals) -> None:
        self._deals = deals

    def deals(self):
        return list(self._deals)

    def seats(self, identifier):
        if identifier[0] == 2:
            return None
        return Seats(identifier, ((Seat(ME, 1, shown=True),), ()))


def test_replicas_are_told_by_piece_and_this_account_s_deals_come_first():
    found = replicas(DealsView(deal(1, YOU), deal(2, ME)), ME)
    assert [one["mine"] for one in found] == [True, False]
    assert [one["seats"] for one in found[0]["pieces"]] == [[], []]
    assert found[1]["bytes"] == 30
    assert found[1]["pieces"][0]["seats"] == [{"keeper": PEER, "me": True, "shown": True}]


def test_deals_without_end_are_told_in_part():
    found = replicas(DealsView(*(deal(1, YOU) for _ in range(200))), ME)
    assert len(found) == 50


class RoundsView:
    """One task of so many rounds; in each, YOU and (every third) ME handed something in."""

    height = 9_000

    def __init__(self, rounds) -> None:
        self.one = SimpleNamespace(
            id=b"t" * 32,
            name="m",
            kind="lm",
            poster=YOU,
            open=False,
            rounds=rounds,
            done=rounds,
            posted=1,
            budget=1,
            escrow=0,
            dataset=of_raw(b"d"),
            pool=of_raw(b"p"),
            base=of_raw(b"b"),
        )
        self.raw = {
            history_key(self.one.id, number): canonical.encode(_settled(number).pack())
            for number in range(1, rounds + 1)
        }

    def tasks(self):
        return [self.one]

    def round(self, task):
        return None

    def name(self, name):
        return SimpleNamespace(version=self.one.done)

    def name_version(self, name, version):
        return SimpleNamespace(root=of_raw(b"%d" % version), height=version, round=version)


def _settled(number):
    root = of_raw(b"%d" % number)
    lines = [SettledSubmission(YOU, root, 100, True, "", 5)]
    if number % 3 == 0:
        lines.append(SettledSubmission(ME, root, -2, False, "it makes the loss worse", 0))
    losses = 500_000 - number, 499_999 - number
    return SettledRound(
        *(b"t" * 32, number, 0, Outcome.MERGED, root, root, number, *losses),
        *(tuple(lines), ((ME, 2),), number * 10, number * 10 + 9),
    )


def test_the_last_contribution_says_what_became_of_it():
    found = last_contribution(RoundsView(10), ME)
    assert found == {
        "task": "m",
        "round": 9,
        "height": 99,
        "loss": 4.9999,
        "base_loss": 4.99991,
        "score": -0.00002,
        "accepted": False,
        "reason": "it makes the loss worse",
        "paid": 0,
    }
    assert last_contribution(RoundsView(2), ME) is None


def test_a_task_tells_its_curve_from_the_start_and_who_earned_what():
    told = task_report(RoundsView(6), RoundsView(6).one, ME)
    assert [one[0] for one in told["curve"]] == [0, 1, 2, 3, 4, 5, 6]
    assert told["curve"][0][1] == 4.99999
    assert [one["round"] for one in told["rounds"]] == [6, 5, 4, 3, 2, 1]
    you, me = told["earned"]
    assert (you["account"], you["work"], you["accepted"], you["submitted"]) == (OTHER, 30, 6, 6)
    assert (me["me"], me["validating"], me["accepted"], me["submitted"]) == (True, 12, 0, 2)
    assert [one["version"] for one in told["versions"]] == [6, 5, 4, 3, 2, 1, 0]
    assert told["versions"][-1]["loss"] is None


def test_a_task_of_many_rounds_is_told_in_bounds():
    view = RoundsView(2_000)
    told = task_report(view, view.one, ME)
    assert len(told["curve"]) <= 402
    assert told["curve"][0][0] == 0
    assert told["curve"][-1][0] == 2_000
    assert (len(told["rounds"]), told["counted"], len(told["versions"])) == (40, 200, 20)

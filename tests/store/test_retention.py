"""Which holds end when: a table."""

from __future__ import annotations

import pytest

from storage import cid as cids
from swarm.config import Settings
from swarm.errors import UsageError
from swarm.store.retention import Checkpoint, Data, Facts, Retention, Update, reason, released

TASK, OTHER = b"t" * 32, b"o" * 32
ROOT, ELSE = cids.of_raw(b"root"), cids.of_raw(b"else")
KEEP = Retention(rounds=2, versions=2)


def facts(current=None, newest=None, agreed=None, *, training=True) -> Facts:
    rounds = {} if current == "unknown" else {TASK: current}
    versions = {} if newest is None else {"gpt": newest}
    roots = {Checkpoint("gpt", one): ROOT for one in range(0 if newest is None else newest + 1)}
    names = frozenset({"gpt"} if training else ())
    return Facts(rounds, versions, roots | (agreed or {}), names)


@pytest.mark.parametrize(
    ("why", "known", "has_ended"),
    [
        # An update: until its round is settled, and two more.
        (Update(TASK, 5), facts(current=5), False),
        (Update(TASK, 5), facts(current=6), False),
        (Update(TASK, 5), facts(current=7), False),
        (Update(TASK, 5), facts(current=8), True),
        (Update(TASK, 5), facts(current=None), True),
        (Update(TASK, 5), facts(current="unknown"), False),
        (Update(OTHER, 5), facts(current=99), False),
        # Data: while the task is open.
        (Data(TASK), facts(current=99), False),
        (Data(TASK), facts(current=None), True),
        (Data(TASK), facts(current="unknown"), False),
        # A checkpoint: the first, and the two newest.
        (Checkpoint("gpt", 0), facts(newest=9), False),
        (Checkpoint("gpt", 1), facts(newest=2), False),
        (Checkpoint("gpt", 1), facts(newest=3), True),
        (Checkpoint("gpt", 8), facts(newest=9), False),
        (Checkpoint("gpt", 9), facts(newest=9), False),
        (Checkpoint("gpt", 9), facts(newest=9, training=False), False),
        (Checkpoint("gpt", 9), facts(newest=None), False),
        # One that the others did not agree on.
        (Checkpoint("gpt", 9), facts(newest=9, agreed={Checkpoint("gpt", 9): ELSE}), True),
        (Checkpoint("gpt", 10), facts(newest=9), False),
        (Checkpoint("gpt", 10), facts(newest=9, training=False), True),
    ],
)
def test_what_is_held_ends_when_nobody_needs_it_any_more(why, known, has_ended):
    assert released([(ROOT, why.label)], known, KEEP) == [(ROOT, why.label)] * has_ended


@pytest.mark.parametrize("why", [Update(TASK, 12), Checkpoint("a name", 0), Data(TASK)])
def test_a_label_says_what_the_hold_is_for(why):
    assert reason(why.label) == why


@pytest.mark.parametrize(
    "label", ["", "update", "update x 1", "checkpoint one gpt", "piece 1 of a deal", "task zz"]
)
def test_holds_of_other_parts_are_left_alone(label):
    assert reason(label) is None
    assert released([(ROOT, label)], facts(current=None, newest=99), KEEP) == []


def test_how_much_is_kept_is_a_setting_and_the_newest_version_always_is():
    settings = Settings.build({}, {"SWARM_KEEP_VERSIONS": "5", "SWARM_KEEP_ROUNDS": "0"})
    assert (settings.keep_versions, settings.keep_rounds) == (5, 0)
    for name, value in (("KEEP_VERSIONS", "0"), ("KEEP_VERSIONS", "-1"), ("KEEP_ROUNDS", "many")):
        with pytest.raises(UsageError, match=f"SWARM_{name}"):
            Settings.build({}, {f"SWARM_{name}": value})

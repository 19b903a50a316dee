import json
import math
import struct
import subprocess
import sys

import pytest

from swarm.export import events
from swarm.export.scalars import Scalar, scalars, times

PEER = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"
READER = """
import json, sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
found = EventAccumulator(sys.argv[1]); found.Reload()
print(json.dumps({tag: [(p.step, p.value, p.wall_time) for p in found.Scalars(tag)] for tag in found.Tags()["scalars"]}))
"""


def round_(number, base, loss, outcome="merged", **rest):
    entry = {"worker": PEER, "score": 0.25, "accepted": True, "paid": 2 * 10**9}
    return {
        "round": number,
        "version": number,
        "outcome": outcome,
        "base_loss": base,
        "loss": loss,
        "blocks": 7,
        "height": 10 * number,
        "submissions": [entry, entry | {"accepted": False, "score": None, "paid": 0}],
        **rest,
    }


WATCHED = {
    "rounds": [round_(1, 4.0, 3.0), round_(2, 3.0, math.nan), round_(3, 2.5, None, blocks=None)]
}


def records(data):
    """The bodies of a file's records, each checked."""
    while data:
        (length,) = struct.unpack_from("<Q", data)
        assert data[8:12] == events._masked(data[:8])
        body, data = data[12 : 12 + length], data[12 + length :]
        assert data[:4] == events._masked(body)
        yield body
        data = data[4:]


@pytest.mark.parametrize(
    ("data", "crc"),
    [
        (b"", 0),
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
    ],
)
def test_the_checksum_is_that_of_rfc_3720(data, crc):
    assert events.crc32c(data) == crc


def test_a_record_is_the_one_that_tensorboard_was_seen_to_read():
    assert events.record(b"123456789").hex() == (
        "090000000000000037f97139"  # length and its masked checksum
        "313233343536373839e5b08ac7"
    )


def test_the_curves_hold_what_is_known_and_nothing_of_the_round_that_runs():
    found = list(scalars(WATCHED))
    loss = [(one.step, one.value) for one in found if one.tag == "loss/version"]
    assert loss == [(0, 4.0), (1, 3.0)]
    assert {one.round for one in found} == {1, 2}
    assert Scalar("round/accepted", 2, 1.0, 2) in found
    assert Scalar("round/paid_tokens", 1, 2.0, 1) in found


def test_a_round_whose_time_is_not_known_has_that_of_the_one_before():
    assert times(WATCHED, {1: 5.0}) == {1: 5.0, 2: 5.0, 3: 5.0}
    assert times(WATCHED, {2: 9.0}) == {1: 9.0, 2: 9.0, 3: 9.0}


def test_the_file_is_made_of_records_and_is_replaced_by_the_next_one(tmp_path):
    points = list(scalars(WATCHED))
    for _ in range(2):
        count = events.write(tmp_path / "run", "abc", points, times(WATCHED, {1: 1e9, 2: 2e9}))
    (path,) = (tmp_path / "run").iterdir()
    assert "tfevents" in path.name
    bodies = list(records(path.read_bytes()))
    assert len(bodies) == count + 1 == len(points) + 1
    assert b"brain.Event:2" in bodies[0]
    assert bodies[1] == events.event(points[0].tag, points[0].step, points[0].value, 1e9)


def test_a_file_whose_first_rounds_are_pruned_meanwhile_is_replaced_too(tmp_path):
    points = list(scalars(WATCHED))
    events.write(tmp_path, "abc", points, times(WATCHED, {1: 1e9, 2: 2e9}))
    events.write(tmp_path, "other", points, times(WATCHED, {1: 1e9, 2: 2e9}))
    events.write(tmp_path, "abc", points, times(WATCHED, {2: 2e9}))
    assert sorted(path.name.rpartition(".")[2] for path in tmp_path.iterdir()) == ["abc", "other"]


def test_negative_steps_and_long_tags_are_written_as_protocol_buffers_have_them():
    assert events._varint(300) == b"\xac\x02"
    assert events._varint(-1) == b"\xff" * 9 + b"\x01"
    long = events.event("t" * 300, 1, 0.5, 0.0)
    assert b"\x0a\xac\x02" + b"t" * 300 in long


@pytest.mark.slow
def test_tensorboard_reads_what_was_written(tmp_path):
    pytest.importorskip("tensorboard")
    points = list(scalars(WATCHED))
    events.write(tmp_path, "abc", points, times(WATCHED, {1: 1.5e9, 2: 1.6e9}))
    said = subprocess.run(
        [sys.executable, "-c", READER, str(tmp_path)], capture_output=True, check=True
    )
    found = json.loads(said.stdout)
    assert found["loss/version"] == [[0, 4.0, 1.5e9], [1, 3.0, 1.5e9]]
    assert set(found) == {one.tag for one in points}

from pathlib import Path

import pytest

from swarm.care import checks, doctor, machine
from swarm.care.clock import ENOUGH, ClockGaps
from swarm.care.doctor import is_well
from swarm.care.machine import DeviceFacts, DiskFacts, FolderFacts, MemoryFacts, PortFacts
from swarm.config import Settings
from tests.care.test_commands import REPORT as RUNNING

GB = 10**9


def report(**changed):
    return {
        "inbound": {"public": 0, "private": 0, "loopback": 0},
        "outbound": 0,
        "peers": 3,
        "addresses": ["/ip4/192.168.1.7/tcp/4001/p2p/12D3KooW"],
        "height": 100,
        "best_head": 100,
        "first_block": 1,
        "snapshot": None,
        "caught_up": True,
        "chunks_damaged": 0,
        "storage": {"lent": 10 * GB, "used": GB, "free": 9 * GB},
        "paused": [],
        "finishing": False,
    } | changed


def gaps(*values):
    clock = ClockGaps()
    for value in values:
        clock.note(1_000_000 + value, 1_000_000)
    return clock.median_ms


def test_a_clock_is_judged_by_the_median_of_blocks_of_others():
    assert checks.clock(gaps(*[400] * ENOUGH)).verdict == "good"
    assert checks.clock(gaps(*[400] * ENOUGH, 90_000)).verdict == "good"


def test_a_clock_behind_that_of_final_blocks_is_bad():
    found = checks.clock(gaps(*[-5_000] * ENOUGH))
    assert (found.verdict, found.fix) == ("bad", "timedatectl set-ntp true")
    assert "5.0 s behind" in found.text


def test_a_clock_with_too_few_blocks_to_compare_is_unknown_and_not_good():
    assert checks.clock(gaps(*[400] * (ENOUGH - 1))).verdict == "unknown"


def test_a_quota_that_the_disk_cannot_hold_is_named_with_one_that_fits():
    found = checks.disk(DiskFacts(100 * GB, 30 * GB, 5 * GB, 1.0), lent=500 * GB, taken=2 * GB)[0]
    assert (found.verdict, found.fix) == ("warn", "swarm join --storage 27GB")


def test_a_disk_that_is_full_to_its_reserve_is_bad():
    found = checks.disk(DiskFacts(100 * GB, 5 * GB, 5 * GB, 1.0), lent=GB, taken=0)[0]
    assert found.verdict == "bad"


def test_bytes_that_are_used_already_need_no_room_a_second_time():
    facts = DiskFacts(100 * GB, 12 * GB, 5 * GB, 1.0)
    assert checks.disk(facts, lent=50 * GB, taken=45 * GB)[0].verdict == "good"


@pytest.mark.parametrize("is_running", [True, False])
def test_sealed_slots_are_not_asked_to_fit_a_second_time(tmp_path, monkeypatch, is_running):
    """A keeper that has filled the disk as it was told to is not sent to lend less, which would cost it slots."""
    monkeypatch.setattr(machine, "disk", lambda _: DiskFacts(10**6, 60_000, 50_000, 1.0))
    for name in ("chunks", "slots"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1").write_bytes(bytes(400_000))
    settings = Settings(tmp_path, storage=810_000, listen=())
    storage = {"lent": 810_000, "used": 400_000, "taken": 800_000, "free": 10_000}
    told = RUNNING | {"home": str(tmp_path), "storage": storage}
    found = doctor.examine(settings, told if is_running else None)
    assert next(one for one in found if one.name == "disk").verdict == "good"


def test_a_slow_disk_is_a_warning_and_one_that_cannot_be_written_is_bad():
    assert checks.disk(DiskFacts(GB, GB, 0, 900.0), 0, 0)[1].verdict == "warn"
    assert not is_well(checks.disk(DiskFacts(GB, GB, 0, None, "Read-only file system"), 0, 0))


@pytest.mark.parametrize(
    ("home_mode", "key_mode", "is_own", "verdicts"),
    [
        (0o700, 0o600, True, ["good", "good"]),
        (0o755, 0o600, True, ["warn", "good"]),
        (0o700, 0o640, True, ["good", "bad"]),
        (0o700, 0o600, False, ["bad", "good"]),
        (0o700, None, True, ["good", "unknown"]),
        (None, None, True, ["unknown"]),
    ],
)
def test_a_folder_and_a_key_are_for_their_owner_only(home_mode, key_mode, is_own, verdicts):
    home = Path("/data")
    found = checks.folder(FolderFacts(home, home_mode, is_own, home / "identity.key", key_mode))
    assert [one.verdict for one in found] == verdicts


def test_only_a_peer_from_outside_that_dialled_in_shows_that_a_node_can_be_reached():
    def verdict(**inbound):
        return checks.reachable(
            report(inbound={"public": 0, "private": 0, "loopback": 0} | inbound, outbound=1)
        )

    assert verdict(public=1).verdict == "good"
    assert verdict(private=5).verdict == "unknown"
    assert verdict(loopback=5).verdict == "unknown"
    assert "port 4001" in verdict().fix
    alone = checks.reachable(report(addresses=["/ip4/127.0.0.1/tcp/4001/p2p/12D3KooW"]))
    assert (alone.verdict, alone.fix[:19]) == ("unknown", "swarm join --listen")


def test_a_port_that_another_program_has_is_bad_and_names_it():
    taken = PortFacts("/ip4/0.0.0.0/tcp/4001", None, "Address already in use", "ipfs, process 7")
    (found,) = checks.ports([taken])
    assert found.verdict == "bad"
    assert "(by ipfs, process 7)" in found.text


def test_an_own_address_that_does_not_answer_is_bad():
    (found,) = checks.ports([PortFacts("/ip4/10.0.0.1/tcp/4001/p2p/12D", False, "timed out")])
    assert found.verdict == "bad"
    assert "12D" not in found.text


def test_a_gpu_that_the_build_of_torch_cannot_use_is_said():
    facts = DeviceFacts(("NVIDIA H200",), "570.86", "2.13.0+cpu")
    gpu, torch = checks.device(facts, wants_gpu=True, trains=True)
    assert (gpu.verdict, torch.verdict) == ("good", "warn")
    assert "570.86" in gpu.text


def test_without_torch_a_reader_is_well_and_a_worker_is_not():
    facts = DeviceFacts((), "", "")
    assert is_well(checks.device(facts, wants_gpu=False, trains=False))
    assert not is_well(checks.device(facts, wants_gpu=False, trains=True))


def test_a_worker_that_did_not_start_is_bad():
    facts = DeviceFacts((), "", "2.13.0+cpu")
    found = checks.device(facts, wants_gpu=False, trains=True, now="no worker: it was killed")
    assert not is_well(found)


def test_damaged_chunks_are_bad_and_their_repair_is_named():
    assert checks.open_store(report()).verdict == "good"
    assert checks.open_store(report(chunks_damaged=2)).fix == "swarm verify --repair"


def test_a_height_without_peers_is_unknown_and_one_far_behind_a_warning():
    assert checks.sync(report(peers=0)).verdict == "unknown"
    assert checks.sync(report(best_head=103)).verdict == "good"
    assert "snapshot at 60" in checks.sync(report(snapshot=60)).text
    assert checks.sync(report(best_head=120)).verdict == "warn"
    assert checks.sync(report(caught_up=False)).verdict == "warn"


def test_a_suspended_keeper_is_bad_and_one_with_strikes_is_warned():
    facts = {
        "slots": 4,
        "sealed": 4,
        "goal": 8,
        "strikes": 0,
        "suspended": False,
        "verdict": "passed",
        "problems": [],
    }
    assert checks.keeper(None) is None
    assert checks.keeper(facts).verdict == "good"
    assert checks.keeper(facts | {"strikes": 1}).verdict == "warn"
    assert checks.keeper(facts | {"strikes": 3, "suspended": True}).verdict == "bad"


def test_a_clock_that_a_time_service_keeps_is_good_before_there_are_blocks_to_compare_it_with():
    assert checks.clock(None, is_kept=True).verdict == "good"
    alone = checks.clock(None, is_kept=False)
    assert (alone.verdict, alone.fix) == ("unknown", "timedatectl set-ntp true")
    assert checks.clock(None).fix == ""
    assert checks.clock(gaps(*[-5_000] * ENOUGH), is_kept=True).verdict == "bad"


def test_a_validators_weight_is_told_in_tokens():
    facts = {"roles": ["validator"], "jailed_until": None, "weight": 1_500 * 10**9, "stake": 0}
    found = checks.member(facts | {"min_bond": 1, "validates": True}, 1)
    assert found.text.endswith("a stake of 1,500 tokens")


def test_a_jailed_validator_is_told_when_it_may_leave():
    facts = {
        "roles": ["worker"],
        "jailed_until": 500,
        "weight": 0,
        "stake": 0,
        "min_bond": 1,
        "validates": True,
    }
    found = checks.member(facts, 100)
    assert (found.verdict, found.fix) == ("bad", "swarm unjail")
    assert "from height 500 on" in found.text
    assert "now" in checks.member(facts, 500).text
    assert checks.member(facts | {"jailed_until": None}, 100).verdict == "good"


def test_little_memory_warns_who_trains_and_hardly_any_is_bad_for_all():
    assert checks.memory(MemoryFacts(8 * GB, GB // 2), trains=True).verdict == "warn"
    assert checks.memory(MemoryFacts(8 * GB, GB // 2), trains=False).verdict == "good"
    assert checks.memory(MemoryFacts(8 * GB, GB // 10), trains=False).verdict == "bad"


def test_what_its_owner_holds_back_is_said_with_the_way_back():
    found = checks.held_back(report(paused=[{"part": "train", "until": None}], finishing=True))
    assert [one.fix for one in found] == ["swarm resume", "swarm resume"]


def test_what_the_limits_hold_back_is_no_fault_and_has_its_reason():
    held = [
        {"part": "train", "code": "idle", "why": "not idle: 3 of 300 s"},
        {"part": "seal", "code": "paused", "why": "paused"},
    ]
    (found,) = checks.held_back(report(held=held))
    assert (found.verdict, found.text) == ("good", "train waits: not idle: 3 of 300 s")


def test_unknown_is_neither_good_nor_bad():
    assert is_well([checks.clock(None)])


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("/ip4/127.0.0.1/tcp/1", "loopback"),
        ("/ip6/::1/tcp/1", "loopback"),
        ("/ip4/192.168.0.2/tcp/1", "private"),
        ("/ip4/100.64.0.1/tcp/1", "private"),
        ("/ip6/fe80::1%eth0/tcp/1", "private"),
        ("/ip4/8.8.8.8/tcp/1", "public"),
    ],
)
def test_an_address_lies_where_its_range_says(address, place):
    assert checks.place_of(address) == place

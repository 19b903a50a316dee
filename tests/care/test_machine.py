import socket

from swarm.care import machine


def test_a_look_at_the_disk_leaves_nothing_behind(tmp_path):
    facts = machine.disk(tmp_path)
    assert facts.sync_ms is not None
    assert 0 < facts.free <= facts.total
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_not_made_for_a_look(tmp_path):
    facts = machine.disk(tmp_path / "a" / "b")
    assert facts.total
    assert facts.sync_ms is None
    assert machine.folder(tmp_path / "a").home_mode is None
    assert list(tmp_path.iterdir()) == []


def test_modes_are_read_as_they_are(tmp_path):
    tmp_path.chmod(0o750)
    (tmp_path / "identity.key").touch(0o644)
    (tmp_path / "identity.key").chmod(0o644)
    facts = machine.folder(tmp_path)
    assert (facts.home_mode, facts.key_mode, facts.is_own) == (0o750, 0o644, True)


def test_a_port_in_use_is_found_with_its_holder():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        busy, free = machine.wanted_ports((f"/ip4/127.0.0.1/tcp/{port}", "/ip4/0.0.0.0/tcp/0"))
        (answers,) = machine.open_ports([f"/ip4/127.0.0.1/tcp/{port}/p2p/12D3"])
    assert busy.problem
    assert "process" in busy.holder
    assert not free.problem
    assert answers.is_open
    (silent,) = machine.open_ports([f"/ip4/127.0.0.1/tcp/{port}"])
    assert silent.is_open is False


def test_no_more_addresses_are_tried_than_the_bound():
    assert len(machine.wanted_ports(("/ip4/0.0.0.0/tcp/0",) * 100)) == machine.MAX_PORTS


def test_a_gpu_is_read_from_the_kernel(tmp_path):
    card = tmp_path / "gpus" / "0000:01:00.0"
    card.mkdir(parents=True)
    (card / "information").write_text("Model: \t\t NVIDIA H200\nIRQ:   16\n")
    (tmp_path / "version").write_text(
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15  Tue\nGCC version: 13.2.0\n"
    )
    facts = machine.device(tmp_path, tmp_path / "none")
    assert facts.gpus == ("NVIDIA H200",)
    assert facts.driver == "570.86.15"
    assert facts.torch.startswith("2.")


def test_a_machine_without_a_gpu_shows_none(tmp_path):
    assert machine.device(tmp_path, tmp_path / "none").gpus == ()


def test_an_index_that_is_no_database_is_found(tmp_path):
    assert machine.store_problem(tmp_path) is None
    (tmp_path / "chunks").mkdir()
    (tmp_path / "chunks" / "index.db").write_bytes(b"rubbish " * 200)
    assert "not a database" in machine.store_problem(tmp_path)

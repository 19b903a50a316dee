"""How a node finds its network: by its folder, a file, an address, this machine, or by making one."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import trio

from protocols.handshake import Hello
from protocols.memory import open_memory_network
from protocols.sync.service import SyncService
from protocols.transport import UnreachableError
from swarm import entry
from swarm.entry import GENESIS_FILE, OWN_NETWORK, PAUSE_SECONDS
from swarm.errors import UsageError
from swarm.ledger.genesis import Genesis
from swarm.machine import Machine
from tests.ledger.world import make_genesis, signer

ME, OTHER = signer("me"), signer("other")


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path / "run")


@pytest.fixture
def find(tmp_path, machine):
    """`await find(…)`: the entry, and what the person was told."""
    home = tmp_path / "home"
    home.mkdir()

    async def look(*, genesis=None, bootstrap=(), told=None):
        lines = told if told is not None else []
        return await entry.find(
            home,
            ME,
            machine,
            genesis=genesis,
            bootstrap=bootstrap,
            hello=lambda: Hello(b"", "swarm/test", 0, 0),
            say=lines.append,
        )

    return look


class Source:
    """What a node of that network answers from."""

    def __init__(self, genesis: Genesis) -> None:
        self._genesis = genesis

    def genesis_bytes(self) -> bytes:
        return self._genesis.encode()


@asynccontextmanager
async def answering(monkeypatch, **networks: Genesis):
    """A network in this process takes the place of sockets: an address is the name of a peer that answers."""
    async with open_memory_network() as network:

        class Asking:
            def __init__(self, _settings, me, chain_id, _hello) -> None:
                self._transport = network.join(me.peer_id, chain_id)

            async def run(self, task_status) -> None:
                task_status.started()
                try:
                    await trio.sleep_forever()
                finally:
                    network.leave(self._transport.me)

            async def connect(self, address: str) -> str:
                if address not in network.transports:
                    raise UnreachableError(address, "nobody answers")
                return address

            def remote_chain_id(self, peer: str) -> bytes:
                return network.transports[peer].chain_id

            async def open_stream(self, peer, protocol):
                return await self._transport.open_stream(peer, protocol)

        def start(name: str, genesis: Genesis) -> None:
            transport = network.join(name, genesis.chain_id)
            SyncService(transport, None, Source(genesis), in_thread=False)

        for name, genesis in networks.items():
            start(name, genesis)
        monkeypatch.setattr(entry, "Network", Asking)
        yield start


async def test_with_nothing_given_and_nobody_here_a_network_is_made_and_kept(
    find, tmp_path
) -> None:
    told = []
    found = await find(told=told)
    assert (found.genesis.network, found.addresses) == (OWN_NETWORK, ())
    assert [one.public_key for one in found.genesis.validators] == [ME.public_key]
    assert "starting a network of this machine's own" in told[0]
    assert told[1].startswith("hint: ")
    assert "swarm join" in told[1]
    assert "--bootstrap" in told[1]
    assert "--home" in told[1]
    assert Genesis.load(tmp_path / "home" / GENESIS_FILE).chain_id == found.genesis.chain_id
    assert (await find()).genesis.chain_id == found.genesis.chain_id


async def test_a_file_of_another_network_than_the_folders_is_refused(find, tmp_path) -> None:
    other = make_genesis([OTHER])
    other.save(tmp_path / "other")
    found = await find()
    with pytest.raises(
        UsageError, match=f"{found.genesis.chain_id.hex()}, not {other.chain_id.hex()}"
    ):
        await find(genesis=tmp_path / "other")


async def test_a_file_that_is_no_genesis_is_refused_and_nothing_is_kept(find, tmp_path) -> None:
    (tmp_path / "other").write_bytes(b"no genesis")
    for name, why in (("other", "not a genesis"), ("absent", "is no chain id")):
        with pytest.raises(UsageError, match=why):
            await find(genesis=tmp_path / name)
    assert not (tmp_path / "home" / GENESIS_FILE).exists()


async def test_a_node_of_this_machine_counts_only_when_it_is_of_the_same_network(
    find, machine
) -> None:
    found = await find()
    machine.enter(b"x" * 32, ["/ip4/127.0.0.1/tcp/1/p2p/other"])
    assert (await find()).addresses == ()
    machine.enter(found.genesis.chain_id, ["/ip4/127.0.0.1/tcp/2/p2p/same"])
    assert (await find(bootstrap=("given",))).addresses == (
        "given",
        "/ip4/127.0.0.1/tcp/2/p2p/same",
    )


async def test_a_silent_address_is_told_once_and_asked_until_it_answers(
    find, monkeypatch, autojump_clock
) -> None:
    told, genesis = [], make_genesis([OTHER])
    async with answering(monkeypatch) as start, trio.open_nursery() as nursery:

        async def look() -> None:
            found = await find(bootstrap=("late", "dead"), told=told)
            assert found.genesis.chain_id == genesis.chain_id
            assert found.addresses == ("late", "dead")

        nursery.start_soon(look)
        await trio.sleep(10 * PAUSE_SECONDS)
        assert [line.split()[3] for line in told] == ["late", "dead"]
        start("late", genesis)
    assert len(told) == 3
    assert told[-1].startswith("genesis from late: network 'test'")
    assert trio.current_time() < 12 * PAUSE_SECONDS


async def test_a_genesis_that_is_not_of_the_chain_that_the_peer_showed_is_not_taken(
    find, monkeypatch, autojump_clock
) -> None:
    true, told = make_genesis([OTHER]), []
    async with answering(monkeypatch, good=true) as start:
        start("liar", make_genesis([ME]))
        entry_network = entry.Network
        monkeypatch.setattr(entry_network, "remote_chain_id", lambda _self, _peer: true.chain_id)
        found = await find(bootstrap=("liar", "good"), told=told)
    assert found.genesis.chain_id == true.chain_id
    assert told[0] == "no answer from liar yet; going on trying"


async def test_a_node_of_this_machine_that_goes_before_it_answers_is_not_waited_for(
    find, machine, monkeypatch, autojump_clock
) -> None:
    machine.enter(b"x" * 32, ["hung"])
    told = []
    async with answering(monkeypatch), trio.open_nursery() as nursery:

        async def look() -> None:
            assert (await find(told=told)).genesis.network == OWN_NETWORK

        nursery.start_soon(look)
        await trio.sleep(10 * PAUSE_SECONDS)
        machine.leave()
    assert told[0] == "joining the network of this machine's own"
    assert told[1] == "no answer from hung yet (nobody answers); going on trying"
    assert "starting a network" in told[2]


async def test_with_a_chain_id_the_genesis_is_taken_from_whoever_has_that_network(
    find, monkeypatch, autojump_clock
) -> None:
    right, wrong, told = make_genesis([OTHER]), make_genesis([ME]), []
    async with answering(monkeypatch, wrong=wrong, right=right):
        found = await find(
            genesis=right.chain_id, bootstrap=("silent", "wrong", "right"), told=told
        )
    assert found.genesis.chain_id == right.chain_id
    assert told[0] == "no answer from silent yet (nobody answers); going on trying"
    assert told[1] == f"only network {wrong.chain_id.hex()} from wrong yet; going on trying"


async def test_a_chain_id_without_anybody_to_ask_is_refused_and_nothing_is_made(
    find, machine, tmp_path
) -> None:
    machine.enter(b"y" * 32, ["/ip4/127.0.0.1/tcp/1/p2p/other"])
    with pytest.raises(UsageError, match="nobody is known") as refused:
        await find(genesis=b"x" * 32)
    assert "--bootstrap" in refused.value.hint
    assert not (tmp_path / "home" / GENESIS_FILE).exists()


async def test_a_chain_id_of_another_network_than_the_folders_is_refused(find) -> None:
    found = await find()
    assert (await find(genesis=found.genesis.chain_id)).genesis.chain_id == found.genesis.chain_id
    with pytest.raises(UsageError, match="belongs to network"):
        await find(genesis=b"x" * 32)

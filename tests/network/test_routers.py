"""Nodes behind routers, in network namespaces with real address translation."""

from __future__ import annotations

import pytest

from tests.network import bed

pytestmark = pytest.mark.slow
A, B, P1, P2 = 1, 2, 3, 4


@pytest.fixture
async def internet(nursery):
    """`internet(random=False)`: the machines and routers."""
    if reason := bed.why_not():
        pytest.skip(reason)
    made = bed.Bed(nursery)

    def build(**kinds) -> bed.Bed:
        made.internet(**kinds)
        return made

    try:
        yield build
    finally:
        made.close()


async def two_outside(here: bed.Bed):
    """Two public nodes that know each other."""
    one = await here.node("p1", P1)
    two = await here.node("p2", P2, bootstrap=one.addresses)
    return one, two, [*one.addresses, *two.addresses]


async def test_two_nodes_behind_routers_meet_through_a_relay_and_then_directly(internet):
    here = internet()
    one, two, first = await two_outside(here)
    a = await here.node("a", A, bootstrap=first)
    b = await here.node("b", B, bootstrap=first)
    for node in (a, b):
        seen = await node.until("reach", lambda now: now["verdict"] == "punched")
        assert seen["mapping"] == "same for every destination"
        assert seen["relays"]
    mine = (await b.ask("addresses"))["me"]
    await a.until("peers", lambda now: mine in now)
    assert await a.ask("echo", mine) == {"echo": "to and fro"}
    await a.until("peers", lambda now: now[mine] == "/ip4/45.4.0.1/tcp/4001")
    assert await a.ask("echo", mine) == {"echo": "to and fro"}
    # The relayed connection gives way.
    for node in (one, two):
        await node.until("reach", lambda now: now["circuits"] == 0)
        assert (await node.until("reach", lambda now: now["verdict"] == "direct"))["confirmed"]


async def test_behind_a_router_of_random_ports_a_node_stays_relayed_and_is_talked_with(internet):
    here = internet(random=True)
    _one, _two, first = await two_outside(here)
    a = await here.node("a", A, bootstrap=first)
    b = await here.node("b", B, bootstrap=first)
    for node in (a, b):
        seen = await node.until("reach", lambda now: now["verdict"] == "relayed")
        assert seen["mapping"] == "another for each destination"
    mine = (await b.ask("addresses"))["me"]
    await a.until("peers", lambda now: mine in now)
    assert await a.ask("echo", mine) == {"echo": "to and fro"}
    assert "/p2p-circuit" in (await a.ask("peers"))[mine]


async def test_a_port_that_a_person_forwards_makes_the_verdict_direct(internet):
    here = internet()
    _one, _two, first = await two_outside(here)
    here.forward("ra", 4001, "192.168.1.10")
    a = await here.node("a", A, bootstrap=first)
    seen = await a.until("reach", lambda now: now["verdict"] == "direct")
    assert seen["confirmed"] == ["/ip4/45.3.0.1/tcp/4001"]
    b = await here.node("b", B, bootstrap=[one for one in seen["addresses"] if "/45.3.0.1/" in one])
    mine = (await a.ask("addresses"))["me"]
    await b.until("peers", lambda now: now.get(mine) == "/ip4/45.3.0.1/tcp/4001")


@pytest.mark.parametrize("natpmp", ["yes", "no"])
async def test_a_router_forwards_the_port_while_the_node_runs(internet, tmp_path, natpmp):
    if bed.MINIUPNPD is None:
        pytest.skip("there is no miniupnpd")
    here = internet()
    _one, _two, first = await two_outside(here)
    here.forwarding_router("ra", tmp_path, natpmp=natpmp)
    a = await here.node("a", A, bootstrap=first, upnp=True)
    by = "NAT-PMP" if natpmp == "yes" else "UPnP"
    seen = await a.until("reach", lambda now: now["forwarded"] and now["verdict"] == "direct")
    assert seen["forwarded"] == f"/ip4/45.3.0.1/tcp/4001 by {by}"
    assert "dnat" in here.run("ra", "nft list ruleset")
    await a.stop()
    assert "dnat to" not in here.run("ra", "nft list ruleset")


async def test_two_nodes_of_one_local_network_find_each_other_with_no_first_address(nursery):
    if reason := bed.why_not():
        pytest.skip(reason)
    here = bed.Bed(nursery)
    try:
        here.switch("lan")
        for number in (1, 2, 3):
            here.machine(f"m{number}")
            here.plug(f"m{number}", "lan", "eth", f"192.168.1.{number}/24")
            here.run(f"m{number}", "ip route add default dev eth")
        one = await here.node("m1", 1, mdns=True)
        two = await here.node("m2", 2, mdns=True)
        quiet = await here.node("m3", 3)
        mine = (await two.ask("addresses"))["me"]
        found = await one.until("peers", lambda now: mine in now)
        assert "192.168.1.2" in found[mine]
        assert await quiet.ask("peers") == {}
    finally:
        here.close()

"""What the doctor says about routers."""

from __future__ import annotations

from swarm.care import checks


def behind(verdict, **more):
    reach = {
        "verdict": verdict,
        "mapping": "same for every destination",
        "seen": [
            {"address": "/ip4/45.3.0.1/tcp/4001", "seen_by": 2},
            {"address": "/ip4/8.8.8.8/tcp/4001", "seen_by": 1},
        ],
        "listening": ["/ip4/192.168.1.10/tcp/4001"],
        "confirmed": [],
        "relays": ["12D3KooWA", "12D3KooWB"],
        "forwarded": None,
        "forwarding_problem": "no UPnP: no answer of the default gateway",
        **more,
    }
    circuit = "/ip4/45.1.0.1/tcp/9999/p2p/12D3KooWA/p2p-circuit/p2p/12D3KooWC"
    return {
        "reach": reach,
        "addresses": [circuit],
        "inbound": {"public": 3, "private": 0, "loopback": 0},
        "outbound": 2,
        "peers": 5,
    }


def test_the_verdict_on_routers_says_what_it_costs_and_which_port_to_forward():
    found = checks.reachable(behind("relayed"))
    assert found.verdict == "warn"
    assert found.text.startswith("relayed (places at 2): others connect through a relay, slowly")
    assert found.fix == "forward TCP port 4001 of the router to this machine"
    direct = checks.reachable(behind("direct", confirmed=["/ip4/45.3.0.1/tcp/4001"]))
    assert (direct.verdict, direct.fix) == ("good", "")
    assert checks.reachable(behind("unreachable", relays=[])).verdict == "warn"
    assert checks.reachable(behind("unknown")).verdict == "good"


def test_an_address_that_one_neighbourhood_sees_is_not_called_good():
    found = checks.seen(behind("relayed"))
    assert [one.verdict for one in found] == ["good", "unknown", "good", "unknown"]
    assert (
        found[1].text == "/ip4/8.8.8.8/tcp/4001 by peers of one neighbourhood, which may be wrong"
    )
    assert "holes can be punched" in found[2].text
    assert checks.seen({"addresses": []}) == []


def test_only_the_addresses_of_this_machine_are_tried_from_it():
    assert checks.own(behind("relayed")) == ["/ip4/192.168.1.10/tcp/4001"]
    assert checks.own({"addresses": ["/ip4/127.0.0.1/tcp/1"]}) == ["/ip4/127.0.0.1/tcp/1"]

"""The packets of mDNS and what a router says, read without trust."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.signing import Signer
from swarm.network import addresses, mdns, peerbook, upnp

PEER = Signer(bytes(32)).peer_id
CHAIN = b"c" * 32
HERE = addresses.parse("/ip4/192.168.1.2/tcp/4001")
ROUTER = "192.168.1.1"
PAGE = f"http://{ROUTER}:5000/rootDesc.xml"
KIND = "urn:schemas-upnp-org:service:WANIPConnection:1"


def test_a_question_and_an_answer_are_read_back():
    assert mdns.read(mdns.question()) == mdns.Packet(asks=True, texts=())
    texts = mdns.texts_of([HERE, addresses.parse("/ip4/127.0.0.1/tcp/1")], PEER, CHAIN)
    packet = mdns.read(mdns.answer("a" * 32, texts))
    assert packet == mdns.Packet(asks=False, texts=tuple(texts))
    assert mdns.found_in(packet.texts, "192.168.1.2", CHAIN) == [HERE.of(PEER)]


def test_a_question_has_the_bytes_of_libp2p():
    assert mdns.question() == bytes.fromhex(
        "000000000001000000000000 045f703270 045f756470 056c6f63616c 00 000c 0001"
    )


@pytest.mark.parametrize(("sender", "chain"), [("192.168.1.3", CHAIN), ("192.168.1.2", b"d" * 32)])
def test_an_address_of_another_machine_or_network_is_not_dialled(sender, chain):
    texts = mdns.texts_of([HERE], PEER, CHAIN)
    assert mdns.found_in(texts, sender, chain) == []


def test_nodes_of_other_programs_are_not_dialled_and_one_that_asks_for_a_network_is():
    texts = mdns.texts_of([HERE], PEER, CHAIN)
    assert mdns.found_in(texts[:1], "192.168.1.2", CHAIN) == []
    assert mdns.found_in(texts, "192.168.1.2", b"") == [HERE.of(PEER)]


def test_a_name_that_points_to_itself_ends():
    loop = b"\0\0\x84\0\0\0\0\1\0\0\0\0" + b"\xc0\x0c" + bytes(10)
    with pytest.raises(mdns.PacketError, match="without end"):
        mdns.read(loop)


@given(st.binary(max_size=300))
def test_any_datagram_is_read_or_refused(data):
    for one in (data, mdns.question()[:12] + data, b"\0\0\x84\0\0\0\0\2\0\0\0\0" + data):
        try:
            mdns.found_in(mdns.read(one).texts, "192.168.1.2", b"")
        except mdns.PacketError:
            continue


def description(url: str, kind: str = KIND) -> bytes:
    return (
        "<?xml version='1.0'?><root xmlns='urn:x'><device><serviceList>"
        "<service><serviceType>urn:other:1</serviceType><controlURL>/other</controlURL></service>"
        f"<service><serviceType>{kind}</serviceType><controlURL>{url}</controlURL></service>"
        "</serviceList></device></root>"
    ).encode()


def test_the_service_that_forwards_is_found_in_a_description():
    found = upnp.control(description("/ctl/IPConn"), PAGE, ROUTER)
    assert found == (KIND, f"http://{ROUTER}:5000/ctl/IPConn")


@pytest.mark.parametrize(
    "url",
    [
        "http://8.8.8.8/ctl",
        f"https://{ROUTER}/ctl",
        f"//{ROUTER}@8.8.8.8/ctl",
        "/ctl\r\nX: 1",
        "/" + "x" * 600,
    ],
)
def test_a_service_that_lies_elsewhere_is_not_spoken_with(url):
    with pytest.raises(upnp.RouterError):
        upnp.control(description(url.replace("\r\n", "&#13;&#10;")), PAGE, ROUTER)


@pytest.mark.parametrize("url", ["//[", "http://[x"])
def test_a_control_address_that_is_none_is_refused(url):
    with pytest.raises(upnp.RouterError, match="not a page"):
        upnp.control(description(url), PAGE, ROUTER)


@pytest.mark.parametrize("encoding", ["Shift_JIS", "gb2312", "utf-7", "idna", "hex", "nosuch"])
def test_a_description_in_an_encoding_that_is_not_read_is_refused(encoding):
    body = description("/ctl").replace(b"?>", f" encoding='{encoding}'?>".encode(), 1)
    with pytest.raises(upnp.RouterError, match="not XML"):
        upnp.control(body, PAGE, ROUTER)


def test_entities_are_not_expanded():
    bomb = b"<!DOCTYPE a [<!ENTITY b 'bbbb'>]><a>&b;</a>"
    with pytest.raises(upnp.RouterError, match="DOCTYPE"):
        upnp.elements(bomb)
    with pytest.raises(upnp.RouterError, match="without end"):
        upnp.elements(b"<a>" * 100)


def test_an_answer_to_the_search_counts_only_when_it_points_to_the_gateway():
    answer = f"HTTP/1.1 200 OK\r\nST: x\r\nLOCATION: {PAGE}\r\n\r\n".encode()
    assert upnp.location(answer, ROUTER) == PAGE
    with pytest.raises(upnp.RouterError):
        upnp.location(answer, "192.168.1.9")


@given(st.binary(max_size=200))
def test_whatever_a_router_answers_is_read_or_refused(data):
    for read in (lambda: upnp.location(data, ROUTER), lambda: upnp.control(data, PAGE, ROUTER)):
        try:
            read()
        except upnp.RouterError:
            continue


def test_the_default_gateway_is_read_from_the_routes():
    head = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\n"
    local = "eth0\t0001A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\n"
    default = "eth0\t00000000\t0101A8C0\t0003\t0\t0\t0\t00000000\n"
    assert upnp.gateway(head + local + default) == ROUTER
    assert upnp.gateway(head + local) is None


async def test_a_node_that_was_given_up_is_tried_again_once_it_is_heard_again(make):
    node, other = make(1), make(2)
    nearby = mdns.LocalDiscovery(node.me, lambda: CHAIN, list, list, node._found_nearby)
    said = mdns.answer("a" * 32, mdns.texts_of([HERE], other.me, CHAIN))
    for _ in range(2):
        await nearby._take(None, said, HERE.host)
        assert node._book.addresses_of(other.me) == [HERE.of(other.me)]
        for _ in range(peerbook.GIVE_UP_FAILURES):
            node._book.failed(other.me, "refused", 0)
        assert node._book.addresses_of(other.me) == []

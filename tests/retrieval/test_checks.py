"""Checks between whole nodes on loopback: real streams, real provider records."""

import pytest

from storage import cid as cids
from swarm.retrieval.checks import Checks
from tests.keeper.network import network


def quiet(*_):
    """Progress that nobody watches."""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "plays"
    path.write_bytes(b"".join(bytes((number,)) * 2**18 for number in range(12)))
    return path


@pytest.mark.slow
async def test_a_publication_is_shown_to_be_fetched_and_a_copy_counts_as_a_replica(tmp_path, file):
    async with network(tmp_path, 2) as (there, nursery):
        publisher = there.apis["validator"]
        stages = []
        planned = await publisher.plan(file, quiet)
        published = await publisher.publish(file, None, lambda *told: stages.append(told[0]))
        assert planned == published
        assert (await publisher.plan(file, quiet))["new_bytes"] == 0
        assert list(dict.fromkeys(stages)) == ["hash", "announce"]
        root = cids.parse(published["cid"])

        alone = await publisher.checks.wait(root, 5, quiet)
        assert (alone["peer"], alone["asked"]) == (None, 0)

        for name in ("keeper-0", "keeper-1"):
            await there.start(nursery, name, keep=False)
        await there.until("members", lambda: len(there.nodes["validator"].members()) == 2)
        proof = await publisher.checks.wait(root, 20, quiet)
        assert proof["peer"] in {there.nodes[name].signer.peer_id for name in there.nodes}
        assert (proof["sources"], proof["bytes"] > 2**18) == (1, True)

        found = await publisher.checks.check(root, 8, quiet)
        assert (found["here"], found["replicas"]) == (True, 0)
        assert found["fetched"] == found["asked_to_fetch"] == 2

        await there.apis["keeper-0"].get(published["cid"], tmp_path / "copy", quiet)
        found = await publisher.checks.check(root, 8, quiet)
        (one,) = [one for one in found["peers"] if one["way"] == "held" and not one["reason"]]
        assert (one["peer"], one["shown"]) == (there.nodes["keeper-0"].signer.peer_id, 8)
        assert one["rate"] > 0
        assert found["replicas"] == 1

        lost = cids.of_raw(b"what nobody has")
        found = await publisher.checks.check(lost, 1, quiet)
        assert (found["announced"], found["replicas"], found["fetched"]) == (0, 0, 0)
        assert {one["reason"] for one in found["peers"]} == {"found nobody who announces it"}


async def test_peers_are_asked_again_until_time_is_over(autojump_clock):
    from protocols.retrieval.errors import Reason, RetrievalError

    class Retriever:
        asked = 0

        async def ask(self, peer, root, *, fetches):
            self.asked += 1
            raise RetrievalError(Reason.NOT_ANNOUNCED)

    retriever = Retriever()
    checks = Checks(None, None, retriever, lambda: ["one", "two"])
    found = await checks.wait(cids.of_raw(b"x"), 10, quiet)
    assert found["peer"] is None
    assert found["reasons"] == dict.fromkeys(("one", "two"), "found nobody who announces it")
    assert (retriever.asked, found["seconds"]) == (8, pytest.approx(10, abs=0.1))

"""The commands about the chain, over a real ledger behind the control socket."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import trio

from cli.commands.verify_name import stale_hint
from storage import cid
from swarm import reports
from swarm.chain.light import Shown
from swarm.config import Settings
from swarm.errors import UsageError
from swarm.ledger.genesis import Genesis
from swarm.ledger.transactions import NameRegister, Transfer
from tests.chain.world import ALICE, EPOCH, VALIDATOR, door, open_chain
from tests.ledger.world import BASE


@pytest.fixture
def alone(tmp_path):
    with open_chain(tmp_path / "ledger", min_bond=1000, unbonding=2) as made:
        yield made


@pytest.fixture
def chained(node, alone):
    assert alone.run(ALICE, Transfer(VALIDATOR.public_key, 10**10)) == ""
    node.chain = door(alone, VALIDATOR)
    return node


def network_toml(swarm, tmp_path, more=""):
    _, validator, _ = swarm("key", "--toml")
    path = tmp_path / "network.toml"
    path.write_text(f'[network]\nname = "mine"\n{validator}\n{more}')
    return path


def test_a_network_is_made_from_the_key_of_this_home(swarm, tmp_path):
    path = network_toml(swarm, tmp_path)
    code, out, err = swarm("new", str(path))
    assert code == 0
    made = Genesis.load(tmp_path / "genesis.cbor")
    assert out == f"{made.chain_id.hex()}\n"
    assert made.network == "mine"
    assert "1,000 tokens staked" in err
    account = json.loads(swarm("key", "--json")[1])
    assert made.validators[0].public_key.hex() == account["public_key"]
    assert made.validators[0].vrf_key.hex() == account["vrf_key"]


def test_a_genesis_that_is_there_is_not_written_over(swarm, tmp_path):
    path = network_toml(swarm, tmp_path)
    assert swarm("new", str(path))[0] == 0
    before = (tmp_path / "genesis.cbor").read_bytes()
    code, _, err = swarm("new", str(path))
    assert code == 4
    assert "genesis.cbor is there already" in err
    assert (tmp_path / "genesis.cbor").read_bytes() == before
    code, out, _ = swarm("new", str(path), "-o", "other", "--json")
    assert code == 0
    told = json.loads(out)
    assert cid.digest(cid.parse(told["cid"])).hex() == told["chain_id"]


def test_a_setting_out_of_range_is_named_with_the_file_and_the_range(swarm, tmp_path):
    path = network_toml(swarm, tmp_path, "[parameters]\nepoch_length = 0\n")
    code, out, err = swarm("new", str(path))
    assert (code, out) == (2, "")
    assert f"{path}: parameters.epoch_length: 0 is not a whole number from 1 to 1,000,000" in err
    assert not (tmp_path / "genesis.cbor").exists()


def test_the_example_is_printed_and_says_how_to_go_on(swarm):
    code, out, err = swarm("new", "--example")
    assert (code, err) == (0, "")
    assert "epoch_length = 600" in out
    code, _, err = swarm("new")
    assert code == 2
    assert "swarm new --example" in err


def test_a_network_is_named_by_a_file_a_chain_id_or_a_cid(tmp_path):
    named = cid.of_raw(b"genesis")
    for text in (cid.text(named), cid.digest(named).hex(), cid.digest(named).hex().upper()):
        assert Settings.build({"network": text}, {}).network == cid.digest(named)
    assert Settings.build({"network": "a.cbor"}, {}).network.name == "a.cbor"
    with pytest.raises(UsageError):
        Settings.build({"network": ""}, {"SWARM_NETWORK": ""})


@pytest.mark.slow
def test_a_stake_is_told_and_listed(chained, alone, swarm):
    code, out, err = swarm("stake", "2.5")
    assert code == 0
    assert len(out.strip()) == 64
    assert "2.500001 tokens are staked" in err
    assert "epoch 2" in err
    code, text, _ = swarm("tx", out.strip())
    assert code == 0
    assert "stake" in text
    alone.grow(EPOCH)
    code, text, err = swarm("validators", "--epoch", "2")
    assert code == 0
    assert VALIDATOR.peer_id in text
    assert "(this node)" in text
    told = [
        json.loads(line) for line in swarm("validators", "--epoch", "2", "--json")[1].splitlines()
    ]
    assert [(one["account"], one["epoch"]) for one in told] == [(VALIDATOR.peer_id, 2)]
    code, out, err = swarm("unstake", "2.5")
    assert code == 0
    assert "swarm withdraw" in err
    code, _, err = swarm("withdraw")
    assert code == 4
    assert "nothing has unbonded yet" in err
    assert "hint: that is in" in err
    alone.grow(3 * EPOCH)
    code, _, err = swarm("withdraw")
    assert code == 0
    assert "2.5 tokens back" in err


def test_what_cannot_be_staked_looked_up_or_read_has_its_exit_code(chained, swarm):
    assert swarm("stake", "0")[0] == 2
    assert swarm("stake", "11")[0] == 4
    assert swarm("unstake", "5")[0] == 4
    assert swarm("tx", "ab")[0] == 2
    assert swarm("tx", "a/b")[0] == 2
    assert swarm("tx", "ab" * 32)[0] == 3
    assert swarm("validators", "--epoch", "77")[0] == 3


def test_a_name_is_verified_from_the_node_and_then_from_the_file_alone(
    chained, alone, swarm, tmp_path
):
    assert alone.run(ALICE, NameRegister("gpt", BASE)) == ""
    alone.grow(3 * EPOCH)
    code, _, err = swarm("verify-name", "gpt")
    assert code == 2
    assert "--checkpoint HEIGHT:ID or --network FILE" in err
    alone.genesis.save(tmp_path / "network.cbor")
    code, out, err = swarm("verify-name", "gpt", "--network", "network.cbor", "-o", "proof.json")
    assert (code, out) == (0, f"{cid.text(BASE)}\n")
    assert "the newest there" in err
    assert "trust began" in err  # the genesis of this network is years old
    nobody = ["--home", str(tmp_path / "nobody"), "--proof", "proof.json"]
    height = alone.ledger.finalized_height()
    right = f"{height}:{alone.ledger.block(height).id.hex()}"
    code, out, err = swarm("verify-name", "gpt", *nobody, "--checkpoint", right, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["cid"] == cid.text(BASE)
    assert json.loads(out)["by"] == "checkpoint"
    code, _, err = swarm("verify-name", "gpt", *nobody, "--checkpoint", f"{height}:{'00' * 32}")
    assert code == 4
    assert "not the checkpoint's" in err
    early = f"1:{alone.ledger.block(1).id.hex()}"
    code, _, err = swarm("verify-name", "gpt", *nobody, "--checkpoint", early)
    assert code == 4
    assert "take one at or above the proof's block" in err
    assert not (tmp_path / "nobody").exists(), "no node of another network is started for it"
    assert swarm("verify-name", "other", *nobody, "--checkpoint", right)[0] == 2
    assert swarm("verify-name", "gpt", *nobody, "--checkpoint", "7")[0] == 2
    assert swarm("verify-name", "other", "--network", "network.cbor")[0] == 3


def test_a_block_tells_the_gas_and_the_outcome_of_what_a_real_ledger_holds(
    chained, alone, swarm, monkeypatch
):
    height = alone.ledger.finalized_height()
    (data,) = alone.ledger.transactions_of(alone.ledger.block(height))
    told = reports.transaction_report(alone.ledger, data)
    unread = {"id": "ef" * 32, "ok": False, "error": "not CBOR"}
    held = {**trio.run(chained.block, 7), "txs": [told, unread]}

    async def block(_height):
        return held

    monkeypatch.setattr(chained, "block", block)
    code, out, err = swarm("blocks", "7")
    assert (code, err) == (0, "")
    first, second = out.splitlines()[-2:]
    assert first.split() == [told["id"], "transfer", f"{told['gas']:,}", "done", told["from"]]
    assert second.split() == [unread["id"], "-", "-", "refused:", "not", "CBOR"]


def test_trust_in_a_genesis_without_a_date_is_not_counted_in_days():
    day = 86_400_000
    shown = Shown("gpt", 0, True, BASE, 7, b"", 41 * day, day, True)
    assert "trust began 40 days ago" in stale_hint(shown, 41 * day)
    assert stale_hint(shown, 2 * day) == ""
    hint = stale_hint(replace(shown, since_ms=0), 20_000 * day)
    assert "days" not in hint
    assert "whose genesis says no time" in hint

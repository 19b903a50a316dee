"""A network file: what it says becomes the genesis, and what it may not say is named."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage import cid
from swarm.chain import network_file
from swarm.errors import UsageError
from swarm.ledger.genesis import MEANINGS, RANGES, UNIT, Genesis, Params
from swarm.ledger.vrf import VrfKey
from tests.ledger.world import signer

ME, OTHER = signer("me"), signer("other")
NOW = 1_800_000_000_000


def lines(who, stake=1000 * UNIT):
    return network_file.validator_lines(who.peer_id, VrfKey.of(who.seed).public_key, stake)


def text(*, network='name = "mine"', allocations="", parameters="", validators=None):
    return f"""[network]
{network}
[allocations]
{allocations}
[parameters]
{parameters}
{lines(ME) if validators is None else validators}"""


def read(written):
    return network_file.read(written.encode(), NOW)


def test_what_is_written_is_in_the_genesis():
    made = read(
        text(
            network='name = "mine"\ntime = 2026-01-01T00:00:00Z\nemission_pool = 5',
            allocations=f'"{OTHER.peer_id}" = 0.5\n"{ME.public_key.hex()}" = "1_000.000000001"',
            parameters="epoch_length = 7\nmin_bond = 2.5",
        )
    )
    assert (made.network, made.timestamp_ms) == ("mine", 1_767_225_600_000)
    assert made.emission_pool == 5 * UNIT
    assert dict(made.allocations) == {
        OTHER.public_key: UNIT // 2,
        ME.public_key: 1000 * UNIT + 1,
    }
    assert (made.params.epoch_length, made.params.min_bond) == (7, 2_500_000_000)
    (validator,) = made.validators
    assert (validator.public_key, validator.stake) == (ME.public_key, 1000 * UNIT)
    assert validator.vrf_key == VrfKey.of(ME.seed).public_key


def test_the_cid_of_the_summary_holds_the_chain_id():
    made = read(text())
    told = network_file.summary(made)
    assert cid.digest(cid.parse(told["cid"])) == made.chain_id
    assert cid.matches(cid.parse(told["cid"]), made.encode())


def test_the_same_file_gives_the_same_network_whatever_the_order_of_its_parts():
    one = text(validators=lines(ME) + lines(OTHER))
    other = text(validators=lines(OTHER) + lines(ME))
    assert read(one).chain_id == read(other).chain_id


def test_every_parameter_has_a_meaning_and_the_example_shows_its_default_and_range():
    assert list(MEANINGS) == list(RANGES) == [one.name for one in fields(Params)]
    example = network_file.example()
    for name, value in asdict(Params()).items():
        unit, meaning = MEANINGS[name]
        assert f"# {unit} {meaning}; " in example
        shown = network_file.tokens(value) if unit == "tokens" else f"{value:,}"
        assert f"\n# {name} = {shown.replace(',', '_')}\n" in example


def test_the_example_with_a_key_filled_in_and_every_default_uncommented_is_the_default_network():
    written = network_file.example()
    start, end = written.index("[[validators]]"), written.index("# Tokens that accounts")
    filled = written[:start] + lines(ME) + written[end:]
    for name in RANGES:
        filled = filled.replace(f"\n# {name} = ", f"\n{name} = ")
    assert read(filled).params == Params()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"parameters": "epoch_length = 0"}, r"parameters\.epoch_length: 0 .* 1 to 1,000,000"),
        ({"parameters": "epoch_length = 1.5"}, r"parameters\.epoch_length: 1\.5 "),
        ({"parameters": "epoch_length = true"}, r"parameters\.epoch_length: True "),
        ({"parameters": "min_bond = -1"}, r"parameters\.min_bond: -1 .* 0 to 1,000,000,000"),
        ({"parameters": "min_bond = 0.0000000001"}, r"parameters\.min_bond: 0\.0000000001 "),
        ({"parameters": "epok = 1"}, r"parameters\.epok: there is no such setting"),
        ({"network": ""}, r"network\.name: missing"),
        ({"network": 'name = ""'}, r"1 to 64 characters"),
        ({"network": 'name = "x"\ntime = 2026-01-01'}, r"network\.time: .* with its zone"),
        ({"network": 'name = "x"\nchain = 1'}, r"network\.chain: there is no such setting"),
        ({"allocations": '"12D3" = 1'}, r"allocations: '12D3' is neither"),
        ({"allocations": f'"{ME.peer_id}" = "x"'}, r"allocations\.12D3\S+: 'x' is not an amount"),
        (
            {"allocations": f'"{ME.peer_id}" = 1\n"{ME.public_key.hex()}" = 1'},
            r"allocations: '[0-9a-f]+' stands twice",
        ),
        ({"validators": ""}, r"validators: none"),
        ({"validators": lines(ME) + lines(ME)}, r"validators\[2\]\.account: .* stands twice"),
        ({"validators": lines(ME, 1)}, r"validators\[1\]\.stake: 0\.000000001 .* 1,000 to"),
        (
            {"validators": f'[[validators]]\naccount = "{ME.peer_id}"\nvrf_key = "{"01" * 32}"'},
            r"validators\[1\]\.stake: nothing",
        ),
        (
            {"parameters": "max_validators = 1", "validators": lines(ME) + lines(OTHER)},
            r"validators: 2 where max_validators allows 1",
        ),
        ({"parameters": "audit_blocks = 5"}, r"audit"),
        ({"parameters": "epoch_length = "}, r"not TOML"),
    ],
)
def test_what_cannot_be_is_named_with_its_value_and_its_range(changes, told):
    with pytest.raises(UsageError, match=told):
        read(text(**changes))


@pytest.mark.parametrize("units", [1, 99, 100, 1_000, 999_999_999, UNIT])
def test_the_smallest_amounts_are_read_as_they_are_shown(units):
    shown = network_file.tokens(units)
    for written in (shown, f'"{shown}"'):
        assert read(text(network=f'name = "x"\nemission_pool = {written}')).emission_pool == units
    made = read(text(parameters=f"min_bond = {shown}", validators=lines(ME, units)))
    assert (made.params.min_bond, made.validators[0].stake) == (units, units)


@pytest.mark.parametrize("written", ["inf", "nan", "1e99999", "-1e-9", "1e-99999", "0e-99999"])
def test_a_number_that_is_no_amount_is_told(written):
    with pytest.raises(UsageError, match=r"parameters\.min_bond: "):
        read(text(parameters=f"min_bond = {written}"))


@pytest.mark.parametrize("sign", ["", "-"])
def test_an_exponent_beyond_all_bounds_is_told(sign):
    with pytest.raises(UsageError, match=r"1e-?9999999999999999999999 is not a number"):
        read(text(parameters=f"min_bond = 1e{sign}9999999999999999999999"))


@pytest.mark.parametrize("where", ["epoch_length", "min_bond"])
def test_a_number_without_end_is_refused_like_any_other(where):
    with pytest.raises(UsageError, match=rf"parameters\.{where}: 0xfff"):
        read(text(parameters=f"{where} = 0x{'f' * 5000}"))


def test_a_vrf_key_that_is_no_key_is_refused_before_a_node_would_refuse_the_genesis():
    written = lines(ME).replace(VrfKey.of(ME.seed).public_key.hex(), "00" * 32)
    with pytest.raises(UsageError, match=r"validators\[1\]\.vrf_key: .* is not a VRF key"):
        read(text(validators=written))


def test_the_file_that_the_guide_calls_enough_is_enough():
    guide = (Path(__file__).parents[2] / "docs/guide/network.md").read_text()
    written = guide.split("```toml\n")[1].split("```")[0]
    start, end = written.index("[[validators]]"), written.index("[allocations]")
    filled = written[:start] + lines(ME) + written[end:].replace("12D3KooW…", ME.peer_id)
    made = read(filled)
    assert dict(made.allocations) == {ME.public_key: 10_000 * UNIT}
    assert made.params.block_interval_ms == 1_000


@given(st.one_of(st.binary(max_size=64), st.text(max_size=64).map(str.encode)))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_a_network_or_a_usage_error(data):
    try:
        made = network_file.read(data, NOW)
    except UsageError:
        return
    assert isinstance(made, Genesis)

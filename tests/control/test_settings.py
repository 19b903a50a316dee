from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.config import Settings
from swarm.errors import UsageError
from swarm.sizes import format_size
from swarm.values import parse_address, parse_size

PEER = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("500GB", 500 * 10**9),
        ("2TiB", 2 * 2**40),
        ("750M", 750 * 10**6),
        ("750m", 750 * 10**6),
        ("1.5 GiB", 3 * 2**29),
        ("12345", 12345),
        ("10k", 10_000),
        ("7 B", 7),
        ("0", 0),
        (4096, 4096),
    ],
)
def test_sizes_are_read_as_people_write_them(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "GB", "-1GB", "1e9", "500 XB", "10GBB", "1,000", "٣GB", "9" * 40, True]
)
def test_what_is_not_a_size_is_refused_by_name(text):
    with pytest.raises(UsageError) as raised:
        parse_size(text)
    assert repr(str(text))[:20] in raised.value.message


@given(st.integers(0, 10**18))
def test_a_size_shown_reads_back_within_its_last_digit(size):
    assert abs(parse_size(format_size(size)) - size) <= max(0, size * 0.05)


@pytest.mark.parametrize(
    ("text", "multiaddr"),
    [
        (f"/ip4/10.0.0.1/tcp/4001/p2p/{PEER}", f"/ip4/10.0.0.1/tcp/4001/p2p/{PEER}"),
        ("/dns/example.org/tcp/4001/", "/dns/example.org/tcp/4001"),
        ("10.0.0.1:4001", "/ip4/10.0.0.1/tcp/4001"),
        ("[::1]:4001", "/ip6/::1/tcp/4001"),
        ("example.org:4001", "/dns/example.org/tcp/4001"),
        ("node_1:4001", "/dns/node_1/tcp/4001"),
    ],
)
def test_addresses_are_read_in_both_forms(text, multiaddr):
    assert parse_address(text) == multiaddr


@pytest.mark.parametrize(
    "text",
    [
        "",
        "example.org",
        "10.0.0.1:70000",
        "10.0.0.300:1",
        "/ip4/10.0.0.1/udp/1",
        "/ip4/::1/tcp/1",
        "/ip4/10.0.0.1/tcp/1/p2p/12D3KooWx",
        "/ip6/fe80::1%eth0/tcp/0",
        "[fe80::1%eth0]:4001",
        "/dns/a\x1b[31mb/tcp/1",
        "/dns/a,b/tcp/1",
        "a,b:1",
        f"{'a' * 64}.org:1",
        "a..b:1",
        "host:\u0664\u0660",
        "/ip4/0.0.0.0/tcp/\u0664\u0660",
        "\u0661\u0662\u0667.0.0.1:80",
        f"/ip4/10.0.0.1/tcp/1/p2p/{PEER}/p2p-circuit/p2p/{PEER}",
    ],
)
def test_what_is_not_an_address_is_refused(text):
    with pytest.raises(UsageError, match="not the address of a peer"):
        parse_address(text)


def test_a_flag_beats_the_environment_which_beats_the_file_which_beats_the_default(tmp_path):
    file = tmp_path / "swarm.toml"
    file.write_text('storage = "1GB"\nlog_level = "debug"\nhome = "/from/file"\ntrain = false\n')
    environ = {
        "SWARM_STORAGE": "2GB",
        "SWARM_HOME": "/from/environ",
        "SWARM_BOOTSTRAP": "a.org:1,b.org:2",
    }
    settings = Settings.build({"storage": "3GB", "home": None, "listen": ()}, environ, file)
    assert settings.storage == 3 * 10**9
    assert settings.home == Path("/from/environ")
    assert settings.log_level == "debug"
    assert settings.train is False
    assert settings.validate is True
    assert settings.bootstrap == ("/dns/a.org/tcp/1", "/dns/b.org/tcp/2")


@pytest.mark.parametrize(
    ("flags", "environ", "text", "words"),
    [
        ({"storage": "much"}, {}, "", "--storage: 'much'"),
        ({"bootstrap": ("1.2.3.4:0",)}, {}, "", "nobody can be asked at port 0"),
        ({}, {"SWARM_GPU": "perhaps"}, "", "SWARM_GPU: 'perhaps'"),
        ({}, {}, "storage = []", "storage in "),
        ({}, {}, "storrage = 1", "storrage"),
        ({}, {}, "= 1", "not TOML"),
        (
            {},
            {},
            "storage = 1 #" + "#" * 2**20 + "\ngpu = 'lost'",
            "1,048,576 bytes are no settings",
        ),
        ({}, {}, "a = " + "[" * 5000 + "]" * 5000, "not TOML"),
        ({"home": "~no-such-user/x"}, {}, "", "--home: '~no-such-user/x' is not a path here"),
        ({}, {"SWARM_HOME": "~no-such-user/x"}, "", "SWARM_HOME: '~no-such-user/x'"),
        ({}, {}, "home = '~no-such-user/x'", "home in "),
        ({}, {}, "network = '~no-such-user/x'", "network in "),
        ({}, {}, 'home = "a\\u0000b"', "home in "),
    ],
)
def test_a_wrong_setting_is_named_with_its_source(tmp_path, flags, environ, text, words):
    file = tmp_path / "swarm.toml"
    file.write_text(text)
    with pytest.raises(UsageError) as raised:
        Settings.build(flags, environ, file)
    assert words in raised.value.message


def test_a_number_of_thousands_of_digits_in_the_file_is_told_as_a_fault_of_the_file(tmp_path):
    path = tmp_path / "swarm.toml"
    path.write_text(f"storage = {'1' * 5_000}")
    with pytest.raises(UsageError, match=r"swarm\.toml: not TOML"):
        Settings.build({}, {}, path)

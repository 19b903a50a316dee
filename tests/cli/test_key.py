import json
import stat

import pytest

from swarm.errors import RefusedError, UsageError
from swarm.identity import BACKUP_FILE, KEY_FILE, Identity, NodeLock, is_backed_up

pytest.importorskip("mnemonic")

from cli.commands import key as key_command
from cli.main import main
from swarm.words import seed_of, words_of

ZEROS = " ".join(["abandon"] * 23 + ["art"])
"""Of 32 zero bytes, in the test vectors of BIP-39."""


@pytest.fixture
def home(tmp_path):
    return tmp_path / "home"


@pytest.fixture
def typed(monkeypatch):
    """What a person types, one answer after the other."""
    answers = []
    monkeypatch.setattr(
        key_command.click, "prompt", lambda _text, **_: answers.pop(0) if answers else ""
    )
    return answers


def test_the_words_are_those_of_bip_39():
    assert " ".join(words_of(bytes(32))) == ZEROS
    assert " ".join(words_of(b"\xff" * 32)) == " ".join(["zoo"] * 23 + ["vote"])
    for seed in (bytes(32), b"\x80" * 32, bytes(range(32))):
        assert seed_of("  ".join(words_of(seed)).upper() + "\n") == seed


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "0 words where 24 are due"),
        ("abandon " * 23, "23 words"),
        ("abandon " * 24, "do not belong together"),
        (ZEROS.replace("art", "arx"), "not in the list of words: number 24"),
        ("art " + "abandon " * 23, "do not belong together"),
    ],
)
def test_words_that_bring_back_nothing_are_refused_and_not_repeated(text, why):
    with pytest.raises(UsageError, match=why) as told:
        seed_of(text)
    assert "abandon" not in str(told.value)


def test_a_backup_shows_the_words_asks_for_three_and_is_noted(home, swarm, typed, monkeypatch):
    identity = Identity.load_or_create(home)
    words = words_of(identity.signer.seed)
    monkeypatch.setattr(key_command.secrets.SystemRandom, "sample", lambda _, __, k: [2, 0, 23][:k])
    typed += ["nonsense", words[0], words[2].upper(), f" {words[23]} "]
    code, out, err = swarm("key", "backup")
    assert (code, out.split()[1::2]) == (0, words)
    assert "that is not word 1\n" in err
    assert is_backed_up(home, identity.peer)
    assert not any(word in (home / BACKUP_FILE).read_text().split() for word in words)


def test_a_backup_whose_words_are_not_known_is_not_noted(home, swarm, typed):
    identity = Identity.load_or_create(home)
    typed += ["no"] * 9
    assert swarm("key", "backup")[0] == RefusedError.exit_code
    assert not is_backed_up(home, identity.peer)


def test_a_key_comes_back_from_its_words(home, swarm, typed, tmp_path):
    before = Identity.load_or_create(tmp_path / "lost")
    typed.append(" ".join(words_of(before.signer.seed)))
    code, out, _ = swarm("key", "restore", "--json")
    assert (code, json.loads(out)["account"]) == (0, before.peer)
    assert Identity.load_or_create(home).peer == before.peer
    assert stat.S_IMODE((home / KEY_FILE).stat().st_mode) == 0o600
    assert is_backed_up(home, before.peer)


def test_another_key_is_not_overwritten_and_with_force_kept_beside(home, swarm, typed):
    here = Identity.load_or_create(home)
    typed += [ZEROS, ZEROS]
    code, _, err = swarm("key", "restore")
    assert (code, Identity.load_or_create(home).peer) == (4, here.peer)
    assert "--force" in err
    code, out, _ = swarm("key", "restore", "--force")
    assert (code, Identity.load_or_create(home).peer) == (0, out.strip())
    assert out.strip() != here.peer
    (old,) = home.glob(f"{KEY_FILE}.*.old")
    assert here.signer.seed.hex() in old.read_text()
    assert stat.S_IMODE(old.stat().st_mode) == 0o600
    assert not is_backed_up(home, here.peer)


def test_the_same_key_may_be_restored_where_it_is(home, swarm, typed):
    here = Identity.load_or_create(home)
    typed.append(" ".join(words_of(here.signer.seed)))
    assert swarm("key", "restore")[:2] == (0, f"{here.peer}\n")
    assert not list(home.glob("*.old"))


def test_nothing_is_restored_under_a_running_node(home, swarm, typed):
    typed.append(ZEROS)
    with NodeLock(home):
        assert swarm("key", "restore", "--force")[0] == RefusedError.exit_code
    assert not (home / KEY_FILE).exists()


def test_a_backup_of_no_key_is_refused(home, swarm):
    assert main(["key", "backup"]) == UsageError.exit_code
    assert not (home / KEY_FILE).exists()


def test_the_reminder_stays_until_the_backup_is_made(node, swarm):
    told = node.status()
    for backed_up, reminds in ((False, True), (True, False)):
        node.status = lambda backed_up=backed_up: told | {"backed_up": backed_up}
        assert ("`swarm key backup`" in swarm("status")[1]) is reminds
    node.status = lambda: told | {"backed_up": False, "temporary": True}
    assert "`swarm key backup`" not in swarm("status")[1]

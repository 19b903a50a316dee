"""Break one rule at a time, in a copy, and see that the tests notice: `python -m tests.mutants [words of a name]`.

A mutant that survives names a rule that nothing checks. Each is one line of source replaced by another, and the quick
tests that have to fail for it; these pass on the copy as it is, or nothing is shown.
"""

# ruff: noqa: T201 - a command that prints
from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
COPIED = ("protocols", "storage", "swarm", "tests/ledger", "tests/protocols/consensus")
SINGLE = (
    "pyproject.toml",
    "tests/vectors/ledger.json",
    "tests/vectors/audits.json",
    "tests/test_wallet.py",
)
LEDGER, CONSENSUS = "tests/ledger/", "tests/protocols/consensus/test_core.py"


@dataclass(frozen=True)
class Mutant:
    """One rule, broken."""

    name: str
    file: str
    line: str
    broken: str
    tests: str


MUTANTS = (
    Mutant(
        "two thirds of the weight are a quorum",
        "protocols/consensus/votes.py",
        "return 2 * total_weight // 3 + 1",
        "return 2 * total_weight // 3",
        "tests/protocols/consensus",
    ),
    Mutant(
        "who nullified a view finalizes it",
        "protocols/consensus/core.py",
        "if Kind.FINALIZE in view.own or Kind.NULLIFY in view.own:",
        "if Kind.FINALIZE in view.own:",
        CONSENSUS,
    ),
    Mutant(
        "forged votes count",
        "protocols/consensus/core.py",
        "if not vote.is_signed(self.chain_id):",
        "if False:",
        CONSENSUS,
    ),
    Mutant(
        "views between parent and proposal need no nullification",
        "protocols/consensus/core.py",
        "if parent is None or not all(number in self._nullified for number in gap):",
        "if parent is None:",
        CONSENSUS,
    ),
    Mutant(
        "anyone proposes",
        "protocols/consensus/core.py",
        "if proposal.vote.voter != self._leader(number):",
        "if False:",
        CONSENSUS,
    ),
    Mutant(
        "a nullify and a finalize in one view are honest",
        "protocols/consensus/evidence.py",
        "return {one.kind, other.kind} == {Kind.NULLIFY, Kind.FINALIZE}",
        "return False",
        "tests/protocols/consensus",
    ),
    Mutant(
        "a nonce may be skipped",
        "swarm/ledger/execute.py",
        "if transaction.nonce != sender.nonce:",
        "if transaction.nonce < sender.nonce:",
        LEDGER + "test_execute.py",
    ),
    Mutant(
        "a failed transaction is free",
        "swarm/ledger/execute.py",
        "draft.put_account(replace(sender, balance=sender.balance - fee, nonce=sender.nonce + 1))",
        "draft.put_account(replace(sender, nonce=sender.nonce + 1))",
        LEDGER + "test_execute.py",
    ),
    Mutant(
        "the jailed stay in the sets",
        "swarm/ledger/validators.py",
        "and draft.jailed_until(one.public_key) is None",
        "and True",
        LEDGER + "test_slashing.py",
    ),
    Mutant(
        "how many were slashed does not matter",
        "swarm/ledger/slashing.py",
        "part = min(WHOLE, params.slash_part + params.slash_correlation * share)",
        "part = params.slash_part",
        LEDGER + "test_slashing.py",
    ),
    Mutant(
        "who was slashed first pays less",
        "swarm/ledger/slashing.py",
        "if part > one.part:",
        "if not one.part:",
        LEDGER + "test_slashing.py",
    ),
    Mutant(
        "what unbonds escapes",
        "swarm/ledger/slashing.py",
        "return offence < epoch_of(begun, params.epoch_length) + EPOCHS_AHEAD",
        "return False",
        LEDGER + "test_slashing.py",
    ),
    Mutant(
        "evidence counts twice",
        "swarm/ledger/rules.py",
        "draft.put_evidence(key)",
        "pass",
        LEDGER + "test_execute.py",
    ),
    Mutant(
        "unbonding stake is given back an epoch early",
        "swarm/ledger/validators.py",
        "return height + max(params.unbonding, (EPOCHS_AHEAD + 1) * params.epoch_length)",
        "return height + max(params.unbonding, EPOCHS_AHEAD * params.epoch_length)",
        LEDGER + "test_execute.py",
    ),
    Mutant(
        "a leader has no cap on its slots",
        "swarm/ledger/validators.py",
        "SLOTS_PERCENT = 33",
        "SLOTS_PERCENT = 100",
        LEDGER + "test_scoring.py",
    ),
    Mutant(
        "the highest score is the median",
        "swarm/ledger/rewards.py",
        "if 2 * reached >= whole:",
        "if reached >= whole:",
        LEDGER + "test_rounds.py",
    ),
    Mutant(
        "first place takes all",
        "swarm/ledger/rewards.py",
        "FIRST_PLACE_PERCENT: Final = 40",
        "FIRST_PLACE_PERCENT: Final = 100",
        LEDGER + "test_rounds.py",
    ),
    Mutant(
        "scores of the batches before count for the new ones",
        "swarm/ledger/rounds.py",
        "score_commits={},",
        "score_commits=current.score_commits,",
        LEDGER + "test_rounds.py",
    ),
    Mutant(
        "a round is scored on batches that were known before",
        "swarm/ledger/rounds.py",
        'score_beacon=b"",',
        "score_beacon=current.score_beacon,",
        LEDGER + "test_rounds.py",
    ),
    Mutant(
        "who is frozen is paid",
        "swarm/ledger/settlement.py",
        "if not frozen[one.public_key] and (word is None or word.merged == merged):",
        "if word is None or word.merged == merged:",
        LEDGER + "test_scoring.py",
    ),
    Mutant(
        "a task earns more emission than it pays",
        "swarm/ledger/settlement.py",
        "if params.emission_match_percent:",
        "if False:",
        LEDGER + "test_scoring.py",
    ),
    Mutant(
        "large tasks take what is kept for small ones",
        "swarm/ledger/settlement.py",
        "small = money.small if share <= params.small_budget else 0",
        "small = money.small",
        LEDGER + "test_scoring.py",
    ),
    Mutant(
        "a commit opens for whoever copies it",
        "swarm/ledger/transactions.py",
        "return hashlib.sha256(COMMIT_TAG + root + worker + salt).digest()",
        "return hashlib.sha256(COMMIT_TAG + root + salt).digest()",
        LEDGER + "test_rounds.py",
    ),
    Mutant(
        "a replacement is free",
        "swarm/ledger/mempool.py",
        "if new < least:",
        "if new < old:",
        LEDGER + "test_mempool.py",
    ),
    Mutant(
        "payments fill the room of the protocol",
        "swarm/ledger/mempool.py",
        "count_room -= count_room // RESERVED_PART",
        "pass",
        LEDGER + "test_mempool.py",
    ),
    Mutant(
        "a scalar that is not reduced makes a second proof",
        "swarm/ledger/vrf.py",
        "if s >= _ORDER:",
        "if False:",
        LEDGER + "test_vrf.py",
    ),
)


def main(words: list[str]) -> int:
    """Run every mutant whose name holds the words; the number of those that survive."""
    chosen = [one for one in MUTANTS if all(word in one.name for word in words)]
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy = Path(folder)
        _copy(copy)
        tests = sorted({one.tests for one in chosen})
        if not _passes(copy, tests):
            print("the tests fail without a mutant: nothing is shown")
            return 1
        survivors = 0
        for one in chosen:
            source = copy / one.file
            text = source.read_text()
            if text.count(one.line) != 1:
                print(f"GONE      {one.name}: {one.file} has the line {text.count(one.line)} times")
                survivors += 1
                continue
            source.write_text(text.replace(one.line, one.broken))
            survived = _passes(copy, [one.tests])
            source.write_text(text)
            survivors += survived
            print("SURVIVED " if survived else "caught   ", one.name, flush=True)
    print(f"{len(chosen) - survivors} of {len(chosen)} mutants caught")
    return survivors


def _copy(target: Path) -> None:
    for name in COPIED:
        shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in SINGLE:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, target / name)


def _passes(folder: Path, tests: list[str]) -> bool:
    command = [sys.executable, "-B", "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(command, cwd=folder, capture_output=True, check=False)
    if done.returncode not in (0, 1):  # neither passed nor failed: no test ran
        raise SystemExit(done.stdout.decode() + done.stderr.decode())
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(min(1, main(sys.argv[1:])))

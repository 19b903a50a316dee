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
    "tests/participant/test_membership.py",
    "tests/storage/test_state_witness.py",
)
LEDGER, CONSENSUS = "tests/ledger/", "tests/protocols/consensus/test_core.py"
REPLICA = "tests/protocols/consensus/test_replica.py"
WITNESS = "tests/storage/test_state_witness.py"
MEMBERSHIP = "tests/participant/test_membership.py"


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
        "certificates are sent to who is past their view",
        "protocols/consensus/forwarding.py",
        "[key for key, at in self._reached.items() if at <= one]",
        "list(self._reached)",
        CONSENSUS,
    ),
    Mutant(
        "a vote that somebody passes on shows where that one is",
        "protocols/consensus/forwarding.py",
        "case Cast(vote) if vote.voter == peer:",
        "case Cast(vote):",
        CONSENSUS,
    ),
    Mutant(
        "a certificate that one node alone was given stays there",
        "protocols/consensus/core.py",
        "            self._forwarding.owe(view.number, self._now.tick_ms)",
        "            pass",
        CONSENSUS,
    ),
    Mutant(
        "a key that signs elsewhere votes on in the next epoch",
        "protocols/consensus/replica.py",
        "None if self._silent or epoch < self._standing.first_epoch else self._signer",
        "None if epoch < self._standing.first_epoch else self._signer",
        REPLICA,
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
        "protocols/consensus/building.py",
        "if not all(number in book.nullified for number in gap):",
        "if False:",
        CONSENSUS,
    ),
    Mutant(
        "a validator that was away does not ask which views came to nothing",
        "protocols/consensus/building.py",
        "        if hole is not None:",
        "        if False:",
        CONSENSUS,
    ),
    Mutant(
        "who was away is told as often as it asks",
        "protocols/consensus/asking.py",
        "self._told.get(peer, LONG_AGO) < self._delta_ms:",
        "self._told.get(peer, LONG_AGO) < 0:",
        CONSENSUS,
    ),
    Mutant(
        "a new name may read as a CID",
        "swarm/ledger/rules.py",
        "if reads_as_cid(asked.name):",
        "if False:",
        LEDGER,
    ),
    Mutant(
        "a task may take a name that reads as a CID",
        "swarm/ledger/rounds.py",
        "if reads_as_cid(asked.name):",
        "if False:",
        LEDGER,
    ),
    Mutant(
        "anyone proposes",
        "protocols/consensus/core.py",
        "if proposal.vote.voter != leader:",
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
        "ordinary_count = self._max_count - self._max_count // RESERVED_PART",
        "ordinary_count = self._max_count",
        LEDGER + "test_mempool.py",
    ),
    Mutant(
        "a scalar that is not reduced makes a second proof",
        "swarm/ledger/vrf.py",
        "if s >= _ORDER:",
        "if False:",
        LEDGER + "test_vrf.py",
    ),
    Mutant(
        "a leader's vote is not passed on",
        "protocols/consensus/core.py",
        "if view.exposed or not view.is_doubtful:",
        "if True:",
        CONSENSUS,
    ),
    Mutant(
        "a leader's vote is passed on again and again",
        "protocols/consensus/core.py",
        "view.exposed = True",
        "pass",
        CONSENSUS,
    ),
    Mutant(
        "a view that came to nothing is above doubt",
        "protocols/consensus/views.py",
        "if self.nullification is not None and self.notarization is None:",
        "if False:",
        CONSENSUS,
    ),
    Mutant(
        "votes for two blocks are above doubt",
        "protocols/consensus/views.py",
        "return len({vote.block_id for vote in self.votes[Kind.NOTARIZE].values()}) > 1",
        "return False",
        CONSENSUS,
    ),
    Mutant(
        "the vote of a spoilt proposal does not count",
        "protocols/consensus/core.py",
        "counts = self._take_vote(peer, proposal.vote)",
        "counts = sound and number > self.book.final and self._take_vote(peer, proposal.vote)",
        CONSENSUS,
    ),
    Mutant(
        "what the log shows to be final is voted on again",
        "protocols/consensus/core.py",
        "if certificate is None or number <= max(self._floor, self.view - MAX_NULLIFICATIONS):",
        "if certificate is None or number <= self.view - MAX_NULLIFICATIONS:",
        CONSENSUS,
    ),
    Mutant(
        "own votes that are forgotten are another's",
        "protocols/consensus/core.py",
        "if not self._doubled and view.number > self._floor and self.book.in_window(view.number):",
        "if not self._doubled:",
        CONSENSUS,
    ),
    Mutant(
        "a key votes before the epoch of its log",
        "protocols/consensus/journal.py",
        "first = max(first, entry.epoch)",
        "first = max(first, entry.epoch if isinstance(entry, _Epoch) else 0)",
        REPLICA,
    ),
    Mutant(
        "the end of an epoch does not count to the next",
        "protocols/consensus/journal.py",
        "return epoch_of(height + 1 + epoch_length // END_PART, epoch_length) + 1",
        "return epoch_of(height + 1, epoch_length) + 1",
        REPLICA,
    ),
    Mutant(
        "a key votes after a jump whatever its log",
        "protocols/consensus/replica.py",
        "if whole is not None and epoch_of(block.height + 1, self._epoch_length) >= whole:",
        "if True:",
        REPLICA,
    ),
    Mutant(
        "a whole log is not trusted after a jump",
        "protocols/consensus/replica.py",
        "if whole is not None and epoch_of(block.height + 1, self._epoch_length) >= whole:",
        "if False:",
        REPLICA,
    ),
    Mutant(
        "a jump is forgotten by the next process",
        "protocols/consensus/replica.py",
        "return noted + self._end_of_epoch(",
        "return self._end_of_epoch(",
        REPLICA,
    ),
    Mutant(
        "an old block shows that a log is whole",
        "protocols/consensus/replica.py",
        "if abs(now.utc_ms - block.timestamp_ms) <= PRESENT_MS:",
        "if True:",
        REPLICA,
    ),
    Mutant(
        "a log that is rewritten early forgets later epochs",
        "protocols/consensus/replica.py",
        "return [*self._standing.encode(), *later, *self.core.snapshot()]",
        "return [*self._standing.encode(), *self.core.snapshot()]",
        REPLICA,
    ),
    Mutant(
        "an empty log lets its key vote",
        "protocols/consensus/journal.py",
        "if height == 0 or (entries and (is_whole or was_there)):",
        "if height == 0 or is_whole or was_there or not entries:",
        "tests/protocols/consensus/test_service.py",
    ),
    Mutant(
        "a log from before epochs that sync brought lets its key vote",
        "protocols/consensus/journal.py",
        "if height == 0 or (entries and (is_whole or was_there)):",
        "if height == 0 or entries:",
        "tests/protocols/consensus/test_service.py",
    ),
    Mutant(
        "an epoch that sync brought is taken for one that was seen",
        "protocols/consensus/replica.py",
        "if self.core.took_part else",
        "if True else",
        REPLICA,
    ),
    Mutant(
        "a leader's block is judged as whoever passes it on wraps it",
        "protocols/consensus/core.py",
        "if counts and sound and peer == leader and number > self.book.final:",
        "if counts and sound and number > self.book.final:",
        CONSENSUS,
    ),
    Mutant(
        "deadlines do not grow while blocks are notarized and not final",
        "protocols/consensus/core.py",
        "        return self.view - 1 - self.book.final",
        "        found = self.book.newest_certified()\n"
        "        return self.view - 1 - (self.book.final if found is None else found.view)",
        CONSENSUS,
    ),
    Mutant(
        "a view whose own votes are forgotten is finalized",
        "protocols/consensus/core.py",
        "number <= max(self._floor, self.view - MAX_NULLIFICATIONS)",
        "number <= self._floor",
        CONSENSUS,
    ),
    Mutant(
        "a leader sends a block whose parent is not the newest any more",
        "protocols/consensus/core.py",
        "if found is None or block.parent != found[1].id:",
        "if found is None:",
        CONSENSUS,
    ),
    Mutant(
        "an older finalization takes the place of a newer one",
        "protocols/consensus/core.py",
        "self._pending is None or certificate.view > self._pending.view",
        "True",
        CONSENSUS,
    ),
    Mutant(
        "missed views cost nothing",
        "swarm/ledger/validators.py",
        "return max(0, missed - FREE_MISSES) * WHOLE // epoch_length",
        "return 0",
        LEDGER + "test_scoring.py",
    ),
    Mutant(
        "missed views count for ever",
        "swarm/ledger/validators.py",
        "        draft.put_missed({})",
        "        pass",
        LEDGER + "test_scoring.py",
    ),
    Mutant(
        "an outage is held against the leaders",
        "swarm/ledger/validators.py",
        "if view - after - 1 >= OUTAGE_VIEWS:",
        "if False:",
        LEDGER + "test_scoring.py",
    ),
    Mutant(
        "the views before an epoch's first block are not missed",
        "swarm/ledger/application.py",
        "after = parent.view if parent.epoch == members.epoch else 0",
        "after = parent.view",
        LEDGER + "test_application.py",
    ),
    Mutant(
        "a jailed validator asks before its time",
        "swarm/participant/membership.py",
        "return Unjail() if jailed_for is not None and jailed_for <= 0 else None",
        "return Unjail() if jailed_for is not None else None",
        MEMBERSHIP,
    ),
    Mutant(
        "a key that signs elsewhere is bonded again",
        "swarm/participant/membership.py",
        "if not validates or doubled:",
        "if not validates:",
        MEMBERSHIP,
    ),
    Mutant(
        "a state that lost a commit says nothing",
        "storage/state_store.py",
        "            self.lost = known",
        "            pass",
        WITNESS,
    ),
    Mutant(
        "a lost height comes back with any root",
        "storage/state_store.py",
        "if self.lost is not None and height == self.lost.height and root != self.lost.root:",
        "if False:",
        WITNESS,
    ),
    Mutant(
        "the nodes of a large state are not compared",
        "storage/state_check.py",
        "if stored.differs or not _stands(view, first, top):",
        "if not _stands(view, first, top):",
        WITNESS,
    ),
    Mutant(
        "the way to the top of a large state is not compared",
        "storage/state_check.py",
        "if stored.differs or not _stands(view, first, top):",
        "if stored.differs:",
        WITNESS,
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

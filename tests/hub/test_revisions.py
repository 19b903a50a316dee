"""Revisions: one alias on every node, kept and signed, whatever a crash leaves of the file."""

from __future__ import annotations

from storage import cid as cids
from storage import records
from swarm.hub import revisions
from swarm.hub.revisions import Revision, Revisions
from tests.ledger.alone import ALICE, BOB

ROOT = cids.of_dag_pb(b"a folder")


def test_an_alias_is_pinned() -> None:
    assert Revision("models", "gpt", 3, ROOT).alias == "ea3dd899f95e09ca0e3f4d1d4933cad69f74ae21"
    assert (
        Revision("datasets", cids.text(ROOT), None, ROOT).alias
        == "c49ce8d3f40b75384ffad004b24410174d3ec1e2"
    )


def test_a_record_counts_only_with_the_signature_of_the_key_that_it_names() -> None:
    revision = Revision("models", "gpt", 3, ROOT)
    record = revisions.sign(revision, ALICE)
    assert revisions.read(record) == revision
    forged = record.replace(ALICE.public_key, BOB.public_key)
    assert forged != record
    assert revisions.read(forged) is None
    assert revisions.read(record.replace(b"gpt", b"gpu")) is None
    for damaged in (b"", b"\x80", record[:-1], record + b"\0"):
        assert revisions.read(damaged) is None


def test_a_torn_end_is_written_over_and_what_was_before_is_known(tmp_path) -> None:
    path = tmp_path / "revisions.log"
    kept = Revisions(path, ALICE)
    first, second = (Revision("models", "gpt", number, ROOT) for number in (1, 2))
    assert kept.note(first) == first.alias
    kept.note(first)
    assert len(list(records.scan(path.read_bytes()))) == 1
    with path.open("ab") as file:
        file.write(records.pack(b"torn")[:-2])
    again = Revisions(path, ALICE)
    again.note(second)
    last = Revisions(path, ALICE)
    assert [last.find(one.alias) for one in (first, second)] == [first, second]


def test_what_the_disk_does_not_take_is_named_all_the_same_and_kept_later(tmp_path) -> None:
    path = tmp_path / "revisions.log"
    kept, revision = Revisions(path, ALICE), Revision("models", "gpt", 1, ROOT)
    path.mkdir()  # no file can be opened there
    assert kept.note(revision) == revision.alias
    assert kept.find(revision.alias) is None
    path.rmdir()
    kept.note(revision)
    assert Revisions(path, ALICE).find(revision.alias) == revision

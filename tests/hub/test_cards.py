"""Cards: what the ledger says as the front matter that the Hub reads, and that of others read strictly."""

from __future__ import annotations

import pytest

from storage import cid as cids
from swarm.hub import cards
from swarm.hub.cards import Record
from swarm.hub.revisions import Revision
from tests.ledger.test_rounds import all_score, to_scoring
from tests.ledger.world import MERGED, World

ROOT = cids.of_dag_pb(b"a folder")


def test_a_made_card_is_read_back_and_is_a_function_of_the_record() -> None:
    revision = Revision("models", "gpt", 2, ROOT)
    known = Record("cc0-1.0", ("swarm/bafydata",), "swarm/gpt")
    card = cards.make(revision, known, {"config.json", "tokenizer.json"})
    assert card == cards.make(revision, known, {"tokenizer.json", "config.json"})
    assert cards.read(card) == {
        "license": "cc0-1.0",
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "base_model": "swarm/gpt",
        "datasets": ["swarm/bafydata"],
        "tags": ["swarm"],
    }


def test_a_dataset_has_no_library_and_no_base() -> None:
    card = cards.make(Revision("datasets", "plays", 0, ROOT), Record(), {"a.parquet"})
    assert cards.read(card) == {"license": "unknown", "tags": ["swarm"]}


def test_the_record_of_a_version_names_its_tasks_data_and_its_base() -> None:
    world = World(people=("alice", "bob", "carol", "dave"))
    world.w = [world.people["bob"], world.people["carol"]]
    task = to_scoring(world)
    all_score(world, task, {"update 0": 300, "update 1": 5})
    world.attest(task, dict.fromkeys(world.validators[:3], MERGED))
    known = cards.record(world.view, Revision("models", "gpt", 1, MERGED))
    assert known.base == "swarm/gpt"
    assert known.datasets == (f"swarm/{cids.text(world.view.task(task).dataset)}",)
    assert cards.record(world.view, Revision("models", "gpt", None, MERGED)) == Record()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("no front", {}),
        ("---\nlicense: mit\n", {}),
        ("---\r\nlicense: mit\r\n---\r\n", {"license": "mit"}),
        (
            "---\nlicense: 'mit'\ntags:\n- a\n- \"b c\"\nnested:\n  deep: 1\n---\n",
            {"license": "mit", "tags": ["a", "b c"]},
        ),
        ('---\nlicense: "broken\nx: 1\n---\n', {"license": '"broken', "x": "1"}),
    ],
)
def test_front_matter_is_texts_and_lists_and_the_rest_is_left_out(text, found) -> None:
    assert cards.read(text.encode()) == found

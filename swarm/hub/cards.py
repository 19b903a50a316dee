"""Cards: the README of a version, with the front matter that the Hub reads. No I/O.

A version's own README is kept as it is. Where there is none, one is made of what the ledger says for ever, so that
it is the same on every node and at any time.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from storage import cid as cids
from swarm.training.errors import SpecError
from swarm.training.spec import parse_spec

if TYPE_CHECKING:
    from collections.abc import Collection

    from swarm.hub.revisions import Revision
    from swarm.ledger.state import LedgerView

CARD: Final = "README.md"
TELLING: Final = ("config.json", "tokenizer.json")
"""Files whose presence a made card tells of."""
MAX_FRONT_BYTES: Final = 64 * 2**10
"""Of a README, so much is looked at for its front matter."""
UNKNOWN: Final = "unknown"
"""The Hub's word for a license that nobody named."""

_ENTRY: Final = re.compile(r"([A-Za-z][\w-]{0,63}):(?: (.*))?")
_ITEM: Final = re.compile(r" {0,4}- (.*)")


@dataclass(frozen=True, slots=True)
class Record:
    """What the ledger says of a version for ever.

    Attributes:
        license: Of its task's data; "unknown" where nobody said.
        datasets: What it was trained on.
        base: The name of the version before, if there is one.
    """

    license: str = UNKNOWN
    datasets: tuple[str, ...] = ()
    base: str | None = None


def record(view: LedgerView, revision: Revision) -> Record:
    """What a view of the ledger says of a version."""
    if revision.version is None:
        return Record()
    version = view.name_version(revision.name, revision.version)
    task = None if version is None or not version.task else view.task(version.task)
    base = f"swarm/{revision.name}" if revision.version > 0 else None
    if task is None:
        return Record(base=base)
    try:
        spec = parse_spec(task.spec)
    except SpecError:  # of a format that this version does not read
        return Record(datasets=(f"swarm/{cids.text(task.dataset)}",), base=base)
    return Record(spec.data.license, (f"swarm/{spec.data.dataset}",), base)


def make(revision: Revision, known: Record, files: Collection[str]) -> bytes:
    """The card of a version that has none.

    Args:
        revision: The version.
        known: What the ledger says of it.
        files: What stands in its folder; of `TELLING` at least.
    """
    front: dict[str, Any] = {"license": known.license or UNKNOWN}
    title = (
        revision.name
        if revision.version is None
        else f"{revision.name}, version {revision.version}"
    )
    is_model = revision.kind == "models"
    if is_model:
        front["library_name"] = "transformers" if "config.json" in files else "swarm"
        if "tokenizer.json" in files:
            front["pipeline_tag"] = "text-generation"
        if known.base is not None:
            front["base_model"] = known.base
        if known.datasets:
            front["datasets"] = list(known.datasets)
    front["tags"] = ["swarm"]
    what = "This model" if is_model else "This dataset"
    lines = [
        "---",
        *_front(front),
        "---",
        f"# {title}",
        "",
        f"{what} has no card of its own; this one says what the ledger knows of it.",
        "",
        f"- Content: `{cids.text(revision.root)}`",
        f"- Revision: `{revision.alias}`",
    ]
    return ("\n".join(lines) + "\n").encode()


def read(card: bytes) -> dict[str, Any]:
    """The front matter of a card: texts, and lists of texts, by name; what is of another form is left out."""
    text = card[:MAX_FRONT_BYTES].decode(errors="replace").replace("\r\n", "\n")
    if not text.startswith("---\n"):
        return {}
    front, end, _ = text[4:].partition("\n---")
    if not end:
        return {}
    found: dict[str, Any] = {}
    name = None
    for line in front.split("\n"):
        if (item := _ITEM.fullmatch(line)) is not None and name is not None:
            if not isinstance(found.get(name), list):
                found[name] = []
            found[name].append(_value(item[1]))
        elif (entry := _ENTRY.fullmatch(line)) is not None:
            name = entry[1] if not entry[2] else None
            if entry[2]:
                found[entry[1]] = _value(entry[2])
        elif line.strip():
            name = None
    return found


def _front(values: dict[str, Any]) -> list[str]:
    lines = []
    for name, value in values.items():
        if isinstance(value, list):
            lines += [f"{name}:", *(f"- {json.dumps(one)}" for one in value)]
        else:
            lines.append(f"{name}: {json.dumps(value)}")
    return lines


def _value(text: str) -> str:
    text = text.strip()
    if text.startswith('"'):
        try:
            value = json.loads(text)
        except ValueError:
            return text
        return value if isinstance(value, str) else text
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] == "'" else text

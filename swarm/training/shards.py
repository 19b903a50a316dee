"""The files of a model's tensors: one, or several with an index, as `transformers` writes and reads a large model.

    model.safetensors                     all tensors
    model-00001-of-00003.safetensors …    or these, each of at most `MAX_SHARD_BYTES` unless one tensor has more
    model.safetensors.index.json          and which tensor is in which of them

Where both are there the one file counts, as it does for that library.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final

from swarm.training.errors import TensorFileError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from swarm.training.tensors import Array

WHOLE: Final = "model.safetensors"
INDEX: Final = "model.safetensors.index.json"
MAX_SHARD_BYTES = 5 * 10**9
"""Of tensors in one file that is written: 5 GB, as that library has it."""
MAX_SHARDS: Final = 64
MAX_INDEX_BYTES: Final = 2**23
MAX_NAME: Final = 256
_NAME: Final = re.compile(r"[A-Za-z0-9][\w.-]{0,200}\.safetensors", re.ASCII)


def name(number: int, count: int) -> str:
    """Of a file; the first is number 1."""
    return f"model-{number:05d}-of-{count:05d}.safetensors"


def divide(values: Mapping[str, Array]) -> list[list[str]]:
    """The tensors of each file, by name and in order; a function of names and sizes alone."""
    parts: list[list[str]] = [[]]
    size = 0
    for one in sorted(values):
        held = values[one].nbytes
        if parts[-1] and size + held > MAX_SHARD_BYTES:
            parts.append([])
            size = 0
        parts[-1].append(one)
        size += held
    return parts


def index(parts: Sequence[tuple[str, Mapping[str, Array]]]) -> dict[str, object]:
    """What the index says of files, each by its name with its tensors."""
    size = sum(item.nbytes for _, held in parts for item in held.values())
    places = {one: file for file, held in parts for one in held}
    return {"metadata": {"total_size": size}, "weight_map": places}


def files(folder: Path) -> list[tuple[Path, set[str] | None]]:
    """The files of a model in order of their names, with the tensors that an index says are in each.

    Without an index nothing is said, and all files that are named like shards count.

    Raises:
        TensorFileError: There are none or too many, or the index is malformed or names one that is not there.
    """
    if (folder / WHOLE).is_file():
        return [(folder / WHOLE, None)]
    if not (folder / INDEX).is_file():
        found = sorted(folder.glob("model*.safetensors"))
        _check_count(len(found))
        return [(path, None) for path in found]
    held = _index(folder / INDEX)
    _check_count(len(held))
    for file in held:
        if not (folder / file).is_file():
            message = f"has no {file[:MAX_NAME]}, which its {INDEX} names"
            raise TensorFileError(message)
    return [(folder / file, held[file]) for file in sorted(held)]


def _check_count(count: int) -> None:
    if not 1 <= count <= MAX_SHARDS:
        message = f"has {count:,} files {WHOLE!r} or {name(1, 2)!r}, 1 to {MAX_SHARDS} are read"
        raise TensorFileError(message)


def _index(path: Path) -> dict[str, set[str]]:
    """The tensors of each file."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_INDEX_BYTES + 1)
        if len(data) > MAX_INDEX_BYTES:
            message = f"has more than {MAX_INDEX_BYTES:,} bytes"
            raise ValueError(message)  # noqa: TRY301 - one message for every fault
        value = json.loads(data)
    except OSError as error:
        message = f"has an {INDEX} that cannot be read: {error.strerror}"
        raise TensorFileError(message) from error
    except (ValueError, RecursionError) as error:
        message = f"has an {INDEX} that cannot be read: {str(error)[:200]}"
        raise TensorFileError(message) from error
    places = value.get("weight_map") if isinstance(value, dict) else None
    if not isinstance(places, dict) or not places:
        message = f"has an {INDEX} without a weight_map"
        raise TensorFileError(message)
    held: dict[str, set[str]] = {}
    for one, file in places.items():
        if not isinstance(file, str) or not _NAME.fullmatch(file):
            message = f"has an {INDEX} that puts a tensor into {str(file)[:MAX_NAME]!r}, which is no file beside it"
            raise TensorFileError(message)
        held.setdefault(file, set()).add(one)
    return held

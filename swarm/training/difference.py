"""What changed from one checkpoint to another, tensor by tensor; numpy alone."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from swarm.training.tensors import Array


def difference(old: Mapping[str, Array], new: Mapping[str, Array]) -> dict[str, Any]:
    """The tensors that differ.

    Args:
        old: float32 tensors by name.
        new: Likewise.

    Returns:
        `tensors`, in order of name: `name`, `change` (added, removed, reshaped or changed), `shape`, `values` that
        differ, `norm` of the difference and `relative` to the old norm (both None without a common shape); `same`, how
        many are equal; `norm` and `relative` over all of a common shape.
    """
    changes = []
    same = 0
    moved = before = 0.0
    for name in sorted(old.keys() | new.keys()):
        if name not in old or name not in new:
            item = new.get(name, old.get(name))
            assert item is not None  # noqa: S101 - it is in one of them
            changes.append(_entry(name, "added" if name in new else "removed", item))
            continue
        if old[name].shape != new[name].shape:
            changes.append(_entry(name, "reshaped", new[name]))
            continue
        was = old[name].astype(np.float64)
        step = new[name].astype(np.float64) - was
        length, size = float(np.linalg.norm(step)), float(np.linalg.norm(was))
        moved, before = moved + length**2, before + size**2
        if not length:
            same += 1
            continue
        changes.append(
            _entry(name, "changed", new[name])
            | {
                "values": int(np.count_nonzero(step)),
                "norm": length,
                "relative": _share(length, size),
            }
        )
    total, size = math.sqrt(moved), math.sqrt(before)
    return {"tensors": changes, "same": same, "norm": total, "relative": _share(total, size)}


def _entry(name: str, change: str, item: Array) -> dict[str, Any]:
    return {
        "name": name,
        "change": change,
        "shape": list(item.shape),
        "values": item.size,
        "norm": None,
        "relative": None,
    }


def _share(length: float, size: float) -> float | None:
    return length / size if size else None

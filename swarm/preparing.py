"""What a task with a base needs before it is posted: that base, and its encodings where they are published."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import TYPE_CHECKING

from protocols.exchange.errors import ExchangeError
from storage import cid as cids
from storage.errors import CidError
from swarm import datasets
from swarm.errors import SwarmError, UsageError
from swarm.training.spec import (
    BYTES,
    OF_BASE,
    PUBLISHED,
    TaskSpec,
    with_base,
    with_data,
    write_spec,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from storage.cid import Cid
    from swarm.node import Node
    from swarm.shelf import Lease

TOKENIZER = "tokenizer.json"


async def take_base(
    node: Node,
    spec: TaskSpec,
    folder: Path,
    lease: Lease,
    look_up: Callable[[str, int | None], Awaitable[Cid]],
) -> tuple[TaskSpec, Path | None]:
    """The task with its base named by CID and the base's sizes and tokenizer, and the base's folder.

    Args:
        node: This one.
        spec: The task; one without a base stays as it is.
        folder: Below which a path in it lies.
        lease: Keeps the base on the shelf.
        look_up: Gives the root of a name's version.

    Raises:
        UsageError: There is no such base.
        WorkerError: The base cannot be trained so.
    """
    if not spec.base:
        return spec, None
    named = spec.base
    try:
        root = await _root(node, named, folder, look_up)
        path = await lease.take(root)
    except (ExchangeError, SwarmError) as error:
        message = f"model.base: {named!r} is not there: {error}"
        raise UsageError(message, "a CID, NAME@version, or a folder") from error
    model, is_over_bytes = await node.worker.base(write_spec(spec), path)
    tokenizer = spec.data.tokenizer
    if tokenizer == OF_BASE:
        tokenizer = BYTES if is_over_bytes else str(path / TOKENIZER)
        if not is_over_bytes and not (path / TOKENIZER).is_file():
            message = f"data.tokenizer: the base {named!r} has no {TOKENIZER}; name one"
            raise UsageError(message)
    model = dataclasses.replace(model, base=cids.text(root))
    return with_base(spec, model, tokenizer), path


async def publish_encodings(
    node: Node,
    spec: TaskSpec,
    data: tuple[Path, Path],
    start: Path | None,
    tokenizer: Path | None,
    scratch: Path,
    lease: Lease,
) -> tuple[TaskSpec, Path, Path]:
    """The task whose dataset and pool are encodings, and their folders; those that are encodings already stay.

    Args:
        node: This one.
        spec: The task; one that does not ask for it stays as it is.
        data: Where its dataset and its pool lie.
        start: Where its base lies.
        tokenizer: Where its tokenizer lies.
        scratch: Where encodings are written before they are published.
        lease: Keeps them on the shelf.
    """
    if start is None or spec.data.encodings != PUBLISHED:
        return spec, *data
    encoded, roots, paths = write_spec(spec), [spec.data.dataset, spec.data.pool], list(data)
    for at, name in enumerate(("dataset", "pool")):
        out = scratch / name
        if await node.worker.encode(encoded, start, name, data[at], tokenizer, out):
            label = f"{spec.name} {name} encodings"
            adding = partial(datasets.publish, out, node.store, node.network, label=label)
            published = await node.room_for(adding)
            roots[at] = cids.text(published.root)
            paths[at] = await lease.take(published.root)
    return with_data(spec, *roots), paths[0], paths[1]


async def _root(
    node: Node, named: str, folder: Path, look_up: Callable[[str, int | None], Awaitable[Cid]]
) -> Cid:
    try:
        return cids.parse(named)
    except CidError:
        pass
    path = (folder / named).resolve()
    if path.is_dir():
        label = f"base {named}"
        adding = partial(datasets.publish, path, node.store, node.network, label=label)
        return (await node.room_for(adding)).root
    name, _, version = named.partition("@")
    if version and not version.isdecimal():
        message = "a version is a number"
        raise UsageError(message)
    return await look_up(name, int(version) if version else None)

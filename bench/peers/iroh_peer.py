"""An iroh node with its store on disk and nobody but the loopback to talk to; runs in an environment of its own.

iroh's door to Python is asyncio.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import iroh  # type: ignore[import-not-found]  # only in that environment
import tasks  # type: ignore[import-not-found]  # found beside this script


class _Watch(iroh.AddCallback, iroh.DownloadCallback):  # type: ignore[misc]  # as above
    """Remembers the hash of what was added, and why something ended early."""

    def __init__(self) -> None:
        self.name = ""
        self.failure = ""

    async def progress(self, progress: Any) -> None:  # noqa: ANN401 - one of iroh's two kinds
        kind = progress.type().name
        if kind == "ALL_DONE" and hasattr(progress.as_all_done(), "hash"):
            self.name = str(progress.as_all_done().hash)
        elif kind == "ABORT":
            self.failure = progress.as_abort().error


async def main(folder: str) -> None:
    """Do what is told until the end of the lines."""
    to = tasks.answers()
    iroh.iroh_ffi.uniffi_set_event_loop(asyncio.get_running_loop())
    options = iroh.NodeOptions(
        gc_interval_millis=0,
        ipv4_addr="127.0.0.1:0",
        node_discovery=iroh.NodeDiscoveryConfig.NONE,
    )
    node = await iroh.Iroh.persistent_with_options(folder, options)
    tasks.answer(to, "up")
    while (task := await asyncio.to_thread(tasks.next_task)) is not None:
        try:
            tasks.answer(to, await _act(node, task))
        except Exception as error:  # noqa: BLE001 - told to the benchmark
            tasks.fail(to, error)


async def _act(node: Any, task: dict[str, str]) -> object:  # noqa: ANN401 - iroh has no types here
    watch = _Watch()
    if task["do"] == "add":
        await node.blobs().add_from_path(
            task["path"], False, iroh.SetTagOption.auto(), iroh.WrapOption.no_wrap(), watch
        )
        found = await node.net().node_addr()
        address = json.dumps([await node.net().node_id(), found.direct_addresses()])
        return {"name": watch.name, "address": address}
    if task["do"] == "connect":
        return None  # a download dials
    name = iroh.Hash.from_string(task["name"])
    if task["do"] == "export":
        await node.blobs().write_to_path(name, task["path"])
        return task["path"]
    node_id, addresses = json.loads(task["address"])
    giver = iroh.NodeAddr(iroh.PublicKey.from_string(node_id), None, addresses)
    wanted = iroh.BlobDownloadOptions(iroh.BlobFormat.RAW, [giver], iroh.SetTagOption.auto())
    await node.blobs().download(name, wanted, watch)
    if watch.failure:
        raise RuntimeError(watch.failure)
    return await node.blobs().size(name)


asyncio.run(main(sys.argv[1]))

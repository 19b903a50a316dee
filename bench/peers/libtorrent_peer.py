"""A BitTorrent v2 node (SHA-256) on the loopback, no encryption; runs in an environment of its own.

To add is to hash: the file itself is served. A fetch is done when every piece is verified and the file is on disk.
"""

from __future__ import annotations

import base64
import sys
from pathlib import Path
from typing import Any

import libtorrent as lt  # type: ignore[import-not-found]  # only in that environment
import tasks  # type: ignore[import-not-found]  # found beside this script

PIECE_BYTES = 2**20
WAIT_MS = 60_000
SETTINGS = {
    "listen_interfaces": "127.0.0.1:0",
    "enable_dht": False,
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    "enable_outgoing_utp": False,
    "enable_incoming_utp": False,
    "allow_multiple_connections_per_ip": True,
    "out_enc_policy": int(lt.enc_policy.disabled),
    "in_enc_policy": int(lt.enc_policy.disabled),
    "alert_mask": int(
        lt.alert.category_t.status_notification
        | lt.alert.category_t.error_notification
        | lt.alert.category_t.storage_notification
    ),
}


def main(folder: Path) -> None:
    """Do what is told until the end of the lines."""
    to = tasks.answers()
    session = lt.session(SETTINGS)
    handles: list[Any] = []
    folder.mkdir()
    tasks.answer(to, "up")
    while (task := tasks.next_task()) is not None:
        try:
            tasks.answer(to, _act(session, handles, folder, task))
        except Exception as error:  # noqa: BLE001 - told to the benchmark
            tasks.fail(to, error)


def _act(session: Any, handles: list[Any], folder: Path, task: dict[str, str]) -> object:  # noqa: ANN401 - libtorrent has no types
    if task["do"] == "add":
        path = Path(task["path"])
        files = lt.file_storage()
        lt.add_files(files, str(path))
        torrent = lt.create_torrent(files, PIECE_BYTES, lt.create_torrent.v2_only)
        lt.set_piece_hashes(torrent, str(path.parent))
        data = lt.bencode(torrent.generate())
        handles.append(_join(session, data, path.parent, lt.torrent_flags.seed_mode))
        name = base64.b64encode(data).decode()
        return {"name": name, "address": str(session.listen_port())}
    if task["do"] == "connect":
        return None  # a torrent dials
    if task["do"] == "export":
        found = next(path for path in folder.iterdir() if path.is_file())
        found.rename(task["path"])
        return task["path"]
    handle = _join(session, base64.b64decode(task["name"]), folder, 0)
    handle.connect_peer(("127.0.0.1", int(task["address"])))
    _await(session, "torrent_finished_alert")
    handle.flush_cache()
    _await(session, "cache_flushed_alert")
    handles.append(handle)
    return handle.status().total_payload_download


def _join(session: Any, data: bytes, folder: Path, flags: int) -> Any:  # noqa: ANN401 - as above
    wanted = lt.add_torrent_params()
    wanted.ti = lt.torrent_info(lt.bdecode(data))
    wanted.save_path = str(folder)
    wanted.flags = flags
    return session.add_torrent(wanted)


def _await(session: Any, name: str) -> None:  # noqa: ANN401 - as above
    while True:
        if session.wait_for_alert(WAIT_MS) is None:
            raise TimeoutError(name)
        for alert in session.pop_alerts():
            kind = type(alert).__name__
            if kind == name:
                return
            if kind.endswith("error_alert"):
                raise RuntimeError(alert.message())


main(Path(sys.argv[1]))

"""How a node begins; the whole node is tested with real processes."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from swarm.config import Settings
from swarm.entry import GENESIS_FILE
from swarm.errors import NetworkError
from swarm.node import run_node

if TYPE_CHECKING:
    from pathlib import Path


async def test_no_network_is_founded_where_the_address_to_listen_on_cannot_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    said: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"/ip4/127.0.0.1/tcp/{taken.getsockname()[1]}"
        with pytest.raises(NetworkError, match="cannot listen on /ip4/127"):
            await run_node(
                Settings(home=tmp_path / "home", listen=(address,)),
                on_ready=lambda _: None,
                say=said.append,
            )
    assert said == []
    assert not (tmp_path / "home" / GENESIS_FILE).exists()

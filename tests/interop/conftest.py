from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.interop import nodes


def pytest_collection_modifyitems(config, items):
    """These need an environment of their own; `-m interop` asks for them."""
    if "interop" not in config.option.markexpr:
        ours = [item for item in items if item.get_closest_marker("interop")]
        config.hook.pytest_deselected(items=ours)
        items[:] = [item for item in items if item not in ours]


@pytest.fixture(scope="module")
def swarm_node(tmp_path_factory):
    node = nodes.SwarmNode.start(tmp_path_factory.mktemp("swarm") / "home")
    yield node
    node.end()


@pytest.fixture
def kubo(tmp_path):
    child, address = nodes.start_kubo(tmp_path / "kubo")
    yield child, address
    child.end()


@pytest.fixture
def helia(tmp_path):
    child, address = nodes.start_helia(tmp_path / "helia")
    yield child, address
    child.end()


@pytest.fixture
def folder(tmp_path) -> Path:
    """Files of no, one and several chunks, in folders."""
    root = tmp_path / "folder"
    (root / "deep" / "deeper").mkdir(parents=True)
    source = random.Random(7)
    (root / "empty").write_bytes(b"")
    (root / "short.txt").write_text("one line\n")
    (root / "deep" / "several.bin").write_bytes(source.randbytes(5 * 2**20 + 1))
    (root / "deep" / "deeper" / "more.bin").write_bytes(source.randbytes(3 * 2**20))
    return root


def tree(path: Path) -> dict[str, bytes]:
    """Everything below a path, by name."""
    return {
        str(one.relative_to(path)): one.read_bytes() for one in path.rglob("*") if one.is_file()
    }

"""The cache of the Hub's clients: names for bytes that are on the disk already."""

from __future__ import annotations

import pytest

from storage import cid as cids
from swarm.errors import RefusedError
from swarm.hub import cache
from swarm.hub.repository import File
from swarm.hub.revisions import Revision

ROOT = cids.of_dag_pb(b"a folder")
REVISION = Revision("models", "gpt", 1, ROOT)


@pytest.fixture
def shelf(tmp_path):
    """A folder with a file in a folder, and the files that it has."""
    (tmp_path / "shelf" / "deep").mkdir(parents=True)
    (tmp_path / "shelf" / "deep" / "a").write_bytes(b"bytes")
    return tmp_path / "shelf", [
        File("deep", ROOT, 0, is_folder=True),
        File("deep/a", cids.of_raw(b"bytes"), 5),
        File("README.md", cids.of_raw(b"card"), 4, content=b"card"),
    ]


def test_a_file_is_there_under_another_name_and_not_a_second_time(shelf, tmp_path) -> None:
    source, files = shelf
    made = cache.link(tmp_path / "hf", REVISION, source, files, ["main"])
    repository = tmp_path / "hf" / "models--swarm--gpt"
    place = repository / "snapshots" / REVISION.alias / "deep" / "a"
    assert str(place.readlink()) == f"../../../blobs/{cids.text(cids.of_raw(b'bytes'))}"
    assert (repository / "refs" / "main").read_text() == REVISION.alias
    assert (made.files, made.copied) == (2, 0)
    shared = {"hard link": 1, "made": 1}
    if made.ways == shared:
        assert place.stat().st_ino == (source / "deep" / "a").stat().st_ino
        assert not place.stat().st_mode & 0o222
    else:
        assert made.ways == {"reflink": 1, "made": 1}
    again = cache.link(tmp_path / "hf", REVISION, source, files, ["main"])
    assert again.ways == {"kept": 2}
    assert not [one for one in (repository / "blobs").iterdir() if one.name.startswith(".")]


def test_a_blob_of_another_size_is_made_anew_and_a_wrong_link_is_set_right(shelf, tmp_path) -> None:
    source, files = shelf
    cache.link(tmp_path / "hf", REVISION, source, files, [])
    repository = tmp_path / "hf" / "models--swarm--gpt"
    blob = repository / "blobs" / cids.text(cids.of_raw(b"bytes"))
    blob.unlink()
    blob.write_bytes(b"by")
    place = repository / "snapshots" / REVISION.alias / "deep" / "a"
    place.unlink()
    place.symlink_to("nowhere")
    cache.link(tmp_path / "hf", REVISION, source, files, [])
    assert place.read_bytes() == b"bytes"


def test_where_links_cannot_be_the_copy_is_counted(shelf, tmp_path, monkeypatch) -> None:
    source, files = shelf
    monkeypatch.setattr(cache, "_reflink", lambda _old, _new: False)

    def refuse(*_) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("pathlib.Path.hardlink_to", refuse)
    made = cache.link(tmp_path / "hf", REVISION, source, files, [])
    assert (made.copied, made.ways) == (5, {"copy": 1, "made": 1})


def test_a_folder_in_a_files_place_is_not_removed(shelf, tmp_path) -> None:
    source, files = shelf
    place = tmp_path / "hf" / "models--swarm--gpt" / "snapshots" / REVISION.alias / "deep" / "a"
    place.mkdir(parents=True)
    with pytest.raises(RefusedError, match="is a folder"):
        cache.link(tmp_path / "hf", REVISION, source, files, [])

"""Text out of Parquet tables and tar archives, and what a stranger would put into them."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from pyarrow import parquet

from swarm.training import text
from swarm.training.data import TextData
from swarm.training.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator


def extracted(path: Path, column: str = "text") -> bytes:
    with closing(text.Texts()) as texts:
        return texts.plain([path], column, lambda: None)[0].read_bytes()


def table(path: Path, **columns: object) -> Path:
    parquet.write_table(pa.table(columns), path)
    return path


def archive(path: Path, members: list[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w") as file:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return path


def test_rows_of_a_column_are_lines_of_text(tmp_path: Path) -> None:
    path = table(tmp_path / "a.parquet", text=["one", None, "zwei é"], other=[1, 2, 3])
    assert extracted(path) == "one\nzwei é\n".encode()
    path = table(tmp_path / "b.parquet", body=pa.array(["x", "x"]).dictionary_encode())
    assert extracted(path, "body") == b"x\nx\n"


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        ({"body": ["x"]}, r"no column 'text' .*it has body"),
        ({"text": [1, 2]}, "holds int64 and no text"),
    ],
)
def test_a_table_without_the_text_names_itself_and_what_it_has(
    tmp_path: Path, columns: dict[str, object], why: str
) -> None:
    with pytest.raises(DataError, match=r"a\.parquet.*" + why):
        extracted(table(tmp_path / "a.parquet", **columns))


def test_a_table_that_is_none_is_refused(tmp_path: Path) -> None:
    for content in (b"", b"PAR1" + b"\xff" * 40 + b"PAR1", b"text"):
        (tmp_path / "a.parquet").write_bytes(content)
        with pytest.raises(DataError, match=r"a\.parquet cannot be read"):
            extracted(tmp_path / "a.parquet")


def test_a_row_that_is_said_a_million_times_does_not_fill_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text, "MAX_TEXT_BYTES", 10**6)
    row = pa.array(["a" * 10_000])
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 10_000, pa.int32()), row)
    path = table(tmp_path / "a.parquet", text=column)
    assert path.stat().st_size < 10**5
    with pytest.raises(DataError, match=r"a\.parquet: .*more than 1,000,000 bytes"):
        extracted(path)


def test_texts_of_an_archive_follow_one_another_and_nothing_else_is_text(tmp_path: Path) -> None:
    members = [
        ("b/2.txt", b"second"),
        ("b/2.json", b"{}"),
        ("a/1.TXT", b"first"),
        ("a/.hidden.txt", b"no"),
    ]
    assert extracted(archive(tmp_path / "a.tar", members)) == b"second\nfirst\n"


def test_links_and_holes_of_an_archive_are_no_way_to_other_files(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as file:
        link = tarfile.TarInfo("x.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        file.addfile(link)
    assert extracted(tmp_path / "a.tar") == b""
    path = archive(tmp_path / "b.tar", [("x.txt", b"short")])
    content = bytearray(path.read_bytes())
    content[156:157] = b"S"  # an old sparse file of GNU, which says that most of it is not there
    content[483:495] = b"%011o\0" % 5000
    content[148:156] = b"        "
    content[148:156] = b"%06o\0 " % sum(content[:512])
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"b\.tar"):
        extracted(path)


def test_what_is_no_archive_or_ends_too_early_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.tar", [("x.txt", b"a" * 5000)])
    content = path.read_bytes()
    for part in (content[:2000], b"no archive" * 100):
        path.write_bytes(part)
        with pytest.raises(DataError, match=r"a\.tar is no tar archive"):
            extracted(path)


@pytest.fixture
def texts() -> Iterator[text.Texts]:
    with closing(text.Texts()) as made:
        yield made


def test_extracted_text_is_kept_until_its_file_changes(tmp_path: Path, texts: text.Texts) -> None:
    path = archive(tmp_path / "a.tar", [("x.txt", b"old")])
    first = texts.plain([path], "text", lambda: None)
    assert texts.plain([path], "text", lambda: None) == first
    archive(path, [("x.txt", b"newer")])
    assert texts.plain([path], "text", lambda: None)[0].read_bytes() == b"newer\n"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a.tar"]  # nothing is left beside it


def test_samples_run_across_plain_and_extracted_files(tmp_path: Path, texts: text.Texts) -> None:
    (tmp_path / "a.txt").write_bytes(b"abc")
    archive(tmp_path / "b.tar", [("x.txt", b"def")])
    table(tmp_path / "c.parquet", text=["ghi"])
    data = TextData(tmp_path, 5, texts=lambda paths: texts.plain(paths, "text", lambda: None))
    assert data.total == 2
    assert [bytes(row) for row in data.samples([0, 1])] == [b"abcdef", b"f\nghi\n"]


@pytest.mark.slow
def test_a_fresh_process_reads_a_table_within_its_bound(tmp_path: Path) -> None:
    path = table(tmp_path / "a.parquet", text=["one"])
    code = (
        "import sys, torch, pathlib; from swarm.training import text\n"
        "kept = text.Texts()\n"
        "print(kept.plain([pathlib.Path(sys.argv[1])], 'text', lambda: None)[0].read_text())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, path], check=False, capture_output=True, text=True
    )
    assert done.stdout == "one\n\n", done.stderr


def block(kind: bytes, size: int) -> bytes:
    header = tarfile.TarInfo("a.txt")
    header.type, header.size = kind, size
    return header.tobuf(tarfile.GNU_FORMAT)


LONG = text.MAX_EXTENDED_BYTES + 1
CHAIN = block(tarfile.GNUTYPE_LONGNAME, 5) + b"a.txt".ljust(512, b"\0")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (block(tarfile.XHDTYPE, 2**27) + b"1" * 2**20, "134,217,728 bytes more"),
        (block(tarfile.XGLTYPE, LONG) + b"1" * 2**20, "16,385 bytes more"),
        (block(tarfile.GNUTYPE_LONGNAME, LONG) + b"a" * 2**20, "16,385 bytes more"),
        (CHAIN * 3000 + block(tarfile.REGTYPE, 0), "recursion"),
    ],
)
def test_headers_of_an_archive_that_would_take_for_ever_are_refused_and_the_file_is_named(
    tmp_path: Path, content: bytes, why: str
) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(content + bytes(1024))
    with pytest.raises(DataError, match=rf"x\.tar is no tar archive.*{why}"):
        list(text.members(path))


def test_a_long_name_in_an_archive_is_read(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        one = tarfile.TarInfo("folder/" * 500 + "é.txt")
        one.size = 4
        archive.addfile(one, io.BytesIO(b"text"))
    assert list(text.members(tmp_path / "x.tar")) == [("é.txt", b"text")]
